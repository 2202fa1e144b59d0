"""A checkpoint becomes a model that loads, with the very parameters that were trained."""

import pathlib

import jax
import numpy as np
import pytest

from phenaki_jax.cli.main import main
from phenaki_jax.inference.export import load_exported
from phenaki_jax.inference.testing import random_params, tiny_config


def test_a_transformers_training_becomes_a_whole_model(
    transformer_workdir: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    assert main(["export", "--workdir", str(transformer_workdir), "--out", str(tmp_path / "model")]) == 0
    config, params, metadata = load_exported(tmp_path / "model")
    assert config == tiny_config()
    jax.tree.map(np.testing.assert_array_equal, params, random_params(config))
    assert metadata.trained_on == {
        "workdir": str(transformer_workdir),
        "step": 7,
        "kind": "transformer",
        "format": 2,
        "phenaki_jax": "0.1.0",
    }


def test_a_tokenizers_training_becomes_a_tokenizer(tokenizer_workdir: pathlib.Path, tmp_path: pathlib.Path) -> None:
    assert main(["export", "--workdir", str(tokenizer_workdir), "--out", str(tmp_path / "model"), "--step", "7"]) == 0
    config, params, _ = load_exported(tmp_path / "model")
    assert config == tiny_config().tokenizer
    jax.tree.map(np.testing.assert_array_equal, params, random_params(config))


def test_a_step_that_is_not_there_is_refused(
    tokenizer_workdir: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "--workdir", str(tokenizer_workdir), "--out", str(tmp_path / "model"), "--step", "8"]) == 2
    assert "expected one of 7" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
