"""The clips of a protocol: in one order, window after window, none twice, and refused where they do not fit."""

import dataclasses
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from phenaki_jax.data.clips import Clip
from phenaki_jax.errors import UserError
from phenaki_jax.evaluation import examples
from phenaki_jax.evaluation.examples import Example, OrderedExamples, check_clips
from phenaki_jax.evaluation.protocols import PROTOCOLS, Protocol


def known(found: list[Example]) -> list[tuple[int, bytes]]:
    return [(example.stored, example.clip.video.tobytes()) for example in found]


def test_windows_that_a_task_draws_are_never_the_same(protocol: Protocol, data_dir: pathlib.Path) -> None:
    """Six stored clips are gone through again, each time with other windows of each."""
    all_of_them = OrderedExamples(protocol, "test", 0, data_dir).at(range(14))
    assert [example.stored for example in all_of_them[:6]] == [*range(6)]
    assert len(set(known(all_of_them))) == 14
    parts = OrderedExamples(protocol, "test", 0, data_dir)
    for places in ([2, 3, 3, 4], [4, 5, 6], [10], [1, 13]):
        assert known(parts.at(places)) == known([all_of_them[place] for place in places])
    other = OrderedExamples(protocol, "test", 1, data_dir).at(range(6))
    assert known(other) != known(all_of_them[:6])


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """With two stored clips, whose colours are 30 * clip + frame; the seeds that they are read by."""
    seeds = []

    def read(task: str, split: str, frames: int, seed: int, data_dir: Any) -> Iterator[Clip]:
        seeds.append(seed)
        for number in range(2):
            values = np.arange(30 * number, 30 * number + frames, dtype=np.uint8)
            yield Clip(np.broadcast_to(values[:, None, None, None], (frames, 64, 64, 3)), f"clip {number}")

    monkeypatch.setattr(examples, "read_clips", read)
    monkeypatch.setattr(examples, "count_clips", lambda *task: 2)
    return seeds


def first_colors(protocol: Protocol, places: range) -> list[int]:
    found = OrderedExamples(protocol, "test", 0, "").at(places)
    assert {example.clip.video.shape for example in found} == {(protocol.frames, 64, 64, 3)}
    return [int(example.clip.video[0, 0, 0, 0]) for example in found]


@pytest.mark.usefixtures("asked")
def test_windows_of_stored_clips_begin_evenly_from_the_first_place_to_the_last() -> None:
    """BAIR's protocol takes the first window of each clip, the debiased one 15 of them; UCF-101's two in 26 frames."""
    assert first_colors(PROTOCOLS["bair"], range(2)) == [0, 30]
    assert first_colors(PROTOCOLS["bair_debiased"], range(30)) == [
        clip + start for start in range(15) for clip in (0, 30)
    ]
    ucf = dataclasses.replace(PROTOCOLS["ucf101"], size=64)
    assert first_colors(ucf, range(4)) == [0, 30, 10, 40]


def test_two_seeds_have_no_windows_in_common(asked: list[int]) -> None:
    """As they would where the second time of one were the first of the other."""
    drawn = dataclasses.replace(PROTOCOLS["bair"], stored_frames=0, windows=3)
    for seed in (0, 1):
        with pytest.raises(UserError):
            OrderedExamples(drawn, "test", seed, "").at([100])
    assert len(set(asked)) == len(asked)


@pytest.mark.usefixtures("asked")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "bair",
            r"found 2 clips, 1 window of each, in the test split of bair_\w+, expected 256 for bair: ask for 2 with "
            "--examples, which the number's name then tells, or complete the dataset",
        ),
        ("kinetics600", r"found 2 clips, 2 windows of each, in the .* expected 50000 for kinetics600: ask for 4 with"),
        ("moments_in_time", r"1 window of each, .* expected 10000 for moments_in_time"),
    ],
)
def test_too_few_clips_are_told_before_any_is_read(asked: list[int], name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_clips(PROTOCOLS[name], "")
    few = dataclasses.replace(PROTOCOLS[name], examples=2)
    assert check_clips(few, "") == {"test": (2, few.windows)}
    with pytest.raises(UserError, match=rf"expected 300 for {name}: ask for {2 * few.windows} with --real, which"):
        check_clips(dataclasses.replace(few, real=300), "")
    with pytest.raises(UserError, match=r"expected 300 for .* with --examples and --real, which"):
        check_clips(dataclasses.replace(few, examples=200, real=300), "")
    assert not asked


@pytest.mark.usefixtures("asked")
def test_windows_that_come_up_again_are_told_with_how_many_differ() -> None:
    """Of two clips, which always come as the same window, six were asked for."""
    drawn = dataclasses.replace(PROTOCOLS["bair"], stored_frames=0, windows=3, examples=6, real=2)
    with pytest.raises(UserError, match=r"found 2 clips that differ in .*, expected 6 for bair: ask for 2 with --exam"):
        OrderedExamples(drawn, "test", 0, "").at([1, 5])


def test_stored_clips_are_counted(protocol: Protocol, data_dir: pathlib.Path) -> None:
    assert check_clips(protocol, data_dir) == {"test": (6, 3)}
    with pytest.raises(
        UserError, match=r"found 6 clips, 3 windows of each, in the test split of moving_shapes_openings"
    ):
        check_clips(dataclasses.replace(protocol, real=19), data_dir)
    other = dataclasses.replace(protocol, real_split="train")
    with pytest.raises(
        UserError, match=r"found 1 clip, 3 windows of each, in the train split .* ask for 3 with --real, which"
    ):
        check_clips(other, data_dir)


@pytest.mark.usefixtures("asked")
def test_other_clips_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    other = dataclasses.replace(PROTOCOLS["bair"], size=128)
    with pytest.raises(UserError, match=r"found a clip of 30 x 64 x 64 in bair_\w+, expected 30 frames of 128 x 128"):
        OrderedExamples(other, "test", 0, "").at([0])
    silent = Clip(np.zeros((26, 64, 64, 3), np.uint8), " ")
    monkeypatch.setattr(examples, "read_clips", lambda *settings: [silent])
    ucf = dataclasses.replace(PROTOCOLS["ucf101"], size=64)
    with pytest.raises(UserError, match="found a clip without text in ucf101_video_text, expected a text of each"):
        OrderedExamples(ucf, "test", 0, "").at([0])
