"""Which tokens become known first: four samplers at 6, 12 and 24 steps, by a model of moving_shapes.

    make bench BENCH=samplers ARGS="--demo demo"

A token critic is trained beside the demo's transformer, which goes on a little with it; all samplers then draw with the
same model the same clips, of held-out combinations of colour, shape and motion, which are read from their pixels. The
table goes to samplers.md in the demo's folder. Interrupted, the same command goes on.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from pathlib import Path
from typing import Any

import jax
from against import command, demos
from tqdm import tqdm

from phenaki_jax import __version__
from phenaki_jax.cli.demonstration import measures
from phenaki_jax.inference.decoding import SAMPLERS
from phenaki_jax.inference.phenaki import Phenaki

_STEPS = (6, 12, 24)
_FIGURES = ("all_correct", "color_accuracy", "shape_accuracy", "motion_accuracy")
# Of the noise on what is kept; each sampler at its best of these. An order that is fixed has no noise.
_TEMPERATURES = {"confidence": (0.5, 1.5, 4.0), "critic": (0.0, 0.5, 1.5), "halton": (0.0,), "random": (0.0,)}


def compare(demo: Path) -> dict[str, Any]:
    """Shares of clips that are right, by sampler, steps and temperature; writes them as a table.

    Args:
      demo: folder of a finished demo; the model with a critic goes to `with_critic` in it.

    Raises:
      UserError: the demo is not finished.
    """
    settings = demos.settings_of(demo)
    initial = str((demo / "transformer").absolute())
    model = Phenaki.load(demos.train(demo, "with_critic", "shapes_critic", INITIAL_WORKDIR=initial))
    runs = [
        (sampler, steps, temperature)
        for sampler in SAMPLERS
        for steps in _STEPS
        for temperature in _TEMPERATURES[sampler]
    ]
    figures, rows = {}, []
    for sampler, steps, temperature in tqdm(runs, unit="run"):
        sampling = dataclasses.replace(model.metadata.sampling, sampler=sampler, steps=steps, temperature=temperature)
        drawing = Phenaki(model.config, model.params, dataclasses.replace(model.metadata, sampling=sampling))
        began = time.perf_counter()
        found, _ = measures.generation(drawing, settings)
        seconds = (time.perf_counter() - began) / found["clips"]
        rows.append([sampler, steps, temperature, *(found[name] for name in _FIGURES), seconds])
        figures[f"all_correct.{sampler}.{steps}_steps.temperature_{temperature:g}"] = found["all_correct"]
    (demo / "samplers.md").write_text(_table(rows))
    best = {
        (sampler, steps): max(row[3] for row in rows if row[:2] == [sampler, steps])
        for sampler in SAMPLERS
        for steps in _STEPS
    }
    return {
        "ratio": max(best["halton", 12], best["critic", 12]) / best["confidence", 24],
        "ratio_of": "all_correct, Halton or critic at 12 steps over confidence at 24, each at its best temperature",
        "unit": "share of clips",
        "aims": {"ratio": ">= 1"},
        "clips": found["clips"],
    } | figures


def _table(rows: list[list[Any]]) -> str:
    head = ["sampler", "steps", "temperature", *(name.replace("_", " ") for name in _FIGURES), "seconds a clip"]
    lines = [head, ["---"] * len(head)]
    for sampler, steps, temperature, *shares, seconds in rows:
        lines.append([sampler, str(steps), f"{temperature:g}", *(f"{share:.3f}" for share in shares), f"{seconds:.3f}"])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    versions = {"phenaki_jax": __version__, "jax": jax.__version__}
    folder = command.demo_asked(__doc__)
    sys.exit(command.tell("samplers", lambda: {**compare(folder), "versions": versions}))
