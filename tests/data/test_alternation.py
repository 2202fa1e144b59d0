"""Batches of several frame sizes in turn: at their rates, in an order of the seed's, resumed where they stopped."""

import collections
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from phenaki_jax.data.alternation import AlternatingFeed
from phenaki_jax.data.feed import FeedSettings, MixtureFeed
from phenaki_jax.data.tensorflow_stack import seqio, tf
from phenaki_jax.errors import UserError
from tests.data.conftest import SmallDataset
from tests.data.test_feed import AXES, assert_equal, feed_of, free_port, take


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    return jax.make_mesh((1, 2, 2), AXES)


def alternating(
    dataset: SmallDataset, mesh: Mesh, *, rates: Sequence[float] = (0.75, 0.25), seed: int = 0, **of_64: Any
) -> AlternatingFeed:
    """Images and clips of 7 frames in batches of 8 at 32 pixels, of any length in batches of 4 at 64."""
    small = feed_of(dataset, mesh, frames=7)
    of_64 = {"mixture": "moving_shapes_joint_any_length_64", "batch_size": 4, "seed": 1, **of_64}
    return AlternatingFeed([small, feed_of(dataset, mesh, frames=7, **of_64)], rates, seed)


def sides(batches: list[dict[str, np.ndarray]]) -> list[int]:
    return [batch["video"].shape[2] for batch in batches]


def test_every_batch_is_of_one_size_and_of_the_feed_whose_turn_it_is(two_sizes: SmallDataset, mesh: Mesh) -> None:
    feed = alternating(two_sizes, mesh)
    batches = take(feed, 40)
    assert {batch["video"].shape for batch in batches} == {(8, 7, 32, 32, 3), (4, 7, 64, 64, 3)}
    alone = [iter(take(each, 40)) for each in alternating(two_sizes, mesh).feeds]
    assert_equal(batches, [next(alone[side == 64]) for side in sides(batches)])
    assert 9 <= sides(batches).count(64) <= 11


def feed_of_numbers(number: int, batches: int = -1) -> MixtureFeed:
    """So many batches of one number, without end where it is negative."""
    repeats = batches < 0
    settings = FeedSettings(f"number {number}", "train", 1, 1, 1, 1, "tokenizer", 0, shuffle=True, repeat=repeats)
    mesh = jax.make_mesh((1, 1, 1), AXES, devices=jax.devices()[:1])
    dataset = tf.data.Dataset.from_tensors({"number": tf.constant([number])}).repeat(batches)
    sharding, shares = NamedSharding(mesh, PartitionSpec()), [seqio.ShardInfo(0, 1)]
    return MixtureFeed([dataset], settings, sharding, shares, too_few=lambda: UserError("fill no batch"))


def test_a_feed_that_goes_on_from_its_end_just_ends(tmp_path: pathlib.Path) -> None:
    """It has filled batches before."""
    with pytest.raises(UserError, match="fill no batch"):
        next(AlternatingFeed([feed_of_numbers(0, 0)], [1.0], 0))
    feed = AlternatingFeed([feed_of_numbers(0, 1)], [1.0], 0)
    next(feed)
    feed.save(tmp_path)
    resumed = AlternatingFeed([feed_of_numbers(0, 1)], [1.0], 0)
    resumed.restore(tmp_path)
    assert list(resumed) == []


def turns(rates: Sequence[float], seed: int, batches: int) -> list[int]:
    feed = AlternatingFeed([feed_of_numbers(number) for number in range(len(rates))], rates, seed)
    return [next(feed)["number"].item() for _ in range(batches)]


@pytest.mark.parametrize("rates", [(0.5, 0.5), (0.9, 0.1), (0.6, 0.3, 0.1)])
def test_feeds_take_turns_as_often_as_their_rates_say_at_any_time(rates: Sequence[float]) -> None:
    order = np.array(turns(rates, 3, 400))
    for number, rate in enumerate(rates):
        counted = np.cumsum(order == number)
        assert np.abs(counted - rate * np.arange(1, 401)).max() < 3
        # As often among every tenth of the steps, when something is logged.
        assert abs(np.mean(order[::10] == number) - rate) < 0.08


def test_the_seed_decides_the_order() -> None:
    first, same, other = (turns((0.5, 0.5), seed, 30) for seed in (1, 1, 2))
    assert first == same
    assert first != other


@pytest.mark.parametrize("before", [0, 1, 17])
def test_a_restored_feed_goes_on_with_the_very_batches(
    two_sizes: SmallDataset, mesh: Mesh, tmp_path: pathlib.Path, before: int
) -> None:
    feed = alternating(two_sizes, mesh)
    take(feed, before)
    feed.save(tmp_path)
    expected = take(feed, 20)
    assert {32, 64} == set(sides(expected))
    resumed = alternating(two_sizes, mesh)
    resumed.restore(tmp_path)
    assert_equal(take(resumed, 20), expected)
    assert [path.name for path in tmp_path.iterdir()] == ["share_0_of_1"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rates": (0.5, 0.5)}, r"with rates=\[0.75, 0.25\], not \[0.5, 0.5\]: resume with the settings"),
        ({"seed": 1}, r"with seed=0, not 1: resume"),
        ({"batch_size": 6}, r"with feeds\[1\].batch_size=4, not 6: resume"),
        (
            {"mixture": "moving_shapes_joint_64"},
            r"with feeds\[1\].mixture='moving_shapes_joint_any_length_64', not 'moving_shapes_joint_64': resume",
        ),
    ],
    ids=str,
)
def test_a_position_of_other_settings_is_refused(
    two_sizes: SmallDataset, mesh: Mesh, tmp_path: pathlib.Path, changes: dict, message: str
) -> None:
    alternating(two_sizes, mesh).save(tmp_path)
    with pytest.raises(UserError, match=message) as error:
        alternating(two_sizes, mesh, **changes).restore(tmp_path)
    assert "\n" not in str(error.value)


def test_a_position_of_more_or_fewer_mixtures_is_refused(
    two_sizes: SmallDataset, mesh: Mesh, tmp_path: pathlib.Path
) -> None:
    one, two = feed_of(two_sizes, mesh), alternating(two_sizes, mesh)
    one.save(tmp_path / "one")
    two.save(tmp_path / "two")
    with pytest.raises(UserError, match=r"a position in .* of 1 mixture\(s\) in turn, not 2: resume with"):
        two.restore(tmp_path / "one")
    with pytest.raises(UserError, match=r"a position in .* of 2 mixture\(s\) in turn, not 1: resume with"):
        one.restore(tmp_path / "two")


ONE_OF_TWO_PROCESSES = """
import json, sys
import jax, numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec
from phenaki_jax.data.alternation import AlternatingFeed
from phenaki_jax.data.feed import make_feed
port, index, data_dir, position, out = sys.argv[1], int(sys.argv[2]), *sys.argv[3:]
jax.distributed.initialize(f"localhost:{port}", 2, index)
mesh = jax.make_mesh((1, 4, 1), ("replica", "data", "model"))
def make():
    feeds = [
        make_feed(
            mixture=mixture, split="train", batch_size=batch_size, frames=7, text_length=16, converter="tokenizer",
            seed=0, sharding=NamedSharding(mesh, PartitionSpec(("replica", "data"))), data_dir=data_dir,
        )
        for mixture, batch_size in (("moving_shapes_video_text", 8), ("moving_shapes_video_text_64", 4))
    ]
    return AlternatingFeed(feeds, [0.6, 0.4], 5)
def take(feed, batches):
    return [multihost_utils.process_allgather(next(feed)["video"], tiled=True) for _ in range(batches)]
feed = make()
seen = take(feed, 7)
feed.save(position)
following = take(feed, 7)
resumed = make()
resumed.restore(position)
for expected, found in zip(following, take(resumed, 7), strict=True):
    np.testing.assert_array_equal(found, expected)
with open(f"{out}_{index}", "w") as file:
    different = [len(np.unique(video.reshape(len(video), -1), axis=0)) for video in seen + following]
    json.dump([(video.shape, count) for video, count in zip(seen + following, different)], file)
"""


@pytest.mark.slow
def test_two_processes_agree_on_the_size_of_every_batch(two_sizes: SmallDataset, tmp_path: pathlib.Path) -> None:
    """Batches gathered from both are whole, and all their clips differ."""
    port, position, out = free_port(), tmp_path / "position", tmp_path / "shapes"
    two_devices = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    processes = []
    for index in range(2):
        arguments = map(str, (port, index, two_sizes.data_dir, position, out))
        processes.append(subprocess.Popen([sys.executable, "-c", ONE_OF_TWO_PROCESSES, *arguments], env=two_devices))
    assert [process.wait() for process in processes] == [0, 0]
    seen = [json.loads(pathlib.Path(f"{out}_{index}").read_text()) for index in range(2)]
    assert seen[0] == seen[1]
    counts = collections.Counter((shape[2], shape[0], different) for shape, different in seen[0])
    assert set(counts) == {(32, 8, 8), (64, 4, 4)}
    assert sorted(path.name for path in position.iterdir()) == ["process_0_of_2", "process_1_of_2"]
