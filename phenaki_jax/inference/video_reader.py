"""Videos and pictures from files, frame by frame or whole."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import re
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import imageio_ffmpeg
import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, ImageSequence, UnidentifiedImageError

from phenaki_jax.errors import UserError, counted, reason_of

_MOST_FPS_OF_UNEVEN_FRAMES = 30

# What Pillow raises of damaged pictures where it looks for the damage, and where it does not.
_TOLD = (OSError, RuntimeError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)
_UNTOLD = (LookupError, ArithmeticError, struct.error)
# What ffmpeg tells of a .mkv or .webm that lacks its end, and takes for none of its errors.
_ENDS_EARLY = re.compile(r"^\[\S+ @ 0x\w+\] File ended prematurely", re.MULTILINE)

Frame = UInt8[np.ndarray, "height width 3"]


class OpenVideo(NamedTuple):
    """A video that is being read.

    Attributes:
      frames: those that have not been taken yet; UserError where the file turns out to be damaged.
      fps: how many are shown per second; None for a single picture.
    """

    frames: Iterator[Frame]
    fps: float | None


@contextlib.contextmanager
def open_video(path: str | Path) -> Iterator[OpenVideo]:
    """Opens a video, an animated GIF or a picture; one frame at a time is in memory.

    Raises:
      UserError: the file is not there, cannot be read, is not whole, holds no frame, or has a suffix that is not known.
    """
    path = Path(path)
    if not path.is_file():
        found = "found a folder" if path.is_dir() else "found no file"
        raise UserError(f"{path}: {found}, expected the file of a video or a picture; check the path")
    suffix = path.suffix.lower()
    if suffix not in _OPENERS:
        raise UserError(
            f"{path}: found suffix {suffix!r}, expected one of {', '.join(INPUT_SUFFIXES)}; convert the file to one of "
            "these"
        )
    with contextlib.ExitStack() as opened:
        with _told_damaged(path):
            if not path.stat().st_size:
                raise ValueError("the file is empty")
            frames, fps = opened.enter_context(_OPENERS[suffix](path))
        yield OpenVideo(_checked(path, frames), fps)


def read_video(path: str | Path) -> tuple[UInt8[np.ndarray, "frames height width 3"], float | None]:
    """All frames of a video, an animated GIF or a picture, and how many are shown per second; see `open_video`."""
    with open_video(path) as video:
        return np.stack(list(video.frames)), video.fps


def chunks_of(frames: Iterator[Frame], first: int, later: int) -> Iterator[UInt8[np.ndarray, "frames height width 3"]]:
    """Frames in groups of so many in the first and in each later one; the last may be shorter."""
    gathered: list[np.ndarray] = []
    wanted = first
    for frame in frames:
        gathered.append(frame)
        if len(gathered) == wanted:
            yield np.stack(gathered)
            gathered, wanted = [], later
    if gathered:
        yield np.stack(gathered)


@contextlib.contextmanager
def _told_damaged(path: Path) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except (*_TOLD, *_UNTOLD) as error:
        reason = "it is damaged or cut off" if isinstance(error, _UNTOLD) else reason_of(error)
        if isinstance(error, UnidentifiedImageError):
            reason = "it holds something else"
        raise UserError(
            f"{path} cannot be read ({reason}): expected a whole {path.suffix.lower()} file with a picture in it; copy "
            "or make it again"
        ) from error


def _checked(path: Path, frames: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    while True:
        with _told_damaged(path):
            frame = next(frames, None)
        if frame is None:
            return
        yield frame


@contextlib.contextmanager
def _open_with_ffmpeg(path: Path) -> Iterator[tuple[Iterator[np.ndarray], float | None]]:
    """Reads what ffmpeg writes to a pipe: a PPM picture, which is a short header and raw pixels, for each frame."""
    # With -xerror the first damaged packet ends it, where it would leave frames out; without file: what stands before a
    # colon in a name would be a protocol.
    reading = ["-nostats", "-xerror", "-i", f"file:{path}"]
    writing = ["-f", "image2pipe", "-c:v", "ppm", "-pix_fmt", "rgb24", "-"]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), *reading, *writing]
    # To a file, as nobody reads a pipe of messages while frames are read; a process group of its own: Ctrl-C is for us.
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said, process_group=0
        )
        try:
            frames = _frames_of(process, said)
            first = next(frames)
            # Of what is written, not read: where frames come unevenly, ffmpeg repeats some of them.
            rate = re.search(r"^ +Stream #\S+ Video: ppm, .*?([\d.]+k?) fps", _text(said), re.MULTILINE)
            yield itertools.chain([first], frames), float(rate[1].replace("k", "e3")) if rate else None
        finally:
            process.kill()
            process.communicate()


def _frames_of(process: subprocess.Popen[bytes], said: IO[bytes]) -> Iterator[np.ndarray]:
    pipe: Any = process.stdout
    count = 0
    while header := pipe.readline() + pipe.readline() + pipe.readline():
        size = re.fullmatch(rb"P6\s(\d+)\s(\d+)\s255\s", header)
        if size is None:
            raise ValueError(f"ffmpeg wrote {header[:20]!r}, no picture of 8 bits")
        width, height = map(int, size.groups())
        pixels = pipe.read(height * width * 3)
        if len(pixels) < height * width * 3:
            break
        count += 1
        yield np.frombuffer(pixels, np.uint8).reshape(height, width, 3)
    code, told = process.wait(), _text(said)
    if code or not count or _ENDS_EARLY.search(told):
        raise ValueError(_reason(told, count))


def _reason(told: str, count: int) -> str:
    """What is wrong with a file of which ffmpeg gave so many frames and told this."""
    if "does not contain any stream" in told:
        return "it holds no video, such as sound alone"
    if "moov atom not found" in told:
        return "its list of frames is not there: it is cut off, was never finished, or holds something else"
    given, _, _ = told.partition("\nOutput #0")
    lasts = re.search(r"^  Duration: (\d+):(\d+):([\d.]+)", given, re.MULTILINE)
    rate = re.search(r"^ +Stream #\S+ Video: .*?, ([\d.]+) fps", given, re.MULTILINE)
    if not count and rate:
        return "it is damaged or cut off before its first frame"
    # Sound may last longer, and the file then as long as the sound.
    if lasts and rate and " Audio: " in given:
        return f"it is damaged or cut off after {counted(count, 'frame')}"
    if lasts and rate:
        seconds = 3600 * int(lasts[1]) + 60 * int(lasts[2]) + float(lasts[3])
        return f"it is damaged or cut off after {counted(count, 'frame')} of about {round(seconds * float(rate[1]))}"
    last = (told.strip().splitlines() or ["it holds no frame"])[-1]
    return re.sub(r"\[[^]]* @ 0x\w+\] ", "", last)


def _text(file: IO[bytes]) -> str:
    # Seeking would move the place that ffmpeg writes to.
    return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0).decode(errors="replace")


@contextlib.contextmanager
def _open_with_pillow(path: Path) -> Iterator[tuple[Iterator[np.ndarray], float | None]]:
    with Image.open(path) as image:
        # What else a camera puts into a JPEG, such as a preview, is no second frame.
        animated = image.format in ("GIF", "PNG", "WEBP")
        milliseconds = [_milliseconds(frame) for frame in ImageSequence.Iterator(image)] if animated else []
        if len(milliseconds) < 2:
            image.seek(0)
            image.load()
            yield iter([_rgb(image)]), None
            return
        fps, repeats = _evenly(milliseconds)
        frames = zip(ImageSequence.Iterator(image), repeats, strict=True)
        yield (rgb for frame, count in frames for rgb in [_rgb(frame)] * count), fps


def _milliseconds(frame: Image.Image) -> float:
    """How long a frame of an animation is shown; Pillow knows it of a .webp once the frame is read."""
    if frame.format == "WEBP":
        frame.load()
    return float(frame.info.get("duration") or 100)


def _evenly(milliseconds: list[float]) -> tuple[float, list[int]]:
    """A rate for frames that are shown for so long each, and how often each is repeated at it.

    Where frames are alike, a GIF holds one of them and shows it for longer. The rate is that of the longest duration
    that all are multiples of, unless it is above 30 frames per second; then it is that of the shortest frame, and each
    frame begins as near to its time as the rate allows.
    """
    shortest = min(milliseconds)
    common = math.gcd(*map(round, milliseconds))
    exact = common * _MOST_FPS_OF_UNEVEN_FRAMES >= 1000
    step = shortest / round(shortest / common) if exact else shortest
    ends = np.floor(np.cumsum(milliseconds) / step + 0.5).astype(int)
    return 1000 / step, np.diff(ends, prepend=0).tolist()


def _rgb(image: Image.Image) -> np.ndarray:
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        # Pillow would clip these values at 255.
        image = Image.fromarray(np.rint(np.asarray(image) / 257).astype(np.uint8))
    return np.asarray(image.convert("RGB"))


_OPENERS = {
    **dict.fromkeys((".mp4", ".webm", ".mov", ".mkv", ".m4v", ".avi"), _open_with_ffmpeg),
    **dict.fromkeys((".gif", ".png", ".jpg", ".jpeg", ".webp"), _open_with_pillow),
}

INPUT_SUFFIXES = tuple(_OPENERS)
"""Of the files that can be read."""
