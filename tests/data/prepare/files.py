"""Small videos and pictures of every kind, made by ffmpeg and Pillow."""

import math
import pathlib
import subprocess
from collections.abc import Sequence

import imageio_ffmpeg
import numpy as np
from PIL import Image

H264 = ("-c:v", "libx264", "-preset", "ultrafast", "-crf", "18", "-pix_fmt", "yuv420p")
VP9 = ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-pix_fmt", "yuv420p")


def ffmpeg(*arguments: object) -> bytes:
    """Runs ffmpeg; returns what it wrote to its output."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True).stdout


def make_video(
    path: pathlib.Path,
    picture: str = "testsrc2",
    *,
    size: str = "64x48",
    rate: float = 8,
    seconds: float = 3,
    coded: Sequence[str] = H264,
    filters: str = "null",
) -> pathlib.Path:
    """A video of one of ffmpeg's moving pictures."""
    source = f"{picture}=size={size}:rate={rate},trim=duration={seconds},{filters}"
    ffmpeg("-f", "lavfi", "-i", source, *coded, path)
    return path


def make_numbered(
    path: pathlib.Path, *, rate: float, seconds: float, coded: Sequence[str] = H264, filters: str = "null"
) -> pathlib.Path:
    """A video of 64 x 64 pixels whose frames tell their number: sixteenths in the left half, the rest in the right."""
    digits = "geq=lum='16+12*mod(floor(if(lt(X,32),N,N/16)),16)':cb=128:cr=128"
    return make_video(
        path, "color", size="64x64", rate=rate, seconds=seconds, coded=coded, filters=f"{digits},{filters}"
    )


def numbers_of(frames: np.ndarray) -> list[int]:
    """Of the frames of a numbered video, 32 x 32 pixels each."""
    levels = np.stack([frames[:, 8:24, at : at + 8].mean((1, 2, 3)) for at in (4, 20)], 1) * 219 / 255 / 12
    assert np.abs(levels - levels.round()).max() < 0.3
    return (levels.round() @ [1, 16]).astype(int).tolist()


def make_scenes(path: pathlib.Path, scenes: Sequence[np.ndarray], frames: int, rate: int = 8) -> pathlib.Path:
    """A video of still scenes, each for so many frames; a grain of noise moves, as nothing filmed is still."""
    rng = np.random.default_rng(0)
    still = np.concatenate([np.repeat(scene[None], frames, 0) for scene in scenes])
    noisy = np.clip(still + rng.integers(-4, 5, still.shape), 0, 255).astype(np.uint8)
    height, width = still.shape[1:3]
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(rate), "-i", "-"]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error", *raw, *H264, str(path)]
    subprocess.run(command, input=noisy.tobytes(), check=True, capture_output=True)
    return path


def make_image(path: pathlib.Path, seed: int = 0, size: tuple[int, int] = (60, 40), **options: object) -> pathlib.Path:
    """A picture of large patches of its own, whose width and height are `size`."""
    patches = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(patches).resize(size, Image.Resampling.BICUBIC).save(path, **options)
    return path


def cut_off(path: pathlib.Path, share: float) -> None:
    """Leaves the first share of a file."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    """In dB, of pixels up to 255."""
    return 10 * math.log10(255**2 / max(np.square(first.astype(float) - second).mean(), 1e-9))


def decode(path: pathlib.Path, filters: str, width: int, height: int) -> np.ndarray:
    """Frames uint8 [frames, height, width, 3] as ffmpeg alone decodes and filters them."""
    raw = ffmpeg("-i", path, "-vf", filters, "-f", "rawvideo", "-pix_fmt", "rgb24", "-")
    return np.frombuffer(raw, np.uint8).reshape(-1, height, width, 3)
