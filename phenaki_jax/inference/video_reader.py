"""Videos and pictures from files, frame by frame or whole."""

from __future__ import annotations

import contextlib
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import imageio_ffmpeg
import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, ImageSequence

from phenaki_jax.errors import UserError, reason_of

VIDEO_SUFFIXES = (".mp4", ".webm", ".mov", ".mkv", ".avi")
PICTURE_SUFFIXES = (".gif", ".png", ".jpg", ".jpeg")

_DAMAGED = (OSError, RuntimeError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)

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
      UserError: the file is not there, cannot be read, holds no frame, or has a suffix that is not known.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in (*VIDEO_SUFFIXES, *PICTURE_SUFFIXES):
        expected = ", ".join((*VIDEO_SUFFIXES, *PICTURE_SUFFIXES))
        raise UserError(
            f"{path}: found suffix {suffix!r}, expected one of {expected}; convert the file to one of these"
        )
    if not path.is_file():
        raise UserError(f"{path}: found no file, expected a video or a picture; check the path")
    with contextlib.ExitStack() as opened:
        with _told_damaged(path):
            opener = _open_with_ffmpeg if suffix in VIDEO_SUFFIXES else _open_with_pillow
            frames, fps = opened.enter_context(opener(path))
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
    except _DAMAGED as error:
        raise UserError(
            f"{path} cannot be read ({reason_of(error)}): expected a whole {path.suffix.lower()} file; make it again"
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
    # With -xerror the first damaged packet ends it, where it would leave frames out.
    reading = ["-nostats", "-xerror", "-i", str(path), "-f", "image2pipe", "-c:v", "ppm", "-"]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), *reading]
    # To a file, as nobody reads a pipe of messages while frames are read; a process group of its own: Ctrl-C is for us.
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said, process_group=0
        )
        try:
            frames = _frames_of(process, said)
            first = next(frames)
            rate = re.search(r"([\d.]+) (?:fps|tbr)", _text(said))
            yield _with_first(first, frames), float(rate[1]) if rate else None
        finally:
            process.kill()
            process.communicate()


def _frames_of(process: subprocess.Popen[bytes], said: IO[bytes]) -> Iterator[np.ndarray]:
    pipe: Any = process.stdout
    count = 0
    while header := pipe.readline() + pipe.readline() + pipe.readline():
        size = re.fullmatch(rb"P6\s(\d+)\s(\d+)\s255\s", header)
        if size is None:
            break
        width, height = map(int, size.groups())
        pixels = pipe.read(height * width * 3)
        if len(pixels) < height * width * 3:
            break
        count += 1
        yield np.frombuffer(pixels, np.uint8).reshape(height, width, 3)
    if process.wait() or not count:
        last = (_text(said).strip().splitlines() or ["it holds no frame"])[-1]
        raise ValueError(re.sub(r"\[[^]]* @ 0x\w+\] ", "", last))


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def _with_first(first: np.ndarray, others: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    yield first
    yield from others


@contextlib.contextmanager
def _open_with_pillow(path: Path) -> Iterator[tuple[Iterator[np.ndarray], float | None]]:
    with Image.open(path) as image:
        # What else a camera puts into a JPEG, such as a preview, is no second frame.
        animated = image.format in ("GIF", "PNG")
        milliseconds = (
            [frame.info.get("duration") or 100 for frame in ImageSequence.Iterator(image)] if animated else []
        )
        if len(milliseconds) < 2:
            image.seek(0)
            image.load()
            yield iter([_rgb(image)]), None
            return
        # Where frames are alike, a GIF holds one of them and shows it for longer.
        shortest = min(milliseconds)
        repeats = [round(duration / shortest) for duration in milliseconds]
        frames = zip(ImageSequence.Iterator(image), repeats, strict=True)
        yield (rgb for frame, count in frames for rgb in [_rgb(frame)] * count), 1000 / shortest


def _rgb(image: Image.Image) -> np.ndarray:
    return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
