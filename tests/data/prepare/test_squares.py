"""Squares are upright, of square pixels, in the colours that were meant, and of all the pixels of a frame."""

import pathlib

import numpy as np
import pytest
from PIL import Image

from phenaki_jax.data.prepare.frames import open_frames, sampled
from phenaki_jax.data.prepare.moments import Moments
from phenaki_jax.data.prepare.sources import Place
from tests.data.prepare.files import H264, VP9, decode, ffmpeg, make_image, make_video, psnr


def first_frame(path: pathlib.Path) -> tuple[np.ndarray, tuple[int, int]]:
    """A video's first square, and the height and width that are shown."""
    with open_frames(Place.whole(path), 32, Moments(8.0)) as opened:
        return next(sampled(opened.shown, Moments(8.0))), (opened.height, opened.width)


@pytest.mark.parametrize("flips", [(), ("-display_hflip",), ("-display_vflip",)])
@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_videos_are_turned_as_ffmpeg_turns_them(tmp_path: pathlib.Path, degrees: int, flips: tuple[str, ...]) -> None:
    make_image(tmp_path / "a.png", size=(96, 64))
    ffmpeg("-i", tmp_path / "a.png", *H264, tmp_path / "a.mp4")
    ffmpeg("-display_rotation", degrees, *flips, "-i", tmp_path / "a.mp4", "-c", "copy", tmp_path / "b.mp4")
    found, size = first_frame(tmp_path / "b.mp4")
    assert size == ((96, 64) if degrees % 180 else (64, 96))
    [expected] = decode(tmp_path / "b.mp4", "crop=64:64,scale=32:32:flags=area+full_chroma_int", 32, 32)
    assert psnr(found, expected) > 35


def test_pixels_that_are_not_square_are_made_so(tmp_path: pathlib.Path) -> None:
    make_video(tmp_path / "a.mp4", size="48x64", filters="setsar=2")
    assert first_frame(tmp_path / "a.mp4")[1] == (64, 96)


@pytest.mark.parametrize("matrix", ["bt709", "smpte170m"])
@pytest.mark.parametrize("colour_range", ["tv", "pc"])
@pytest.mark.parametrize("coded", [(*H264[:4], "-crf", 2), (*VP9[:6], "-crf", 2, "-b:v", 0)], ids=["h264", "vp9"])
def test_colours_are_those_that_were_encoded(
    tmp_path: pathlib.Path, matrix: str, colour_range: str, coded: tuple[str | int, ...]
) -> None:
    colours = np.array(
        [[200, 30, 30], [30, 200, 30], [30, 30, 200], [250, 250, 250], [5, 5, 5], [128, 128, 128]], np.uint8
    )
    Image.fromarray(colours.reshape(2, 3, 3).repeat(32, 0).repeat(32, 1)).save(tmp_path / "a.png")
    as_said = f"scale=out_color_matrix={matrix}:out_range={colour_range}:flags=accurate_rnd,format=yuv444p"
    said = ("-colorspace", matrix, "-color_range", colour_range)
    ffmpeg("-i", tmp_path / "a.png", "-vf", as_said, *coded, *said, tmp_path / "a.mkv")
    found, size = first_frame(tmp_path / "a.mkv")
    assert size == (64, 96)
    # The middle of 48 x 32 pixels.
    patches = found[[8, 24]][:, [2, 16, 29]].reshape(6, 3)
    assert np.abs(patches.astype(int) - colours).max() <= 3


def test_every_pixel_counts(tmp_path: pathlib.Path) -> None:
    """Of stripes one pixel wide the mean is left."""
    stripes = "geq=lum='16+219*mod(X,2)':cb=128:cr=128"
    make_video(tmp_path / "a.mp4", "color", size="64x64", coded=(*H264, "-qp", "0"), filters=stripes)
    assert np.abs(first_frame(tmp_path / "a.mp4")[0].astype(int) - 128).max() <= 2
