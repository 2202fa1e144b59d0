"""What saving costs a training: steps while a checkpoint of 1 GB is written in the background, against steps without.

    make bench BENCH=saving

The state is that of the paper's prediction model with fewer layers, its averages and moments, 1 GB in all; it is saved
as `phenaki train` saves it, checksums included. Steps with a checkpoint under way and steps without take turns in one
run. Beside the ratio of their medians stands how long a save holds the training up when it begins, for a copy that
later steps do not change. On CPU both share the cores; accelerators have theirs to themselves.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from device_step import begun_state, random_array

from phenaki_jax.training import state as state_lib
from phenaki_jax.training.checkpoints import Checkpoints
from phenaki_jax.training.pods import programs
from phenaki_jax.training.sharding import MeshConfig
from phenaki_jax.training.size import bytes_per_device
from phenaki_jax.training.train import settings_of

_RUN_FILE = "gin_configs/runs/phenaki_kinetics600.gin"
_SIZES = ("LAYERS=7", "FRAMES=1", "PATCH=4", "BATCH_SIZE=2", "DTYPE='float32'", "PRECOMPUTED='none'")
_WARM_UP = 2
_AIMS = {"ratio": "<= 1.1"}


class _NoFeed:
    """A position that is as good as none."""

    def save(self, folder: Path) -> None:
        """Leaves a file."""
        (Path(folder) / "share_0_of_1").mkdir(parents=True, exist_ok=True)


def measure(folder: Path, saves: int, steps: int) -> dict[str, Any]:
    """Figures of steps with and without a save under way.

    Args:
      folder: where checkpoints go.
      saves: how many.
      steps: without one, after each.
    """
    settings = settings_of([_RUN_FILE], _SIZES, stand_ins=True)
    learner, layout = settings["learner"], MeshConfig().make()
    program = programs.make_program("train", settings, layout, settings["data"].batch_size)
    spec, batch_spec = program.arguments
    transform = state_lib.transform_of(learner, settings["optimizer"])
    step = programs.compile_program(program, layout)
    rng = np.random.default_rng(0)
    state = jax.jit(lambda: begun_state(learner, transform, spec), out_shardings=program.out_shardings[0])()
    batch = {name: jax.device_put(random_array(name, each, rng), each.sharding) for name, each in batch_spec.items()}

    def timed() -> float:
        nonlocal state
        began = time.perf_counter()
        state, seen = step(state, batch)
        jax.block_until_ready((state, seen))
        return time.perf_counter() - began

    for _ in range(_WARM_UP):
        timed()
    without, during, begins, lasts = [], [], [], []
    with contextlib.closing(Checkpoints(folder)) as checkpoints:
        for _ in range(saves):
            without += [timed() for _ in range(steps)]
            began = time.perf_counter()
            checkpoints.save(state_lib.without_frozen(learner, state), _NoFeed(), learner.describe())  # type: ignore[arg-type]
            begins.append(time.perf_counter() - began)
            while checkpoints.is_saving:
                during.append(timed())
            lasts.append(time.perf_counter() - began)
    return {
        "state_gb": bytes_per_device(state) / 1e9,
        "ratio": statistics.median(during) / statistics.median(without),
        "median_ms": 1000 * statistics.median(without),
        "median_ms.saving": 1000 * statistics.median(during),
        "begins_ms": 1000 * statistics.median(begins),
        "lasts_s": statistics.median(lasts),
        "steps": len(without),
        "steps.saving": len(during),
        "device": jax.devices()[0].device_kind,
    }


def main() -> int:
    """Prints a line of JSON with the figures; 1 where the aim is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--saves", type=int, default=4, help="checkpoints that are written")
    parser.add_argument("--steps", type=int, default=8, help="without one, before each")
    parser.add_argument("--folder", help="where they go; a temporary folder unless given")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        figures = measure(Path(folder), args.saves, args.steps)
    print(json.dumps({"name": "saving", **figures, "aims": _AIMS, "versions": {"jax": jax.__version__}}))
    return 0 if figures["ratio"] <= 1.1 else 1


if __name__ == "__main__":
    sys.exit(main())
