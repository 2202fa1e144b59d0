"""The dataset on disk: whole or absent, the same for the same seed, and never taken for another."""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from phenaki_jax.data.moving_shapes import examples, world
from phenaki_jax.data.moving_shapes.builder import MovingShapes, prepare
from phenaki_jax.data.tensorflow_stack import tfds
from phenaki_jax.errors import UserError
from tests.data.conftest import SmallDataset

FEW = {"size": 32, "train_videos": 6, "test_videos": 2, "train_images": 3, "test_images": 2}


def contents(folder: pathlib.Path) -> dict[str, bytes]:
    """Every file under a folder by its relative path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("kind", ["video", "image"])
def test_examples_are_read_back_with_their_truth(dataset: SmallDataset, kind: str, split: str) -> None:
    name = f"{'test_' if split == 'test' else ''}{kind}s"
    written = getattr(dataset, name)
    builder = tfds.builder(f"moving_shapes/{kind}_32", data_dir=dataset.data_dir)
    read = list(tfds.as_numpy(builder.as_dataset(split=split)))
    assert sorted(example["index"] for example in read) == list(range(written.count))
    for example in read[:5]:
        scene = examples.example_scene(written, int(example["index"]))
        np.testing.assert_array_equal(example["frames"], world.render(scene, 32))
        assert example["captions"].tolist() == [
            [wording.encode() for wording in world.captions(segment)] for segment in scene.segments
        ]
        assert example["motion"].tolist() == [segment.motion.encode() for segment in scene.segments]


def test_same_seed_gives_the_same_files_and_another_seed_others(tmp_path: pathlib.Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        prepare(tmp_path / name, seed=seed, **FEW)
    first, same, other = (
        {path: data for path, data in contents(tmp_path / name).items() if "tfrecord" in path} for name in "abc"
    )
    assert first
    assert first == same
    assert all(first[path] != other[path] for path in first if "video" in path)


def test_what_is_there_is_left_alone(tmp_path: pathlib.Path) -> None:
    prepare(tmp_path, **FEW)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("1.0.0/*")}
    prepare(tmp_path, **FEW)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("1.0.0/*")} == before


@pytest.mark.parametrize("other", [{"train_videos": 7}, {"test_images": 1}, {"seed": 1}], ids=str)
def test_a_dataset_of_other_numbers_is_not_taken_for_the_one_asked_for(dataset: SmallDataset, other: dict) -> None:
    numbers = {
        "train_videos": dataset.videos.count,
        "test_videos": dataset.test_videos.count,
        "train_images": dataset.images.count,
        "test_images": dataset.test_images.count,
        "seed": dataset.videos.seed,
    }
    with pytest.raises(UserError, match=r"found a dataset of .*, expected .*: delete that folder") as error:
        prepare(dataset.data_dir, size=32, **{**numbers, **other})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["SPEED", "GROWTH_RATE", "BOUNCE_HEIGHTS", "COLOR_CHANGE_FRAMES", "RADII"])
def test_a_dataset_of_another_world_is_not_taken_for_one_of_this(
    dataset: SmallDataset, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """As when the world was changed after the dataset was made."""
    monkeypatch.setattr(world, name, np.asarray(getattr(world, name)) * 0.99)
    with pytest.raises(UserError, match="fingerprint="):
        MovingShapes(config="video_32", data_dir=dataset.data_dir, train_examples=dataset.videos.count)


def test_numbers_that_are_not_asked_for_are_those_found(dataset: SmallDataset) -> None:
    builder = MovingShapes(config="video_32", data_dir=dataset.data_dir)
    assert builder.info.metadata["train_examples"] == dataset.videos.count
    assert builder.info.splits["train"].num_examples == dataset.videos.count


@pytest.mark.parametrize(
    ("wrong", "message"), [({"size": 48}, "size 48, expected one of 32, 64"), ({"test_images": 0}, "found 0 examples")]
)
def test_impossible_numbers_are_refused_before_anything_is_written(
    tmp_path: pathlib.Path, wrong: dict, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        prepare(tmp_path, **{**FEW, **wrong})
    assert not any(tmp_path.iterdir())


def test_preparation_says_nothing_where_stderr_is_no_terminal(
    tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]
) -> None:
    prepare(tmp_path, **FEW)
    assert capfd.readouterr() == ("", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["moving_shapes"]


def test_an_interrupted_preparation_leaves_nothing_and_the_next_one_succeeds(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = examples.generate_examples

    def interrupted(example_set: examples.ExampleSet) -> Iterator[dict[str, Any]]:
        yield from list(whole(example_set))[:1]
        raise KeyboardInterrupt

    monkeypatch.setattr(examples, "generate_examples", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path, **FEW)
    monkeypatch.undo()
    assert not any(path.is_dir() for path in (tmp_path / "moving_shapes" / "video_32").iterdir())
    prepare(tmp_path, **FEW)
    assert MovingShapes(config="video_32", data_dir=tmp_path).info.splits["train"].num_examples == 6


def test_remains_of_a_killed_preparation_are_removed(tmp_path: pathlib.Path) -> None:
    remains = tmp_path / "moving_shapes" / "video_32" / "incomplete.ABCDEF_1.0.0"
    remains.mkdir(parents=True)
    (remains / "half").write_text("written")
    prepare(tmp_path, **FEW)
    assert [path.name for path in remains.parent.iterdir()] == ["1.0.0"]


def processes_of_group(group: int) -> list[int]:
    """Running processes of a process group, from /proc."""
    members = []
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, member_of = stat.read_text().rpartition(")")[2].split()[:3]
            if int(member_of) == group and state != "Z":
                members.append(int(stat.parent.name))
    return members


def wait_until(condition: Any, seconds: float = 90.0) -> None:
    """Returns when the condition holds, and fails when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.skipif(not pathlib.Path("/proc").exists(), reason="finds the processes in /proc")
def test_a_killed_preparation_leaves_no_dataset_and_no_processes(tmp_path: pathlib.Path) -> None:
    program = (
        "from phenaki_jax.data.moving_shapes.builder import prepare\n"
        "if __name__ == '__main__':\n"
        f"    prepare({str(tmp_path)!r}, size=32, train_videos=100_000)\n"
    )
    killed = subprocess.Popen([sys.executable, "-c", program], start_new_session=True)
    configuration = tmp_path / "moving_shapes" / "video_32"
    try:
        wait_until(lambda: configuration.exists() and any(configuration.iterdir()))
        processes = 3 if len(os.sched_getaffinity(0)) > 1 else 1
        wait_until(lambda: len(processes_of_group(killed.pid)) >= processes)
    finally:
        os.kill(killed.pid, signal.SIGKILL)
        killed.wait()
    assert not (configuration / "1.0.0").exists()
    wait_until(lambda: not processes_of_group(killed.pid))
    prepare(tmp_path, **FEW)
    assert [path.name for path in configuration.iterdir()] == ["1.0.0"]
