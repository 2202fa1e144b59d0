"""The Fréchet distance of two sets of features, taken as normal distributions (arXiv 1706.08500, equation 6).

FID is that of Inception-v3's features of images, FVD (arXiv 1812.01717) that of I3D's of clips.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from phenaki_jax.errors import UserError

_ROWS = 4096


@dataclasses.dataclass(frozen=True)
class FeatureStatistics:
    """What a Fréchet distance needs of a set of features, in float64.

    Attributes:
      count: rows it is of.
      mean: of the rows.
      covariance: of the unbiased kind.
    """

    count: int
    mean: Float[np.ndarray, " features"]
    covariance: Float[np.ndarray, "features features"]

    @classmethod
    def of(cls, features: Float[np.ndarray, "rows features"]) -> "FeatureStatistics":
        """Those of features in memory.

        Raises:
          UserError: fewer than two rows, or features that are no finite numbers.
        """
        if len(features) < 2:
            raise UserError(f"found {len(features)} rows of features, expected at least 2 for a covariance")
        refuse_flawed(len(features) - int(np.isfinite(features).all(axis=1).sum()), len(features))
        mean = np.asarray(np.mean(features, axis=0, dtype=np.float64))
        scatter = np.zeros((len(mean), len(mean)))
        # A part at a time is in memory in float64.
        for start in range(0, len(features), _ROWS):
            centred = features[start : start + _ROWS] - mean
            scatter += centred.T @ centred
        return cls(count=len(features), mean=mean, covariance=scatter / (len(features) - 1))

    @functools.cached_property
    def root(self) -> Float[np.ndarray, "features features"]:
        """The root of the covariance."""
        values, vectors = np.linalg.eigh(self.covariance)
        return (vectors * np.sqrt(np.clip(values, 0.0, None))) @ vectors.T


def frechet_distance(first: Float[np.ndarray, "some features"], second: Float[np.ndarray, "others _"]) -> float:
    """|difference of means|^2 + trace(A + B - 2 (A B)^(1/2)) of the covariances A and B, in float64.

    Sets of fewer rows than features have singular covariances, for which this holds too; but then, and for all small
    sets, it is larger than between the distributions they come from: compare sets of equal size.

    Raises:
      UserError: fewer than two rows, sets of different features, or features that are no finite numbers.
    """
    check_sets(first, second)
    return frechet_of_moments(FeatureStatistics.of(first), FeatureStatistics.of(second))


def frechet_of_moments(first: FeatureStatistics, second: FeatureStatistics) -> float:
    """The same of sets that only their statistics are left of.

    Raises:
      UserError: sets of different features.
    """
    _check_widths(len(first.mean), len(second.mean))
    # The singular values of the product of the roots are the roots of the eigenvalues of A B, without their squaring.
    return _distance(first, second, np.linalg.svd(first.root @ second.root, compute_uv=False))


@dataclasses.dataclass(frozen=True)
class InfluenceFunction:
    """How much each row of a set moves a distance, in float64.

    To first order, a set in which some rows count more than others is at the distance plus the mean of their
    influences, counted alike. Influences of the whole set have mean 0.

    Attributes:
      mean: of the set.
      slope: of the distance as the mean moves.
      curvature: the same as the covariance changes.
      constant: what makes the mean of all influences 0.
    """

    mean: Float[np.ndarray, " features"]
    slope: Float[np.ndarray, " features"]
    curvature: Float[np.ndarray, "features features"]
    constant: float

    @classmethod
    def mean_of(cls, functions: Sequence["InfluenceFunction"]) -> "InfluenceFunction":
        """That of the mean of several distances of one set."""
        slope, curvature = (np.mean([getattr(each, name) for each in functions], 0) for name in ("slope", "curvature"))
        return cls(functions[0].mean, slope, curvature, float(np.mean([each.constant for each in functions])))

    def of(self, rows: Float[np.ndarray, "rows features"]) -> Float[np.ndarray, " rows"]:
        """The derivative of the distance with respect to the share of each of some rows of the set."""
        centred = rows.astype(np.float64) - self.mean
        found: Float[np.ndarray, " rows"] = centred @ self.slope + np.sum((centred @ self.curvature) * centred, axis=1)
        return found - self.constant


class Influences(NamedTuple):
    """A distance, and how much each row moves it.

    Attributes:
      distance: of the sets.
      first: of rows of the first set.
      second: of rows of the second.
    """

    distance: float
    first: InfluenceFunction
    second: InfluenceFunction


def frechet_influences(first: FeatureStatistics, second: FeatureStatistics) -> Influences:
    """The Fréchet distance and its derivatives, from one decomposition.

    Raises:
      UserError: sets of different features.
    """
    _check_widths(len(first.mean), len(second.mean))
    left, values, right = np.linalg.svd(first.root @ second.root)
    kept = values > values[0] * len(values) * np.finfo(np.float64).eps
    inverse = 1 / values[kept]
    # Half the slope of the trace of (A B)^(1/2) as A, and as B, change.
    of_first = second.root @ right[kept].T
    of_second = first.root @ left[:, kept]
    return Influences(
        _distance(first, second, values),
        _influence(first, second, (of_first * inverse) @ of_first.T),
        _influence(second, first, (of_second * inverse) @ of_second.T),
    )


def _influence(
    own: FeatureStatistics, other: FeatureStatistics, map_to_other: Float[np.ndarray, "features features"]
) -> InfluenceFunction:
    """By the linear map that makes a set's normal distribution, about its mean, the other's."""
    left = np.eye(len(own.mean)) - map_to_other
    return InfluenceFunction(
        mean=own.mean,
        slope=2 * (own.mean - other.mean),
        curvature=left * (own.count / (own.count - 1)),
        constant=float(np.sum(own.covariance * left)),
    )


def _distance(first: FeatureStatistics, second: FeatureStatistics, shared: Float[np.ndarray, " features"]) -> float:
    """From the singular values of the product of the roots."""
    traces = np.trace(first.covariance) + np.trace(second.covariance)
    return float(np.sum((first.mean - second.mean) ** 2) + traces - 2 * shared.sum())


def check_sets(first: Float[np.ndarray, "some _"], second: Float[np.ndarray, "others _"]) -> None:
    """Refuses sets of features that nothing can be said of.

    Raises:
      UserError: fewer than two rows, sets of different features, or features that are no finite numbers.
    """
    if min(len(first), len(second)) < 2:
        raise UserError(f"found sets of {len(first)} and {len(second)} features, expected at least 2 in each")
    _check_widths(first.shape[1], second.shape[1])
    for features in (first, second):
        refuse_flawed(len(features) - int(np.isfinite(features).all(axis=1).sum()), len(features))


def refuse_flawed(flawed: int, rows: int) -> None:
    """Refuses sets with rows that are no finite numbers.

    Raises:
      UserError: says how many there are.
    """
    if flawed:
        raise UserError(
            f"found NaN or infinity in {flawed} of {rows} rows of features, expected numbers alone: look at the videos "
            "they are of, and at the network's weights"
        )


def _check_widths(first: int, second: int) -> None:
    if first != second:
        raise UserError(
            f"found rows of {first} and {second} features, expected the same in both sets: take them from one network"
        )
