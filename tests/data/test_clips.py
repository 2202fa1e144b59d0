"""Clips as they are stored: each once, in one order, with windows and wordings by the seed."""

import itertools
import pathlib
import shutil

import numpy as np
import pytest

from phenaki_jax.data.clips import count_clips, fingerprint_of_split, read_clips
from phenaki_jax.data.moving_shapes import world
from phenaki_jax.data.moving_shapes.examples import example_scene
from phenaki_jax.errors import UserError

from .conftest import SmallDataset

TASK = "moving_shapes_openings"


def test_each_clip_is_read_once_in_one_order(dataset: SmallDataset) -> None:
    """A window shows one segment of its scene from its first frame or the one after, and its text tells of that."""
    clips = list(read_clips(TASK, "test", 11, 5, dataset.data_dir))
    assert len(clips) == dataset.test_videos.count
    places = []
    for number in range(dataset.test_videos.count):
        scene = example_scene(dataset.test_videos, number)
        frames = world.render(scene, 32)
        for index, segment in enumerate(scene.segments):
            for start in (index * world.SEGMENT_FRAMES, index * world.SEGMENT_FRAMES + 1):
                window = frames[start : start + 11]
                places += [
                    place
                    for place, clip in enumerate(clips)
                    if clip.text in world.captions(segment) and np.array_equal(clip.video, window)
                ]
    assert sorted(set(places)) == [*range(len(clips))]
    again, other = (list(itertools.islice(read_clips(TASK, "test", 11, seed, dataset.data_dir), 8)) for seed in (5, 6))
    assert [clip.text for clip in again] == [clip.text for clip in clips[:8]] != [clip.text for clip in other]
    np.testing.assert_array_equal(again[7].video, clips[7].video)


def test_clips_of_damaged_files_are_not_counted(dataset: SmallDataset, tmp_path: pathlib.Path) -> None:
    data_dir = shutil.copytree(dataset.data_dir, tmp_path / "data")
    for file in data_dir.rglob("*test.tfrecord-*"):
        file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"the test examples of moving_shapes_openings cannot be counted \(.*; copy or"):
        count_clips(TASK, "test", data_dir)


def test_a_split_is_told_from_others(dataset: SmallDataset) -> None:
    train, test = (fingerprint_of_split(TASK, split, dataset.data_dir) for split in ("train", "test"))
    assert len(test) == 16
    assert train != test


def test_what_has_no_clips_is_refused(dataset: SmallDataset) -> None:
    with pytest.raises(UserError, match="found split 'val', expected one of test, train, of moving_shapes_openings"):
        fingerprint_of_split(TASK, "val", dataset.data_dir)
    with pytest.raises(UserError, match="found the mixture moving_shapes_joint, expected a task"):
        next(read_clips("moving_shapes_joint", "test", 11, 0, dataset.data_dir))
    with pytest.raises(UserError, match="found no test files in"):
        next(read_clips(TASK, "test", 11, 0, dataset.data_dir / "nowhere"))
    with pytest.raises(UserError, match=r"found mixture 'nothing', expected one of"):
        next(read_clips("nothing", "test", 11, 0, dataset.data_dir))
