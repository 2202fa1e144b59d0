"""Distances and scores of infinitely many samples, from those of more and more samples (arXiv 1911.07023).

The bias of both falls as 1 / samples, to first order: a line through values at several 1 / samples meets 0 at the
value without it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from phenaki_jax.errors import UserError
from phenaki_jax.evaluation.frechet import FeatureStatistics, frechet_of_moments
from phenaki_jax.evaluation.inception_score import inception_score

POINTS = 15
"""Sizes of the published estimate."""
SMALLEST = 5000
"""The smallest of them."""


class Extrapolated(NamedTuple):
    """A value for infinitely many samples.

    Attributes:
      value: the estimate.
      sizes: of the sets that it comes from.
      values: theirs.
    """

    value: float
    sizes: tuple[int, ...]
    values: tuple[float, ...]


def extrapolated_frechet(
    real: FeatureStatistics,
    generated: Float[np.ndarray, "samples features"],
    *,
    seed: int,
    points: int = POINTS,
    smallest: int = SMALLEST,
) -> Extrapolated:
    """FID_infinity, or FVD_infinity: the Fréchet distance to real features, without the bias of the generated ones.

    The bias of the real ones stays: take as many as there are.

    Args:
      real: statistics of all real features.
      generated: features of all generated samples.
      seed: of the sets, each drawn anew without repetition.
      points: how many sizes, evenly from the smallest to all samples.
      smallest: of them; it should exceed the number of features.

    Raises:
      UserError: fewer than two different sizes.
    """
    return extrapolated(
        lambda rows: frechet_of_moments(real, FeatureStatistics.of(rows)), generated, seed, points, smallest
    )


def extrapolated_inception_score(
    logits: Float[np.ndarray, "samples classes"], *, seed: int, points: int = POINTS, smallest: int = SMALLEST
) -> Extrapolated:
    """IS_infinity: the Inception score without splits; the rest as in `extrapolated_frechet`."""
    return extrapolated(lambda rows: inception_score(rows, splits=1).mean, logits, seed, points, smallest)


def extrapolated(
    measure: Callable[[np.ndarray], float],
    rows: Float[np.ndarray, "samples entries"],
    seed: int,
    points: int = POINTS,
    smallest: int = SMALLEST,
) -> Extrapolated:
    """Where the line of least squares through a measure at 1 / size meets 0, see `extrapolated_frechet`."""
    sizes = np.linspace(min(smallest, len(rows)), len(rows), points).astype(int)
    if points < 2 or sizes[0] < 2 or sizes[0] == sizes[-1]:
        raise UserError(
            f"found {points} sizes from {smallest} to {len(rows)} samples, expected at least 2 different ones: give "
            "more samples or a smaller smallest"
        )
    rng = np.random.default_rng(seed)
    values = [measure(rows[rng.permutation(len(rows))[:size]]) for size in sizes]
    _, value = np.polyfit(1 / sizes, values, 1)
    return Extrapolated(value=float(value), sizes=tuple(sizes.tolist()), values=tuple(values))
