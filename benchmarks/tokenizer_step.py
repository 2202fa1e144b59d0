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

import sys
from typing import Any

import numpy as np
from against import command, process
from against.process import Side
from against.sizes import Sizes, gflop_of_step
from against.turns import ENVIRONMENTS, UNITS, peak_gflop_per_s, take_turns

_BATCHES = (2, 8)
_WARM_UP = 3
_STEPS_OF_A_TURN = 3
_AIMS = {
    "ratio.batch_2": ">= 1.3",
    "ratio.batch_8": ">= 1.1",
    "peak_memory_mib.phenaki_jax.batch_2": "<= peak_memory_mib.phenaki_pytorch.batch_2",
    "peak_memory_mib.phenaki_jax.batch_8": "<= peak_memory_mib.phenaki_pytorch.batch_8",
}
_UNITS = {
    **UNITS,
    "peak_memory_mib": "most memory the process held, MiB (VmHWM)",
    "steps_memory_mib": "the same from the fourth step on",
}
_SIDES = {
    "phenaki_pytorch": "against.phenaki_pytorch_side:PhenakiPytorch",
    "phenaki_jax": "against.phenaki_jax_side:PhenakiJax",
}


def compare(turns: int) -> dict[str, Any]:
    """Every figure, by side and batch size; prints a table of them.

    Args:
      turns: turns of each side at each batch size, of three steps each.
    """
    cores = process.take_two_cores()
    sizes = Sizes()
    peak = peak_gflop_per_s()
    figures: dict[str, Any] = {}
    for batch in _BATCHES:
        figures |= {f"{name}.batch_{batch}": value for name, value in _compare_at(sizes, batch, turns, peak).items()}
    # Again, in case the machine was slower before.
    if (again := peak_gflop_per_s()) > peak:
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


def _compare_at(sizes: Sizes, batch: int, turns: int, peak: float) -> dict[str, Any]:
    shape = (batch, sizes.frames, sizes.frame_size, sizes.frame_size, 3)
    videos = np.random.default_rng(batch).integers(0, 256, shape, np.uint8)
    sides = {name: Side(made_by, ENVIRONMENTS[name], sizes=sizes) for name, made_by in _SIDES.items()}
    figures: dict[str, Any] = {}
    for name, side in sides.items():
        side.ask("timed_steps", videos, _WARM_UP)
        figures[f"peak_memory_mib.{name}"] = side.ask("peak_memory_mib")
        side.ask("forget_peak")
    timed = take_turns(sides, "timed_steps", (videos,), _STEPS_OF_A_TURN, turns)
    figures |= timed.figures({name: gflop_of_step(sizes, name, batch) for name in sides}, peak)
    for name, side in sides.items():
        steps_memory = side.ask("peak_memory_mib")
        figures |= {
            f"peak_memory_mib.{name}": max(figures[f"peak_memory_mib.{name}"], steps_memory),
            f"steps_memory_mib.{name}": steps_memory,
            f"parameters.{name}": side.ask("parameters"),
            f"versions.{name}": side.ask("versions"),
        }
        side.close()
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


if __name__ == "__main__":
    turns = command.turns_asked(__doc__, 6, "turns of three steps, of each side")
    sys.exit(command.tell("tokenizer_step", lambda: compare(turns)))
