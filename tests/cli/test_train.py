"""`phenaki train` with a run file of the repository, made small: a continuation and an export."""

import json
import pathlib
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from phenaki_jax.cli.main import main
from phenaki_jax.data.moving_shapes.builder import prepare
from phenaki_jax.inference.export import load_exported
from phenaki_jax.training.checkpoints import read_params
from phenaki_jax.training.log import read_metrics

TINY = [
    "--gin.FRAMES=7",
    "--gin.BATCH_SIZE=4",
    "--gin.CViViTConfig.width=16",
    "--gin.CViViTConfig.mlp_width=16",
    "--gin.OptimizerConfig.warmup_steps=1",
    "--gin.Schedule.eval_batches=1",
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("data")
    prepare(folder, size=32, train_videos=8, test_videos=4, train_images=8, test_images=4)
    return folder


def _arguments(data: pathlib.Path, workdir: pathlib.Path, steps: int) -> list[str]:
    given = ["--gin_file", "gin_configs/runs/shapes_tokenizer.gin", "--workdir", str(workdir)]
    return ["train", *given, f"--gin.DATA_DIR={str(data)!r}", f"--gin.STEPS={steps}", *TINY]


def test_a_training_goes_on_and_is_exported(
    data: pathlib.Path, tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]
) -> None:
    workdir = tmp_path / "tokenizer"

    def train(steps: int) -> int:
        return main(_arguments(data, workdir, steps))

    assert train(2) == 0
    assert train(4) == 0
    entries = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [(entry["kind"], entry["step"]) for entry in entries] == [
        ("train", 2),
        ("eval", 2),
        ("train", 4),
        ("eval", 4),
    ]
    capfd.readouterr()
    assert train(3) == 2
    assert "is of step 4, expected at most 3, the steps of this training" in capfd.readouterr().err

    assert main(["export", "--no_stablehlo", "--workdir", str(workdir), "--out", str(tmp_path / "model")]) == 0
    assert load_exported(tmp_path / "model").config.width == 16


@pytest.mark.slow
def test_a_killed_training_ends_like_one_that_was_not(data: pathlib.Path, tmp_path: pathlib.Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    often = ["--gin.Schedule.log_every=1", "--gin.Schedule.checkpoint_every=5", "--gin.Schedule.images_every=1000"]
    assert main([*_arguments(data, whole, 200), *often]) == 0
    command = [sys.executable, "-m", "phenaki_jax.cli.main", *_arguments(data, parts, 200), *often]
    for kills in range(3):
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as training:
            # At no special moment, but after some more checkpoints than the time before.
            while len(read_metrics(parts)) < 20 + 40 * kills and training.poll() is None:
                time.sleep(0.05)
            assert training.poll() is None
            training.kill()
    assert main([*_arguments(data, parts, 200), *often]) == 0
    assert read_metrics(parts) == read_metrics(whole)
    jax.tree.map(np.testing.assert_array_equal, read_params(parts), read_params(whole))
