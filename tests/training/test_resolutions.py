"""A training on several frame sizes: each step of one size, resumed exactly, and refused before it begins."""

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gin
import jax
import numpy as np
import pytest

from phenaki_jax.data.alternation import AlternatingFeed
from phenaki_jax.data.moving_shapes.builder import prepare
from phenaki_jax.data.tasks import OUTPUT_FEATURES
from phenaki_jax.data.tensorflow_stack import seqio, tf
from phenaki_jax.errors import UserError
from phenaki_jax.training import checkpoints, loop, run_files
from phenaki_jax.training.data_config import DataConfig, ResolutionConfig
from phenaki_jax.training.log import read_metrics
from phenaki_jax.training.optimizers import OptimizerConfig
from phenaki_jax.training.sharding import MeshConfig
from phenaki_jax.training.tokenizer_learner import TokenizerLearner

AT_64 = ResolutionConfig(
    "moving_shapes_joint_any_length_64", 64, 0.4, batch_size=4, eval_mixture="moving_shapes_video_text_64"
)


@pytest.fixture(scope="module")
def two_sizes(data: DataConfig) -> DataConfig:
    """Clips of 32 pixels, and of 64 in two of five steps."""
    prepare(data.data_dir, size=64, train_videos=12, test_videos=8, train_images=8, test_images=8)
    return dataclasses.replace(data, resolutions=(AT_64,))


def changed(data: DataConfig, **settings: Any) -> DataConfig:
    return dataclasses.replace(data, resolutions=(dataclasses.replace(AT_64, **settings),))


@pytest.mark.slow
def test_a_training_on_two_sizes_goes_on_from_a_checkpoint_as_if_nothing_had_been(
    tokenizer_learner: TokenizerLearner,
    optimizer: OptimizerConfig,
    two_sizes: DataConfig,
    tmp_path: Path,
) -> None:
    """The first and the third of the four steps are of 64 pixels, so that both sizes come before and after it."""
    schedule = loop.Schedule(4, log_every=1, checkpoint_every=2, eval_every=4, images_every=4, eval_batches=1)

    def run(workdir: Path) -> dict[str, float]:
        return loop.train(tokenizer_learner, optimizer, two_sizes, schedule, workdir)

    evaluated = run(tmp_path / "whole")
    assert {"loss", "loss_64px", "psnr", "psnr_64px"} <= set(evaluated)
    assert evaluated["loss"] != evaluated["loss_64px"]
    shutil.copytree(tmp_path / "whole", tmp_path / "parts")
    shutil.rmtree(tmp_path / "parts" / "checkpoints" / "4")
    assert run(tmp_path / "parts") == evaluated
    assert read_metrics(tmp_path / "parts") == read_metrics(tmp_path / "whole")
    whole, parts = (checkpoints.read_params(tmp_path / workdir) for workdir in ("whole", "parts"))
    jax.tree.map(np.testing.assert_array_equal, parts, whole)


def test_steps_are_divided_by_rate_and_every_size_has_an_order_of_its_own(
    tokenizer_learner: TokenizerLearner, two_sizes: DataConfig
) -> None:
    feed = two_sizes.train_feed(tokenizer_learner, MeshConfig().make(), seed=3)
    assert isinstance(feed, AlternatingFeed)
    assert [each.settings.mixture for each in feed.feeds] == [two_sizes.mixture, AT_64.mixture]
    assert [each.settings.seed for each in feed.feeds] == [3, 4]
    sides = [next(feed)["video"].shape[2] for _ in range(20)]
    assert 7 <= sides.count(64) <= 9
    assert set(sides) == {32, 64}


def test_a_size_is_evaluated_on_where_it_names_a_mixture_for_that(
    tokenizer_learner: TokenizerLearner, two_sizes: DataConfig
) -> None:
    layout = MeshConfig().make()
    found = two_sizes.eval_feeds(tokenizer_learner, layout, 0)
    assert {ending: feed.settings.mixture for ending, feed in found.items()} == {
        "": "moving_shapes_video_text",
        "_64px": "moving_shapes_video_text_64",
    }
    assert set(changed(two_sizes, eval_mixture="").eval_feeds(tokenizer_learner, layout, 0)) == {""}


@pytest.fixture
def at_36(data: DataConfig) -> Iterator[DataConfig]:
    """Besides, black clips of 36 pixels, which are no multiple of the model's patch."""

    def black(split: str, shuffle_files: bool, seed: int | None = None) -> tf.data.Dataset:
        example = {
            "video": tf.zeros((7, 36, 36, 3), tf.uint8),
            "text": tf.constant("black"),
            "prefix_frames": tf.constant([0]),
        }
        return tf.data.Dataset.from_tensors(example)

    source = seqio.FunctionDataSource(black, splits=("train", "test"))
    seqio.TaskRegistry.add("black_36", source=source, preprocessors=[], output_features=OUTPUT_FEATURES)
    yield dataclasses.replace(data, resolutions=(ResolutionConfig("black_36", 36, 0.5, batch_size=4),))
    seqio.TaskRegistry.remove("black_36")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"frame_size": 48},
            r"moving_shapes_joint_any_length_64 are uint8 \[7, 64, 64, 3\], expected uint8 \[7, 48, 48, 3\]",
        ),
        (
            {"eval_mixture": "moving_shapes_video_text"},
            r"the videos of moving_shapes_video_text are uint8 \[7, 32, 32, 3\], expected uint8 \[7, 64, 64, 3\]",
        ),
        ({"mixture": "moving_pictures"}, "found mixture 'moving_pictures'.* expected one of .*moving_shapes_joint_64"),
        ({"batch_size": 6}, "expected a multiple of 4, .* set that of moving_shapes_joint_any_length_64 to 8"),
        ({"batch_size": 16}, "the test split of moving_shapes_video_text_64 is smaller than one batch of 16"),
        ({"frame_size": 32}, "found two resolutions of 32 pixels, expected sizes that differ, the model's 32 among"),
    ],
    ids=str,
)
def test_a_resolution_that_cannot_be_is_told_before_the_first_step(
    tokenizer_learner: TokenizerLearner,
    optimizer: OptimizerConfig,
    two_sizes: DataConfig,
    schedule: loop.Schedule,
    tmp_path: Path,
    settings: dict,
    message: str,
) -> None:
    with pytest.raises(UserError, match=message) as error:
        loop.train(tokenizer_learner, optimizer, changed(two_sizes, **settings), schedule, tmp_path / "run")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_frames_that_the_patch_does_not_divide_are_told_before_the_first_step(
    tokenizer_learner: TokenizerLearner,
    optimizer: OptimizerConfig,
    at_36: DataConfig,
    schedule: loop.Schedule,
    tmp_path: Path,
) -> None:
    with pytest.raises(UserError, match="black_36: frames of 36x36 pixels do not fall into patches of 8"):
        loop.train(tokenizer_learner, optimizer, at_36, schedule, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.1])
def test_a_rate_is_a_share_of_the_steps(rate: float) -> None:
    with pytest.raises(UserError, match=f"found rate {rate} of moving_shapes_joint_any_length_64, expected a share"):
        dataclasses.replace(AT_64, rate=rate)


def test_resolutions_leave_steps_for_the_models_own(data: DataConfig) -> None:
    halves = tuple(ResolutionConfig(f"of_{size}", size, 0.5, batch_size=4) for size in (48, 64))
    with pytest.raises(
        UserError, match=r"resolutions that take 1 of the steps, .* some are left for moving_shapes_joint"
    ):
        dataclasses.replace(data, resolutions=halves)


def test_the_overlay_adds_a_resolution_to_a_run_file() -> None:
    files = ["gin_configs/runs/shapes_tokenizer.gin", "gin_configs/data/moving_shapes_also_at_64.gin"]
    run_files.configure(files, ["DATA_DIR='data'", "RATE_AT_64=0.1"])
    data = gin.get_bindings(loop.train)["data"]
    gin.clear_config()
    [added] = data.resolutions
    assert (data.mixture, added.mixture) == ("moving_shapes_joint", "moving_shapes_joint_64")
    assert (added.frame_size, added.rate) == (64, 0.1)
