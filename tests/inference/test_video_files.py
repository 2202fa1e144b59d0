"""Files give back the frames written to them, and are complete or not there."""

import os
import pathlib
import subprocess
import sys
import tempfile
import time

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from phenaki_jax.errors import UserError
from phenaki_jax.files import check_output
from phenaki_jax.inference import video_files, video_reader
from phenaki_jax.inference.video_files import OUTPUT_SUFFIXES, VideoWriter, fit_frames, write_video
from phenaki_jax.inference.video_reader import read_video
from phenaki_jax.tokenizer.config import CViViTConfig

CONFIG = CViViTConfig(frames=5, frame_size=32)


def moving_square(frames: int = 5, height: int = 32, width: int = 32) -> np.ndarray:
    """A red square on green that moves by 4 pixels from frame to frame."""
    video = np.zeros((frames, height, width, 3), np.uint8)
    video[...] = (30, 160, 60)
    for index, frame in enumerate(video):
        frame[8:16, 4 * index : 4 * index + 8] = (220, 40, 40)
    return video


@pytest.mark.parametrize(("suffix", "tolerance"), [(".mp4", 4), (".gif", 0)])
def test_a_video_is_read_as_it_was_written(tmp_path: pathlib.Path, suffix: str, tolerance: float) -> None:
    file = tmp_path / f"clip{suffix}"
    write_video(file, moving_square(), fps=10.0, scale=2)
    frames, fps = read_video(file)
    assert frames.shape == (5, 64, 64, 3)
    assert fps == 10
    difference = np.abs(frames.astype(int) - moving_square().repeat(2, axis=1).repeat(2, axis=2))
    assert difference.mean() <= tolerance
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_a_growing_file_is_whole_at_any_moment(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "clip.mp4"
    file.write_bytes(b"an older file")
    with VideoWriter(file, fps=8.0, growing=True) as writer:
        # How long a frame is shown is known with the next one.
        for count in (4, 9):
            writer.append(moving_square(5))
            deadline = time.monotonic() + 60
            while _frames_so_far(file) < count:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        assert [path.name for path in tmp_path.iterdir()] == [file.name]
    frames, _ = read_video(file)
    assert np.abs(frames[5:, ::8, ::8].astype(int) - moving_square()).mean() < 4


def _frames_so_far(file: pathlib.Path) -> int:
    try:
        return len(read_video(file)[0])
    except UserError:  # no frame is there yet
        return 0


def test_a_growing_file_that_is_interrupted_keeps_its_frames(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "clip.mp4"
    writer = VideoWriter(file, fps=8.0, growing=True).__enter__()
    writer.append(moving_square(5))
    writer.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert len(read_video(file)[0]) == 5


def test_an_animation_does_not_grow(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match=r"found .gif of a file that is to grow, expected .mp4"):
        VideoWriter(tmp_path / "clip.gif", fps=8.0, growing=True)


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_a_name_may_have_a_colon(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    monkeypatch.chdir(tmp_path)
    write_video(f"12:30{suffix}", moving_square(), fps=10.0)
    assert len(read_video(f"12:30{suffix}")[0]) == 5
    assert [path.name for path in tmp_path.iterdir()] == [f"12:30{suffix}"]


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_frames_that_rest_are_all_there(tmp_path: pathlib.Path, suffix: str) -> None:
    video = moving_square(3)[[0, 0, 0, 1, 1, 2]]
    write_video(tmp_path / f"clip{suffix}", video, fps=8.0, scale=1)
    frames, _ = read_video(tmp_path / f"clip{suffix}")
    assert frames.shape == video.shape
    assert np.abs(frames.astype(int) - video).mean() < 4


def test_a_png_shows_frames_side_by_side(tmp_path: pathlib.Path) -> None:
    write_video(tmp_path / "strip.png", moving_square(), fps=8.0, scale=1)
    (strip,), fps = read_video(tmp_path / "strip.png")
    assert fps is None
    np.testing.assert_array_equal(strip, np.concatenate(list(moving_square()), axis=1))


def test_odd_sides_are_made_even_for_mp4(tmp_path: pathlib.Path) -> None:
    write_video(tmp_path / "clip.mp4", moving_square(height=33, width=31), fps=8.0, scale=1)
    assert read_video(tmp_path / "clip.mp4")[0].shape == (5, 34, 32, 3)


@pytest.mark.parametrize(("side", "shown"), [(32, 256), (100, 300), (256, 256), (300, 300)])
def test_small_frames_are_written_large(tmp_path: pathlib.Path, side: int, shown: int) -> None:
    write_video(tmp_path / "clip.gif", moving_square(2, side, side), fps=8.0)
    assert read_video(tmp_path / "clip.gif")[0].shape == (2, shown, shown, 3)


def test_what_was_written_large_fits_back_exactly(tmp_path: pathlib.Path) -> None:
    write_video(tmp_path / "clip.gif", moving_square(), fps=8.0)
    np.testing.assert_array_equal(fit_frames(read_video(tmp_path / "clip.gif")[0], CONFIG), moving_square())


def test_fitting_takes_the_square_in_the_middle() -> None:
    frames = np.zeros((1, 64, 128, 3), np.uint8)
    frames[:, :, 32:96] = 200
    np.testing.assert_array_equal(fit_frames(frames, CONFIG), np.full((1, 32, 32, 3), 200, np.uint8))


def test_lengths_that_tokens_do_not_cover_do_not_fit() -> None:
    with pytest.raises(UserError, match="3 or 5"):
        fit_frames(moving_square(4), CONFIG)


def test_frames_are_appended_as_they_come(tmp_path: pathlib.Path) -> None:
    """The file is not there until it is complete."""
    file = tmp_path / "clip.mp4"
    with VideoWriter(file, fps=8.0) as writer:
        for frame in moving_square():
            writer.append(frame[None])
        assert not file.exists()
    assert len(read_video(file)[0]) == 5


@pytest.mark.parametrize("suffix", video_files.OUTPUT_SUFFIXES)
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, OSError])
def test_an_interrupted_file_is_not_there(tmp_path: pathlib.Path, suffix: str, error: type[BaseException]) -> None:
    """Neither a half file nor a temporary one, and an older one stays; the error is passed on as it is."""
    file = tmp_path / f"clip{suffix}"
    file.write_bytes(b"older")

    def write() -> None:
        with VideoWriter(file, fps=8.0) as writer:
            writer.append(moving_square())
            raise error

    with pytest.raises(error):
        write()
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"older"]


@pytest.mark.parametrize("suffix", video_files.OUTPUT_SUFFIXES)
def test_a_full_disk_is_told_and_nothing_stays(tmp_path: pathlib.Path, suffix: str) -> None:
    """Files of this process may have 2 kB, which ends writing as a full disk does."""
    file = tmp_path / f"clip{suffix}"
    program = (
        "import resource, numpy\n"
        "from phenaki_jax.inference.video_files import write_video\n"
        "from phenaki_jax.errors import UserError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
        "noise = numpy.random.default_rng(0).integers(0, 256, (40, 64, 64, 3), dtype=numpy.uint8)\n"
        f"try: write_video({str(file)!r}, noise, 8.0)\n"
        "except UserError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-B", "-c", program], capture_output=True, text=True, check=True)
    assert str(file) in done.stdout
    assert "cannot be written" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["clip.mp4", "clip.gif", "picture.png", "picture.jpg"])
@pytest.mark.parametrize("content", [b"", b"hello" * 100])
def test_damaged_files_are_refused(tmp_path: pathlib.Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name} cannot be read") as error:
        read_video(tmp_path / name)
    assert "\n" not in str(error.value)


@pytest.mark.usefixtures("unchecked")
def test_floats_are_no_frames_of_a_file(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match=r"frames: found float32 in 0\.\.0, expected uint8"):
        write_video(tmp_path / "clip.gif", np.zeros((3, 32, 32, 3), np.float32), 8.0)
    assert list(tmp_path.iterdir()) == []


def test_cut_off_pictures_are_refused(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "picture.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(file)
    file.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(UserError, match="truncated"):
        read_video(file)


def test_a_video_of_which_the_end_is_missing_is_refused(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "clip.mp4"
    write_video(file, np.random.default_rng(0).integers(0, 256, (20, 64, 64, 3), dtype=np.uint8), 8.0)
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 2 // 3])
    message = (
        r"clip.mp4 cannot be read \(it is damaged or cut off after 1\d frames of about 20\): expected a whole .mp4"
    )
    with pytest.raises(UserError, match=message):
        read_video(file)


@pytest.mark.parametrize("suffix", ["mkv", "webm", "mov", "avi"])
def test_a_video_of_others_of_which_the_end_is_missing_is_refused(tmp_path: pathlib.Path, suffix: str) -> None:
    """ffmpeg itself takes a .mkv or .webm that is cut off for a shorter one; a .mov ends in its list of frames."""
    file = tmp_path / f"clip.{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (20, 64, 64, 3), dtype=np.uint8)
    write_video(tmp_path / "clip.mp4", noise, 8.0, scale=1)
    codec = ["-c:v", "libvpx"] if suffix == "webm" else []
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", tmp_path / "clip.mp4", *codec, file]
    subprocess.run(command, check=True, capture_output=True)
    assert len(read_video(file)[0]) == 20
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    reason = (
        "its list of frames is not there" if suffix == "mov" else r"damaged or cut off after \d+ frames of about \d+"
    )
    with pytest.raises(UserError, match=rf"clip.{suffix} cannot be read \(.*{reason}"):
        read_video(file)


def test_words_of_a_file_are_no_words_of_ffmpeg(tmp_path: pathlib.Path) -> None:
    """Such as those by which it tells that one is cut off."""
    write_video(tmp_path / "clip.mp4", np.zeros((20, 64, 64, 3), np.uint8), 8.0)
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", tmp_path / "clip.mp4", "-metadata"]
    subprocess.run([*command, "comment=File ended prematurely", tmp_path / "clip.mkv"], check=True, capture_output=True)
    assert len(read_video(tmp_path / "clip.mkv")[0]) == 20


def test_of_a_video_with_sound_it_is_not_told_how_many_frames_there_were(tmp_path: pathlib.Path) -> None:
    """The file lasts as long as the sound."""
    file = tmp_path / "clip.mkv"
    inputs = ["-f", "lavfi", "-i", "testsrc=duration=1:rate=8", "-f", "lavfi", "-i", "sine=duration=9"]
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), *inputs, file], check=True, capture_output=True)
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 9 // 10])
    with pytest.raises(UserError, match=r"cannot be read \(it is damaged or cut off after 8 frames\): expected"):
        read_video(file)


def test_sound_alone_is_no_video(tmp_path: pathlib.Path) -> None:
    sound = ["-f", "lavfi", "-i", "sine=duration=1", str(tmp_path / "clip.mp4")]
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), *sound], check=True, capture_output=True)
    with pytest.raises(UserError, match=r"cannot be read \(it holds no video, such as sound alone\)"):
        read_video(tmp_path / "clip.mp4")


def test_an_animation_cut_off_within_a_picture_or_its_header_is_refused(tmp_path: pathlib.Path) -> None:
    """Wherever; between two pictures it is a shorter animation."""
    file = tmp_path / "clip.gif"
    write_video(file, np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8), 8.0, scale=1)
    whole = file.read_bytes()
    told = set()
    for length in range(1, len(whole) - 20, 3):
        file.write_bytes(whole[:length])
        try:
            assert len(read_video(file)[0]) < 3
        except UserError as error:
            told.add(str(error).removeprefix(str(file)))
    assert " cannot be read (it is damaged or cut off): expected a whole .gif file" in "".join(told)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.mp4", "found no file, expected the file of a video"),
        ("none.txt", "found no file, expected the file of a video"),
        ("folder.mp4", "found a folder, expected the file of a video"),
        ("clip.txt", "found suffix '.txt'"),
        ("text.png", r"cannot be read \(it holds something else\): expected a whole .png file with a picture in it"),
        ("empty.mp4", "cannot be read .the file is empty.: expected a whole .mp4 file"),
    ],
)
def test_files_that_are_no_videos_are_refused(tmp_path: pathlib.Path, name: str, message: str) -> None:
    (tmp_path / "folder.mp4").mkdir()
    for each in ("clip.txt", "text.png"):
        (tmp_path / each).write_text("a text")
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(UserError, match=message):
        read_video(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "message"),
    [("clip.avi", "suffix '.avi'"), ("none/clip.mp4", "found no folder"), ("folder.gif", "found a folder")],
)
def test_outputs_that_cannot_be_are_refused_early(tmp_path: pathlib.Path, name: str, message: str) -> None:
    (tmp_path / "folder.gif").mkdir()
    with pytest.raises(UserError, match=message):
        check_output(tmp_path / name, OUTPUT_SUFFIXES)


def test_a_file_without_frames_is_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match="no frame"):
        write_video(tmp_path / "clip.mp4", moving_square()[:0], fps=8.0)
    assert list(tmp_path.iterdir()) == []


def test_a_preview_in_a_photo_is_no_second_frame(tmp_path: pathlib.Path) -> None:
    photo, preview = (Image.fromarray(moving_square(1, side, side)[0]) for side in (64, 32))
    photo.save(tmp_path / "photo.jpg", format="MPO", save_all=True, append_images=[preview])
    frames, fps = read_video(tmp_path / "photo.jpg")
    assert frames.shape == (1, 64, 64, 3)
    assert fps is None


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ten bits.mp4", ["-c:v", "libx264", "-pix_fmt", "yuv420p10le"]),
        ("twelve bits.mkv", ["-c:v", "ffv1", "-pix_fmt", "gbrp12le"]),
        ("titled.mp4", ["-metadata", "title=Run at 240 fps"]),
        ("as Apple names it.m4v", []),
        ("titled.mkv", ["-metadata", "title=Stream #0:0: Video: ppm, 240 fps"]),
    ],
)
def test_videos_that_others_write_are_read(tmp_path: pathlib.Path, name: str, options: list[str]) -> None:
    write_video(tmp_path / "clip.mp4", moving_square(), fps=10.0, scale=1)
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", tmp_path / "clip.mp4", *options, tmp_path / name]
    subprocess.run(command, check=True, capture_output=True)
    frames, fps = read_video(tmp_path / name)
    assert frames.shape == (5, 32, 32, 3)
    assert fps == 10
    assert np.abs(frames.astype(int) - moving_square()).mean() < 4


def test_a_thousand_frames_a_second_are_told(tmp_path: pathlib.Path) -> None:
    write_video(tmp_path / "clip.mp4", moving_square(), fps=1000.0, scale=1)
    assert read_video(tmp_path / "clip.mp4")[1] == 1000


def test_what_ffmpeg_should_not_write_is_not_waited_for(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program in the place of ffmpeg writes the header of a picture of 16 bits, and does not end."""
    program = tmp_path / "ffmpeg"
    program.write_text("#!/bin/sh\nprintf 'P6\\n32 32\\n65535\\n'\nexec sleep 10\n")
    program.chmod(0o755)
    (tmp_path / "clip.mp4").write_text("anything")
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(program))
    with pytest.raises(UserError, match=r"clip.mp4 cannot be read .*65535"):
        read_video(tmp_path / "clip.mp4")


def test_looking_at_what_ffmpeg_says_moves_not_where_it_writes() -> None:
    with tempfile.TemporaryFile() as said:
        os.pwrite(said.fileno(), b"all of it", 0)
        os.lseek(said.fileno(), 3, os.SEEK_SET)
        assert video_reader._text(said) == "all of it"
        assert os.lseek(said.fileno(), 0, os.SEEK_CUR) == 3


@pytest.mark.parametrize("suffix", ["gif", "webp"])
@pytest.mark.parametrize(
    ("milliseconds", "repeats", "fps"),
    [
        ([100, 150, 100], [2, 3, 2], 20),
        ([120, 120, 120], [1, 1, 1], 1000 / 120),
        ([20, 20, 40], [1, 1, 2], 50),
        # Times 100, 230, 360 and 490 where a frame has 100: at steps of 10 there would be 49 frames.
        ([100, 130, 130, 130], [1, 1, 2, 1], 10),
    ],
)
def test_frames_of_an_animation_rest_as_long_as_they_are_shown(
    tmp_path: pathlib.Path, suffix: str, milliseconds: list[int], repeats: list[int], fps: float
) -> None:
    video = moving_square(len(milliseconds))
    first, *others = map(Image.fromarray, video)
    file = tmp_path / f"clip.{suffix}"
    lossless = {"lossless": True} if suffix == "webp" else {}
    first.save(file, save_all=True, append_images=others, duration=milliseconds, **lossless)
    frames, found = read_video(file)
    assert found == pytest.approx(fps)
    np.testing.assert_array_equal(frames, video.repeat(repeats, axis=0))


def test_grey_of_16_bits_keeps_its_shades(tmp_path: pathlib.Path) -> None:
    shades = np.array([[0, 1, 100, 255]])
    Image.fromarray((shades * 257).astype(np.uint16)).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_video(tmp_path / "grey.png")[0], shades[None, ..., None].repeat(3, axis=-1))
