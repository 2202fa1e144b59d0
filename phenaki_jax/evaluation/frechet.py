"""The Fréchet distance of two sets of features, taken as normal distributions (arXiv 1706.08500, equation 6).

FID is that of Inception-v3's features of images, FVD (arXiv 1812.01717) that of I3D's of clips.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from phenaki_jax.errors import UserError


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
        features = features.astype(np.float64)
        covariance = np.atleast_2d(np.cov(features, rowvar=False, ddof=1))
        return cls(count=len(features), mean=np.mean(features, axis=0), covariance=covariance)

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


class Influences(NamedTuple):
    """A distance and how much each row moves it.

    To first order, sets in which some rows count more than others are at this distance plus the means of the
    influences, counted alike. Influences of a set have mean 0.

    Attributes:
      distance: of the sets.
      first: the derivative with respect to the share of each row of the first set.
      second: of the second.
    """

    distance: float
    first: Float[np.ndarray, " some"]
    second: Float[np.ndarray, " others"]


def frechet_influences(first: Float[np.ndarray, "some features"], second: Float[np.ndarray, "others _"]) -> Influences:
    """The Fréchet distance and its derivatives, from one decomposition.

    Raises:
      UserError: see `frechet_distance`.
    """
    check_sets(first, second)
    one, other = FeatureStatistics.of(first), FeatureStatistics.of(second)
    left, values, right = np.linalg.svd(one.root @ other.root)
    kept = values > values[0] * len(values) * np.finfo(np.float64).eps
    inverse = 1 / values[kept]
    # Half the slope of the trace of (A B)^(1/2) as A, and as B, change.
    of_one = other.root @ right[kept].T
    of_other = one.root @ left[:, kept]
    return Influences(
        _distance(one, other, values),
        _influence(first, one, other, (of_one * inverse) @ of_one.T),
        _influence(second, other, one, (of_other * inverse) @ of_other.T),
    )


def _distance(first: FeatureStatistics, second: FeatureStatistics, shared: Float[np.ndarray, " features"]) -> float:
    """From the singular values of the product of the roots."""
    traces = np.trace(first.covariance) + np.trace(second.covariance)
    return float(np.sum((first.mean - second.mean) ** 2) + traces - 2 * shared.sum())


def _influence(
    rows: Float[np.ndarray, "rows features"],
    own: FeatureStatistics,
    other: FeatureStatistics,
    map_to_other: Float[np.ndarray, "features features"],
) -> Float[np.ndarray, " rows"]:
    """The influence of rows, by the linear map that makes their normal distribution, about its mean, the other."""
    centred = rows.astype(np.float64) - own.mean
    moved = centred - centred @ map_to_other
    influence = 2 * centred @ (own.mean - other.mean) + np.sum(centred * moved, axis=1) * own.count / (own.count - 1)
    return influence - influence.mean()


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
