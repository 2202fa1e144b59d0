"""A mean over clips as a `clu.metrics` metric, for measures that each clip has one of."""

from __future__ import annotations

from typing import Any

import flax.struct
import jax.numpy as jnp
from clu import metrics
from jaxtyping import Array, Bool, Float

from phenaki_jax.evaluation.masks import valid_rows
from phenaki_jax.evaluation.pairs import Pair


@flax.struct.dataclass
class Mean(metrics.Metric):
    """The mean of a value for each clip, of however many; NaN of none.

    `Mean.from_output(name)` reads the values [batch] of this name, and which clips are valid from the output `mask`.

    Attributes:
      total: sum of the values.
      count: how many.
    """

    total: Pair
    count: Pair

    @classmethod
    def empty(cls) -> "Mean":
        """Nothing added."""
        return cls(total=Pair.zeros(), count=Pair.zeros())

    @classmethod
    def from_model_output(
        cls, values: Float[Array, " batch"], mask: Bool[Array, " batch"] | None = None, **_: Any
    ) -> "Mean":
        """Those of a batch; values of clips that are not valid may be anything."""
        valid = valid_rows(mask, len(values))
        total = jnp.sum(jnp.where(valid, values.astype(jnp.float32), 0.0))
        return cls(total=Pair.zeros().add(total), count=Pair.zeros().add(jnp.sum(valid, dtype=jnp.float32)))

    def merge(self, other: "Mean") -> "Mean":
        """Adds what another has added up."""
        return type(self)(total=self.total.merge(other.total), count=self.count.merge(other.count))

    def compute(self) -> float:
        """The mean, on the host."""
        count = float(self.count.to_float64())
        return float(self.total.to_float64()) / count if count else float("nan")
