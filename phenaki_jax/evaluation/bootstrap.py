"""Intervals in which a measure would fall with other samples of the same kind, by drawing samples anew."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from phenaki_jax.errors import UserError, check_at_least, check_types
from phenaki_jax.evaluation.frechet import FeatureStatistics, check_sets, frechet_influences


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


def interval_of_influences(
    value: float,
    *sets: tuple[Float[np.ndarray, " _"], Int[np.ndarray, " _"]],
    seed: int,
    replicates: int = 1000,
    level: float = 0.95,
) -> Interval:
    """The interval of a value of several sets, whose samples come of clips: it is the clips that are drawn anew.

    Whatever came of a clip that is drawn is drawn with it, in all sets. Each replicate is taken to first order.

    Args:
      value: of the sets.
      *sets: how much each sample moves the value, of which their mean is taken away, and which clip it came of.
      seed: of the draws.
      replicates: how many.
      level: the share of them that the interval holds.

    Raises:
      UserError: a level that is no share.
    """
    _, clips = np.unique(np.concatenate([clips for _, clips in sets]), return_inverse=True)
    shares = np.concatenate([(influences - influences.mean()) / len(influences) for influences, _ in sets])
    return bootstrap(
        lambda drawn: value + float(drawn.sum()),
        np.bincount(clips, weights=shares),
        seed=seed,
        replicates=replicates,
        level=level,
    )


def mean_interval(
    values: Float[np.ndarray, " samples"],
    clips: Int[np.ndarray, " samples"],
    *,
    seed: int,
    replicates: int = 1000,
    level: float = 0.95,
) -> Interval:
    """The interval of a mean of samples that come of clips, which are drawn anew with all that came of them.

    Raises:
      UserError: no samples, or a level that is no share.
    """
    _, places = np.unique(clips, return_inverse=True)
    sums = np.stack([np.bincount(places, weights=values), np.bincount(places)], axis=1)
    return bootstrap(
        lambda drawn: float(drawn[:, 0].sum() / drawn[:, 1].sum()), sums, seed=seed, replicates=replicates, level=level
    )


def frechet_interval(
    first: Float[np.ndarray, "some features"],
    second: Float[np.ndarray, "others _"],
    *,
    seed: int,
    replicates: int = 1000,
    level: float = 0.95,
    clips: tuple[Int[np.ndarray, " some"], Int[np.ndarray, " others"]] | None = None,
) -> Interval:
    """The interval of the Fréchet distance of sets of these sizes, drawn anew.

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
      clips: which clip each row came of, by the same numbers in both sets; None where each came of its own.

    Raises:
      UserError: as `frechet_distance`, or a level that is no share.
    """
    check_sets(first, second)
    found = frechet_influences(FeatureStatistics.of(first), FeatureStatistics.of(second))
    own = clips or (np.arange(len(first)), len(first) + np.arange(len(second)))
    return interval_of_influences(
        found.distance,
        (found.first.of(first), own[0]),
        (found.second.of(second), own[1]),
        seed=seed,
        replicates=replicates,
        level=level,
    )
