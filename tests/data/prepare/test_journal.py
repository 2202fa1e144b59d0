"""The journal gives sources in the order of their hash, each with all its captions, and keeps what it was told."""

import pathlib

import pytest

from phenaki_jax.data.prepare.journal import Journal
from phenaki_jax.data.prepare.sources import Place, Problem, Source
from phenaki_jax.errors import UserError


def source(key: str, *captions: str, start: float = 0.0, end: float = -1.0) -> Source:
    return Source(key, Place(key, 0, -1, ".mp4"), start, end, captions, ())


@pytest.fixture
def journal(tmp_path: pathlib.Path) -> Journal:
    journal = Journal(tmp_path / "journal.sqlite")
    with journal.together():
        journal.add(iter([source("b", "one"), Problem("c", "is bad"), source("a"), source("b", "two", "one")]))
    return journal


def test_a_source_that_is_mentioned_again_adds_its_captions(journal: Journal) -> None:
    assert {each.source.key: each.source.captions for each in journal.sources()} == {"a": (), "b": ("one", "two")}
    assert list(journal.problems()) == [Problem("c", "is bad")]


def test_texts_in_no_encoding_are_kept_as_they_can_be(tmp_path: pathlib.Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite")
    with journal.together():
        journal.add(iter([Problem("\ud800.mp4", "found no file \udcff"), source("\udcfe", "one")]))
    assert list(journal.problems()) == [Problem(r"\ud800.mp4", r"found no file \udcff")]
    [found] = journal.sources()
    assert (found.source.key, found.source.place.path) == (r"\udcfe", "\udcfe")


def test_a_source_that_is_of_two_splits_is_told(tmp_path: pathlib.Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite")
    mentions = [("a", ""), ("a", "test"), ("a", ""), ("a", "train"), ("b", ""), ("b", "")]
    with journal.together():
        journal.add(source(key)._replace(split=split) for key, split in mentions)
    assert {each.source.key: each.source.split for each in journal.sources()} == {"a": "test", "b": ""}
    assert list(journal.problems()) == [Problem("a", "is said to be of split train too: it goes to test")]
    assert journal.has_told_split()


@pytest.mark.slow
def test_a_source_may_have_very_many_mentions(tmp_path: pathlib.Path) -> None:
    # Which takes minutes where all its texts are written anew with each.
    journal = Journal(tmp_path / "journal.sqlite")
    with journal.together():
        journal.add(source("a", f"caption {number} " + "x" * 400) for number in range(40_000))
    [found] = journal.sources()
    assert [int(caption.split()[1]) for caption in found.source.captions] == list(range(40_000))


def test_the_order_is_that_of_hashes_whatever_came_first(tmp_path: pathlib.Path) -> None:
    keys = [f"{index}.mp4" for index in range(2500)]
    orders = []
    for name, each in (("a", keys), ("b", keys[::-1])):
        journal = Journal(tmp_path / name)
        with journal.together():
            journal.add(map(source, each))
            orders.append([(listed.source.key, listed.share) for listed in journal.sources()])
    assert orders[0] == orders[1]
    shares = [share for _, share in orders[0]]
    assert shares == sorted(shares)
    assert 0.08 < sum(share < 0.1 for share in shares) / 2500 < 0.12


def _write_both(journal: Journal, number: int, fact: object) -> None:
    journal.write_result(number, {"clips": 3})
    journal.write_fact("train", fact)


def test_what_is_written_together_is_there_or_not_at_all(journal: Journal, tmp_path: pathlib.Path) -> None:
    first, _ = journal.sources()
    with pytest.raises(TypeError, match="not JSON serializable"), journal.together():
        _write_both(journal, first.number, {1})
    assert journal.count(done=True) == 0
    with journal.together():
        _write_both(journal, first.number, [1])
    journal.close()
    again = Journal(tmp_path / "journal.sqlite")
    assert (again.count(), again.count(done=True), again.fact("train")) == (2, 1, [1])
    assert [each.number for each in again.sources(todo=True)] == [3 - first.number]


def test_what_is_no_journal_is_told(tmp_path: pathlib.Path) -> None:
    (tmp_path / "journal.sqlite").write_bytes(b"no database at all" * 100)
    with pytest.raises(UserError, match=r"cannot be used \(file is not a database\).* delete .* to begin anew"):
        Journal(tmp_path / "journal.sqlite")
