"""Frames are those that are shown when asked for: upright, of square pixels, on white, as ffmpeg decodes them."""

import io
import math
import pathlib
import tarfile

import numpy as np
import pytest
from PIL import Image

from phenaki_jax.data.prepare.frames import open_frames, sampled
from phenaki_jax.data.prepare.moments import Moments
from phenaki_jax.data.prepare.pictures import encode_jpeg
from phenaki_jax.data.prepare.sources import Place
from phenaki_jax.errors import UserError
from tests.data.prepare.files import H264, VP9, decode, ffmpeg, make_image, make_video

B_FRAMES = (*H264, "-bf", "3", "-b_strategy", "0")


def frames_of(place: pathlib.Path | Place, size: int = 32, moments: Moments | None = None) -> np.ndarray:
    place = place if isinstance(place, Place) else Place.whole(place)
    moments = moments or Moments(8.0)
    with open_frames(place, size, moments) as opened:
        return np.stack(list(sampled(opened.shown, moments)))


def shown_size(path: pathlib.Path) -> tuple[int, int]:
    with open_frames(Place.whole(path), 32, Moments(8.0)) as opened:
        return opened.height, opened.width


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    return 10 * math.log10(255**2 / max(np.square(first.astype(float) - second).mean(), 1e-9))


def jpeg_psnr(frames: np.ndarray, quality: int) -> float:
    """What JPEG alone costs."""
    coded = [np.asarray(Image.open(io.BytesIO(encode_jpeg(Image.fromarray(frame), quality)))) for frame in frames]
    return psnr(frames, np.stack(coded))


@pytest.mark.parametrize(
    ("name", "size", "rate", "coded"),
    [
        ("plain.mp4", "96x64", 8, H264),
        ("fast.mp4", "96x64", 30, B_FRAMES),
        ("vp9.webm", "80x64", 25, VP9),
        ("odd.mkv", "67x51", 24, (*H264[:-1], "yuv444p")),
        ("moving.gif", "96x64", 20, ()),
    ],
)
def test_frames_are_those_of_ffmpeg_within_the_error_of_jpeg(
    tmp_path: pathlib.Path, name: str, size: str, rate: int, coded: tuple[str, ...]
) -> None:
    path = make_video(
        tmp_path / name, "mandelbrot" if coded else "testsrc", size=size, rate=rate, seconds=2, coded=coded
    )
    found = frames_of(path)
    width, height = map(int, size.split("x"))
    wide = round(width * 32 / height)
    # Up: the picture that begins at a moment or before it, and not after.
    scaled = f"fps=8:round=up,scale={wide}:32:flags=area+full_chroma_int"
    left = (wide - 32) // 2
    expected = decode(path, scaled, wide, 32)[:, :, left : left + 32]
    assert len(found) == len(expected) == 16
    assert psnr(found, expected) > jpeg_psnr(expected, 95)


def test_what_is_left_undecoded_changes_nothing(tmp_path: pathlib.Path) -> None:
    """Of 30 frames a second 4 are taken; those that others are decoded from are decoded too."""
    path = make_video(tmp_path / "a.mp4", rate=30, coded=B_FRAMES)
    every = frames_of(path, moments=Moments(30.0))
    np.testing.assert_array_equal(
        frames_of(path, moments=Moments(4.0)), every[[round(7.5 * k - 0.01) for k in range(12)]]
    )


def test_a_part_is_as_in_the_whole(tmp_path: pathlib.Path) -> None:
    path = make_video(tmp_path / "a.mp4", rate=8, seconds=4, coded=(*B_FRAMES, "-g", "8"))
    whole = frames_of(path)
    np.testing.assert_array_equal(frames_of(path, moments=Moments(8.0, 2.25, 3.5)), whole[18:28])
    np.testing.assert_array_equal(frames_of(path, moments=Moments(4.0, 1.0, math.inf)), whole[8::2])


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_videos_are_turned_upright(tmp_path: pathlib.Path, degrees: int) -> None:
    make_video(tmp_path / "a.mp4", size="64x48")
    ffmpeg("-display_rotation", degrees, "-i", tmp_path / "a.mp4", "-c", "copy", tmp_path / "b.mp4")
    assert shown_size(tmp_path / "b.mp4") == ((64, 48) if degrees % 180 else (48, 64))
    turned = ffmpeg("-i", tmp_path / "b.mp4", "-frames:v", 1, "-f", "image2pipe", "-c:v", "png", "-")
    upright = Image.open(io.BytesIO(turned))
    assert upright.size == ((48, 64) if degrees % 180 else (64, 48))
    found = frames_of(tmp_path / "b.mp4")[0].astype(int)
    middle = upright.crop((0, 8, 48, 56)) if degrees % 180 else upright.crop((8, 0, 56, 48))
    expected = np.asarray(middle.convert("RGB").resize((32, 32), Image.Resampling.BOX), int)
    errors = [np.abs(found - np.rot90(expected, quarters)).mean() for quarters in range(4)]
    assert errors[0] < 20 < 2 * errors[0] < min(errors[1:])


def test_pixels_that_are_not_square_are_made_so(tmp_path: pathlib.Path) -> None:
    make_video(tmp_path / "a.mp4", size="48x64", filters="setsar=2")
    assert shown_size(tmp_path / "a.mp4") == (64, 96)


def test_uneven_frames_are_taken_by_their_times(tmp_path: pathlib.Path) -> None:
    """Grey rises by 10 with each picture; pictures 0, 1, 2 and 12 of 24 a second are kept."""
    grey = "geq=lum='20+10*N':cb=128:cr=128"
    uneven = f"{grey},select='lt(n,3)+eq(n,12)'"
    make_video(tmp_path / "a.mkv", rate=24, seconds=1, filters=uneven, coded=(*H264, "-fps_mode", "vfr"))
    found = frames_of(tmp_path / "a.mkv", moments=Moments(12.0))[:, 16, 16].mean(-1)
    steps = np.diff(found).round(-1).tolist()
    # At 0, 2, 4, ... of 24: picture 0, then 2 until 12.
    assert steps[:5] == [20, 0, 0, 0, 0]
    assert max(steps) == steps[5] > 100


def test_transparency_is_white(tmp_path: pathlib.Path) -> None:
    pictures = [Image.new("RGBA", (40, 40), (255, 0, 0, 0)) for _ in range(3)]
    for index, picture in enumerate(pictures):
        picture.paste((0, 0, 200, 255), (0, 0, 20, 20 + index))
    first, *others = pictures
    first.save(tmp_path / "a.gif", save_all=True, append_images=others, duration=125, disposal=2)
    first.save(tmp_path / "a.png")
    for path in (tmp_path / "a.gif", tmp_path / "a.png"):
        frame = frames_of(path)[0].astype(int)
        assert np.abs(frame[-4:, -4:] - 255).max() <= 2
        assert np.abs(frame[4, 4] - [0, 0, 200]).max() <= 8


def test_pictures_are_turned_upright_and_resized_over_all_their_pixels(tmp_path: pathlib.Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    make_image(tmp_path / "a.jpg", size=(120, 80), exif=exif, quality=98)
    assert shown_size(tmp_path / "a.jpg") == (120, 80)
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[::2] = 255
    Image.fromarray(stripes).save(tmp_path / "b.png")
    assert frames_of(tmp_path / "b.png").shape == (1, 32, 32, 3)
    assert np.abs(frames_of(tmp_path / "b.png").astype(int) - 128).max() <= 1


def test_an_animated_webp_is_a_video(tmp_path: pathlib.Path) -> None:
    first, *others = (Image.new("RGB", (40, 40), (value, 0, 0)) for value in (0, 100, 200))
    first.save(tmp_path / "a.webp", save_all=True, append_images=others, duration=250, lossless=True)
    assert frames_of(tmp_path / "a.webp")[:, 16, 16, 0].tolist() == [0, 0, 100, 100, 200, 200]


def test_members_of_a_tar_are_as_files(tmp_path: pathlib.Path) -> None:
    names = ["a.mp4", "b.gif", "c.jpg"]
    make_video(tmp_path / "a.mp4")
    make_video(tmp_path / "b.gif", "testsrc", coded=())
    make_image(tmp_path / "c.jpg")
    with tarfile.open(tmp_path / "all.tar", "w") as archive:
        for name in names:
            archive.add(tmp_path / name, name)
    with tarfile.open(tmp_path / "all.tar") as archive:
        for member in archive:
            place = Place(str(tmp_path / "all.tar"), member.offset_data, member.size, pathlib.Path(member.name).suffix)
            np.testing.assert_array_equal(frames_of(place), frames_of(tmp_path / member.name))


def test_a_video_that_is_cut_off_is_refused_where_it_ends(tmp_path: pathlib.Path) -> None:
    path = make_video(tmp_path / "a.mkv", seconds=4)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=r"is cut off: its frames end at \d\.\d\d s of 4\.00 s|is damaged"):
        frames_of(path)


@pytest.mark.parametrize("rate", [8, 24, 25, 29.97, 30, 60])
def test_no_frame_is_taken_twice_or_left_out_where_containers_round_times(tmp_path: pathlib.Path, rate: float) -> None:
    grey = "geq=lum='16+mod(37*N,200)':cb=128:cr=128"
    path = make_video(tmp_path / "a.webm", rate=rate, seconds=1, coded=VP9, filters=grey)
    found = frames_of(path, moments=Moments(float(rate)))[:, 16, 16].mean(-1) * 219 / 255
    assert len(found) == math.ceil(rate)
    assert np.abs(found - 37 * np.arange(len(found)) % 200).max() < 10
