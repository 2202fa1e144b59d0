"""A tiny random model, in memory and in a folder."""

import pathlib

import pytest

from phenaki_jax.inference.export import export_model
from phenaki_jax.inference.phenaki import Phenaki
from phenaki_jax.inference.testing import random_params, tiny_config, tiny_metadata


@pytest.fixture(scope="session")
def model() -> Phenaki:
    """32 x 32 pixels, windows of 5 frames, 3 of them given."""
    config = tiny_config()
    return Phenaki(config, random_params(config), tiny_metadata())


@pytest.fixture(scope="session")
def folder(model: Phenaki, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The model, exported."""
    folder = tmp_path_factory.mktemp("exported") / "model"
    export_model(folder, model.config, model.params, model.metadata)
    return folder
