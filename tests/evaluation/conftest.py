"""A tiny random model, few clips of `moving_shapes`, and what an evaluation of them is."""

import dataclasses
import pathlib
from typing import Any

import jax
import pytest

from phenaki_jax.data.moving_shapes.builder import prepare
from phenaki_jax.evaluation.evaluate import Evaluation, EvaluationConfig
from phenaki_jax.evaluation.measures import MEASURES
from phenaki_jax.evaluation.networks import NetworkFiles, load_networks
from phenaki_jax.evaluation.protocols import Protocol, protocol_named
from phenaki_jax.inference.phenaki import Phenaki
from phenaki_jax.inference.testing import random_params, tiny_config, tiny_metadata
from phenaki_jax.training.sharding import MeshConfig


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Six clips of the test split."""
    folder = tmp_path_factory.mktemp("shapes")
    prepare(folder, size=32, train_videos=1, test_videos=6, train_images=1, test_images=1)
    return folder


@pytest.fixture(scope="session")
def model() -> Phenaki:
    """Windows of 5 frames, of which 3 are given after the first."""
    config = tiny_config()
    return Phenaki(
        config, random_params(config), tiny_metadata(), fingerprint="0123456789abcdef", truncate_prompts=True
    )


@pytest.fixture(scope="session")
def protocol() -> Protocol:
    """Six prompts, two videos of each in three batches, and eight real clips in two."""
    return protocol_named("moving_shapes", examples=6, samples=2, real=8)


@pytest.fixture
def evaluation(model: Phenaki, protocol: Protocol, data_dir: pathlib.Path, tmp_path: pathlib.Path) -> Evaluation:
    """All of it, in a new folder."""
    return evaluation_of(model, protocol, data_dir, tmp_path)


def evaluation_of(
    model: Phenaki, protocol: Protocol, data_dir: pathlib.Path, folder: pathlib.Path, **changes: Any
) -> Evaluation:
    """An evaluation by those measures that need no files."""
    measures = tuple(name for name in protocol.measures if MEASURES[name].network in ("", "shapes"))
    made = Evaluation(
        protocol,
        measures,
        load_networks(measures, NetworkFiles()),
        model,
        MeshConfig().over(jax.local_devices()),
        data_dir,
        folder / "work",
        folder / "real",
        EvaluationConfig(batch_size=4),
    )
    return dataclasses.replace(made, **changes)
