"""Sources are cut where their pictures are, whatever says when these are shown, and show that they are alive."""

import io
import pathlib
from collections.abc import Callable

import numpy as np
from PIL import Image

from phenaki_jax.data.prepare.clips import Clips, Task, cut_source
from phenaki_jax.data.prepare.settings import PrepareSettings
from phenaki_jax.data.prepare.sources import Place
from tests.data.prepare.files import H264, ffmpeg, make_numbered, numbers_of

SETTINGS = PrepareSettings(size=32, frames=5, fps=8.0)


def cut(
    path: pathlib.Path, start: float = 0.0, alive: Callable[[], None] = lambda: None
) -> tuple[Clips, list[np.ndarray]]:
    """The clips, and all frames."""
    spool = path.with_suffix(".frames")
    clips = cut_source(Task(0, Place.whole(path), start, -1.0), SETTINGS, spool, alive=alive)
    data = io.BytesIO(spool.read_bytes())
    return clips, [np.asarray(Image.open(io.BytesIO(data.read(size)))) for size in clips.sizes]


def test_a_video_whose_times_are_not_in_order_is_cut_by_the_order_of_its_frames(tmp_path: pathlib.Path) -> None:
    reordered = (*H264, "-bf", "3", "-b_strategy", "0")
    make_numbered(tmp_path / "right.mp4", rate=24, seconds=2, coded=reordered)
    ffmpeg("-i", tmp_path / "right.mp4", "-c", "copy", "-bsf:v", "setts=ts=512*N", tmp_path / "wrong.mp4")
    clips, frames = cut(tmp_path / "wrong.mp4")
    assert numbers_of(np.stack(frames)) == list(range(0, 48, 3))
    assert clips == cut(tmp_path / "right.mp4")[0]._replace(digest=clips.digest)


def test_an_animation_of_few_pictures_a_second_is_one_scene(tmp_path: pathlib.Path) -> None:
    """Two pictures a second, each far from the one before; of the frames each is four."""
    pictures = [Image.new("RGB", (40, 40), (40 * index, 255 - 40 * index, 0)) for index in range(6)]
    pictures[0].save(tmp_path / "a.gif", save_all=True, append_images=pictures[1:], duration=500)
    clips, frames = cut(tmp_path / "a.gif")
    assert len(frames) == 24
    assert (clips.scenes, clips.starts) == (1, (0, 5, 10, 15))


def test_slides_that_stand_as_long_as_a_clip_are_scenes(tmp_path: pathlib.Path) -> None:
    pictures = [Image.new("RGB", (40, 40), (80 * index, 255 - 80 * index, 0)) for index in range(3)]
    pictures[0].save(tmp_path / "a.gif", save_all=True, append_images=pictures[1:], duration=1000)
    clips, _ = cut(tmp_path / "a.gif")
    assert (clips.scenes, clips.starts) == (3, (0, 8, 16))


def test_a_source_is_alive_with_each_frame_that_is_decoded(tmp_path: pathlib.Path) -> None:
    """Also before the first that is taken: what is late in a long video is no source that hangs."""
    path = make_numbered(tmp_path / "a.avi", rate=24, seconds=3, coded=("-c:v", "mpeg4", "-g", "100"))
    signs: list[int] = []
    _, frames = cut(path, start=2.0, alive=lambda: signs.append(1))
    assert len(frames) == 8
    assert len(signs) >= 72
