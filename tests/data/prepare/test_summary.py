"""What is told of a dataset is short, however many files there are."""

import collections
import json
import pathlib
from collections.abc import Iterable

import numpy as np
import pytest

from phenaki_jax.data.prepare import summary
from phenaki_jax.data.prepare.journal import Journal
from phenaki_jax.data.prepare.report import Report, write_report
from phenaki_jax.data.prepare.sources import Found, PassedOver, Place, Problem, Source


def report_of(found: Found, folder: pathlib.Path) -> Report:
    journal = Journal(folder / "journal.sqlite")
    with journal.together():
        journal.add(found)
    return write_report(journal, folder)


def report(reasons: Iterable[str], folder: pathlib.Path) -> dict[str, int]:
    return report_of((Problem(f"{number}.mp4", reason) for number, reason in enumerate(reasons)), folder).reasons


def test_an_apostrophe_is_no_quote(tmp_path: pathlib.Path) -> None:
    reasons = [f"can't open the file's header at {place}" for place in (3, 4)]
    assert report(reasons, tmp_path) == {"can't open the file's header at ...": 2}


def test_a_reason_is_counted_once_whatever_names_and_numbers_are_in_it(tmp_path: pathlib.Path) -> None:
    reasons = [f"is the same as {f'of {name}.mp4'!r}" for name in "abcdefgh"]
    reasons += [f"found no file {name!r}, expected it" for name in ("it's.mp4", 'a "b".mp4', "c'\"d.mp4", "\\.mp4")]
    reasons += [f"is cut off: its frames end at {seconds} s" for seconds in (0.5, 2)]
    same, gone, cut = "is the same as ...", "found no file ..., expected it", "is cut off: its frames end at ... s"
    assert report(reasons, tmp_path) == {same: 8, gone: 4, cut: 2}
    text = (tmp_path / "report.txt").read_text()
    assert text.startswith(
        f"14 set aside; report.jsonl has a line for each.\n\n8: {same}\n    0.mp4\n    1.mp4\n    2.mp4\n"
        f"    and 5 more\n\n4: {gone}\n    8.mp4\n    9.mp4\n    10.mp4\n    and 1 more\n\n2: {cut}\n"
    )
    lines = list(map(json.loads, (tmp_path / "report.jsonl").read_text().splitlines()))
    assert [line["reason"] for line in lines] == reasons


def test_a_reason_says_of_many_what_all_of_them_share(tmp_path: pathlib.Path) -> None:
    lost = ["'one'", "'two', \"it's\"", "'three', 'four', 'five'"]
    reasons = [f"is the same as 'a.mp4', and its own captions are lost: {captions}" for captions in lost]
    reasons += [f"is too short: found {frames} frames, expected 17" for frames in (3, 4, 3)]
    reasons += ["found no file 'gone.mp4', expected it"]
    assert report(reasons, tmp_path) == {
        "is the same as 'a.mp4', and its own captions are lost: ...": 3,
        "is too short: found ... frames, expected 17": 3,
        "found no file 'gone.mp4', expected it": 1,
    }


def test_what_was_cut_and_what_was_passed_over_is_told(tmp_path: pathlib.Path) -> None:
    notes = [f"caption of {length} characters cut to 498" for length in (600, 700)]
    taken = [Source(note, Place("x", 0, -1, ".mp4"), 3.0, -1.0, ("a",), (note,)) for note in notes]
    found = [*taken, *map(PassedOver, [".md", ".wmv", ".wmv", ""])]
    assert report_of(iter(found), tmp_path) == Report(
        {}, {"caption of ... characters cut to 498": 2}, {".md": 1, ".wmv": 2, "": 1}
    )
    lines = (tmp_path / "report.txt").read_text().splitlines()
    assert lines[0] == "Nothing was set aside."
    assert lines[2] == "2 notes on captions; report.jsonl has a line for each."
    assert lines[4] == "2: caption of ... characters cut to 498"
    assert lines[-1] == "Passed over, of endings that are not read: 2 .wmv, 1 .md, 1 without ending."
    parts = [json.loads(line)["part"] for line in (tmp_path / "report.jsonl").read_text().splitlines()]
    assert parts == ["3 s to its end"] * 2


def test_reasons_of_every_wording_make_no_long_summary(tmp_path: pathlib.Path) -> None:
    words = ["".join(letters) for letters in np.array(list("abcdefgh"))[np.indices((8, 8, 8)).reshape(3, -1).T]]
    found = report((f"cannot be decoded (word {word})" for word in words), tmp_path)
    assert sum(found.values()) == 512
    assert len(found) < 110
    assert found["other reasons"] > 400


@pytest.mark.parametrize("values", [[3], [1, 2], [5, 1, 1, 1, 9, 4.5], list(range(100))])
def test_percentiles_of_counts_are_those_of_the_values(values: list[float]) -> None:
    least, *middle, most = summary._in_short(collections.Counter(values)).values()
    assert (least, most) == (min(values), max(values))
    np.testing.assert_allclose(middle, np.percentile(values, (5, 50, 95)), atol=5.1e-4)
