"""Captions stay within their cell of the contact sheet."""

import pytest

from phenaki_jax.data.prepare.sheets import _font, wrapped


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", []),
        ("a dog", ["a dog"]),
        ("a dog runs", ["a dog", "runs"]),
        ("a dogruns", ["a", "dogrun", "s"]),
        ("abcdefghijkl", ["abcdef", "ghijkl"]),
        ("a dog runs home now and then", ["a dog", "runs", "ho ..."]),
    ],
)
def test_lines_are_broken_between_words_where_that_goes(text: str, lines: list[str]) -> None:
    assert wrapped(text, 6, len, 3) == lines


@pytest.mark.parametrize("text", ["W" * 400, "WWW mmm " * 60, "一只狗在跑" * 90, "illicit " * 90])
def test_no_line_is_wider_than_its_cell(text: str) -> None:
    length = _font().getlength
    lines = wrapped(text, 384, length, 3)
    assert len(lines) == 3
    assert max(map(length, lines)) <= 384
    assert min(map(length, lines)) > 300
