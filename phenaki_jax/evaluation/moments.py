"""Means and covariances of features that stream by, and the Fréchet distance of two such streams, as `clu.metrics`.

Sums of products lose small variances beside large means in float32, and TPUs multiply in bfloat16. Here products are
exact: features are cut into slices of 8 bits, whose products add up to whole numbers below 2^24 over 256 rows, which
is exact in any order, on any number of devices, and in bfloat16 products that are added up in float32.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from clu import metrics
from jaxtyping import Array, Bool, Float, Int

from phenaki_jax.errors import UserError
from phenaki_jax.evaluation.frechet import FeatureStatistics, frechet_of_moments, refuse_flawed
from phenaki_jax.evaluation.masks import mask_of, valid_rows
from phenaki_jax.evaluation.pairs import Pair

_ROWS = 256
_HALF = 2.0**7
_SLICE = 2.0**8


@flax.struct.dataclass
class Moments(metrics.Metric):
    """Count, sums and sums of products of features, as exact as if they were added up in float64.

    `Moments.from_output(name)` reads the features [batch, features] of this name, and which rows are valid from the
    output `mask`, as other metrics of clu do. Features should be between 1e-12 and 1e15 in size, where they are not 0.
    On several hosts, a compiled function should give it replicated (`out_shardings`) before it is computed.

    Attributes:
      count: of the rows that were added.
      flawed: how many valid rows had NaN or infinity and were left out.
      total: sums of the rows.
      products: sums of rows times rows; the mean of it and its transpose counts.
    """

    count: Int[Array, "*devices"]
    flawed: Int[Array, "*devices"]
    total: Pair
    products: Pair

    @classmethod
    def empty(cls, features: int | None = None) -> "Moments":
        """Nothing added; of any number of features, or of this one, so that shapes stay as they are."""
        shape = () if features is None else (features,)
        # Each a buffer of its own, so that compiled functions may take them all.
        count, flawed = (jnp.zeros((), jnp.int32) for _ in range(2))
        return cls(count=count, flawed=flawed, total=Pair.zeros(shape), products=Pair.zeros(2 * shape))

    @classmethod
    def from_model_output(
        cls, features: Float[Array, "batch features"], mask: Bool[Array, " batch"] | None = None, **_: Any
    ) -> "Moments":
        """The moments of a batch, see `add`."""
        return cls.empty(features.shape[1]).add(features, mask)

    def add(self, features: Float[Array, "batch features"], mask: Bool[Array, " batch"] | None = None) -> "Moments":
        """Adds the rows of a batch; in a loop it needs half the memory of merging the batch's moments.

        Args:
          features: any values where rows are not valid.
          mask: which rows are valid; None for all.
        """
        batch, width = features.shape
        valid = valid_rows(mask, batch)
        finite = jnp.all(jnp.isfinite(features), axis=1)
        rows = jnp.where((valid & finite)[:, None], features.astype(jnp.float32), 0.0)
        start = (self.total.broadcast((width,)), self.products.broadcast((width, width)))
        (total, products), _ = jax.lax.scan(_add_rows, start, _parts(rows))
        return self.replace(
            count=self.count + jnp.sum(valid & finite, dtype=jnp.int32),
            flawed=self.flawed + jnp.sum(valid & ~finite, dtype=jnp.int32),
            total=total,
            products=products,
        )

    def merge(self, other: "Moments") -> "Moments":
        """Adds what another has added up."""
        return type(self)(
            count=self.count + other.count,
            flawed=self.flawed + other.flawed,
            total=self.total.merge(other.total),
            products=self.products.merge(other.products),
        )

    def compute(self) -> FeatureStatistics:
        """Mean and covariance in float64, on the host.

        Raises:
          UserError: fewer than two rows, or features that are no finite numbers.
        """
        count = int(self.count)
        refuse_flawed(int(self.flawed), count + int(self.flawed))
        if count < 2:
            raise UserError(f"found {count} rows of features, expected at least 2 for a covariance")
        total, products = self.total.to_float64(), self.products.to_float64()
        if not (np.isfinite(total).all() and np.isfinite(products).all()):
            raise UserError(
                "found features whose squares add up to more than float32 holds, expected features below 1e15: divide "
                "them by a number"
            )
        mean = total / count
        scatter = (products + products.T) / 2 - count * np.outer(mean, mean)
        return FeatureStatistics(count=count, mean=mean, covariance=scatter / (count - 1))


_add = jax.jit(Moments.add, donate_argnums=0)


def statistics_of_parts(parts: Iterable[Float[np.ndarray, "_ features"]], most: int) -> FeatureStatistics:
    """Those of rows that come in parts, one of which is in memory at a time.

    Args:
      parts: the rows.
      most: rows of a part at the most.

    Raises:
      UserError: see `Moments.compute`.
    """
    moments: Moments | None = None
    for rows in parts:
        padded = np.pad(rows, [(0, most - len(rows)), (0, 0)])
        moments = _add(moments or Moments.empty(rows.shape[1]), padded, np.arange(most) < len(rows))
    return (moments or Moments.empty()).compute()


@flax.struct.dataclass
class FrechetDistance(metrics.Metric):
    """The Fréchet distance of real and generated features that stream by: FID of Inception-v3's, FVD of I3D's.

    Attributes:
      real: moments of the real ones.
      generated: moments of the generated ones.
    """

    real: Moments
    generated: Moments

    @classmethod
    def empty(cls) -> "FrechetDistance":
        """Nothing added."""
        return cls(real=Moments.empty(), generated=Moments.empty())

    @classmethod
    def from_outputs(
        cls, real: str = "real_features", generated: str = "generated_features"
    ) -> type["FrechetDistance"]:
        """A metric that reads the outputs of these names [batch, features]; one that is absent adds nothing.

        Which rows are valid is read from the output of the same name with `_mask` at its end, or else from `mask`.
        """

        @flax.struct.dataclass
        class FromOutputs(cls):  # type: ignore[misc, valid-type]
            @classmethod
            def from_model_output(cls, **outputs: Any) -> "FrechetDistance":
                return cls(real=_moments_of(outputs, real), generated=_moments_of(outputs, generated))

        return FromOutputs

    def merge(self, other: "FrechetDistance") -> "FrechetDistance":
        """Adds what another has added up."""
        return type(self)(real=self.real.merge(other.real), generated=self.generated.merge(other.generated))

    def compute(self) -> float:
        """The distance, on the host.

        Raises:
          UserError: see `Moments.compute`.
        """
        return frechet_of_moments(self.real.compute(), self.generated.compute())


def _moments_of(outputs: dict[str, Any], name: str) -> Moments:
    if name not in outputs:
        return Moments.empty()
    return Moments.from_model_output(jnp.asarray(outputs[name]), mask_of(outputs, name))


def _parts(rows: Float[Array, "batch features"]) -> Float[Array, "parts rows features"]:
    """Parts of at most `_ROWS`, filled up with zeros; each takes its share of the rows of every device."""
    batch, width = rows.shape
    parts = max(1, -(-batch // _ROWS))
    padded = jnp.pad(rows, ((0, -batch % parts), (0, 0)))
    return jnp.moveaxis(padded.reshape(-1, parts, width), 1, 0)


def _add_rows(sums: tuple[Pair, Pair], rows: Float[Array, "rows features"]) -> tuple[tuple[Pair, Pair], None]:
    """Adds at most `_ROWS` rows to sums and sums of products.

    In units of its column, a feature is a + b / 2^8 + (c + d) / 2^16 with whole numbers a, b, c up to 2^7 and a rest d
    up to 1/2. Products of a and b with each other, and of a with c, are added up exactly, those of different slices
    once but doubled. What is left is 2^24 times smaller, and float32 suffices.
    """
    total, products = sums
    _, exponent = jnp.frexp(jnp.max(jnp.abs(rows), axis=0))
    unit = jnp.ldexp(jnp.float32(1 / _HALF), exponent)
    a, rest = _whole(jnp.ldexp(rows, -exponent) * _HALF)
    b, rest = _whole(rest * _SLICE)
    c, d = _whole(rest * _SLICE)
    second, third = 1 / _SLICE, 1 / _SLICE**2
    for values, size in ((a, 1.0), (b, second), (c, third), (d, third)):
        total = total.add(jnp.sum(values, axis=0) * (size * unit))
    exact = (
        (_products(a, a), 1.0),
        (_products(a, b), 2 * second),
        (2 * _products(a, c) + _products(b, b), third),
    )
    highest = jax.lax.Precision.HIGHEST
    small = _products((2 * b + c * second) * second, c, highest) + _products(
        2 * (a + b * second + c * third) + d * third, d, highest
    )
    for values, size in (*exact, (small, third)):
        products = products.add((values * (size * unit)[:, None]) * unit)
    return (total, products), None


def _whole(values: Array) -> tuple[Array, Array]:
    """The nearest whole numbers, and what is left."""
    whole = jnp.round(values)
    return whole, values - whole


def _products(
    first: Float[Array, "rows features"],
    second: Float[Array, "rows features"],
    precision: jax.lax.Precision | None = None,
) -> Float[Array, "features features"]:
    """Sums over rows; without a precision, factors may become bfloat16, as which whole numbers up to 2^8 are exact."""
    return jnp.einsum("rf,rg->fg", first, second, precision=precision, preferred_element_type=jnp.float32)
