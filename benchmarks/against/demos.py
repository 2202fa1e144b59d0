"""What benchmarks ask of a finished demo: how it was made, and more models of its kind."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from phenaki_jax.cli.demonstration.settings import DemoSettings
from phenaki_jax.cli.main import main
from phenaki_jax.errors import UserError


def settings_of(demo: Path) -> DemoSettings:
    """How a finished demo was made.

    Raises:
      UserError: it is not finished, or of another version.
    """
    for needed in ("demo.json", "report.json"):
        if not (demo / needed).exists():
            raise UserError(
                f"found no {needed} in {demo}, expected a finished demo: run phenaki demo --out {demo} first"
            )
    stored = json.loads((demo / "demo.json").read_text())
    try:
        return DemoSettings(**{field.name: stored[field.name] for field in dataclasses.fields(DemoSettings)})
    except KeyError as error:
        raise UserError(f"the demo in {demo} was made by another version (no {error}); make it anew") from error


def train(demo: Path, name: str, run_file: str = "shapes_transformer", **bindings: Any) -> Path:
    """Trains one more transformer over a demo's tokenizer, and exports it; interrupted, it goes on the next time.

    Args:
      demo: folder of a finished demo.
      name: of the folder in it that the training and the model go to.
      run_file: in gin_configs/runs.
      bindings: what is set in it.

    Returns:
      The exported model.
    """
    settings = settings_of(demo)
    bindings = {
        "DATA_DIR": str((demo / "data").absolute()),
        "TOKENIZER_WORKDIR": str((demo / "tokenizer").absolute()),
        "BATCH_SIZE": 2 * settings.batch_size,
        "SAMPLING_STEPS": settings.sampling_steps,
        **bindings,
    }
    workdir, model = demo / name / "transformer", demo / name / "model"
    settings_of_gin = [f"--gin.{key}={value!r}" for key, value in bindings.items()]
    for words in (
        ["train", "--gin_file", f"gin_configs/runs/{run_file}.gin", "--workdir", str(workdir), *settings_of_gin],
        ["export", "--workdir", str(workdir), "--out", str(model)],
    ):
        if exit_code := main(words):
            sys.exit(exit_code)
    return model
