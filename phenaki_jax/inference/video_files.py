"""Videos fitted to a model, and written to files as frames come, complete or not at all."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import imageio_ffmpeg
import numpy as np
from jaxtyping import UInt8
from PIL import Image, PngImagePlugin

from phenaki_jax.errors import UserError
from phenaki_jax.files import check_output, told_unwritable, whole_file
from phenaki_jax.inference.video_metadata import PNG_COMMENT, Making
from phenaki_jax.layers.pixels import check_video
from phenaki_jax.tokenizer.config import CViViTConfig

OUTPUT_SUFFIXES = (".mp4", ".gif", ".png")

SMALLEST_SHOWN_SIDE = 256
"""Frames with a smaller side are scaled up to at least this when written, so that people can see them."""


def fit_frames(
    frames: UInt8[np.ndarray, "frames height width 3"], config: CViViTConfig
) -> UInt8[np.ndarray, "frames {config.frame_size} {config.frame_size} 3"]:
    """Crops frames to the square in their middle and resizes them to a model's frames.

    Args:
      frames: of any size.
      config: the tokenizer that is to read them.

    Raises:
      UserError: a length that is not 1 + k * temporal_patch; says which are possible.
    """
    config.times(len(frames))
    return square_frames(frames, config.frame_size)


def square_frames(
    frames: UInt8[np.ndarray, "frames height width 3"], side: int
) -> UInt8[np.ndarray, "frames {side} {side} 3"]:
    """Crops frames to the square in their middle and resizes them to this side."""
    _, height, width, _ = frames.shape
    shorter = min(height, width)
    top, left = (height - shorter) // 2, (width - shorter) // 2
    square = frames[:, top : top + shorter, left : left + shorter]
    if shorter == side:
        return square
    # The mean over a box gives back exactly what VideoWriter has scaled up.
    method = Image.Resampling.BOX if shorter > side else Image.Resampling.BICUBIC
    return np.stack([np.asarray(Image.fromarray(frame).resize((side, side), method)) for frame in square])


def film_strips(videos: UInt8[np.ndarray, "rows frames height width 3"]) -> UInt8[np.ndarray, "tall wide 3"]:
    """Videos below each other, the frames of each side by side."""
    rows, frames, height, width, channels = videos.shape
    return videos.transpose(0, 2, 1, 3, 4).reshape(rows * height, frames * width, channels)


def write_video(
    path: str | Path, frames: UInt8[np.ndarray, "frames height width 3"], fps: float, scale: int | None = None
) -> None:
    """Writes frames as a video (.mp4), an animation (.gif) or a film strip (.png); see `VideoWriter`."""
    with VideoWriter(path, fps, scale) as writer:
        writer.append(frames)


def check_fps(fps: float) -> None:
    """Refuses a rate that no video file can have; the delay of a GIF's frame is at most 655 seconds.

    Raises:
      UserError: says what was found and what is possible.
    """
    if not 0.01 <= fps <= 1000:
        raise UserError(f"found {fps:g} frames per second, expected 0.01 to 1000, such as --fps 8")


class VideoWriter:
    """A file that frames are appended to as they come; it appears when it is complete, or grows.

    An .mp4 is H.264, which wants even sides: the last row or column of odd ones is doubled. A .gif repeats forever and
    shows frames for whole hundredths of a second. A .png shows all frames side by side. The last two are held in memory
    until they are complete; write long stories to .mp4.

    Args:
      path: where to; the suffix says what.
      fps: frames per second.
      scale: each pixel becomes a square of this side; None for the smallest that brings frames to 256 pixels.
      growing: whether the file, an .mp4, is there from its first frames on and can be played while it grows; what ends
        the writing early then leaves all frames so far.
      making: how the video was made, which the file then tells, see `video_metadata.read_making`; None for nothing.

    Raises:
      UserError: see `phenaki_jax.files.check_output`; a file that cannot grow; on leaving, no frame was appended, or
        writing failed.
    """

    def __init__(
        self,
        path: str | Path,
        fps: float,
        scale: int | None = None,
        *,
        growing: bool = False,
        making: Making | None = None,
    ) -> None:
        self._path = check_output(path, OUTPUT_SUFFIXES)
        if growing and self._path.suffix.lower() != ".mp4":
            raise UserError(
                f"{path}: found {self._path.suffix} of a file that is to grow, expected .mp4; change the name"
            )
        self._growing, self._making = growing, making
        check_fps(fps)
        if scale is not None and scale < 1:
            raise UserError(f"found scale {scale}, expected at least 1")
        self._fps = fps
        self._scale = scale
        self._encoder: _Encoder | None = None
        self._file = contextlib.ExitStack()

    def __enter__(self) -> VideoWriter:
        self._unfinished = self._path if self._growing else self._file.enter_context(whole_file(self._path))
        return self

    def append(self, frames: UInt8[np.ndarray, "frames height width 3"]) -> None:
        """Adds frames; all of a file have one size.

        Raises:
          UserError: what is no video in uint8.
        """
        if not len(frames):
            return
        check_video("frames", frames, batched=False)
        scale = self._scale or -(-SMALLEST_SHOWN_SIDE // min(frames.shape[1:3]))
        frames = frames.repeat(scale, axis=1).repeat(scale, axis=2)
        if self._encoder is None:
            kind = _GrowingMp4 if self._growing else _ENCODERS[self._path.suffix.lower()]
            self._encoder = kind(self._unfinished, self._fps, self._making)
            self._file.callback(self._encoder.stop)
        with told_unwritable(self._path):
            self._encoder.append(frames)

    def __exit__(self, *error: Any) -> None:
        if error[0] is not None:
            # What stopped the writing is passed on as it is, whatever it was.
            with contextlib.suppress(UserError, OSError):
                if self._growing and self._encoder is not None:
                    self._encoder.finish()
            with contextlib.suppress(UserError):
                self._file.__exit__(*error)
            return
        with self._file:
            if self._encoder is None:
                raise UserError(f"{self._path}: found no frame to write, expected at least one")
            with told_unwritable(self._path):
                self._encoder.finish()


class _Encoder(Protocol):
    """One kind of file."""

    def append(self, frames: np.ndarray) -> None:
        """Takes frames."""

    def finish(self) -> None:
        """Completes the file; raises OSError where it could not be written."""

    def stop(self) -> None:
        """Lets go of everything, whether the file is complete or not."""


class _Mp4:
    """H.264 through a process of ffmpeg, which gets raw frames through a pipe."""

    options: tuple[str, ...] = ("-movflags", "+faststart")

    def __init__(self, path: Path, fps: float, making: Making | None) -> None:
        self._path, self._fps = path, fps
        self._process: subprocess.Popen[bytes] | None = None
        # A file, as a story's prompts may be longer than an argument.
        self._told = tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".txt")  # noqa: SIM115  (see `stop`)
        self._told.write(";FFMETADATA1\n" if making is None else making.ffmetadata)
        self._told.flush()

    def append(self, frames: np.ndarray) -> None:
        _, height, width, _ = frames.shape
        frames = np.pad(frames, [(0, 0), (0, height % 2), (0, width % 2), (0, 0)], mode="edge")
        if self._process is None:
            self._process = self._start(*frames.shape[1:3])
        try:
            self._process.stdin.write(np.ascontiguousarray(frames).data)  # type: ignore[union-attr]
        except BrokenPipeError:
            self.finish()

    def _start(self, height: int, width: int) -> subprocess.Popen[bytes]:
        raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", f"{self._fps:.6g}", "-i", "-"]
        told = ["-f", "ffmetadata", "-i", f"file:{self._told.name}", "-map", "0:v", "-map_metadata", "1"]
        coded = ["-c:v", "libx264", "-crf", "16", "-pix_fmt", "yuv420p", *self.options, f"file:{self._path}"]
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error", *raw, *told, *coded]
        # A process group of its own: Ctrl-C is for us, and we stop it.
        return subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, process_group=0)

    def finish(self) -> None:
        _, said = self._process.communicate()  # type: ignore[union-attr]
        if self._process.returncode:  # type: ignore[union-attr]
            lines = said.decode(errors="replace").strip().splitlines()
            raise OSError(lines[-1] if lines else "ffmpeg was stopped")

    def stop(self) -> None:
        self._told.close()
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.communicate()


class _GrowingMp4(_Mp4):
    """The same in fragments that can each be played, every frame written at once."""

    options = (
        *("-movflags", "+frag_every_frame+empty_moov+default_base_moof"),
        *("-flush_packets", "1", "-tune", "zerolatency"),
    )


class _Pictures:
    """Frames kept until the file is complete."""

    def __init__(self, path: Path, fps: float, making: Making | None) -> None:
        self._path, self._fps = path, fps
        self._comment = "" if making is None else making.comment
        self._frames: list[np.ndarray] = []

    def append(self, frames: np.ndarray) -> None:
        self._frames.extend(frames)

    def stop(self) -> None:
        self._frames.clear()


class _Gif(_Pictures):
    def finish(self) -> None:
        first, *others = (Image.fromarray(frame).quantize(dither=Image.Dither.NONE) for frame in self._frames)
        milliseconds = max(1, round(100 / self._fps)) * 10
        comment: dict[str, Any] = {"comment": self._comment.encode()} if self._comment else {}
        first.save(self._path, save_all=True, append_images=others, duration=milliseconds, loop=0, **comment)


class _FilmStrip(_Pictures):
    def finish(self) -> None:
        told = PngImagePlugin.PngInfo()
        if self._comment:
            told.add_itxt(PNG_COMMENT, self._comment)
        Image.fromarray(film_strips(np.stack(self._frames)[None])).save(self._path, pnginfo=told)


_ENCODERS: dict[str, Callable[[Path, float, Making | None], _Encoder]] = {
    ".mp4": _Mp4,
    ".gif": _Gif,
    ".png": _FilmStrip,
}
