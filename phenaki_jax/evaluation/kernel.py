"""The kernel distance of two sets of features: KID of Inception-v3's (arXiv 1801.01401), KVD of a video network's.

It is the squared maximum mean discrepancy with the kernel (x . y / features + 1)^3, by the estimate whose mean does not
depend on how many samples there are. It may therefore be negative where sets hardly differ.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from clu import metrics
from jaxtyping import Array, Bool, Float

from phenaki_jax.evaluation.frechet import check_sets
from phenaki_jax.evaluation.masks import mask_of, valid_rows
from phenaki_jax.evaluation.pairs import Pair

SUBSETS, SUBSET_SIZE = 100, 1000
"""How many subsets published distances are the mean of, and the rows of each set that are in one."""

_DEGREE = 3


class OfSubsets(NamedTuple):
    """The distances of subsets.

    Attributes:
      mean: what is reported.
      deviation: from subset to subset; None where a set is taken whole, as nothing of it differs then.
      subsets: how many there were; one where both sets are taken whole.
    """

    mean: float
    deviation: float | None
    subsets: int


def kernel_distance(
    first: Float[np.ndarray, "some features"], second: Float[np.ndarray, "others _"], rows: int = 2048
) -> float:
    """The kernel distance by all pairs, in float64.

    Args:
      first: a set.
      second: another one of the same features.
      rows: of how many rows of each set products are in memory at a time.

    Raises:
      UserError: fewer than two rows, sets of different features, or features that are no finite numbers.
    """
    check_sets(first, second)
    some, others = len(first), len(second)
    within = [_sum(features, features, rows) - _kernel_of_rows(features).sum() for features in (first, second)]
    across = _sum(first, second, rows)
    return float(within[0] / (some * (some - 1)) + within[1] / (others * (others - 1)) - 2 * across / (some * others))


def kernel_distance_of_subsets(
    first: Float[np.ndarray, "some features"],
    second: Float[np.ndarray, "others _"],
    *,
    subsets: int = SUBSETS,
    size: int = SUBSET_SIZE,
    seed: int,
) -> OfSubsets:
    """The kernel distance as it is published: the mean of random subsets, each drawn without repetition.

    Args:
      first: a set.
      second: another one of the same features.
      subsets: how many, unless both sets are taken whole.
      size: rows of a subset of each set; sets of no more are taken whole.
      seed: of the subsets.

    Raises:
      UserError: see `kernel_distance`.
    """
    check_sets(first, second)
    rng = np.random.default_rng(seed)

    def subset(features: np.ndarray) -> np.ndarray:
        return features[rng.choice(len(features), min(size, len(features)), replace=False)]

    count = subsets if max(len(first), len(second)) > size else 1
    distances = [kernel_distance(subset(first), subset(second)) for _ in range(count)]
    deviation = float(np.std(distances)) if min(len(first), len(second)) > size else None
    return OfSubsets(mean=float(np.mean(distances)), deviation=deviation, subsets=count)


@flax.struct.dataclass
class KernelDistance(metrics.Metric):
    """The mean kernel distance of batches of real and generated features.

    Batches take the place of the published subsets: each has its own estimate, none is biased, and nothing but their
    sum is kept. Batches count by the rows of their smaller half; those of fewer than two rows of a kind do not count.

    Attributes:
      total: sum of the distances, weighted.
      weight: sum of the weights.
    """

    total: Pair
    weight: Pair

    @classmethod
    def empty(cls) -> "KernelDistance":
        """Nothing added."""
        return cls(total=Pair.zeros(), weight=Pair.zeros())

    @classmethod
    def from_outputs(cls, real: str = "real_features", generated: str = "generated_features") -> type["KernelDistance"]:
        """A metric that reads the outputs of these names [batch, features].

        Which rows are valid is read from the output of the same name with `_mask` at its end, or else from `mask`.
        """

        @flax.struct.dataclass
        class FromOutputs(cls):  # type: ignore[misc, valid-type]
            @classmethod
            def from_model_output(cls, **outputs: Any) -> "KernelDistance":
                halves = []
                for name in (real, generated):
                    features = jnp.asarray(outputs[name])
                    halves += [features, valid_rows(mask_of(outputs, name), len(features))]
                distance, weight = _batch_distance(*halves)
                return cls(total=Pair.zeros().add(distance * weight), weight=Pair.zeros().add(weight))

        return FromOutputs

    def merge(self, other: "KernelDistance") -> "KernelDistance":
        """Adds what another has added up."""
        return type(self)(total=self.total.merge(other.total), weight=self.weight.merge(other.weight))

    def compute(self) -> float:
        """The mean, on the host; NaN of nothing."""
        weight = float(self.weight.to_float64())
        return float(self.total.to_float64()) / weight if weight else float("nan")


def _batch_distance(
    real: Float[Array, "rows features"],
    real_mask: Bool[Array, " rows"],
    generated: Float[Array, "others features"],
    generated_mask: Bool[Array, " others"],
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The distance of a batch in float32, and its weight."""
    within, counts = [], []
    for features, mask in ((real, real_mask), (generated, generated_mask)):
        different = mask[:, None] & mask & ~jnp.eye(len(mask), dtype=bool)
        within.append(_masked_mean(_kernel(features, mask, features, mask), different))
        counts.append(jnp.sum(mask, dtype=jnp.float32))
    across = _masked_mean(
        _kernel(real, real_mask, generated, generated_mask), real_mask[:, None] & generated_mask[None]
    )
    fewest = jnp.minimum(*counts)
    return within[0] + within[1] - 2 * across, jnp.where(fewest > 1, fewest, 0.0)


def _kernel(
    first: Float[Array, "rows features"],
    first_mask: Bool[Array, " rows"],
    second: Float[Array, "others features"],
    second_mask: Bool[Array, " others"],
) -> Float[Array, "rows others"]:
    first = jnp.where(first_mask[:, None], first.astype(jnp.float32), 0.0)
    second = jnp.where(second_mask[:, None], second.astype(jnp.float32), 0.0)
    products = jnp.einsum("rf,sf->rs", first, second, precision=jax.lax.Precision.HIGHEST)
    return (products / first.shape[1] + 1.0) ** _DEGREE


def _masked_mean(values: Array, mask: Array) -> Array:
    return jnp.sum(jnp.where(mask, values, 0.0)) / jnp.maximum(jnp.sum(mask, dtype=jnp.float32), 1.0)


def _sum(first: np.ndarray, second: np.ndarray, rows: int) -> float:
    """The sum of the kernel over all pairs."""
    total = 0.0
    for start in range(0, len(first), rows):
        some = first[start : start + rows].astype(np.float64)
        for other in range(0, len(second), rows):
            products = some @ second[other : other + rows].astype(np.float64).T
            total += float(((products / first.shape[1] + 1) ** _DEGREE).sum())
    return total


def _kernel_of_rows(features: np.ndarray) -> np.ndarray:
    """The kernel of each row and itself."""
    squares = np.einsum("rf,rf->r", features, features, dtype=np.float64)
    return (squares / features.shape[1] + 1) ** _DEGREE
