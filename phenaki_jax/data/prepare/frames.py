"""Frames of a video or a picture at the times that are asked for, as squares of one size."""

from __future__ import annotations

import bisect
import collections
import contextlib
import functools
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import av
import numpy as np
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from jaxtyping import UInt8
from PIL import Image, ImageSequence, UnidentifiedImageError

from phenaki_jax.data.prepare.pictures import centre_square, fit_picture, fitted_size, opaque
from phenaki_jax.data.prepare.sources import IMAGE_SUFFIXES, Place
from phenaki_jax.errors import UserError, reason_of

# Of a video's length that may be absent at its end, in seconds and as a share: containers round.
_ABSENT_SECONDS = 0.25
_ABSENT_SHARE = 0.02
_ROUNDING = 0.0006
_DAMAGED = (av.error.FFmpegError, OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)
# Frames that H.264 and HEVC keep at most, by which the order of decoding differs from that of showing.
_REORDERED = 16
# Without it libswscale gives colours half of the width that is asked for.
_WHOLE_COLOURS = Interpolation.FULL_CHR_H_INT
_GIF_TRAILER = b"\x3b"
_WITH_TRANSPARENCY = ("rgba", "bgra", "argb", "abgr", "pal8", "ya8", "yuva")

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


class Moments(NamedTuple):
    """When frames are taken of a video: at `start`, and every 1 / fps seconds after it until `end`.

    Attributes:
      fps: frames per second.
      start: in seconds.
      end: in seconds, infinite for the video's end.
    """

    fps: float
    start: float = 0.0
    end: float = math.inf

    @property
    def late(self) -> float:
        """What times may be late by: containers round them, some to thousandths of a second."""
        return min(_ROUNDING, 0.25 / self.fps)

    def any_within(self, begins: float, ends: float) -> bool:
        """Whether there may be a moment from when to when; in doubt there may."""
        first = max(0, math.ceil((begins - 2 * self.late - self.start) * self.fps))
        return self.start + first / self.fps < ends + self.late


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
def open_frames(place: Place, size: int, moments: Moments, *, threads: int = 1) -> Iterator[OpenFile]:
    """Opens a video or a picture.

    Args:
      place: of its bytes.
      size: side of the squares.
      moments: at which frames are needed; of others, some are not decoded.
      threads: that decode.

    Raises:
      UserError: it is damaged, no video or picture, or cut off; also from `shown`, as decoding goes on.
    """
    opened = _open_picture if place.suffix in IMAGE_SUFFIXES else _open_video
    with contextlib.ExitStack() as stack:
        with told_damaged():
            if not place.size:
                raise UserError("is empty (0 bytes)")
            file = stack.enter_context(opened(place, size, moments, threads))
        yield file


def sampled(shown: Iterator[Shown], moments: Moments) -> Iterator[Square]:
    """What is shown at each of the moments.

    A picture that is shown at several of these times is decoded once and comes as often.

    Raises:
      UserError: the file turns out to be damaged.
    """
    count = 0
    with told_damaged():
        for each in shown:
            square: Square | None = None
            while (moment := moments.start + count / moments.fps) < min(each.end - moments.late, moments.end):
                # A first picture that comes late is shown from the beginning on.
                square = each.square() if square is None else square
                yield square
                count += 1
            if moment >= moments.end:
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
def _open_picture(place: Place, size: int, moments: Moments, threads: int) -> Iterator[OpenFile]:
    with place.open() as file, Image.open(file) as picture:
        is_image = getattr(picture, "n_frames", 1) < 2
        if is_image:
            picture.draft("RGB", (2 * size, 2 * size))
        sideways = picture.getexif().get(0x0112, 1) >= 5
        width, height = picture.size[::-1] if sideways else picture.size
        yield OpenFile(is_image, height, width, _pictures(picture, size))


def _pictures(picture: Image.Image, size: int) -> Iterator[Shown]:
    """Of an animation, or the only one."""
    begins = 0.0
    for frame in ImageSequence.Iterator(picture):
        frame.load()
        ends = begins + float(frame.info.get("duration") or 100) / 1000
        yield Shown(begins, ends, functools.partial(fit_picture, frame, size))
        begins = ends


@contextlib.contextmanager
def _open_video(place: Place, size: int, moments: Moments, threads: int) -> Iterator[OpenFile]:
    with contextlib.ExitStack() as stack:
        # Without file: what stands before a colon in a name would be a protocol.
        source: Any = f"file:{place.path}" if place.length < 0 else stack.enter_context(place.open())
        container = stack.enter_context(av.open(source))
        streams = [each for each in container.streams.video if not each.disposition & Disposition.attached_pic]
        if not streams:
            raise UserError("has no video stream")
        stream = max(streams, key=lambda each: each.width * each.height)
        if place.suffix == ".gif":
            _check_gif(place)
        stream.codec_context.thread_count = threads
        first = stream.start_time or 0
        if moments.start > 0:
            container.seek(first + int(moments.start / stream.time_base), stream=stream)
        decoded = _decoded(container, stream, moments, first)
        frame = next(decoded, None)
        if frame is None:
            raise UserError("holds no frame")
        picture = _Square(frame, stream, size)
        following = next(decoded, None)
        is_image = place.suffix == ".gif" and following is None
        frames = (each for each in [frame, following] if each is not None)
        shown = _intervals(_chained(frames, decoded), stream, container, picture, first)
        yield OpenFile(is_image, *picture.shown_size, shown)


def _check_gif(place: Place) -> None:
    with place.open() as file:
        file.seek(-min(place.size, 1024), 2)
        if not file.read().rstrip(b"\0").endswith(_GIF_TRAILER):
            raise UserError("is cut off: it has no end")


def _chained(first: Iterator[VideoFrame], rest: Iterator[VideoFrame]) -> Iterator[VideoFrame]:
    yield from first
    yield from rest


def _decoded(container: Any, stream: Any, moments: Moments, first: int) -> Iterator[VideoFrame]:
    """The frames that are shown at the moments, and those that others are decoded from."""
    codec = stream.codec_context
    base = float(stream.time_base)
    # Frames on several threads are begun before it is said which of them are needed.
    can_skip = codec.thread_count == 1
    for packet, ends in _with_ends(container.demux(stream)):
        if packet.is_corrupt:
            raise UserError("is damaged or cut off: a part of a frame is absent")
        if can_skip:
            is_needed = ends is None or moments.any_within((packet.pts - first) * base, (ends - first) * base)
            codec.skip_frame = "DEFAULT" if is_needed else "NONREF"
        for frame in packet.decode():
            if frame.is_corrupt:
                raise UserError(f"is damaged: the frame at {frame.time or 0:.2f} s cannot be decoded")
            yield frame


def _with_ends(packets: Iterator[Any]) -> Iterator[tuple[Any, int | None]]:
    """Packets with the time of the frame that is shown next; None where that is not known.

    Packets come in the order of decoding, in which a frame's successor is no further away than frames are kept for it.
    """
    window: collections.deque[Any] = collections.deque()
    times: list[int] = []
    behind: collections.deque[int] = collections.deque()
    for packet in itertools.chain(packets, [None] * _REORDERED):
        if packet is not None:
            window.append(packet)
            if packet.pts is not None:
                bisect.insort(times, packet.pts)
        if packet is None or len(window) > _REORDERED:
            if not window:
                return
            each = window.popleft()
            after = bisect.bisect_right(times, each.pts) if each.pts is not None else len(times)
            yield each, times[after] if after < len(times) else None
            if each.pts is not None:
                behind.append(each.pts)
            if len(behind) > _REORDERED:
                times.remove(behind.popleft())


def _intervals(
    frames: Iterator[VideoFrame], stream: Any, container: Any, picture: _Square, first: int
) -> Iterator[Shown]:
    """From when to when each frame is shown, where all were decoded.

    Raises:
      UserError: they end before the video does.
    """
    base = float(stream.time_base)
    usual = 1 / float(stream.average_rate or stream.guessed_rate or 25)
    before: VideoFrame | None = None
    begins = ends = 0.0
    for frame in frames:
        now = begins + usual if frame.pts is None else (frame.pts - first) * base
        if before is not None:
            yield Shown(begins, now, functools.partial(picture, before))
        before, begins = frame, now
    if before is None:
        return
    ends = begins + (before.duration * base if before.duration else usual)
    expected = _duration(stream, container)
    if expected - ends > _ABSENT_SECONDS + _ABSENT_SHARE * expected:
        raise UserError(f"is cut off: its frames end at {ends:.2f} s of {expected:.2f} s")
    yield Shown(begins, ends, functools.partial(picture, before))


def _duration(stream: Any, container: Any) -> float:
    """What the container says of the video's length in seconds; 0 where it does not."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    if tag := stream.metadata.get("DURATION"):
        hours, minutes, seconds = tag.split(":")
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    return 0.0 if container.streams.audio or not container.duration else container.duration / av.time_base


class _Square:
    """Makes squares of a video's frames: upright, of square pixels, on white where they are transparent."""

    def __init__(self, first: VideoFrame, stream: Any, size: int) -> None:
        self._size, self._quarters = size, first.rotation // 90
        self._reformatter = VideoReformatter()
        aspect = float(stream.sample_aspect_ratio or 1)
        self._aspect = aspect if math.isfinite(aspect) and aspect > 0 else 1.0
        width, height = round(first.width * self._aspect), first.height
        self.shown_size = (width, height) if self._quarters % 2 else (height, width)

    def __call__(self, frame: VideoFrame) -> Square:
        if frame.format.name.startswith(_WITH_TRANSPARENCY):
            pixels = frame.to_ndarray(format="rgba")
            if pixels[..., 3].min() < 255:
                return fit_picture(self._upright(opaque(Image.fromarray(pixels))), self._size)
        width, height = fitted_size(frame.width * self._aspect, frame.height, self._size)
        shrinks = min(frame.width, frame.height) > self._size
        small = self._reformatter.reformat(
            frame,
            width=width,
            height=height,
            format="rgb24",
            interpolation=(Interpolation.AREA if shrinks else Interpolation.BICUBIC) | _WHOLE_COLOURS,
            threads=1,
        )
        return np.ascontiguousarray(centre_square(np.rot90(small.to_ndarray(), self._quarters), self._size))

    def _upright(self, picture: Image.Image) -> Image.Image:
        wide = picture.resize((round(picture.width * self._aspect), picture.height))
        return Image.fromarray(np.rot90(np.asarray(wide), self._quarters))
