"""Rows of video tokens with their texts, several examples in each, as the masked transformer is trained on them."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped


class Rows(NamedTuple):
    """What the transformer is trained on; several examples may share a row.

    Attributes:
      tokens: codes.
      positions: (time, row, column) of each.
      segment_ids: which example of its row each belongs to, from 1; 0 is padding.
      candidates: tokens that may be masked: no padding, nothing given.
      embeddings: of the texts; None without text, as the next.
      text_segment_ids: as `segment_ids`.
      places: tokens of one time step.
      segments: most examples of a row.
    """

    tokens: Int[Array, "batch length"]
    positions: Int[Array, "#batch length 3"]
    segment_ids: Int[Array, "batch length"]
    candidates: Bool[Array, "batch length"]
    embeddings: Float[Array, "batch text_length text_width"] | None
    text_segment_ids: Int[Array, "batch text_length"] | None
    places: int
    segments: int

    @property
    def filled(self) -> Bool[Array, "batch segments"]:
        """Which examples there are."""
        return self._any(self.segment_ids > 0)

    @property
    def moving(self) -> Bool[Array, "batch length"]:
        """Tokens of videos, and not of images."""
        return of_segment(self._any(self.positions[..., 0] > 0), self.segment_ids)

    @property
    def prefixed(self) -> Bool[Array, "batch length"]:
        """Tokens of videos whose first frames are given."""
        return of_segment(self._any(~self.candidates), self.segment_ids)

    def _any(self, which: Bool[Array, "#batch length"]) -> Bool[Array, "batch segments"]:
        own = jax.nn.one_hot(self.segment_ids - 1, self.segments, dtype=bool)
        return jnp.any(own & which[..., None], axis=1)


def of_segment(values: Shaped[Array, "batch segments"], segment_ids: Int[Array, "batch length"]) -> Array:
    """The value of the example that each token belongs to; that of the first one for padding."""
    return jnp.take_along_axis(values, jnp.maximum(segment_ids - 1, 0), axis=1)
