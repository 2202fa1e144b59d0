"""One source, decoded and cut into clips by a worker; nothing here loads TensorFlow."""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from phenaki_jax.data.prepare.decoding import UnorderedTimesError
from phenaki_jax.data.prepare.frames import Shown, open_frames, sampled, told_damaged
from phenaki_jax.data.prepare.moments import Moments
from phenaki_jax.data.prepare.pictures import encode_jpeg
from phenaki_jax.data.prepare.scenes import Change, Thumbnail, clip_starts, difference, scene_starts, thumbnail
from phenaki_jax.data.prepare.settings import PrepareSettings
from phenaki_jax.data.prepare.sources import Place
from phenaki_jax.errors import UserError, counted

_READ_BYTES = 2**20


class Task(NamedTuple):
    """What a worker is given.

    Attributes:
      number: of the source.
      place: of its bytes.
      start: seconds to where it is read from.
      end: seconds to where it is read to; -1 for its end.
    """

    number: int
    place: Place
    start: float
    end: float


class Clips(NamedTuple):
    """What a worker made of a source; the frames themselves are in a file, one JPEG after the other.

    Attributes:
      is_image: whether it is one picture.
      sizes: bytes of each frame.
      starts: first frame of each clip.
      frames: of each clip.
      begins: seconds of the first frame.
      height: as shown, in pixels.
      width: likewise.
      scenes: how many.
      digest: of the file's bytes, equal where files are.
    """

    is_image: bool
    sizes: tuple[int, ...]
    starts: tuple[int, ...]
    frames: int
    begins: float
    height: int
    width: int
    scenes: int
    digest: str


def cut_source(task: Task, settings: PrepareSettings, file: Path, *, alive: Callable[[], None] = lambda: None) -> Clips:
    """Decodes a source, writes its frames and tells where its clips are.

    Args:
      task: which.
      settings: how it is cut.
      file: where frames go.
      alive: called with each frame that is decoded.

    Raises:
      UserError: there is something wrong with it.
      OSError: the frames cannot be written.
    """
    try:
        return _cut_source(task, settings, file, alive)
    except UnorderedTimesError:
        return _cut_source(task, settings, file, alive, by_order=True)


def _cut_source(
    task: Task, settings: PrepareSettings, file: Path, alive: Callable[[], None], *, by_order: bool = False
) -> Clips:
    moments = Moments(settings.fps, task.start, task.end if task.end >= 0 else math.inf)
    changes: list[Change] = []
    sizes: list[int] = []
    before: np.ndarray | None = None
    small: Thumbnail | None = None
    with (
        open_frames(task.place, settings.size, moments, by_order=by_order) as opened,
        file.open("wb") as spool,
    ):
        for frame in sampled(_told(opened.shown, alive), moments):
            if frame is not before:
                picture = Image.fromarray(frame)
                encoded = encode_jpeg(picture, settings.quality)
                if settings.scene_threshold:
                    after = thumbnail(picture)
                    if small is not None:
                        changes.append(Change(len(sizes), difference(small, after)))
                    small = after
                before = frame
            spool.write(encoded)
            sizes.append(len(encoded))
            if opened.is_image:
                break
        frames = 1 if opened.is_image else settings.frames
        scenes = scene_starts(changes, settings.scene_threshold, settings.frames)
        starts = clip_starts(scenes, len(sizes), frames, settings.step, settings.clips_per_video)
        if not starts:
            raise UserError(_too_short(task, len(sizes), scenes, settings, is_image=opened.is_image))
        return Clips(
            opened.is_image,
            tuple(sizes),
            tuple(starts),
            frames,
            task.start,
            opened.height,
            opened.width,
            len(scenes),
            _digest(task.place, alive),
        )


def _told(shown: Iterator[Shown], alive: Callable[[], None]) -> Iterator[Shown]:
    for each in shown:
        alive()
        yield each


def _too_short(task: Task, found: int, scenes: list[int], settings: PrepareSettings, *, is_image: bool) -> str:
    if not found and task.start > 0:
        over = "is one picture" if is_image else "is over before"
        return f"{over}: found nothing at {task.start:g} s, expected an earlier start of this part"
    longest = max(np.diff([*scenes, found]), default=0)
    where = (
        "in its longest scene" if len(scenes) > 1 else f"of {task.start:g} s to {task.end:g} s" if task.end > 0 else ""
    )
    return (
        f"is too short: found {counted(int(longest), 'frame')} {where}".rstrip()
        + f" at {settings.fps:g} frames per second, expected {settings.frames}"
    )


# The parts of a file come one after the other.
@functools.lru_cache(maxsize=1)
def _digest(place: Place, alive: Callable[[], None]) -> str:
    """Of all bytes, by which copies of a file are known."""
    digest = hashlib.blake2b(digest_size=16)
    with told_damaged(), place.open() as file:
        while read := file.read(_READ_BYTES):
            alive()
            digest.update(read)
    return digest.hexdigest()
