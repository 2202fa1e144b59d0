"""Images share rows, videos have one each; nothing is lost, and a feed of rows resumes where it was."""

import pathlib
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from phenaki_jax.data import tasks
from phenaki_jax.data.feed import MixtureFeed, make_feed
from phenaki_jax.data.tensorflow_stack import seqio
from tests.data.conftest import SmallDataset


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    return jax.make_mesh((1, 2, 2), ("replica", "data", "model"))


def feed_of(dataset: SmallDataset, mesh: Mesh, **options: Any) -> MixtureFeed:
    settings = {
        "mixture": tasks.joint_mixture(video_rate=0.5),
        "split": "train",
        "batch_size": 4,
        "frames": 11,
        "temporal_patch": 2,
        "text_length": 40,
        "converter": "transformer",
        "seed": 0,
        "sharding": NamedSharding(mesh, PartitionSpec(("replica", "data"))),
        "data_dir": dataset.data_dir,
    }
    return make_feed(**{**settings, **options})


def take(feed: MixtureFeed, batches: int) -> list[dict[str, np.ndarray]]:
    return [jax.tree.map(np.asarray, next(feed)) for _ in range(batches)]


def test_rows_are_of_one_video_or_of_as_many_images_as_it_has_time_steps(dataset: SmallDataset, mesh: Mesh) -> None:
    rows = [
        {name: array[row] for name, array in batch.items()}
        for batch in take(feed_of(dataset, mesh, pack_images=True), 12)
        for row in range(4)
    ]
    images = [row for row in rows if row["packed_images"]]
    videos = [row for row in rows if not row["packed_images"]]
    # As many images as videos, six to a row.
    assert 4 < len(images) < 10
    for row in images:
        assert row["packed_images"] == 6
        assert row["video"][:6].any((1, 2, 3)).all()
        assert not row["video"][6:].any()
        assert row["text_mask"].shape == (6, 40)
        assert row["text_mask"].any(1).all()
        assert row["prefix_frames"] == 0
    for row in videos:
        assert row["frame_mask"].all()
        assert row["text_mask"].any(1).tolist() == [True, *[False] * 5]


def test_every_image_has_its_place_and_its_caption(dataset: SmallDataset, mesh: Mesh) -> None:
    options = {"mixture": "moving_shapes_image_text", "split": "test", "shuffle": False, "repeat": False}
    alone = list(feed_of(dataset, mesh, batch_size=2, **options))
    wanted = {
        image[0].tobytes(): tokens.tobytes()
        for batch in alone
        for image, tokens in zip(np.asarray(batch["video"]), np.asarray(batch["text_tokens"]), strict=True)
    }
    packed = list(feed_of(dataset, mesh, batch_size=2, pack_images=True, **options))
    found = {
        batch["video"][row, slot].tobytes(): batch["text_tokens"][row, slot].tobytes()
        for batch in (jax.tree.map(np.asarray, batch) for batch in packed)
        for row in range(2)
        for slot in range(batch["packed_images"][row])
    }
    assert len(found) >= 6
    assert found.items() <= wanted.items()


@pytest.mark.parametrize("before", [1, 9])
def test_a_feed_of_rows_resumes_with_images_that_wait_for_a_row(
    dataset: SmallDataset, mesh: Mesh, tmp_path: pathlib.Path, before: int
) -> None:
    feed = feed_of(dataset, mesh, pack_images=True)
    take(feed, before)
    feed.save(tmp_path)
    expected = take(feed, 12)
    resumed = feed_of(dataset, mesh, pack_images=True)
    resumed.restore(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, take(resumed, 12), expected)


def test_mixtures_of_three_tasks_keep_their_rates(dataset: SmallDataset, mesh: Mesh) -> None:
    """The paper's 80 % videos and 10 % of each of two sets of images."""
    video, image = tasks.video_text_task(prefix_probability=0.0), tasks.image_text_task()
    more = seqio.Task("more", image.source, output_features=image.output_features, preprocessors=image.preprocessors)
    mixture = seqio.Mixture("paper", [(video, 0.8), (image, 0.1), (more, 0.1)])
    masks = [batch["frame_mask"].sum(1) for batch in take(feed_of(dataset, mesh, mixture=mixture, batch_size=8), 80)]
    assert 0.76 < np.mean(np.concatenate(masks) == 11) < 0.84
