"""Frames of a video or a picture at the times that are asked for, as squares of one size."""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import warnings
from collections.abc import Callable, Iterator
from typing import NamedTuple

import av
import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageSequence, UnidentifiedImageError

from phenaki_jax.data.prepare.decoding import open_video
from phenaki_jax.data.prepare.moments import Moments
from phenaki_jax.data.prepare.pictures import fit_picture
from phenaki_jax.data.prepare.sources import EMPTY, IMAGE_SUFFIXES, Place
from phenaki_jax.data.prepare.squares import Squares
from phenaki_jax.errors import UserError, reason_of

_DAMAGED = (av.error.FFmpegError, OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)
_GIF_TRAILER = b"\x3b"

Square = UInt8[np.ndarray, "side side 3"]


class Shown(NamedTuple):
    """A picture of a video, and when it is shown; seconds are counted from the video's first picture.

    Attributes:
      start: in seconds.
      end: in seconds.
      square: makes the frame of it.
    """

    start: float
    end: float
    square: Callable[[], Square]


class OpenFile(NamedTuple):
    """A file that is being decoded.

    Attributes:
      is_image: whether it is one picture, and no video.
      height: as shown, in pixels: upright, and with square ones.
      width: likewise.
      shown: all its pictures in the order of time.
    """

    is_image: bool
    height: int
    width: int
    shown: Iterator[Shown]


@contextlib.contextmanager
def open_frames(place: Place, size: int, moments: Moments, *, by_order: bool = False) -> Iterator[OpenFile]:
    """Opens a video or a picture.

    Args:
      place: of its bytes.
      size: side of the squares.
      moments: at which frames are needed; of others, some are not decoded.
      by_order: see `decoding.open_video`.

    Raises:
      UserError: it is damaged, no video or picture, or cut off; also from `shown`, as decoding goes on.
      UnorderedTimesError: from `shown`: the file is to be opened again, by order.
    """
    opened = _open_picture if place.suffix in IMAGE_SUFFIXES else _open_video
    with contextlib.ExitStack() as stack:
        with told_damaged():
            if not place.size:
                raise UserError(EMPTY)
            file = stack.enter_context(opened(place, size, moments, by_order))
        yield file


def sampled(shown: Iterator[Shown], moments: Moments) -> Iterator[Square]:
    """What is shown at each of the moments.

    A picture that is shown at several of these times is decoded once and comes as often.

    Raises:
      UserError: the file turns out to be damaged.
    """
    count = 0
    end = moments.end - moments.late
    with told_damaged():
        for each in shown:
            square: Square | None = None
            while (moment := moments.start + count / moments.fps) < min(each.end - moments.late, end):
                # A first picture that comes late is shown from the beginning on.
                square = each.square() if square is None else square
                yield square
                count += 1
            if moment >= end:
                return


@contextlib.contextmanager
def told_damaged() -> Iterator[None]:
    """Turns errors while a file is read or decoded into a UserError."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        # Which names the file in its own way.
        raise UserError("cannot be decoded (it begins as no kind of image does)") from error
    except _DAMAGED as error:
        raise UserError(f"cannot be decoded ({reason_of(error)})") from error


@contextlib.contextmanager
def _open_picture(place: Place, size: int, moments: Moments, by_order: bool) -> Iterator[OpenFile]:
    with place.open() as file, _opened_picture(file) as picture:
        # What follows in a photo of several is a smaller one of it.
        is_image = picture.format == "MPO" or getattr(picture, "n_frames", 1) < 2
        sideways = picture.getexif().get(0x0112, 1) >= 5
        width, height = picture.size[::-1] if sideways else picture.size
        if is_image:
            picture.draft("RGB", (2 * size, 2 * size))
        shown = _pictures(picture, size)
        yield OpenFile(is_image, height, width, itertools.islice(shown, 1) if is_image else shown)


def _opened_picture(file: io.BufferedReader) -> Image.Image:
    with warnings.catch_warnings():
        # Of size alone: what takes too much memory is told where it does.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return Image.open(file)


def _pictures(picture: Image.Image, size: int) -> Iterator[Shown]:
    """Of an animation, or the only one."""
    begins = 0.0
    for frame in ImageSequence.Iterator(picture):
        frame.load()
        ends = begins + float(frame.info.get("duration") or 100) / 1000
        yield Shown(begins, ends, functools.partial(fit_picture, frame, size))
        begins = ends


@contextlib.contextmanager
def _open_video(place: Place, size: int, moments: Moments, by_order: bool) -> Iterator[OpenFile]:
    with open_video(place, moments, by_order=by_order) as video:
        is_image = False
        frames = video.frames
        if place.suffix == ".gif":
            _check_gif(place)
            beginning = list(itertools.islice(frames, 2))
            is_image = len(beginning) == 1
            frames = itertools.chain(beginning, frames)
        square = Squares(video.first, video.stream, size)
        shown = (Shown(each.begins, each.ends, functools.partial(square, each.frame)) for each in frames)
        yield OpenFile(is_image, *square.shown_size, shown)


def _check_gif(place: Place) -> None:
    with place.open() as file:
        file.seek(-min(place.size, 1024), 2)
        if not file.read().rstrip(b"\0").endswith(_GIF_TRAILER):
            raise UserError("is cut off: it has no end")
