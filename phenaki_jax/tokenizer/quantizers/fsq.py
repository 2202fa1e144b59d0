"""Finite scalar quantization (arXiv 2309.15505): few bounded dimensions, rounded; no learned codebook, no loss."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from phenaki_jax.tokenizer.quantizers.indices import join_index, split_index
from phenaki_jax.tokenizer.quantizers.quantizer import Quantized, Quantizer, straight_through


class FSQ(Quantizer):
    """Each dimension of a code is one of its levels, spread over [-1, 1]; in an index the first changes fastest."""

    def __call__(self, features: Float[Array, "*batch width"], valid: Bool[Array, "*batch"] | None = None) -> Quantized:
        """Rounds each token's bounded projection to its levels."""
        bounded = self._bound(self.into_code(features.astype(jnp.float32)))
        codes = straight_through(bounded, jnp.round(bounded)) / self._half()
        return Quantized(self.out_of_code(codes), self.indices(codes), jnp.zeros(()), {}, {})

    def codes(self, indices: Int[Array, "*batch"]) -> Float[Array, "*batch dimensions"]:
        """The levels of indices."""
        digits = split_index(self.config, indices)
        return (digits.astype(jnp.float32) - self._half()) / self._half()

    def indices(self, codes: Float[Array, "*batch dimensions"]) -> Int[Array, "*batch"]:
        """The indices of levels, rounded to the nearest there are."""
        highest = jnp.asarray(self.config.levels, jnp.int32) - 1
        digits = jnp.round(codes * self._half() + self._half()).astype(jnp.int32)
        return join_index(self.config, jnp.clip(digits, 0, highest))

    def _half(self) -> Float[Array, " dimensions"]:
        return jnp.floor(jnp.asarray(self.config.levels, jnp.float32) / 2)

    def _bound(self, projected: Float[Array, "*batch dimensions"]) -> Float[Array, "*batch dimensions"]:
        """Squashes each dimension so that rounding gives exactly its number of levels (FSQ paper, section 3.1)."""
        levels = jnp.asarray(self.config.levels, jnp.float32)
        half_range = (levels - 1) * (1 + 1e-3) / 2
        offset = jnp.where(levels % 2 == 0, 0.5, 0.0)
        shift = jnp.arctanh(offset / half_range)
        return jnp.tanh(projected + shift) * half_range - offset
