"""The tokenizer against phenaki-pytorch's in the same time: held-out PSNR on moving_shapes at 64 px.

    make bench BENCH=tokenizer_race ARGS="--minutes 10"

The same sizes on both sides (see tokenizer_step), the same training clips, two cores. They take turns of half a
minute, so that a machine that slows down slows all. Time is that of steps alone: compiling, drawing batches and
evaluating count for nobody. Of each the better of parameters and their average is judged.

- `theirs`: what its trainer does (Adam at a constant 3e-4, clip at .5, its average) with batches of 4.
- `theirs_faster`: the same with twice the steps and a larger rate, batches of 2 at 1e-3. The better of both counts.
- `ours`: our model and step with the optimizer of `theirs`, batches of 4; tied stems and kind of quantizer (fsq, here
  of as many codes as theirs) are those of gin_configs/runs/shapes_tokenizer.gin.
- `ours_muon`: the same with the optimizer of that file, made for a smaller model. Its cosine ends with the last step,
  whose number is estimated from the seconds of some steps before the race; should the machine turn slower, the race
  ends first.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import statistics
import sys
from pathlib import Path
from typing import Any

from against import clips, command, process
from against.process import Side
from against.sizes import Sizes

_TRAIN_CLIPS, _TEST_CLIPS = 1000, 62
_SLICE_SECONDS = 30.0
_TURNS_TO_AN_EVALUATION = 4
_RUNNER = "against.runner:Runner"
_THEIRS = {"side": "against.phenaki_pytorch_side:PhenakiPytorch", "environment": {}, "average": True}
_OURS = {
    "side": "against.phenaki_jax_side:PhenakiJax",
    "environment": {"JAX_PLATFORMS": "cpu"},
    "batch_size": 4,
    "levels": (8, 8, 4, 4),
    "tied_stems": True,
}
_RACERS: dict[str, dict[str, Any]] = {
    "theirs": {**_THEIRS, "batch_size": 4, "learning_rate": 3e-4},
    "theirs_faster": {**_THEIRS, "batch_size": 2, "learning_rate": 1e-3},
    "ours": _OURS,
    "ours_muon": _OURS,
}
_MUON = {"kind": "muon", "learning_rate": 0.01, "final_share": 0.05, "weight_decay": 0.0, "clip": 1.0}
_MUON_WARM_UP_SHARE = 0.06
_THEIR_OPTIMIZER = {
    "kind": "adamw",
    "learning_rate": 3e-4,
    "warmup_steps": 0,
    "final_share": 1.0,
    "weight_decay": 0.0,
    "clip": 0.5,
}
_UNITS = {
    "psnr": "dB, mean over held-out clips, uint8",
    "difference": "dB at the end, ours less the better of theirs",
    "seconds": "of training, compilation, evaluation and data left out",
    "others_share": "of the cores, taken by other processes during a side's turns; above 0.05 the race means little",
}
_AIMS = {"difference": ">= 2"}


def race(folder: Path, minutes: float, seed: int, racers: list[str]) -> dict[str, Any]:
    """Trains all of them for the same time.

    Returns:
      PSNR over time and at the end, the difference between ours and theirs, steps and settings.
    """
    cores = process.take_two_cores()
    clips.prepare(folder, Sizes().frame_size, _TRAIN_CLIPS, _TEST_CLIPS)
    total = 60 * minutes
    with contextlib.ExitStack() as running:
        sides = {name: running.enter_context(_side(_RACERS[name], folder, seed)) for name in racers}
        optimizers = {name: _begin(name, side, total) for name, side in sides.items()}
        curves: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
        spent = {name: {"seconds": 0.0, "steps": 0} for name in sides}
        others: dict[str, list[float]] = {name: [] for name in sides}
        turns = math.ceil(total / _SLICE_SECONDS)
        for turn in range(1, turns + 1):
            for name, side in sides.items():
                # A turn that ran over makes the next one shorter.
                until = min(total, turn * _SLICE_SECONDS)
                trained = side.ask("train", until - spent[name]["seconds"])
                spent[name] = {key: spent[name][key] + trained[key] for key in ("seconds", "steps")}
                others[name].append(trained["others_share"])
                if turn % _TURNS_TO_AN_EVALUATION == 0 or turn == turns:
                    curves[name].append({**spent[name], "psnr": side.ask("psnr")})
                    print(f"{name:20} {_in_words(curves[name][-1])}", flush=True)
        versions = {key: value for side in sides.values() for key, value in side.ask("versions").items()}
    final = {name: max(curve[-1]["psnr"].values()) for name, curve in curves.items()}
    theirs = [value for name, value in final.items() if name.startswith("theirs")]
    return {
        "difference": final["ours"] - max(theirs) if theirs and "ours" in final else None,
        "psnr": final,
        "steps": {name: each["steps"] for name, each in spent.items()},
        "others_share": {name: statistics.mean(shares) for name, shares in others.items()},
        "curves": curves,
        "cores": cores,
        "units": _UNITS,
        "aims": _AIMS,
        "settings": {name: {**_RACERS[name], "optimizer": optimizers[name]} for name in sides},
        "versions": versions,
    }


def _side(settings: dict[str, Any], folder: Path, seed: int) -> Side:
    arguments = {name: value for name, value in settings.items() if name != "environment"}
    clips_of = {"folder": folder, "train_clips": _TRAIN_CLIPS, "test_clips": _TEST_CLIPS}
    return Side(_RUNNER, settings["environment"], sizes=Sizes(), seed=seed, **clips_of, **arguments)


def _begin(name: str, side: Side, total: float) -> dict[str, Any]:
    """Everything that is compiled compiled; the optimizer's settings, {} for those of phenaki-pytorch's trainer."""
    optimizer: dict[str, Any] = {}
    if name.startswith("ours"):
        optimizer = _MUON if name == "ours_muon" else _THEIR_OPTIMIZER
        side.ask("begin", {**optimizer, "warmup_steps": 0})
        steps = max(20, int(total / side.ask("seconds_of_step")))
        warm_up = {"warmup_steps": int(_MUON_WARM_UP_SHARE * steps)} if name == "ours_muon" else {}
        optimizer = {**optimizer, **warm_up, "decay_steps": steps}
        side.ask("begin", optimizer)
    side.ask("warm_up")
    return optimizer


def _in_words(reached: dict[str, Any]) -> str:
    psnrs = ", ".join(f"{psnr:6.2f} dB by the {name}" for name, psnr in reached["psnr"].items())
    return f"{reached['seconds']:6.0f} s {reached['steps']:6.0f} steps {psnrs}"


def _arguments() -> argparse.Namespace:
    parser = command.parser_of(__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="of training, of each racer (default: 10)")
    parser.add_argument("--folder", type=Path, default=Path(".bench/clips"), help="of clips (default: .bench/clips)")
    parser.add_argument("--seed", type=int, default=0, help="of both sides (default: 0)")
    parser.add_argument("--racers", nargs="+", choices=list(_RACERS), default=list(_RACERS), help="who races (all)")
    asked = parser.parse_args()
    if asked.minutes <= 0:
        parser.error(f"found --minutes {asked.minutes:g}, expected more than 0")
    return asked


if __name__ == "__main__":
    asked = _arguments()
    sys.exit(command.tell("tokenizer_race", lambda: race(asked.folder, asked.minutes, asked.seed, asked.racers)))
