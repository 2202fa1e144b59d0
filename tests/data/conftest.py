"""One small `moving_shapes` on disk for all tests of this room."""

import dataclasses
import pathlib

import pytest

from phenaki_jax.data.moving_shapes.builder import prepare
from phenaki_jax.data.moving_shapes.examples import ExampleSet


@dataclasses.dataclass(frozen=True)
class SmallDataset:
    """Where it is, and what its splits hold."""

    data_dir: pathlib.Path
    videos: ExampleSet
    test_videos: ExampleSet
    images: ExampleSet
    test_images: ExampleSet


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> SmallDataset:
    """The dataset of 32 x 32 pixels, made once."""
    small = SmallDataset(
        tmp_path_factory.mktemp("tfds"),
        videos=ExampleSet("video", "train", size=32, seed=3, count=70),
        test_videos=ExampleSet("video", "test", size=32, seed=3, count=62),
        images=ExampleSet("image", "train", size=32, seed=3, count=80),
        test_images=ExampleSet("image", "test", size=32, seed=3, count=20),
    )
    prepare(
        small.data_dir,
        size=32,
        train_videos=small.videos.count,
        test_videos=small.test_videos.count,
        train_images=small.images.count,
        test_images=small.test_images.count,
        seed=small.videos.seed,
    )
    return small


@pytest.fixture(scope="session")
def two_sizes(dataset: SmallDataset) -> SmallDataset:
    """The same, with few examples of 64 x 64 pixels besides."""
    prepare(dataset.data_dir, size=64, train_videos=12, test_videos=8, train_images=8, test_images=4)
    return dataset
