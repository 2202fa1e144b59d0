"""Batches on a mesh: their shapes and shares, the order they come in, and resuming exactly where they stopped."""

import errno
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from phenaki_jax.data import tasks
from phenaki_jax.data.feed import Feed, make_feed
from phenaki_jax.data.position import Order
from phenaki_jax.data.tensorflow_stack import seqio, tf
from phenaki_jax.errors import UserError
from tests.data.conftest import SmallDataset

AXES = ("replica", "data", "model")


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    return jax.make_mesh((1, 2, 2), AXES)


def feed_of(dataset: SmallDataset, mesh: Mesh, **options: Any) -> Feed:
    settings = {
        "mixture": "moving_shapes_joint",
        "split": "train",
        "batch_size": 8,
        "frames": 11,
        "text_length": 48,
        "converter": "transformer",
        "seed": 0,
        "sharding": NamedSharding(mesh, PartitionSpec(("replica", "data"))),
        "data_dir": dataset.data_dir,
    }
    return make_feed(**{**settings, **options})


def take(feed: Feed, batches: int) -> list[dict[str, np.ndarray]]:
    return [jax.tree.map(np.asarray, next(feed)) for _ in range(batches)]


def assert_equal(first: list[dict[str, np.ndarray]], second: list[dict[str, np.ndarray]]) -> None:
    jax.tree.map(np.testing.assert_array_equal, first, second)


def test_transformer_batches_have_the_contracts_features(dataset: SmallDataset, mesh: Mesh) -> None:
    feed = feed_of(dataset, mesh)
    batch = next(feed)
    assert {name: (array.shape, array.dtype) for name, array in batch.items()} == {
        "video": ((8, 11, 32, 32, 3), np.uint8),
        "frame_mask": ((8, 11), np.bool_),
        "text_tokens": ((8, 48), np.int32),
        "text_mask": ((8, 48), np.bool_),
        "prefix_frames": ((8,), np.int32),
    }
    for name, spec in feed.batch_spec.items():
        array = batch[name]
        assert (spec.shape, spec.dtype, spec.sharding) == (array.shape, array.dtype, array.sharding)


def test_tokenizer_batches_have_videos_and_their_mask_alone(dataset: SmallDataset, mesh: Mesh) -> None:
    batch = next(feed_of(dataset, mesh, converter="tokenizer"))
    assert {name: array.shape for name, array in batch.items()} == {"video": (8, 11, 32, 32, 3), "frame_mask": (8, 11)}


def test_a_truncated_file_is_told_in_one_line(dataset: SmallDataset, mesh: Mesh, tmp_path: pathlib.Path) -> None:
    shutil.copytree(dataset.data_dir, tmp_path / "copy")
    for file in tmp_path.rglob("*.tfrecord-*"):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(UserError, match="the train examples of moving_shapes_joint cannot be read") as caught:
        take(feed_of(dataset, mesh, data_dir=tmp_path / "copy"), 20)
    assert "\n" not in str(caught.value)


def test_batches_are_divided_over_replica_and_data_and_copied_over_model(dataset: SmallDataset, mesh: Mesh) -> None:
    video = next(feed_of(dataset, mesh))["video"]
    assert video.sharding.spec == PartitionSpec(("replica", "data"))
    whole = np.asarray(video)
    pieces = {shard.device: np.asarray(shard.data) for shard in video.addressable_shards}
    for (_, row, _), device in np.ndenumerate(mesh.devices):
        np.testing.assert_array_equal(pieces[device], whole[4 * row : 4 * row + 4])


def test_images_are_told_from_videos_by_their_mask(dataset: SmallDataset, mesh: Mesh) -> None:
    masks = np.concatenate([batch["frame_mask"].sum(1) for batch in take(feed_of(dataset, mesh), 60)])
    assert set(masks) == {1, 11}
    assert 0.12 < np.mean(masks == 1) < 0.28


def test_images_and_clips_of_all_lengths_share_a_batch(dataset: SmallDataset, mesh: Mesh) -> None:
    batches = take(feed_of(dataset, mesh, mixture="moving_shapes_joint_any_length", batch_size=32), 4)
    for batch in batches:
        lengths = batch["frame_mask"].sum(1)
        assert {1, 3, 11} < set(lengths) <= {1, 3, 5, 7, 9, 11}
        assert not batch["video"][~batch["frame_mask"]].any()
        assert (batch["frame_mask"] == (np.arange(11) < lengths[:, None])).all()
        assert (batch["prefix_frames"] < lengths).all()


def test_seed_decides_the_batches(dataset: SmallDataset, mesh: Mesh) -> None:
    first, same, other = (take(feed_of(dataset, mesh, seed=seed), 3) for seed in (4, 4, 5))
    assert_equal(first, same)
    assert any((a["video"] != b["video"]).any() for a, b in zip(first, other, strict=True))


def test_a_feed_that_does_not_repeat_ends_after_its_last_full_batch(dataset: SmallDataset, mesh: Mesh) -> None:
    feed = feed_of(dataset, mesh, mixture="moving_shapes_video_text", split="test", repeat=False, shuffle=False)
    assert len(list(feed)) == dataset.test_videos.count // 8


def test_a_mixture_made_to_measure_is_taken_too(dataset: SmallDataset, mesh: Mesh) -> None:
    feed = feed_of(dataset, mesh, mixture=tasks.joint_mixture(video_rate=1.0, prefix_probability=1.0, prefix_frames=3))
    assert all((batch["prefix_frames"] == 3).all() for batch in take(feed, 3))


@pytest.mark.parametrize("before", [0, 1, 7, 40])
def test_a_restored_feed_goes_on_with_the_very_batches(
    dataset: SmallDataset, mesh: Mesh, tmp_path: pathlib.Path, before: int
) -> None:
    """An epoch of the videos is 11 batches and one of the images 50: positions within and across epochs."""
    feed = feed_of(dataset, mesh)
    take(feed, before)
    feed.save(tmp_path)
    expected = take(feed, 30)
    resumed = feed_of(dataset, mesh)
    resumed.restore(tmp_path)
    assert_equal(take(resumed, 30), expected)


def test_saving_does_not_disturb_and_replaces_what_was_saved(
    dataset: SmallDataset, mesh: Mesh, tmp_path: pathlib.Path
) -> None:
    undisturbed = take(feed_of(dataset, mesh), 6)
    feed = feed_of(dataset, mesh)
    for batch in undisturbed[:4]:
        feed.save(tmp_path)
        assert_equal(take(feed, 1), [batch])
    resumed = feed_of(dataset, mesh)
    resumed.restore(tmp_path)
    assert_equal(take(resumed, 3), undisturbed[3:])
    assert [path.name for path in tmp_path.iterdir()] == ["share_0_of_1"]


def test_a_position_that_cannot_be_written_leaves_nothing(
    dataset: SmallDataset, mesh: Mesh, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    feed = feed_of(dataset, mesh)
    monkeypatch.setattr(json, "dumps", full)
    with pytest.raises(OSError, match="No space left"):
        feed.save(tmp_path / "20")
    assert list(tmp_path.iterdir()) == []


def test_a_feed_resumes_on_other_devices(dataset: SmallDataset, mesh: Mesh, tmp_path: pathlib.Path) -> None:
    feed = feed_of(dataset, mesh)
    take(feed, 2)
    feed.save(tmp_path)
    resumed = feed_of(dataset, jax.make_mesh((1, 1, 1), AXES, devices=jax.devices()[:1]))
    resumed.restore(tmp_path)
    assert_equal(take(resumed, 2), take(feed, 2))


OTHER_PROCESS = """
import sys
import jax, numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from phenaki_jax.data.feed import make_feed
data_dir, position, out = sys.argv[1:]
mesh = jax.make_mesh((1, 2, 2), ("replica", "data", "model"))
feed = make_feed(
    mixture="moving_shapes_joint", split="train", batch_size=8, frames=11, text_length=48, converter="transformer",
    seed=0, sharding=NamedSharding(mesh, PartitionSpec(("replica", "data"))), data_dir=data_dir,
)
feed.restore(position)
batches = [next(feed) for _ in range(15)]
np.savez(out, **{f"{index}/{name}": array for index, batch in enumerate(batches) for name, array in batch.items()})
"""


def test_a_new_process_goes_on_with_the_very_batches(dataset: SmallDataset, mesh: Mesh, tmp_path: pathlib.Path) -> None:
    feed = feed_of(dataset, mesh)
    take(feed, 9)
    feed.save(tmp_path / "position")
    command = [sys.executable, "-c", OTHER_PROCESS, dataset.data_dir, tmp_path / "position", tmp_path / "batches.npz"]
    finished = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, "", "")
    resumed = np.load(tmp_path / "batches.npz")
    for index, batch in enumerate(take(feed, 15)):
        assert_equal([batch], [{name: resumed[f"{index}/{name}"] for name in batch}])


ONE_OF_TWO_PROCESSES = """
import sys, json
import jax, numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec
from phenaki_jax.data.feed import make_feed
port, index, data_dir, shape = sys.argv[1], int(sys.argv[2]), sys.argv[3], json.loads(sys.argv[4])
jax.distributed.initialize(f"localhost:{port}", 2, index)
mesh = jax.make_mesh(shape, ("replica", "data", "model"))
feed = make_feed(
    mixture="moving_shapes_video_text", split="test", batch_size=4, frames=11, text_length=48, converter="transformer",
    seed=0, sharding=NamedSharding(mesh, PartitionSpec(("replica", "data"))), data_dir=data_dir, shuffle=False,
    repeat=False,
)
batches = [multihost_utils.process_allgather(next(feed)["video"], tiled=True) for _ in range(5)]
feed.save(sys.argv[5])
multihost_utils.sync_global_devices("saved")
following = multihost_utils.process_allgather(next(feed)["video"], tiled=True)
feed.restore(sys.argv[5])
resumed = multihost_utils.process_allgather(next(feed)["video"], tiled=True)
np.testing.assert_array_equal(following, resumed)
if index == 0:
    np.save(sys.argv[6], np.concatenate([*batches, following]))
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


@pytest.mark.slow
@pytest.mark.parametrize(("shape", "shares"), [((2, 2, 1), 2), ((1, 2, 2), 2), ((1, 1, 4), 1)])
def test_two_processes_share_the_batches_or_load_the_same_ones(
    dataset: SmallDataset, mesh: Mesh, tmp_path: pathlib.Path, shape: tuple[int, ...], shares: int
) -> None:
    """Processes that hold different rows load different clips; those that hold the same rows load the same.

    One process that reads all shares has the same batches, and goes on where two have stopped.
    """
    port, position, out = free_port(), tmp_path / "position", tmp_path / "videos.npy"
    two_devices = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    processes = []
    for index in range(2):
        arguments = map(str, (port, index, dataset.data_dir, json.dumps(shape), position, out))
        processes.append(subprocess.Popen([sys.executable, "-c", ONE_OF_TWO_PROCESSES, *arguments], env=two_devices))
    assert [process.wait() for process in processes] == [0, 0]
    videos = np.load(out)
    assert videos.shape == (24, 11, 32, 32, 3)
    assert len(np.unique(videos.reshape(24, -1), axis=0)) == 24
    assert sorted(path.name for path in position.iterdir()) == [f"share_{index}_of_{shares}" for index in range(shares)]
    options = {"mixture": "moving_shapes_video_text", "split": "test", "batch_size": 4}
    alone = feed_of(dataset, mesh, **options, shuffle=False, repeat=False, order=Order(shares))
    np.testing.assert_array_equal(np.concatenate([batch["video"] for batch in take(alone, 5)]), videos[:-4])
    alone.restore(position)
    np.testing.assert_array_equal(next(alone)["video"], videos[-4:])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"mixture": "moving_shapes"},
            "found mixture 'moving_shapes': did you mean moving_shapes_video_text\\? expected one of",
        ),
        (
            {"split": "validation"},
            "found split 'validation', expected one of test, train, of moving_shapes_joint$",
        ),
        ({"converter": "vae"}, "found converter 'vae', expected one of tokenizer, transformer"),
        ({"batch_size": 7}, "found batch_size 7, expected a multiple of 2, .* set that of moving_shapes_joint to 8"),
        ({"batch_size": 0}, "found batch_size 0 of moving_shapes_joint, expected at least 1"),
        ({"frames": 13}, "windows of 13 frames, expected 1 to 12: clips of moving_shapes have 36 frames"),
    ],
)
def test_impossible_feeds_are_refused_in_one_line(
    dataset: SmallDataset, mesh: Mesh, wrong: dict, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match=message) as error:
        feed_of(dataset, mesh, **wrong)
    assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")


def task_of_videos(frames: int, *, found: type, declared: type) -> seqio.Task:
    """A task of someone's own, of black videos."""

    def read(split: str, shuffle_files: bool, seed: int | None = None) -> tf.data.Dataset:
        del split, shuffle_files, seed
        return tf.data.Dataset.from_tensors({"video": np.zeros((frames, 32, 32, 3), found)}).repeat(8)

    feature = seqio.Feature(seqio.PassThroughVocabulary(0), add_eos=False, dtype=tf.as_dtype(declared), rank=4)
    source = seqio.FunctionDataSource(read, splits=["train", "test"])
    return seqio.Task("own", source, preprocessors=[], output_features={"video": feature})


@pytest.mark.parametrize(
    ("found", "declared"), [(np.float32, np.float32), (np.float32, np.uint8), (np.int32, np.int32)]
)
def test_videos_of_another_type_are_told(dataset: SmallDataset, mesh: Mesh, found: type, declared: type) -> None:
    own = task_of_videos(11, found=found, declared=declared)
    told = rf"^the videos of own are {found.__name__}, expected uint8 in 0\.\.255: convert them in the task$"
    with pytest.raises(UserError, match=told):
        feed_of(dataset, mesh, mixture=own, converter="tokenizer")


def test_videos_of_a_length_that_the_model_does_not_take_are_told(dataset: SmallDataset, mesh: Mesh) -> None:
    own = task_of_videos(4, found=np.uint8, declared=np.uint8)
    told = (
        r"^the test examples of own do not fit: found videos of 4 frames, expected 1 \+ k \* 2, such as 3 or 5 frames: "
        "cut windows of them in the task$"
    )
    with pytest.raises(UserError, match=told):
        next(feed_of(dataset, mesh, mixture=own, split="test", converter="tokenizer", temporal_patch=2))


def test_a_missing_dataset_is_named_with_the_way_to_make_it(
    dataset: SmallDataset, mesh: Mesh, tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match=r"found no train files in .* make it with"):
        feed_of(dataset, mesh, data_dir=tmp_path / "elsewhere")
    inside = f"{dataset.data_dir}/moving_shapes"
    told = f"expected a dataset; {inside} is the folder of one dataset: set DATA_DIR to {dataset.data_dir}: set"
    with pytest.raises(UserError, match=told):
        feed_of(dataset, mesh, data_dir=inside)
    assert capfd.readouterr() == ("", "")


def test_a_position_of_another_feed_is_refused(dataset: SmallDataset, mesh: Mesh, tmp_path: pathlib.Path) -> None:
    feed_of(dataset, mesh).save(tmp_path)
    with pytest.raises(UserError, match=r"with batch_size=8, not 16, seed=0, not 1: resume with the settings"):
        feed_of(dataset, mesh, batch_size=16, seed=1).restore(tmp_path)
    with pytest.raises(UserError, match=r"found no data position in .*: restore it, or move that checkpoint away"):
        feed_of(dataset, mesh).restore(tmp_path / "empty")
