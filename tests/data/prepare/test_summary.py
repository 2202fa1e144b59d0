"""What is told of a dataset is short, however many files there are."""

import collections
import json
import pathlib
from collections.abc import Iterable

import numpy as np
import pytest

from phenaki_jax.data.prepare import summary
from phenaki_jax.data.prepare.journal import Journal
from phenaki_jax.data.prepare.sources import Problem


def report(reasons: Iterable[str], folder: pathlib.Path) -> dict[str, int]:
    journal = Journal(folder / "journal.sqlite")
    with journal.together():
        journal.add(Problem(f"{number}.mp4", reason) for number, reason in enumerate(reasons))
    return summary.write_report(journal, folder)


def test_a_reason_is_counted_once_whatever_names_and_numbers_are_in_it(tmp_path: pathlib.Path) -> None:
    reasons = [f"is the same as {f'of {name}.mp4'!r}" for name in "abcdefgh"]
    reasons += [f"found no file {name!r}, expected it" for name in ("it's.mp4", 'a "b".mp4', "c'\"d.mp4", "\\.mp4")]
    reasons += [f"is cut off: its frames end at {seconds} s" for seconds in (0.5, 2)]
    assert report(reasons, tmp_path) == {reasons[0]: 8, reasons[8]: 4, reasons[12]: 2}
    text = (tmp_path / "report.txt").read_text()
    assert text.startswith(
        f"14 set aside; report.jsonl has a line for each.\n\n8: {reasons[0]}\n    0.mp4\n    1.mp4\n    2.mp4\n"
        f"    and 5 more\n\n4: {reasons[8]}\n    8.mp4\n    9.mp4\n    10.mp4\n    and 1 more\n\n2: {reasons[12]}\n"
    )
    lines = list(map(json.loads, (tmp_path / "report.jsonl").read_text().splitlines()))
    assert [line["reason"] for line in lines] == reasons


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
