"""A tiny random model in a folder, and a checkpoint of each kind of training."""

import dataclasses
import pathlib

import numpy as np
import orbax.checkpoint as ocp
import pytest

from phenaki_jax.inference.export import export_model
from phenaki_jax.inference.testing import random_params, tiny_config, tiny_metadata
from phenaki_jax.training import checkpoints


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The model, exported."""
    folder = tmp_path_factory.mktemp("exported") / "model"
    export_model(folder, tiny_config(), random_params(tiny_config()), tiny_metadata())
    return folder


def write_checkpoint(workdir: pathlib.Path, description: dict, params: dict, frozen: dict) -> pathlib.Path:
    """What is exported of a training's checkpoint, of step 7."""
    with ocp.CheckpointManager(workdir.absolute() / "checkpoints") as manager:
        state = {"step": np.int32(7), "params": params, "frozen": frozen, "optimizer": {"count": np.int32(7)}}
        manager.save(
            7,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state),
                description=ocp.args.JsonSave({**description, "format": checkpoints.FORMAT}),
            ),
        )
    return workdir


@pytest.fixture(scope="session")
def transformer_workdir(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A transformer's training, with its frozen tokenizer."""
    params = random_params(tiny_config())
    description = {"kind": "transformer", **dataclasses.asdict(tiny_config()), "phenaki_jax": "0.1.0"}
    frozen = {"tokenizer": params.pop("tokenizer")}
    return write_checkpoint(tmp_path_factory.mktemp("transformer"), description, params, frozen)


@pytest.fixture(scope="session")
def tokenizer_workdir(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A tokenizer's training."""
    config = tiny_config().tokenizer
    description = {"kind": "tokenizer", "tokenizer": dataclasses.asdict(config), "phenaki_jax": "0.1.0"}
    params = random_params(config)
    return write_checkpoint(tmp_path_factory.mktemp("tokenizer"), description, params, {})
