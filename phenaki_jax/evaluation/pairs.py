"""Sums in pairs of float32 numbers, which keep 48 bits: what float64 is for, where devices have none."""

from __future__ import annotations

import flax.struct
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


@flax.struct.dataclass
class Pair:
    """Sums, each the unrounded sum of two float32 numbers.

    Compilers must leave the order of additions as it is written, as XLA does.

    Attributes:
      high: the sums as float32 has them.
      low: what is missing there, at most half a unit in the last place of `high`.
    """

    high: Float[Array, "*sums"]
    low: Float[Array, "*sums"]

    @classmethod
    def zeros(cls, shape: tuple[int, ...] = ()) -> "Pair":
        """Sums of nothing."""
        return cls(high=jnp.zeros(shape, jnp.float32), low=jnp.zeros(shape, jnp.float32))

    def broadcast(self, shape: tuple[int, ...]) -> "Pair":
        """The same sums for every entry."""
        return Pair(high=jnp.broadcast_to(self.high, shape), low=jnp.broadcast_to(self.low, shape))

    def add(self, values: Float[Array, "*values"]) -> "Pair":
        """Adds float32 values; shapes broadcast."""
        return self.merge(Pair(high=values, low=jnp.zeros_like(values)))

    def merge(self, other: "Pair") -> "Pair":
        """Adds the sums of another; shapes broadcast.

        The sum of two float32 numbers is a float32 number and an error that is one too (Knuth, The Art of Computer
        Programming, volume 2, section 4.2.2, theorem B).
        """
        high = self.high + other.high
        added = high - self.high
        error = (self.high - (high - added)) + (other.high - added)
        low = (self.low + other.low) + error
        total = high + low
        return Pair(high=total, low=low - (total - high))

    def to_float64(self) -> np.ndarray:
        """The sums, on the host."""
        return np.asarray(np.asarray(self.high, np.float64) + np.asarray(self.low, np.float64))
