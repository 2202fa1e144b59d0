"""A checkpoint becomes a model that loads, with the very parameters that were trained."""

import json
import pathlib
import re
import shutil

import jax
import numpy as np
import pytest

from phenaki_jax.cli.main import main
from phenaki_jax.inference.export import load_exported
from phenaki_jax.inference.testing import random_params, tiny_config


def test_a_transformers_training_becomes_a_whole_model(
    transformer_workdir: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    words = ["--out", str(tmp_path / "model"), "--no_stablehlo"]
    assert main(["export", "--workdir", str(transformer_workdir), *words]) == 0
    assert not (tmp_path / "model" / "stablehlo").exists()
    config, params, metadata, _, _ = load_exported(tmp_path / "model")
    assert config == tiny_config()
    jax.tree.map(np.testing.assert_array_equal, params, random_params(config))
    assert metadata.trained_on == {
        "workdir": str(transformer_workdir),
        "step": 7,
        "kind": "transformer",
        "format": 3,
        "phenaki_jax": "0.1.0",
        "averaged": False,
    }


@pytest.mark.usefixtures("unchecked")
def test_a_tokenizers_training_becomes_a_tokenizer(tokenizer_workdir: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """With its programs, and a card that tells the last evaluation up to the step."""
    workdir = shutil.copytree(tokenizer_workdir, tmp_path / "run")
    lines = [{"kind": "eval", "step": step, "psnr": float(step)} for step in (3, 6, 9)]
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main(["export", "--workdir", str(workdir), "--out", str(tmp_path / "model"), "--step", "7"]) == 0
    assert sorted(path.name for path in (tmp_path / "model" / "stablehlo").glob("*.jax_export")) == [
        *("decode.jax_export", "encode.jax_export"),
    ]
    assert "| psnr (held-out, step 6) | 6 |" in (tmp_path / "model" / "README.md").read_text()
    config, params, *_ = load_exported(tmp_path / "model")
    assert config == tiny_config().tokenizer
    jax.tree.map(np.testing.assert_array_equal, params, random_params(config))


def test_which_parameters_were_exported_is_told(
    tokenizer_workdir: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["export", "--workdir", str(tokenizer_workdir), "--out", str(tmp_path / "model"), "--no_stablehlo"]
    assert main([*words, "--ema"]) == 2
    assert "found no averages of the parameters, which --ema asks for" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    assert main(words) == 0
    assert capsys.readouterr().out.endswith("; parameters: as the last step left them\n")


@pytest.mark.parametrize("lost", ["state/_METADATA", "description/metadata"])
def test_a_damaged_checkpoint_is_told_in_few_words(
    tokenizer_workdir: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], lost: str
) -> None:
    copy = shutil.copytree(tokenizer_workdir, tmp_path / "run")
    (copy / "checkpoints" / "7" / lost).unlink()
    assert main(["export", "--workdir", str(copy), "--out", str(tmp_path / "model")]) == 2
    told = capsys.readouterr().err
    assert re.search(r"cannot be read, as files are missing or cut \([^{'\n]{1,100}\); restore it, or move", told)


def test_an_exported_model_is_no_training(
    folder: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "--workdir", str(folder), "--out", str(tmp_path / "model")]) == 2
    assert f"found no checkpoint in {folder}/checkpoints, but an exported model, exp" in capsys.readouterr().err


def test_files_of_a_t5_are_refused_where_there_is_none(
    tokenizer_workdir: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["export", "--workdir", str(tokenizer_workdir), "--out", str(tmp_path / "model")]
    assert main([*words, "--t5_vocabulary", "spiece.model"]) == 2
    assert "found --t5_vocabulary, but " in (told := capsys.readouterr().err)
    assert "has no frozen T5: leave it out" in told


def test_a_step_that_is_not_there_is_refused(
    tokenizer_workdir: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "--workdir", str(tokenizer_workdir), "--out", str(tmp_path / "model"), "--step", "8"]) == 2
    assert "expected one of 7" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
