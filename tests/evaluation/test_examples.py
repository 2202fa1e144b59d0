"""The clips of a protocol: in one order, window after window, and refused where they do not fit."""

import dataclasses
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from phenaki_jax.data.clips import Clip, read_clips
from phenaki_jax.errors import UserError
from phenaki_jax.evaluation import examples
from phenaki_jax.evaluation.examples import OrderedClips
from phenaki_jax.evaluation.protocols import PROTOCOLS, Protocol


def texts(clips: list[Clip]) -> list[str]:
    return [clip.text for clip in clips]


def test_clips_come_in_one_order_with_other_windows_each_time(protocol: Protocol, data_dir: pathlib.Path) -> None:
    """Six stored clips are gone through again; what a batch ended with the next may begin with."""
    clips = OrderedClips(protocol, "test", 0, data_dir)
    all_of_them = clips.between(0, 14)
    first, second = (list(read_clips(protocol.task, "test", 11, seed, data_dir)) for seed in (0, 1))
    assert texts(all_of_them[:12]) == texts([*first, *second])
    assert texts(first) != texts(second)
    parts = OrderedClips(protocol, "test", 0, data_dir)
    assert texts(parts.between(2, 5)) == texts(all_of_them[2:5])
    assert texts(parts.between(4, 7)) == texts(all_of_them[4:7])
    assert texts(parts.between(10, 11)) == texts(all_of_them[10:11])
    np.testing.assert_array_equal(parts.between(10, 12)[1].video, all_of_them[11].video)


@pytest.fixture
def two_stored_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 30 frames of 64 x 64, whose colours are 30 * clip + frame."""

    def read(task: str, split: str, frames: int, *rest: Any) -> Iterator[Clip]:
        for number in range(2):
            values = np.arange(30 * number, 30 * number + frames, dtype=np.uint8)
            yield Clip(np.broadcast_to(values[:, None, None, None], (frames, 64, 64, 3)), f"clip {number}")

    monkeypatch.setattr(examples, "read_clips", read)


@pytest.mark.usefixtures("two_stored_clips")
def test_windows_of_stored_clips_begin_one_frame_later_each_time() -> None:
    """BAIR's protocol takes the first window of each clip, the debiased one 15 of them."""
    first = OrderedClips(PROTOCOLS["bair"], "test", 0, "").between(0, 2)
    assert [clip.video[:, 0, 0, 0].tolist() for clip in first] == [[*range(16)], [*range(30, 46)]]
    debiased = OrderedClips(PROTOCOLS["bair_debiased"], "test", 0, "").between(0, 30)
    assert [int(clip.video[0, 0, 0, 0]) for clip in debiased[:4]] == [0, 30, 1, 31]
    assert debiased[-1].video[:, 0, 0, 0].tolist() == [*range(44, 60)]


@pytest.mark.usefixtures("two_stored_clips")
def test_too_few_and_other_clips_are_refused() -> None:
    with pytest.raises(UserError, match=r"found 2 clips in the test split of bair_\w+, 1 window of each, expected 256"):
        OrderedClips(PROTOCOLS["bair"], "test", 0, "").between(0, 3)
    other = dataclasses.replace(PROTOCOLS["bair"], size=128)
    with pytest.raises(UserError, match=r"found a clip of 30 x 64 x 64 in bair_\w+, expected 30 frames of 128 x 128"):
        OrderedClips(other, "test", 0, "").between(0, 1)
