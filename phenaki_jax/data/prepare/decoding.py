"""The frames of a video in the order of time, of which no more are decoded than are needed."""

from __future__ import annotations

import bisect
import collections
import contextlib
import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import av
from av.stream import Disposition
from av.video.frame import VideoFrame

from phenaki_jax.data.prepare.moments import Moments
from phenaki_jax.data.prepare.sources import Place
from phenaki_jax.errors import UserError

# Of a video's length that may be absent at its end, in seconds and as a share: containers round.
_ABSENT_SECONDS = 0.25
_ABSENT_SHARE = 0.02
# Frames that H.264 and HEVC keep at most, by which the order of decoding differs from that of showing.
_REORDERED = 16


class UnorderedTimesError(Exception):
    """The times at which a file says that its frames are shown are not in the order of the frames."""


class Timed(NamedTuple):
    """A frame and when it is shown, in seconds from the video's first frame."""

    begins: float
    ends: float
    frame: VideoFrame


class Video(NamedTuple):
    """A video that is being decoded.

    Attributes:
      stream: PyAV's.
      first: its first frame.
      frames: those that are shown at the moments, with others, in the order of time.
    """

    stream: Any
    first: VideoFrame
    frames: Iterator[Timed]


@contextlib.contextmanager
def open_video(place: Place, moments: Moments, *, by_order: bool = False) -> Iterator[Video]:
    """Opens a video and decodes its first frame.

    Args:
      place: of its bytes.
      moments: at which frames are needed.
      by_order: whether frames are shown when they leave the decoder, whatever the file says of their times.

    Raises:
      UserError: it has no frames, or is damaged or cut off; also from `frames`, as decoding goes on.
      UnorderedTimesError: from `frames`: the file is to be opened again, by order.
    """
    with contextlib.ExitStack() as stack:
        decoder = _Decoder(_opened(place, stack), moments, by_order)
        frames = decoder.frames()
        first = next(frames, None)
        if first is None:
            raise UserError("holds no frame")
        if moments.start > 0 and place.suffix != ".gif" and not decoder.by_order:
            found = decoder.sought()
            if found is None:
                decoder = _Decoder(_opened(place, stack), moments, by_order)
                found = decoder.frames()
            frames = found
        else:
            frames = itertools.chain([first], frames)
        yield Video(decoder.stream, first, decoder.timed(frames))


def _opened(place: Place, stack: contextlib.ExitStack) -> Any:
    # Without file: what stands before a colon in a name would be a protocol.
    source: Any = f"file:{place.path}" if place.length < 0 else stack.enter_context(place.open())
    return stack.enter_context(av.open(source))


class _Decoder:
    """Decodes a video on one thread: with others it depends on their number which damage is found.

    Args:
      container: at its beginning.
      moments: at which frames are needed.
      by_order: see `open_video`.

    Attributes:
      stream: the largest.
      by_order: whether frames are taken by their order, which they are in files that store nothing else.
    """

    def __init__(self, container: Any, moments: Moments, by_order: bool) -> None:
        streams = [each for each in container.streams.video if not each.disposition & Disposition.attached_pic]
        if not streams:
            raise UserError("has no video stream")
        self.stream = max(streams, key=lambda each: each.width * each.height)
        self.stream.codec_context.thread_count = 1
        # What is said of times in .avi is guessed from the order of decoding.
        self.by_order = by_order or (container.format.name == "avi" and self.stream.codec_context.codec.reorder)
        self._container, self._moments = container, moments
        self._base = float(self.stream.time_base)
        self._zero: int | None = None

    def frames(self) -> Iterator[VideoFrame]:
        """The frames that are shown at the moments, and those that others are decoded from."""
        codec = self.stream.codec_context
        for packet, ends in _with_ends(self._container.demux(self.stream)):
            if packet.is_corrupt:
                raise UserError("is damaged or cut off: a part of a frame is absent")
            codec.skip_frame = "DEFAULT" if self._is_needed(packet, ends) else "NONREF"
            for frame in packet.decode():
                if frame.is_corrupt:
                    raise UserError(f"is damaged: the frame at {frame.time or 0:.2f} s cannot be decoded")
                if self._zero is None:
                    self._zero = self._time(frame) or 0
                yield frame

    def _is_needed(self, packet: Any, ends: int | None) -> bool:
        if self._zero is None or ends is None or self.by_order:
            return True
        return self._moments.any_within(self._seconds(packet.pts), self._seconds(ends))

    def _seconds(self, ticks: int) -> float:
        assert self._zero is not None
        return (ticks - self._zero) * self._base

    def _time(self, frame: VideoFrame) -> int | None:
        return frame.dts if self.by_order else frame.pts

    def sought(self) -> Iterator[VideoFrame] | None:
        """The frames from one on that is shown at the first moment or before it; None where none is found."""
        assert self._zero is not None
        latest = self._zero + (self._moments.start + self._moments.late) / self._base
        back = 0.0
        while back < self._moments.start:
            try:
                ticks = self._zero + int((self._moments.start - back) / self._base)
                self._container.seek(ticks, stream=self.stream)
            except av.error.FFmpegError:
                return None
            frames = self.frames()
            frame = next(frames, None)
            # Decoders leave out what they would decode from frames before, which may be shown after the first moment.
            if frame is not None and frame.pts is not None and frame.pts <= latest:
                return itertools.chain([frame], frames)
            back = max(1.0, 2 * back)
        return None

    def timed(self, frames: Iterator[VideoFrame]) -> Iterator[Timed]:
        """From when to when each frame is shown, where all were decoded.

        Raises:
          UnorderedTimesError: they are not in the order of time.
          UserError: they end before the video does.
        """
        usual = 1 / float(self.stream.average_rate or self.stream.guessed_rate or 25)
        before: VideoFrame | None = None
        begins = 0.0
        for frame in frames:
            time = self._time(frame)
            if before is None:
                begins = self._seconds(time or 0)
            else:
                now = begins + usual if time is None else self._seconds(time)
                if now < begins and before.pts is not None and not self.by_order:
                    raise UnorderedTimesError
                yield Timed(begins, now, before)
                begins = now
            before = frame
        if before is None:
            return
        ends = begins + (before.duration * self._base if before.duration else usual)
        self._check_end(ends)
        yield Timed(begins, ends, before)

    def _check_end(self, ends: float) -> None:
        expected = _duration(self.stream, self._container)
        # Of the beginning, too, frames may be absent.
        late = 0.0 if self.by_order else -self._seconds(self.stream.start_time or 0)
        if expected - late - ends > _ABSENT_SECONDS + _ABSENT_SHARE * expected:
            raise UserError(f"is cut off: its frames end at {ends + late:.2f} s of {expected:.2f} s")


def _duration(stream: Any, container: Any) -> float:
    """What the container says of the video's length in seconds; 0 where it does not."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    if tag := stream.metadata.get("DURATION"):
        hours, minutes, seconds = tag.split(":")
        # When it ends, which is its length where it begins at 0.
        return (
            3600 * int(hours) + 60 * int(minutes) + float(seconds) - float((stream.start_time or 0) * stream.time_base)
        )
    return 0.0 if container.streams.audio or not container.duration else container.duration / av.time_base


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
