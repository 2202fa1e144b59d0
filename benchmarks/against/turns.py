"""Two sides that take turns on the same cores, and what their turns took."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any, NamedTuple

from against.process import Side

# Turns in which other processes took more of the cores are done again, so many times as often as asked at most: threads
# that wait for each other, as torch's do, lose far more to another process than that takes.
_MOST_OF_OTHERS = 0.05
_MOST_TRIES = 4
_MATRIX_SIDES = (2048, 3072)
# What each side runs best with. GLIBC_TUNABLES as `make` sets it serves both: huge pages for what malloc gives out.
ENVIRONMENTS: dict[str, dict[str, str]] = {"phenaki_pytorch": {}, "phenaki_jax": {"JAX_PLATFORMS": "cpu"}}
_PRODUCTS = {
    "phenaki_pytorch": "against.phenaki_pytorch_side:TorchProducts",
    "phenaki_jax": "against.phenaki_jax_side:JaxProducts",
}
UNITS = {
    "ratio": "seconds, phenaki_pytorch over phenaki_jax",
    "seconds": "median",
    "share_of_peak": "of peak_gflop_per_s, by the matrix products alone",
    "peak_gflop_per_s": "fastest product of large float32 matrices, by torch or XLA",
    "product_gflop": "10^9 operations of the matrix products, by formula",
    "others_share": "of the cores, taken by other processes in the worst turn; above 0.05 the figures mean little",
}


class Timed(NamedTuple):
    """What turns took.

    Attributes:
      seconds: of each call, by side.
      others_share: the largest share of the cores that other processes took in a turn.
    """

    seconds: dict[str, list[float]]
    others_share: float

    def figures(self, gflop: Mapping[str, float], peak: float) -> dict[str, float]:
        """Medians, their ratio, and shares of the machine's peak, by side.

        Args:
          gflop: 10^9 operations of a call, by side.
          peak: 10^9 operations per second that the machine can.
        """
        median = {name: statistics.median(each) for name, each in self.seconds.items()}
        found = {"ratio": median["phenaki_pytorch"] / median["phenaki_jax"], "others_share": self.others_share}
        for name, seconds in median.items():
            found |= {
                f"seconds.{name}": seconds,
                f"seconds_least.{name}": min(self.seconds[name]),
                f"share_of_peak.{name}": gflop[name] / seconds / peak,
                f"product_gflop.{name}": gflop[name],
            }
        return {**found, "calls": len(self.seconds["phenaki_jax"])}


def peak_gflop_per_s() -> float:
    """The fastest product of large float32 matrices, by torch or XLA."""
    best = 0.0
    for name, products in _PRODUCTS.items():
        with Side(products, ENVIRONMENTS[name]) as side:
            best = max(best, *(side.ask("best_gflop_per_s", length) for length in _MATRIX_SIDES))
    return best


def take_turns(sides: Mapping[str, Side], method: str, arguments: tuple[Any, ...], calls: int, turns: int) -> Timed:
    """Calls a method that times so many calls, of one side after the other, so many times.

    Args:
      sides: by name.
      method: of both, see `process.timed_steps`; takes `arguments` and the number of calls.
      arguments: the same for both.
      calls: of a turn.
      turns: of each side that count.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    others: list[float] = []
    for turn in range(_MOST_TRIES * turns):
        timed = {name: side.ask(method, *arguments, calls) for name, side in sides.items()}
        share = max(each["others_share"] for each in timed.values())
        # The last tries count whatever they are, so that a busy machine gives a figure too, and says so.
        if share > _MOST_OF_OTHERS and turn < _MOST_TRIES * turns - (turns - len(others)):
            continue
        others.append(share)
        for name, each in timed.items():
            seconds[name] += each["seconds"]
        if len(others) == turns:
            break
    return Timed(seconds, max(others))
