"""Drawing one window against phenaki-pytorch's `sample`: seconds, and share of the machine's peak.

    make bench BENCH=sampling

Both draw 11 frames of 64 px for texts whose embeddings are known, in 18 rounds with classifier-free guidance, and
decode them, in float32, with models of the same sizes: theirs as its package runs it, ours by `Phenaki.draw_windows`.
They take turns on the same two cores; see benchmarks/tokenizer_step.py.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from against import command, process
from against.process import Side
from against.sizes import TransformerSizes, gflop_of_step, gflop_of_transformer
from against.turns import ENVIRONMENTS, UNITS, peak_gflop_per_s, take_turns

_BATCHES = (1, 4)
_ROUNDS = 18
_WARM_UP = 1
_AIMS = {f"ratio.batch_{batch}": ">= 2.8" for batch in _BATCHES}
_SIDES = {
    "phenaki_pytorch": "against.phenaki_pytorch_transformer:PhenakiPytorch",
    "phenaki_jax": "against.phenaki_jax_transformer:PhenakiJax",
}


def compare(turns: int) -> dict[str, Any]:
    """Every figure, by side and batch size; prints a table of them.

    Args:
      turns: turns of each side at each batch size, of a sample each.
    """
    cores = process.take_two_cores()
    sizes, peak = TransformerSizes(), peak_gflop_per_s()
    rng = np.random.default_rng(0)
    sides = {name: Side(made_by, ENVIRONMENTS[name], sizes=sizes, steps=_ROUNDS) for name, made_by in _SIDES.items()}
    figures: dict[str, Any] = {}
    print(f"peak {peak:.0f} GFLOP/s, float32, {cores} cores")
    print("batch side                   s of peak  ratio others")
    for batch in _BATCHES:
        texts = rng.standard_normal((batch, sizes.text_length, sizes.text_width), np.float32)
        for side in sides.values():
            side.ask("timed_samples", texts, _WARM_UP)
        timed = take_turns(sides, "timed_samples", (texts,), 1, turns)
        found = timed.figures({name: _gflop(sizes, name, batch) for name in sides}, peak)
        for name in sides:
            print(
                f"{batch:5} {name:16} {found[f'seconds.{name}']:8.3f} {found[f'share_of_peak.{name}']:7.1%} "
                f"{found['ratio']:6.2f} {found['others_share']:6.1%}"
            )
        figures |= {f"{name}.batch_{batch}": value for name, value in found.items()}
    versions = {name: value for side in sides.values() for name, value in side.ask("versions").items()}
    for side in sides.values():
        side.close()
    return {"units": UNITS, "aims": _AIMS, **figures, "peak_gflop_per_s": peak, "cores": cores, "versions": versions}


def _gflop(sizes: TransformerSizes, side: str, batch: int) -> float:
    """Rounds of two conditions each; decoding is half of a pass through the tokenizer, which is a third of its step."""
    rounds = _ROUNDS * gflop_of_transformer(sizes, side, 2 * batch, trained=False)
    return rounds + gflop_of_step(sizes.tokenizer, side, batch) / 6


if __name__ == "__main__":
    turns = command.turns_asked(__doc__, 10, "samples of each side")
    sys.exit(command.tell("sampling", lambda: compare(turns)))
