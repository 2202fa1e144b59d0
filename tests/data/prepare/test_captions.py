"""Captions of any source become plain text, and what is lost is told."""

import unicodedata

import pytest

from phenaki_jax.data.prepare.captions import clean_caption, clean_captions, decode_text
from phenaki_jax.errors import UserError


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("a dog", "a dog"),
        ("  a\tdog \r\n runs ", "a dog runs"),
        ("<p>a <b>red</b> ball</p>", "a red ball"),
        ("cats &amp; dogs &lt;3", "cats & dogs <3"),
        ("&lt;i&gt;a cat&lt;/i&gt;", "a cat"),
        ("2 < 3 and 5 > 4", "2 < 3 and 5 > 4"),
        ("a\x00b\x07c\u200bd", "a b cd"),
        ("<!-- seen -->a cat", "a cat"),
        ("<!-- <b>not</b> seen -->a cat<!-- at all -->", "a cat"),
        ("a <!-- cat", "a <!-- cat"),
        ("<A HREF='x.html' class = y>a cat</A><br/>", "a cat"),
        ("<h2 id=top>a cat</h2 >", "a cat"),
        ("a <b and c> d", "a <b and c> d"),
        ("if a<b then c>d", "if a<b then c>d"),
        ("<unknown> a cat", "<unknown> a cat"),
        (f"a &#{'9' * 5000}; cat", "a cat"),
        ("\u2028", ""),
        ("a \u202ered\u202c \u2066cat\u2069\u200f", "a red cat"),
        ("क्\u200dष", "क्\u200dष"),
    ],
)
def test_captions_become_plain_text(text: str, clean: str) -> None:
    assert clean_caption(text, 100) == (clean, "")


@pytest.mark.parametrize("piece", ["<!--", "<b ", "<b x=", "<b x='", "<b x='y' ", "<a" + " " * 50, "&#", "<!-- -->"])
def test_what_is_nearly_a_tag_costs_no_more_than_its_length(piece: str) -> None:
    # Which takes minutes where each beginning of a tag is looked for to the end of the text.
    text = piece * (100_000 // len(piece))
    assert len(clean_caption(text, 100).text) <= 100


def test_what_looks_the_same_is_the_same() -> None:
    decomposed = unicodedata.normalize("NFD", "Bären")
    assert decomposed != "Bären"
    assert clean_caption(decomposed, 100).text == "Bären"


@pytest.mark.parametrize(("most", "kept"), [(5, "a red"), (6, "a red"), (9, "a red"), (10, "a red ball")])
def test_long_captions_are_cut_where_a_word_ends_and_it_is_told(most: int, kept: str) -> None:
    text, note = clean_caption("a red ball flies", most)
    assert text == kept
    assert note == f"caption of 16 characters cut to {len(kept)}"


def test_a_word_longer_than_a_caption_is_cut() -> None:
    assert clean_caption("x" * 10_000, 500) == ("x" * 500, "caption of 10000 characters cut to 500")


def test_captions_that_are_the_same_or_empty_are_left_out() -> None:
    assert clean_captions(["a cat", " a  cat", "", "<br>", "a dog"], 100) == (["a cat", "a dog"], [])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_texts_of_unicode_are_read_without_a_note(encoding: str) -> None:
    assert decode_text("ein Fuß".encode(encoding)) == ("ein Fuß", "")


def test_texts_of_western_windows_are_read_with_a_note() -> None:
    assert decode_text("ein Fuß – €".encode("cp1252")) == (
        "ein Fuß – €",
        "text is not in UTF-8 and was read as cp1252",
    )


def test_texts_of_neither_are_refused_with_the_byte() -> None:
    with pytest.raises(UserError, match=r"neither UTF-8 nor cp1252 \(byte 0x81 at 2\)"):
        decode_text(b"ab\x81")
