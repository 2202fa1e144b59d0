"""Where one scene of a video ends and the next begins."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from PIL import Image

THUMBNAIL_SIDE = 16
# A cut differs so much more than what is around it; a pan or shake differs all the time.
_TIMES_ITS_NEIGHBOURS = 3.0
_NEIGHBOURS = 2

Thumbnail = Float[np.ndarray, "16 16 3"]


def thumbnail(frame: Image.Image) -> Thumbnail:
    """A frame's mean colours, from 0 to 1, in 16 x 16 parts of it."""
    small = frame.resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BOX)
    return np.asarray(small, np.float32) / 255


def difference(before: Thumbnail, after: Thumbnail) -> float:
    """How much two frames differ, from 0 to 1: the mean over parts and colours."""
    return float(np.abs(after - before).mean())


def scene_starts(differences: Sequence[float], threshold: float) -> list[int]:
    """The frames that begin a scene, 0 among them.

    A frame begins one where it differs from the frame before by at least the threshold, and by three times the mean of
    the two differences before and the two after it. Frames that were faded into each other are not found.

    Args:
      differences: of each frame from the one before, see `difference`; of the first 0.
      threshold: the least difference, from 0 to 1; 0 for one scene alone. Cuts are mostly above .15, motion below .08.
    """
    if not threshold:
        return [0]
    values = np.asarray(differences, float)
    starts = [0]
    for frame in np.flatnonzero(values >= threshold).tolist():
        near = [*values[max(1, frame - _NEIGHBOURS) : frame], *values[frame + 1 : frame + 1 + _NEIGHBOURS]]
        if frame and (not near or values[frame] >= _TIMES_ITS_NEIGHBOURS * np.mean(near)):
            starts.append(frame)
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
