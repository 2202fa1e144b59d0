"""The tokenizer against phenaki-pytorch's in the same time: held-out PSNR on moving_shapes at 64 px.

    make bench BENCH=tokenizer_race ARGS="--minutes 10"

The same sizes on both sides (see tokenizer_step), the same training clips, each side with the settings it does best
with. They take turns of half a minute, so that a machine that slows down slows both. Time is that of steps alone:
compiling, drawing batches and evaluating count for neither.

Theirs: its trainer's Adam at a constant rate and its clip; its trainer's average of the parameters (.995) is judged
beside the parameters, and the better of both counts. Rate and batch size: the best of `--search`.
Ours: the settings of gin_configs/runs/shapes_tokenizer.gin. Its cosine ends with the last step, whose number is
estimated from the seconds of some steps before the race; should the machine turn slower, the race ends first.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from pathlib import Path
from typing import Any

from against import clips
from against.process import Side
from against.sizes import Sizes

_TRAIN_CLIPS, _TEST_CLIPS = 1000, 62
_SLICE_SECONDS = 30.0
_RUNNER = "against.runner:Runner"
_THEIRS = {
    "side": "against.phenaki_pytorch_side:PhenakiPytorch",
    "batch_size": 4,
    "learning_rate": 3e-4,
    "ema": 0.995,
}
_OURS = {
    "side": "against.phenaki_jax_side:PhenakiJax",
    "batch_size": 4,
    "tied_stems": True,
}
_OUR_OPTIMIZER = {"kind": "muon", "learning_rate": 0.01, "final_share": 0.05, "weight_decay": 0.0, "clip": 1.0}
_OUR_WARM_UP_SHARE = 0.06
_ENVIRONMENTS = {"phenaki_pytorch": {}, "phenaki_jax": {"JAX_PLATFORMS": "cpu"}}
# What `--search` tries: (learning rate, batch size).
_CANDIDATES = ((3e-4, 4), (1e-3, 4), (3e-4, 8), (1e-3, 8), (1e-3, 2))
_UNITS = {
    "psnr": "dB, mean over held-out clips, uint8",
    "difference": "dB at the end, phenaki_jax less phenaki_pytorch",
    "seconds": "of training",
    "others_share": "of the cores, taken by other processes during a side's turns; above 0.05 the race means little",
}
_AIMS = {"difference": ">= 0"}


def race(folder: Path, minutes: float, seed: int) -> dict[str, Any]:
    """Trains both for the same time.

    Returns:
      PSNR of both over time and at the end, their difference, steps and settings.
    """
    clips.prepare(folder, Sizes().frame_size, _TRAIN_CLIPS, _TEST_CLIPS)
    total = 60 * minutes
    with _side("phenaki_pytorch", _THEIRS, folder, seed) as theirs, _side("phenaki_jax", _OURS, folder, seed) as ours:
        sides = {"phenaki_pytorch": theirs, "phenaki_jax": ours}
        steps = max(20, int(total / ours.ask("seconds_of_step")))
        optimizer = {**_OUR_OPTIMIZER, "warmup_steps": int(_OUR_WARM_UP_SHARE * steps), "decay_steps": steps}
        ours.ask("begin", optimizer)
        curves: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
        spent = {name: {"seconds": 0.0, "steps": 0} for name in sides}
        for side in sides.values():
            side.ask("warm_up")
        for turn in range(1, math.ceil(total / _SLICE_SECONDS) + 1):
            for name, side in sides.items():
                # A turn that ran over makes the next one shorter.
                until = min(total, turn * _SLICE_SECONDS)
                trained = side.ask("train", until - spent[name]["seconds"])
                spent[name] = {key: spent[name][key] + trained[key] for key in ("seconds", "steps")}
                curves[name].append({**spent[name], "others_share": trained["others_share"], **side.ask("psnr")})
                print(f"{name:16} {_in_words(curves[name][-1])}", flush=True)
        versions = {key: value for side in sides.values() for key, value in side.ask("versions").items()}
    others = {name: statistics.mean(each["others_share"] for each in curve) for name, curve in curves.items()}
    final = {name: max(curve[-1]["parameters"], curve[-1]["average"]) for name, curve in curves.items()}
    return {
        "difference": final["phenaki_jax"] - final["phenaki_pytorch"],
        **{f"psnr.{name}": value for name, value in final.items()},
        **{f"others_share.{name}": value for name, value in others.items()},
        **{f"steps.{name}": each["steps"] for name, each in spent.items()},
        **{f"curve.{name}": curve for name, curve in curves.items()},
        "units": _UNITS,
        "aims": _AIMS,
        "settings": {"phenaki_pytorch": _THEIRS, "phenaki_jax": {**_OURS, "optimizer": optimizer}},
        "versions": versions,
    }


def search(folder: Path, minutes: float, seed: int) -> dict[str, Any]:
    """PSNR that phenaki-pytorch reaches in so many minutes with each candidate, in turns as in the race."""
    clips.prepare(folder, Sizes().frame_size, _TRAIN_CLIPS, _TEST_CLIPS)
    figures = {}
    for learning_rate, batch_size in _CANDIDATES:
        settings = {**_THEIRS, "learning_rate": learning_rate, "batch_size": batch_size}
        with _side("phenaki_pytorch", settings, folder, seed) as side:
            trained = side.ask("train", 60 * minutes)
            reached = {**trained, **side.ask("psnr")}
        print(f"rate {learning_rate} batch {batch_size}: {_in_words(reached)}", flush=True)
        figures[f"rate_{learning_rate}_batch_{batch_size}"] = reached
    return {"search": figures, "units": _UNITS}


def _side(name: str, settings: dict[str, Any], folder: Path, seed: int) -> Side:
    return Side(
        _RUNNER,
        _ENVIRONMENTS[name],
        sizes=Sizes(),
        folder=folder,
        train_clips=_TRAIN_CLIPS,
        test_clips=_TEST_CLIPS,
        seed=seed,
        **settings,
    )


def _in_words(reached: dict[str, float]) -> str:
    return (
        f"{reached['seconds']:6.0f} s {reached['steps']:6.0f} steps "
        f"{reached['parameters']:6.2f} dB, {reached['average']:6.2f} dB by the average"
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="of training, of each side (default: 10)")
    parser.add_argument("--folder", type=Path, default=Path(".bench/clips"), help="of clips (default: .bench/clips)")
    parser.add_argument("--seed", type=int, default=0, help="of both sides (default: 0)")
    parser.add_argument("--search", action="store_true", help="settings of phenaki-pytorch instead of the race")
    return parser.parse_args()


if __name__ == "__main__":
    arguments = _arguments()
    try:
        figures = (search if arguments.search else race)(arguments.folder, arguments.minutes, arguments.seed)
        print(json.dumps({"name": "tokenizer_race", **figures}))
    except KeyboardInterrupt:
        sys.exit(130)
    except (RuntimeError, OSError) as error:
        print(f"tokenizer_race: {error}", file=sys.stderr)
        sys.exit(2)
