"""The clips of a protocol in their order: the first windows of all stored clips, then the next ones of all."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from phenaki_jax.data.clips import Clip, count_clips, read_clips
from phenaki_jax.data.published.provider import NotPreparedError
from phenaki_jax.errors import UserError, counted
from phenaki_jax.evaluation.protocols import Protocol

# Windows that a task draws come up again; after so many times of all clips without a new one there is none.
_DRAWS_IN_VAIN = 16


class Example(NamedTuple):
    """A clip to draw from, or to compare with.

    Attributes:
      clip: itself.
      stored: the place of the stored clip that it is a window of.
    """

    clip: Clip
    stored: int


class StoredClips(NamedTuple):
    """How many clips a protocol finds.

    Attributes:
      stored: in the split.
      windows: of each that count as clips, at most.
    """

    stored: int
    windows: int


def check_clips(protocol: Protocol, data_dir: str | os.PathLike[str]) -> dict[str, StoredClips]:
    """Counts the clips of a protocol before anything is drawn.

    Args:
      protocol: whose.
      data_dir: the folder of datasets.

    Returns:
      By split, what there is.

    Raises:
      UserError: a split has too few, or is not there.
    """
    found = {}
    for split in dict.fromkeys((protocol.split, protocol.clip_split)):
        stored = _stored(protocol, split, data_dir)
        if stored * protocol.windows < max(_wanted(protocol, split).values()):
            windows = f"{counted(stored, 'clip')}, {counted(protocol.windows, 'window')} of each,"
            raise _too_few(protocol, split, windows, stored * protocol.windows)
        found[split] = StoredClips(stored, protocol.windows)
    return found


class OrderedExamples:
    """The clips of a protocol by their place.

    No two of them are the same window of a stored clip.

    Args:
      protocol: whose.
      split: of its task.
      seed: of windows and wordings.
      data_dir: the folder of datasets.
    """

    def __init__(self, protocol: Protocol, split: str, seed: int, data_dir: str | os.PathLike[str]) -> None:
        self._protocol, self._split, self._seed, self._data_dir = protocol, split, seed, data_dir
        self._next = 0
        self._examples = self._read()
        self._last: Example | None = None

    def at(self, places: Sequence[int]) -> list[Example]:
        """Those at some places; one after the last of the call before needs no other reading than of those between.

        Raises:
          UserError: there are no more, or they are of another size, or without a text that is needed.
        """
        return [self._at(place) for place in places]

    def _at(self, place: int) -> Example:
        if self._last is not None and place == self._next - 1:
            return self._last
        if place < self._next:
            self._examples, self._next = self._read(), 0
        for found in itertools.islice(self._examples, place + 1 - self._next):
            self._last, self._next = found, self._next + 1
        if self._last is None or self._next <= place:
            different = f"{counted(self._next, 'clip')} that differ"
            raise _too_few(self._protocol, self._split, different, self._next)
        return self._last

    def _read(self) -> Iterator[Example]:
        return self._stored_windows() if self._protocol.stored_frames else self._drawn_windows()

    def _stored_windows(self) -> Iterator[Example]:
        """Windows of what is read of a stored clip, the same each time."""
        frames, windows = self._protocol.frames, self._protocol.windows
        places = self._protocol.stored_frames - frames
        for window in range(windows):
            start = window * places // max(windows - 1, 1)
            for stored, clip in enumerate(self._clips(self._protocol.stored_frames, 0)):
                video = np.ascontiguousarray(clip.video[start : start + frames])
                yield Example(clip._replace(video=video), stored)

    def _drawn_windows(self) -> Iterator[Example]:
        """Windows that the task draws anew each time, without those that it drew before."""
        frames, drawn = self._protocol.frames, set[tuple[int, bytes]]()
        turn, in_vain = 0, 0
        while turn < self._protocol.windows or (self._protocol.windows > 1 and in_vain < _DRAWS_IN_VAIN):
            before = len(drawn)
            for stored, clip in enumerate(self._clips(self._protocol.drawn_frames or frames, turn)):
                known = (stored, hashlib.blake2b(clip.video.tobytes(), digest_size=16).digest())
                if known not in drawn:
                    drawn.add(known)
                    yield Example(clip._replace(video=np.ascontiguousarray(clip.video[:frames])), stored)
            turn, in_vain = turn + 1, 0 if len(drawn) > before else in_vain + 1

    def _clips(self, frames: int, turn: int) -> Iterator[Clip]:
        # Mixed, so that the turns of two seeds have none in common.
        (seed,) = np.random.SeedSequence((self._seed, turn)).generate_state(1)
        for clip in read_clips(self._protocol.task, self._split, frames, int(seed), self._data_dir):
            self._check(clip, frames)
            yield clip

    def _check(self, clip: Clip, frames: int) -> None:
        name, task, size = self._protocol.name, self._protocol.task, self._protocol.size
        if clip.video.shape != (frames, size, size, 3):
            raise UserError(
                f"found a clip of {' x '.join(map(str, clip.video.shape[:3]))} in {task}, expected {frames} frames of "
                f"{size} x {size} pixels for {name}: prepare the dataset at this size"
            )
        if self._protocol.reads_text and not clip.text.strip():
            raise UserError(
                f"found a clip without text in {task}, expected a text of each for {name}: prepare the dataset with "
                "captions"
            )


def _stored(protocol: Protocol, split: str, data_dir: str | os.PathLike[str]) -> int:
    try:
        return count_clips(protocol.task, split, data_dir)
    except NotPreparedError as error:
        raise UserError(f"{error} {protocol.prepared_with}") from error


def _wanted(protocol: Protocol, split: str) -> dict[str, int]:
    """How many clips of a split are asked for, by the option that says so."""
    wanted = {"examples": protocol.examples} if split == protocol.split else {}
    if split == protocol.clip_split:
        wanted["real" if protocol.real else "examples"] = protocol.real_clips
    return wanted


def _too_few(protocol: Protocol, split: str, found: str, most: int) -> UserError:
    wanted = _wanted(protocol, split)
    too_large = [name for name, count in wanted.items() if count > most]
    fewer = f"ask for {most} with {' and '.join('--' + name for name in too_large)}, which the number's name then tells"
    return UserError(
        f"found {found} in the {split} split of {protocol.task}, expected {max(wanted.values())} for {protocol.name}: "
        f"{fewer + ', or ' if most and too_large else ''}complete the dataset; docs/evaluation.md tells how"
    )
