"""Windows of the datasets that TFDS has: which frames, of what size, with which words."""

import collections
import pathlib
from typing import Any

import numpy as np
import pytest

from phenaki_jax.data.published.catalog import CATALOG, PublishedDataset, TfdsLayout
from phenaki_jax.data.published.tasks import tfds_task
from phenaki_jax.data.sources import data_dir_of_seqio, provider_of
from phenaki_jax.data.tensorflow_stack import tfds
from phenaki_jax.errors import UserError
from tests.data.published.files import write_bair, write_coco, write_moving_mnist, write_ucf101


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """With all datasets that TFDS has."""
    folder = tmp_path_factory.mktemp("tfds")
    for write in (write_bair, write_ucf101, write_moving_mnist, write_coco):
        write(folder)
    return folder


def read(name: str, data_dir: pathlib.Path, *, frames: int = 5, split: str = "train", epochs: int = 1) -> list[Any]:
    with data_dir_of_seqio(data_dir):
        task = provider_of(name, data_dir)
        dataset = task.get_dataset({"video": frames, "prefix_frames": 1}, split, seed=0, num_epochs=epochs)
        return list(tfds.as_numpy(dataset))


def levels(video: np.ndarray) -> list[int]:
    """Of frames of one grey, how many times 8."""
    assert (np.ptp(video.astype(int), axis=(1, 2, 3)) <= 2).all()
    return [round(frame.mean() / 8) for frame in video]


def test_bair_windows_are_successive_frames_of_one_camera_of_which_the_first_is_given(data_dir: pathlib.Path) -> None:
    starts = collections.Counter()
    for each in read("bair_robot_pushing_video_text", data_dir, frames=17, epochs=30):
        assert each["video"].shape == (17, 64, 64, 3)
        start = levels(each["video"])[0]
        assert levels(each["video"]) == list(range(start, start + 17))
        assert (each["text"], each["prefix_frames"].tolist()) == (b"", [1])
        starts[start] += 1
    # Each of 14 places, of 90 windows.
    assert set(starts) == set(range(14))
    with pytest.raises(UserError, match=r"windows of 31 frames, expected at most 30, those of a video of bair_robot"):
        read("bair_robot_pushing_video_text", data_dir, frames=31)


def test_ucf101_is_the_middle_of_the_frames_with_the_words_of_the_class(data_dir: pathlib.Path) -> None:
    by_text = {each["text"].decode(): each for each in read("ucf101_video_text_16", data_dir)}
    assert set(by_text) == {"apply eye makeup", "apply lipstick"}
    for each in by_text.values():
        assert each["video"].shape == (5, 16, 16, 3)
        # No red of the edges.
        found = levels(each["video"])
        assert found == list(range(found[0], found[0] + 5))
        assert each["prefix_frames"].tolist() == [0]
    assert read("ucf101_video_text", data_dir, split="test")[0]["video"].shape == (5, 128, 128, 3)


def test_a_video_that_is_too_short_ends_with_its_last_frame(data_dir: pathlib.Path) -> None:
    [short] = [each for each in read("ucf101_video_text_16", data_dir, frames=9) if each["text"] == b"apply lipstick"]
    assert levels(short["video"]) == [0, 1, 2, 3, 4, 5, 5, 5, 5]


def test_a_window_of_fewer_frames_a_second_skips_frames(data_dir: pathlib.Path) -> None:
    layout = CATALOG["ucf101"].tfds
    assert layout is not None
    slower = PublishedDataset("ucf101", fps=10.0, given=0, tfds=layout)
    with data_dir_of_seqio(data_dir):
        dataset = tfds_task(slower, "slower", 16).get_dataset({"video": 5, "prefix_frames": 1}, "test", seed=1)
        [each] = tfds.as_numpy(dataset)
    # At 0, 2.5, 5, 7.5 and 10 frames of 25 a second, rounded up.
    assert [level - levels(each["video"])[0] for level in levels(each["video"])] == [0, 3, 5, 8, 10]


def test_moving_mnist_holds_out_every_tenth_video(data_dir: pathlib.Path) -> None:
    name = "moving_mnist_video_text"
    kept = {
        split: sorted(levels(each["video"])[0] for each in read(name, data_dir, split=split))
        for split in ("train", "test")
    }
    assert kept == {"train": [index for index in range(20) if index % 10 != 9], "test": [9, 19]}
    [each, *_] = read(name, data_dir, frames=17)
    assert each["video"].shape == (17, 64, 64, 3)


def test_coco_images_have_one_frame_and_one_of_their_captions(data_dir: pathlib.Path) -> None:
    train = read("coco_captions_image_text_32", data_dir, epochs=20)
    assert {each["video"].shape for each in train} == {(1, 32, 32, 3)}
    assert {tuple(levels(each["video"])) for each in train} == {(5,)}
    assert {each["text"].decode() for each in train} == {
        f"{split} {k}" for split in ("train", "restval") for k in (0, 1)
    }
    assert {
        each["text"].decode() for each in read("coco_captions_image_text_64", data_dir, split="test", epochs=20)
    } == {
        "test 0",
        "test 1",
    }


@pytest.mark.parametrize("name", [each.task for each in CATALOG.values() if each.tfds])
def test_an_absent_dataset_is_told_with_the_command_that_gets_it(name: str, tmp_path: pathlib.Path) -> None:
    expected = rf"found no (\S+) in {tmp_path}, .* get it with: tfds build \1 --data_dir {tmp_path}$"
    with pytest.raises(UserError, match=expected):
        read(name, tmp_path)
    assert not list(tmp_path.iterdir())


def test_layouts_are_those_of_tfds() -> None:
    """What is read by name is a feature of the builder that TFDS has today."""
    for dataset in CATALOG.values():
        if dataset.tfds is not None:
            check_layout(dataset.tfds)


def check_layout(layout: TfdsLayout) -> None:
    features = tfds.builder(layout.path, data_dir="nowhere").info.features
    for name in filter(None, (layout.frames, layout.text)):
        for part in name.split("/"):
            assert part in features
            features = features[part] if part in ("captions",) else features
