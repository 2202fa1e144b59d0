"""The clips of a protocol in their order: all windows of the first kind, then all of the next."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

import numpy as np

from phenaki_jax.data.clips import Clip, read_clips
from phenaki_jax.errors import UserError, counted
from phenaki_jax.evaluation.protocols import Protocol


class OrderedClips:
    """Clips by their place, read forwards only, and as far as they are asked for.

    The stored clips are gone through again and again, each time with other windows, as often as `Protocol.windows`
    allows.

    Args:
      protocol: whose.
      split: of its task.
      seed: of windows and wordings.
      data_dir: the folder of datasets.
    """

    def __init__(self, protocol: Protocol, split: str, seed: int, data_dir: str | os.PathLike[str]) -> None:
        self._protocol, self._split, self._seed, self._data_dir = protocol, split, seed, data_dir
        self._clips = self._read()
        self._place = 0
        self._last: list[Clip] = []

    def between(self, start: int, stop: int) -> list[Clip]:
        """Clips from one place to another, the first of which is not before the last of the call before.

        Raises:
          UserError: there are no more, or they are of another size.
        """
        # What the call before ended with, which this one may begin with.
        kept = self._last[: max(0, self._place - start)]
        for _ in itertools.islice(self._clips, max(0, start - self._place)):
            self._place += 1
        clips = kept + list(itertools.islice(self._clips, stop - start - len(kept)))
        self._place += len(clips) - len(kept)
        if len(clips) < stop - start:
            raise self._too_few()
        self._last = clips[-1:]
        return clips

    def _read(self) -> Iterator[Clip]:
        protocol, found = self._protocol, 1
        frames = protocol.stored_frames or protocol.frames
        for window in itertools.count():
            if not found or (protocol.windows and window == protocol.windows):
                return
            found = 0
            start = window if protocol.stored_frames else 0
            for clip in read_clips(protocol.task, self._split, frames, self._seed + window, self._data_dir):
                found += 1  # noqa: SIM113  (it is asked for after the loop)
                self._check(clip)
                yield clip._replace(video=np.ascontiguousarray(clip.video[start : start + protocol.frames]))

    def _check(self, clip: Clip) -> None:
        frames, size = self._protocol.stored_frames or self._protocol.frames, self._protocol.size
        if clip.video.shape != (frames, size, size, 3):
            raise UserError(
                f"found a clip of {' x '.join(map(str, clip.video.shape[:3]))} in {self._protocol.task}, expected "
                f"{frames} frames of {size} x {size} pixels for {self._protocol.name}: prepare the dataset at this size"
            )

    def _too_few(self) -> UserError:
        protocol = self._protocol
        windows = f", {counted(protocol.windows, 'window')} of each" if protocol.windows else ""
        return UserError(
            f"found {counted(self._place, 'clip')} in the {self._split} split of {protocol.task}{windows}, "
            f"expected {protocol.folds * protocol.examples} for {protocol.name}: ask for fewer with --examples and "
            "--real, which the number's name then tells, or complete the dataset"
        )
