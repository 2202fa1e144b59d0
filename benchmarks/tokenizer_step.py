"""A training step of the tokenizer against phenaki-pytorch's: seconds, share of the machine's peak, memory.

    make bench BENCH=tokenizer_step

Both C-ViViTs have the same sizes, train on reconstruction and commitment alone (no discriminator, no perceptual term),
in float32, with backward pass, clipped gradient and Adam, on the same clips of random pixels, as each comes: theirs as
its package runs it, eager; ours as `phenaki train` runs it. Each side has a process of its own for each batch size, and
both the same two cores. They take turns, a few steps at a time, so that a machine that slows down slows both;
the one that waits sleeps. Turns that other processes disturbed are done again while there is patience; `others_share`
tells what is left of that. On a machine that others use, the figures mean little.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from typing import Any

import numpy as np
from against import process
from against.process import Side
from against.sizes import Sizes, gflop_of_step

_BATCHES = (2, 8)
_WARM_UP = 3
_STEPS_OF_A_TURN = 3
# Turns in which other processes took more of the cores are done again, so many times as often as asked at most: threads
# that wait for each other, as torch's do, lose far more to another process than that takes.
_MOST_OF_OTHERS = 0.05
_MOST_TRIES = 4
_MATRIX_SIDES = (2048, 3072)
_AIMS = {
    "ratio.batch_2": ">= 1.3",
    "ratio.batch_8": ">= 1.1",
    "peak_memory_mib.phenaki_jax.batch_2": "<= peak_memory_mib.phenaki_pytorch.batch_2",
    "peak_memory_mib.phenaki_jax.batch_8": "<= peak_memory_mib.phenaki_pytorch.batch_8",
}
_UNITS = {
    "ratio": "seconds of a step, phenaki_pytorch over phenaki_jax",
    "seconds": "median of the steps",
    "share_of_peak": "of peak_gflop_per_s, by the matrix products of a step",
    "peak_gflop_per_s": "fastest product of large float32 matrices, by torch or XLA",
    "product_gflop": "10^9 operations of a step's matrix products, by formula",
    "peak_memory_mib": "most memory the process held, MiB (VmHWM)",
    "steps_memory_mib": "the same from the fourth step on",
    "others_share": "of the cores, taken by other processes in the worst turn; above 0.05 the figures mean little",
}
# What each side runs best with. GLIBC_TUNABLES as `make` sets it serves both: huge pages for what malloc gives out.
_SIDES = {
    "phenaki_pytorch": ("against.phenaki_pytorch_side", "PhenakiPytorch", "TorchProducts", {}),
    "phenaki_jax": ("against.phenaki_jax_side", "PhenakiJax", "JaxProducts", {"JAX_PLATFORMS": "cpu"}),
}


def compare(turns: int) -> dict[str, Any]:
    """Every figure, by side and batch size; prints a table of them.

    Args:
      turns: turns of each side at each batch size, of three steps each.
    """
    cores = process.take_two_cores()
    sizes = Sizes()
    peak = _peak_gflop_per_s()
    figures: dict[str, Any] = {}
    for batch in _BATCHES:
        figures |= {f"{name}.batch_{batch}": value for name, value in _compare_at(sizes, batch, turns, peak).items()}
    # Again, in case the machine was slower before.
    if (again := _peak_gflop_per_s()) > peak:
        for name in [name for name in figures if name.startswith("share_of_peak")]:
            figures[name] *= peak / again
        peak = again
    _print_table(figures, peak, cores)
    versions = {
        name: version
        for name in list(figures)
        if name.startswith("versions")
        for name, version in figures.pop(name).items()
    }
    return {"units": _UNITS, "aims": _AIMS, **figures, "peak_gflop_per_s": peak, "cores": cores, "versions": versions}


def _peak_gflop_per_s() -> float:
    best = 0.0
    for module, _, products, environment in _SIDES.values():
        with Side(f"{module}:{products}", environment) as side:
            best = max(best, *(side.ask("best_gflop_per_s", length) for length in _MATRIX_SIDES))
    return best


def _compare_at(sizes: Sizes, batch: int, turns: int, peak: float) -> dict[str, Any]:
    shape = (batch, sizes.frames, sizes.frame_size, sizes.frame_size, 3)
    videos = np.random.default_rng(batch).integers(0, 256, shape, np.uint8)
    sides = {
        name: Side(f"{module}:{made}", environment, sizes=sizes)
        for name, (module, made, _, environment) in _SIDES.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    others = []
    figures: dict[str, Any] = {}
    for name, side in sides.items():
        side.ask("timed_steps", videos, _WARM_UP)
        figures[f"peak_memory_mib.{name}"] = side.ask("peak_memory_mib")
        side.ask("forget_peak")
    counted = 0
    for turn in range(_MOST_TRIES * turns):
        timed = {name: side.ask("timed_steps", videos, _STEPS_OF_A_TURN) for name, side in sides.items()}
        share = max(each["others_share"] for each in timed.values())
        # The last tries count whatever they are, so that a busy machine gives a figure too, and says so.
        if share > _MOST_OF_OTHERS and turn < _MOST_TRIES * turns - (turns - counted):
            continue
        counted += 1
        others.append(share)
        for name, each in timed.items():
            seconds[name] += each["seconds"]
        if counted == turns:
            break
    for name, side in sides.items():
        median, gflop = statistics.median(seconds[name]), gflop_of_step(sizes, name, batch)
        steps_memory = side.ask("peak_memory_mib")
        figures |= {
            f"seconds.{name}": median,
            f"seconds_least.{name}": min(seconds[name]),
            f"share_of_peak.{name}": gflop / median / peak,
            f"product_gflop.{name}": gflop,
            f"peak_memory_mib.{name}": max(figures[f"peak_memory_mib.{name}"], steps_memory),
            f"steps_memory_mib.{name}": steps_memory,
            f"parameters.{name}": side.ask("parameters"),
            f"versions.{name}": side.ask("versions"),
        }
        side.close()
    figures["ratio"] = figures["seconds.phenaki_pytorch"] / figures["seconds.phenaki_jax"]
    figures["steps"] = len(seconds["phenaki_jax"])
    figures["others_share"] = max(others)
    return figures


def _print_table(figures: dict[str, Any], peak: float, cores: int) -> None:
    print(f"peak {peak:.0f} GFLOP/s, float32, {cores} cores")
    print("batch side                   s   GFLOP of peak    MiB  parameters  ratio others")
    for batch in _BATCHES:
        of = lambda figure, name="": figures[f"{figure}{name and '.'}{name}.batch_{batch}"]  # noqa: B023, E731
        for name in _SIDES:
            print(
                f"{batch:5} {name:16} {of('seconds', name):7.3f} {of('product_gflop', name):7.1f} "
                f"{of('share_of_peak', name):7.1%} {of('peak_memory_mib', name):6.0f} {of('parameters', name):11,} "
                f"{of('ratio'):6.2f} {of('others_share'):6.1%}"
            )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=6, help="turns of three steps, of each side (default: 6)")
    asked = parser.parse_args()
    if asked.turns < 1:
        parser.error(f"found --turns {asked.turns}, expected at least 1")
    return asked


if __name__ == "__main__":
    try:
        print(json.dumps({"name": "tokenizer_step", **compare(_arguments().turns)}))
    except KeyboardInterrupt:
        sys.exit(130)
    except (RuntimeError, OSError) as error:
        print(f"tokenizer_step: {error}", file=sys.stderr)
        sys.exit(2)
