"""The Fréchet distance of two sets of features, taken as normal distributions (arXiv 1706.08500, equation 6)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from phenaki_jax.errors import UserError


def frechet_distance(first: Float[np.ndarray, "some features"], second: Float[np.ndarray, "others _"]) -> float:
    """|difference of means|^2 + trace(A + B - 2 (A B)^(1/2)) of the covariances A and B, in float64.

    Sets of fewer rows than features have singular covariances, for which this holds too; but then, and for all small
    sets, it is larger than between the distributions they come from: compare sets of equal size.

    Raises:
      UserError: fewer than two rows, sets of different features, or features that are no finite numbers.
    """
    if min(len(first), len(second)) < 2:
        raise UserError(f"found sets of {len(first)} and {len(second)} features, expected at least 2 in each")
    if first.shape[1] != second.shape[1]:
        raise UserError(
            f"found rows of {first.shape[1]} and {second.shape[1]} features, expected the same in both sets: take them "
            "from one network"
        )
    for features in (first, second):
        if flawed := len(features) - int(np.isfinite(features).all(axis=1).sum()):
            raise UserError(
                f"found NaN or infinity in {flawed} of {len(features)} rows of features, expected numbers alone: look "
                "at the videos they are of, and at the network's weights"
            )
    means = [np.mean(features, axis=0, dtype=np.float64) for features in (first, second)]
    covariances = [np.cov(features.astype(np.float64), rowvar=False, ddof=1) for features in (first, second)]
    one, other = (np.atleast_2d(covariance) for covariance in covariances)
    root = _root(one)
    # The eigenvalues of one @ other are those of this symmetric product.
    shared = np.sqrt(np.clip(np.linalg.eigvalsh(root @ other @ root), 0.0, None)).sum()
    return float(np.sum((means[0] - means[1]) ** 2) + np.trace(one) + np.trace(other) - 2 * shared)


def _root(covariance: Float[np.ndarray, "features features"]) -> Float[np.ndarray, "features features"]:
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(np.clip(values, 0.0, None))) @ vectors.T
