"""`phenaki train` with a run file of the repository, made small: a continuation and an export."""

import json
import pathlib

import pytest

from phenaki_jax.cli.main import main
from phenaki_jax.data.moving_shapes.builder import prepare
from phenaki_jax.inference.export import load_exported

TINY = [
    "--gin.FRAMES=3",
    "--gin.BATCH_SIZE=4",
    "--gin.CViViTConfig.width=16",
    "--gin.CViViTConfig.mlp_width=16",
    "--gin.OptimizerConfig.warmup_steps=1",
    "--gin.Schedule.eval_batches=1",
]


def test_a_training_goes_on_and_is_exported(
    tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(tmp_path / "data", size=32, train_videos=8, test_videos=4, train_images=8, test_images=4)
    workdir = tmp_path / "tokenizer"

    def train(steps: int) -> int:
        given = ["--gin_file", "gin_configs/runs/shapes_tokenizer.gin", "--workdir", str(workdir)]
        return main(["train", *given, f"--gin.DATA_DIR={str(tmp_path / 'data')!r}", f"--gin.STEPS={steps}", *TINY])

    # Run files are found from anywhere.
    monkeypatch.chdir(tmp_path)
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

    assert main(["export", "--workdir", str(workdir), "--out", str(tmp_path / "model")]) == 0
    assert load_exported(tmp_path / "model").config.width == 16
