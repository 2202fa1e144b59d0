"""What a worker makes of one source, and what it says where there is nothing to be made of it."""

import pathlib

import pytest

from phenaki_jax.data.prepare.clips import Clips, Task, cut_source
from phenaki_jax.data.prepare.settings import PrepareSettings
from phenaki_jax.data.prepare.sources import Place
from phenaki_jax.errors import UserError
from tests.data.prepare.files import make_image, make_video

SETTINGS = PrepareSettings(size=16, frames=3)


def cut(path: pathlib.Path, start: float = 0.0) -> Clips:
    return cut_source(Task(0, Place.whole(path), start, -1.0), SETTINGS, path.with_suffix(".frames"))


def test_files_that_differ_in_their_middle_alone_are_no_copies(tmp_path: pathlib.Path) -> None:
    first = make_video(tmp_path / "a.avi", size="720x480", seconds=0.5, coded=("-c:v", "rawvideo", "-pix_fmt", "bgr24"))
    data = bytearray(first.read_bytes())
    assert len(data) > 3 * 2**20
    middle = len(data) // 2
    data[middle : middle + 1000] = bytes(1000)
    second, copy = tmp_path / "b.avi", tmp_path / "c.avi"
    second.write_bytes(data)
    copy.write_bytes(first.read_bytes())
    assert cut(first).digest == cut(copy).digest != cut(second).digest


def test_a_part_that_begins_after_the_end_is_told(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match=r"^is over before: found nothing at 5 s, expected an earlier start"):
        cut(make_video(tmp_path / "a.mp4", seconds=1), start=5.0)
    with pytest.raises(UserError, match=r"^is one picture: found nothing at 2 s, expected an earlier start"):
        cut(make_image(tmp_path / "a.png"), start=2.0)


def test_the_reason_of_what_is_no_image_is_the_same_for_each(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.png").write_text("no image at all")
    with pytest.raises(UserError, match=r"^cannot be decoded \(it begins as no kind of image does\)$"):
        cut(tmp_path / "a.png")
