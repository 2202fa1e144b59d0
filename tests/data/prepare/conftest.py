"""One folder of files of every kind, good and bad, and the dataset that is prepared of it."""

import pathlib

import numpy as np
import pytest

from phenaki_jax.data.prepare.preparation import Prepared, prepare
from phenaki_jax.data.prepare.settings import PrepareSettings
from phenaki_jax.data.prepare.workers import WorkerSettings
from tests.data.prepare.files import H264, VP9, cut_off, ffmpeg, make_image, make_scenes, make_video

SETTINGS = PrepareSettings(size=32, frames=5, fps=8.0)
TWO_WORKERS = WorkerSettings(workers=2, time_limit=60.0, memory_limit=2**32)
# Of each good file the clips of 5 frames at 8 per second.
GOOD = {
    "h264.mp4": 4,
    "vp9.webm": 4,
    "moving.gif": 3,
    "odd.mp4": 4,
    "uneven.mkv": 4,
    "rotated.mov": 4,
    "sound.mp4": 4,
    "reordered.avi": 4,
    "xvid.avi": 4,
    "cut.mp4": 2,
    "still.png": 1,
    "photo.jpg": 1,
    "one_frame.gif": 1,
}
BAD = {
    "empty.mp4": "is empty (0 bytes)",
    "text.mp4": "cannot be decoded (Invalid data found when processing input)",
    "truncated.mp4": "cannot be decoded (Invalid data found when processing input)",
    "truncated_late.mp4": "is damaged or cut off: a part of a frame is absent",
    "truncated.gif": "is cut off: it has no end",
    "truncated.png": "cannot be decoded (",
    "one_frame.mp4": "is too short: found 1 frame at 8 frames per second, expected 5",
    "sound_alone.mp4": "has no video stream",
    "copy.mp4": "is the same as",
    "silent.mp4": "has no caption",
    "nobody.txt": "has captions, and no video or image of its name is beside it",
}


def make_folder(folder: pathlib.Path, turn: int = 0) -> pathlib.Path:
    """All files of `GOOD` and `BAD`, with their captions; other turns of the colours give other files."""

    def hue(degrees: int) -> str:
        return f"hue=h={degrees + turn}"

    fast = ("-movflags", "+faststart")
    make_video(folder / "h264.mp4", rate=24, filters=hue(0), coded=(*H264, "-bf", "2"))
    make_video(folder / "vp9.webm", coded=VP9, filters=hue(30))
    make_video(folder / "moving.gif", "testsrc", rate=10, seconds=2, coded=(), filters=hue(10))
    make_video(folder / "odd.mp4", "testsrc", filters=hue(0), size="67x51", coded=(*H264[:-1], "yuv444p"))
    make_video(
        folder / "uneven.mkv",
        rate=24,
        filters=f"{hue(60)},select='not(mod(n,3))+lt(n,20)'",
        coded=(*H264, "-fps_mode", "vfr"),
    )
    make_video(folder / "upright.mp4", filters=hue(90))
    ffmpeg("-display_rotation", 90, "-i", folder / "upright.mp4", "-c", "copy", folder / "rotated.mov")
    (folder / "upright.mp4").unlink()
    make_video(folder / "reordered.avi", rate=24, filters=hue(20), coded=(*H264, "-bf", "3", "-b_strategy", "0"))
    make_video(folder / "xvid.avi", rate=24, filters=hue(50), coded=("-c:v", "mpeg4", "-bf", "2", "-q:v", "3"))
    sound = ("-f", "lavfi", "-i", "sine=duration=4")
    ffmpeg("-i", folder / "h264.mp4", *sound, "-c:v", "copy", "-c:a", "aac", folder / "sound.mp4")
    ffmpeg(*sound, "-c:a", "aac", folder / "sound_alone.mp4")
    scenes = np.random.default_rng(turn).integers(0, 256, (2, 1, 1, 3)).repeat(48, 1).repeat(64, 2)
    make_scenes(folder / "cut.mp4", scenes, frames=7)
    for name in ("still.png", "photo.jpg"):
        make_image(folder / name, seed=1000 * turn + len(name))
    make_image(folder / "one_frame.gif", seed=1000 * turn + 3)
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("no video at all\n" * 100)
    make_video(folder / "truncated.mp4", filters=hue(120))
    cut_off(folder / "truncated.mp4", 0.7)
    make_video(folder / "truncated_late.mp4", filters=hue(150), coded=(*H264, *fast))
    cut_off(folder / "truncated_late.mp4", 0.6)
    make_video(folder / "truncated.gif", "testsrc", rate=10, seconds=2, coded=(), filters=hue(40))
    cut_off(folder / "truncated.gif", 0.6)
    make_image(folder / "truncated.png", seed=9, size=(200, 200))
    cut_off(folder / "truncated.png", 0.5)
    make_video(folder / "one_frame.mp4", seconds=0.125)
    make_video(folder / "silent.mp4", filters=hue(180))
    (folder / "copy.mp4").write_bytes((folder / "h264.mp4").read_bytes())
    for name in {*GOOD, *BAD} - {"silent.mp4", "nobody.txt"}:
        (folder / name).with_suffix(".txt").write_text(f"a caption of {pathlib.Path(name).stem}\nanother caption\n")
    (folder / "nobody.txt").write_text("a caption of nobody")
    return folder


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The folder, made once."""
    return make_folder(tmp_path_factory.mktemp("videos"))


@pytest.fixture(scope="session")
def prepared(folder: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """The dataset, prepared once."""
    return prepare([folder], tmp_path_factory.mktemp("data"), SETTINGS, TWO_WORKERS)
