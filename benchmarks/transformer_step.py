"""A training step of the masked transformer against phenaki-pytorch's: seconds, and share of the machine's peak.

    make bench BENCH=transformer_step

Both have the same sizes and train on tokens and text embeddings that are given, in float32: loss on masked tokens,
texts dropped for some examples, backward pass, clipped gradient and Adam. Theirs runs as its package runs it, eager;
ours as `phenaki train` runs it on precomputed data. They take turns of a few steps on the same two cores; see
benchmarks/tokenizer_step.py. MLPs have as many parameters on both sides: theirs are gated, two thirds as wide.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from against import command, process
from against.process import Side
from against.sizes import TransformerSizes, gflop_of_transformer
from against.turns import ENVIRONMENTS, UNITS, peak_gflop_per_s, take_turns

_BATCHES = (2, 8)
_WARM_UP = 3
_STEPS_OF_A_TURN = 3
_AIMS = {"ratio.batch_2": ">= 1.4", "ratio.batch_8": ">= 1.1"}
_SIDES = {
    "phenaki_pytorch": "against.phenaki_pytorch_transformer:PhenakiPytorch",
    "phenaki_jax": "against.phenaki_jax_transformer:PhenakiJax",
}


def compare(turns: int) -> dict[str, Any]:
    """Every figure, by side and batch size; prints a table of them.

    Args:
      turns: turns of each side at each batch size, of three steps each.
    """
    cores = process.take_two_cores()
    sizes, peak = TransformerSizes(), peak_gflop_per_s()
    rng = np.random.default_rng(0)
    sides = {name: Side(made_by, ENVIRONMENTS[name], sizes=sizes) for name, made_by in _SIDES.items()}
    figures: dict[str, Any] = {}
    print(f"peak {peak:.0f} GFLOP/s, float32, {cores} cores")
    print("batch side                   s of peak  ratio others")
    for batch in _BATCHES:
        grid = (sizes.tokenizer.times, *[sizes.tokenizer.frame_size // sizes.tokenizer.patch] * 2)
        tokens = rng.integers(0, sizes.tokenizer.codes, (batch, *grid), np.int32)
        texts = rng.standard_normal((batch, sizes.text_length, sizes.text_width), np.float32)
        for side in sides.values():
            side.ask("timed_steps", tokens, texts, _WARM_UP)
        timed = take_turns(sides, "timed_steps", (tokens, texts), _STEPS_OF_A_TURN, turns)
        gflop = {name: gflop_of_transformer(sizes, name, batch, trained=True) for name in sides}
        found = timed.figures(gflop, peak)
        for name in sides:
            print(
                f"{batch:5} {name:16} {found[f'seconds.{name}']:8.3f} {found[f'share_of_peak.{name}']:7.1%} "
                f"{found['ratio']:6.2f} {found['others_share']:6.1%}"
            )
        figures |= {f"{name}.batch_{batch}": value for name, value in found.items()}
    for name, side in sides.items():
        figures[f"parameters.{name}"] = side.ask("parameters")
    versions = {name: value for side in sides.values() for name, value in side.ask("versions").items()}
    for side in sides.values():
        side.close()
    return {"units": UNITS, "aims": _AIMS, **figures, "peak_gflop_per_s": peak, "cores": cores, "versions": versions}


if __name__ == "__main__":
    turns = command.turns_asked(__doc__, 6, "turns of three steps, of each side")
    sys.exit(command.tell("transformer_step", lambda: compare(turns)))
