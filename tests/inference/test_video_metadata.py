"""A video file tells how it was made, in every format, whatever the prompts are."""

import dataclasses
import pathlib
import shutil

import numpy as np
import pytest

from phenaki_jax.inference.video_files import VideoWriter, write_video
from phenaki_jax.inference.video_metadata import Making, read_making
from phenaki_jax.inference.video_reader import read_video

MAKING = Making(
    prompts=("a = b; # c \\ d\n[e]", "ein Bär, 赤い円, 'x' \"y\""),
    seed=7,
    model="model",
    fingerprint="c187b26bfb14e7e1",
    sampling={"steps": 2, "guidance": 2.0},
    phenaki_jax="0.1.0",
)
FRAMES = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)


@pytest.mark.parametrize(("name", "growing"), [("a.mp4", False), ("a.mp4", True), ("a.gif", False), ("a.png", False)])
def test_what_is_told_is_read_back(tmp_path: pathlib.Path, name: str, growing: bool) -> None:
    with VideoWriter(tmp_path / name, 8.0, growing=growing, making=MAKING) as writer:
        writer.append(FRAMES)
    told = dataclasses.asdict(MAKING)
    assert read_making(tmp_path / name) == told | {"prompts": list(MAKING.prompts)}
    assert read_video(tmp_path / name)[0].shape[-1] == 3
    if name == "a.mp4":
        shutil.copy(tmp_path / name, tmp_path / "a.m4v")
        assert read_making(tmp_path / "a.m4v") == read_making(tmp_path / name)


@pytest.mark.parametrize("name", ["a.mp4", "a.gif"])
def test_a_story_may_be_longer_than_an_argument(tmp_path: pathlib.Path, name: str) -> None:
    """200 000 bytes, where Linux takes 131 072."""
    making = dataclasses.replace(MAKING, prompts=("a red circle moves. " * 10_000,))
    with VideoWriter(tmp_path / name, 8.0, making=making) as writer:
        writer.append(FRAMES)
    found = read_making(tmp_path / name)
    assert found is not None
    assert tuple(found["prompts"]) == making.prompts


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a.png"])
def test_a_video_of_others_tells_nothing(tmp_path: pathlib.Path, name: str) -> None:
    write_video(tmp_path / name, FRAMES, 8.0)
    assert read_making(tmp_path / name) is None
    (tmp_path / name).write_bytes(b"no video")
    assert read_making(tmp_path / name) is None
