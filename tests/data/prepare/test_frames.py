"""Frames are those that are shown when asked for: upright, of square pixels, on white, as ffmpeg decodes them."""

import pathlib
import tarfile

import numpy as np
import pytest
from PIL import Image

from phenaki_jax.data.prepare.frames import open_frames, sampled
from phenaki_jax.data.prepare.moments import Moments
from phenaki_jax.data.prepare.sources import Place
from phenaki_jax.errors import UserError
from tests.data.prepare.files import H264, VP9, decode, make_image, make_video, psnr

B_FRAMES = (*H264, "-bf", "3", "-b_strategy", "0")


def frames_of(place: pathlib.Path | Place, size: int = 32, moments: Moments | None = None) -> np.ndarray:
    place = place if isinstance(place, Place) else Place.whole(place)
    moments = moments or Moments(8.0)
    with open_frames(place, size, moments) as opened:
        return np.stack(list(sampled(opened.shown, moments)))


def shown_size(path: pathlib.Path) -> tuple[int, int]:
    with open_frames(Place.whole(path), 32, Moments(8.0)) as opened:
        return opened.height, opened.width


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
def test_frames_are_those_of_ffmpeg(
    tmp_path: pathlib.Path, name: str, size: str, rate: int, coded: tuple[str, ...]
) -> None:
    """Smooth ones, of which JPEG leaves about 40 dB."""
    path = make_video(tmp_path / name, "gradients", size=size, rate=rate, seconds=2, coded=coded)
    found = frames_of(path)
    width, height = map(int, size.split("x"))
    wide = round(width * 32 / height)
    # Up: the picture that begins at a moment or before it, and not after.
    scaled = f"fps=8:round=up,scale={wide}:32:flags=area+full_chroma_int"
    left = (wide - 32) // 2
    expected = decode(path, scaled, wide, 32)[:, :, left : left + 32]
    assert len(found) == len(expected) == 16
    assert psnr(found, expected) > 40


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


def test_the_size_of_a_large_photo_is_its_own(tmp_path: pathlib.Path) -> None:
    """Also where it is decoded at an eighth of it."""
    path = make_image(tmp_path / "a.jpg", size=(400, 600))
    assert shown_size(path) == (600, 400)
    expected = Image.open(path).crop((0, 100, 400, 500)).resize((32, 32), Image.Resampling.BOX)
    assert psnr(frames_of(path)[0], np.asarray(expected)) > 35


def test_a_photo_that_holds_a_smaller_one_is_an_image(tmp_path: pathlib.Path) -> None:
    first, second = (Image.new("RGB", size, "blue") for size in ((80, 40), (40, 40)))
    first.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[second])
    with open_frames(Place.whole(tmp_path / "a.jpg"), 32, Moments(8.0)) as opened:
        assert (opened.is_image, opened.height, opened.width) == (True, 40, 80)
        assert len(list(opened.shown)) == 1


def test_a_huge_picture_is_taken_without_a_warning(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
    assert frames_of(make_image(tmp_path / "a.png", size=(60, 40))).shape == (1, 32, 32, 3)
    with pytest.raises(UserError, match=r"cannot be decoded \(Image size \(8000 pixels\)"):
        frames_of(make_image(tmp_path / "b.png", size=(100, 80)))


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
