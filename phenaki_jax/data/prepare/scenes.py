"""Where one scene of a video ends and the next begins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from PIL import Image

THUMBNAIL_SIDE = 16
# A cut differs so much more than what is around it; a pan or shake differs all the time.
_TIMES_ITS_NEIGHBOURS = 3.0
_NEIGHBOURS = 2

Thumbnail = Float[np.ndarray, "16 16 3"]


class Change(NamedTuple):
    """Another picture than before.

    Attributes:
      frame: its first.
      difference: from the picture before, see `difference`.
    """

    frame: int
    difference: float


def thumbnail(frame: Image.Image) -> Thumbnail:
    """A frame's mean colours, from 0 to 1, in 16 x 16 parts of it."""
    small = frame.resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BOX)
    return np.asarray(small, np.float32) / 255


def difference(before: Thumbnail, after: Thumbnail) -> float:
    """How much two frames differ, from 0 to 1: the mean over parts and colours."""
    return float(np.abs(after - before).mean())


def scene_starts(changes: Sequence[Change], threshold: float, reach: int) -> list[int]:
    """The frames that begin a scene, 0 among them.

    A frame begins one where it differs from the frame before by at least the threshold, and by three times the mean of
    the two changes before and the two after it. Frames that were faded into each other are not found. Where a video has
    fewer pictures than frames are taken, a picture that stands is no sign that little moves, unless it stands long.

    Args:
      changes: of the video, but for its first frame.
      threshold: the least difference, from 0 to 1; 0 for one scene alone. Cuts are mostly above .15, motion below .08.
      reach: frames of a clip; a picture that stands for so long is not compared across.
    """
    if not threshold:
        return [0]
    frames = np.asarray([0, *(change.frame for change in changes)])
    values = np.asarray([0.0, *(change.difference for change in changes)])
    # Numbers that are equal for changes between which no picture stands long.
    runs = np.cumsum(np.diff(frames, prepend=0) >= reach)
    starts = [0]
    for index in np.flatnonzero(values >= threshold).tolist():
        around = [
            *range(max(1, index - _NEIGHBOURS), index),
            *range(index + 1, min(index + 1 + _NEIGHBOURS, len(values))),
        ]
        near = [values[other] for other in around if runs[other] == runs[index]]
        if not near or values[index] >= _TIMES_ITS_NEIGHBOURS * np.mean(near):
            starts.append(int(frames[index]))
    return starts


def clip_starts(scenes: Sequence[int], total: int, frames: int, step: int, most: int) -> list[int]:
    """The first frames of the clips of a video, each within one scene.

    Args:
      scenes: first frames of the scenes.
      total: frames of the video.
      frames: of a clip.
      step: frames from one beginning to the next.
      most: how many clips are kept, as evenly spread as can be; 0 for all.
    """
    ends = [*scenes[1:], total]
    starts = [start for first, end in zip(scenes, ends, strict=True) for start in range(first, end - frames + 1, step)]
    if not most or len(starts) <= most:
        return starts
    return [starts[(2 * index + 1) * len(starts) // (2 * most)] for index in range(most)]
