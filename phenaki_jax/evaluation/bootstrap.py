"""Intervals in which a measure would fall with other samples of the same kind, by drawing samples anew."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from phenaki_jax.errors import UserError, check_at_least, check_types
from phenaki_jax.evaluation.frechet import frechet_influences


@dataclasses.dataclass(frozen=True)
class Interval:
    """Between which values a measure lies.

    Attributes:
      low: the lower end.
      high: the upper end.
      level: the share of replicates within.
      replicates: how many times samples were drawn anew.
      seed: of the draws.
    """

    low: float
    high: float
    level: float
    replicates: int
    seed: int

    def __post_init__(self) -> None:
        check_types(self)
        check_at_least(self, 1, "replicates")
        if not 0 < self.level < 1:
            raise UserError(f"found level {self.level}, expected a share between 0 and 1, as 0.95")


def bootstrap(
    measure: Callable[..., float],
    *sets: np.ndarray,
    seed: int,
    replicates: int = 1000,
    level: float = 0.95,
) -> Interval:
    """Percentiles of a measure of sets whose rows are drawn anew, with repetition, as many as there are.

    Args:
      measure: of as many arrays as there are sets; it is called for each replicate.
      *sets: with a row for each sample.
      seed: of the draws.
      replicates: how many.
      level: the share of them that the interval holds.

    Raises:
      UserError: an empty set, or a level that is no share.
    """
    if any(not len(rows) for rows in sets):
        raise UserError("found an empty set of samples, expected at least one sample in each")
    unknown = Interval(low=np.nan, high=np.nan, level=level, replicates=replicates, seed=seed)
    rng = np.random.default_rng(seed)
    values = [
        float(measure(*(rows[rng.integers(len(rows), size=len(rows))] for rows in sets))) for _ in range(replicates)
    ]
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2]).tolist()
    return dataclasses.replace(unknown, low=low, high=high)


def frechet_interval(
    first: Float[np.ndarray, "some features"],
    second: Float[np.ndarray, "others _"],
    *,
    seed: int,
    replicates: int = 1000,
    level: float = 0.95,
    rows_drawn_together: tuple[int, int] = (1, 1),
) -> Interval:
    """The interval of the Fréchet distance of sets of these sizes, both drawn anew.

    The distance of each replicate is taken to first order, from the influence of each row: one decomposition in all
    instead of one for each replicate. This also leaves out that sets with repetitions are farther apart, by about the
    bias that small sets have anyway, for which plain replicates lie above the distance they are meant for. Where two
    sets are as good as equal, the first order vanishes and the interval is too narrow.

    Args:
      first: a set.
      second: another one of the same features.
      seed: of the draws.
      replicates: how many.
      level: the share of them that the interval holds.
      rows_drawn_together: how many rows that follow each other in each set belong to one sample, as the frames of a
        clip, or the videos from one prompt, do.

    Raises:
      UserError: as `frechet_distance`, a level that is no share, or sets that are no whole number of samples.
    """
    influences = frechet_influences(first, second)
    return bootstrap(
        lambda one, other: influences.distance + one.mean() + other.mean(),
        means_of_samples(influences.first, rows_drawn_together[0]),
        means_of_samples(influences.second, rows_drawn_together[1]),
        seed=seed,
        replicates=replicates,
        level=level,
    )


def means_of_samples(values: Float[np.ndarray, " rows"], rows: int) -> Float[np.ndarray, " samples"]:
    """The means over so many rows that follow each other.

    Raises:
      UserError: the values are no whole number of times as many.
    """
    if len(values) % rows:
        raise UserError(f"found {len(values)} rows, expected a multiple of the {rows} that belong together")
    return values.reshape(-1, rows).mean(axis=1)
