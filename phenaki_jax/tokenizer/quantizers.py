"""Quantizers behind one interface: features in, quantized features, code indices and their own loss out."""

from __future__ import annotations

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from phenaki_jax.layers.module import parameter
from phenaki_jax.tokenizer.config import QuantizerConfig


class Quantized(NamedTuple):
    """What a quantizer makes of features.

    Attributes:
      features: quantized features, with the straight-through gradient.
      indices: the code of each token.
      loss: what the quantizer itself wants of each token, unreduced; 0 where it wants nothing.
    """

    features: Float[Array, "*batch width"]
    indices: Int[Array, "*batch"]
    loss: Float[Array, "*batch"]


def _linear(width: int, name: str) -> nn.Dense:
    axes = ("embed", "code") if name == "into_code" else ("code", "embed")
    return nn.Dense(
        width,
        kernel_init=nn.with_logical_partitioning(nn.initializers.lecun_normal(), axes),
        bias_init=nn.with_logical_partitioning(nn.initializers.zeros, axes[1:]),
        name=name,
    )


class CosineVQ(nn.Module):
    """Vector quantization with l2-normalised codes of few dimensions, trained by gradient (Phenaki, appendix)."""

    config: QuantizerConfig
    width: int

    def setup(self) -> None:
        """Makes the projections and the codebook."""
        config = self.config
        self.into_code = _linear(config.code_width, "into_code")
        self.out_of_code = _linear(self.width, "out_of_code")
        self.codebook = parameter(
            self,
            "codebook",
            nn.initializers.normal(1.0),
            ("codes", "code"),
            (config.codes, config.code_width),
        )

    def __call__(self, features: Float[Array, "*batch width"]) -> Quantized:
        """Replaces each token's features by the nearest code, in float32."""
        projected = _l2_normalize(self.into_code(features.astype(jnp.float32)))
        codebook = _l2_normalize(self.codebook)
        similarity = jax.lax.stop_gradient(projected) @ jax.lax.stop_gradient(codebook).T
        indices = jnp.argmax(similarity, axis=-1).astype(jnp.int32)
        codes = codebook[indices]
        codebook_loss = jnp.sum((jax.lax.stop_gradient(projected) - codes) ** 2, axis=-1)
        commitment_loss = jnp.sum((projected - jax.lax.stop_gradient(codes)) ** 2, axis=-1)
        straight_through = projected + jax.lax.stop_gradient(codes - projected)
        loss = codebook_loss + self.config.commitment * commitment_loss
        return Quantized(self.out_of_code(straight_through), indices, loss)

    def lookup(self, indices: Int[Array, "*batch"]) -> Float[Array, "*batch width"]:
        """Features of given codes."""
        return self.out_of_code(_l2_normalize(self.codebook)[indices])


class FSQ(nn.Module):
    """Finite scalar quantization (arXiv 2309.15505): few bounded dimensions, rounded; no learned codebook."""

    config: QuantizerConfig
    width: int

    def setup(self) -> None:
        """Makes the projections."""
        self.into_code = _linear(len(self.config.levels), "into_code")
        self.out_of_code = _linear(self.width, "out_of_code")

    def __call__(self, features: Float[Array, "*batch width"]) -> Quantized:
        """Rounds each token's bounded projection to its levels, in float32."""
        projected = self.into_code(features.astype(jnp.float32))
        bounded = self._bound(projected)
        rounded = bounded + jax.lax.stop_gradient(jnp.round(bounded) - bounded)
        levels = jnp.asarray(self.config.levels, jnp.float32)
        digits = jnp.round(rounded) + jnp.floor(levels / 2)
        indices = jnp.sum(digits.astype(jnp.int32) * self._bases(), axis=-1)
        return Quantized(self.out_of_code(rounded / jnp.floor(levels / 2)), indices, jnp.zeros(indices.shape))

    def lookup(self, indices: Int[Array, "*batch"]) -> Float[Array, "*batch width"]:
        """Features of given codes."""
        levels = jnp.asarray(self.config.levels, jnp.int32)
        digits = (indices[..., None] // self._bases()) % levels
        half = jnp.floor(levels.astype(jnp.float32) / 2)
        return self.out_of_code((digits.astype(jnp.float32) - half) / half)

    def _bases(self) -> Int[Array, " dimensions"]:
        return jnp.asarray(np.cumprod([1, *self.config.levels[:-1]]), jnp.int32)

    def _bound(self, projected: Float[Array, "*batch dimensions"]) -> Float[Array, "*batch dimensions"]:
        """Squashes each dimension so that rounding gives exactly its number of levels (FSQ paper, section 3.1)."""
        levels = jnp.asarray(self.config.levels, jnp.float32)
        half_range = (levels - 1) * (1 + 1e-3) / 2
        offset = jnp.where(levels % 2 == 0, 0.5, 0.0)
        shift = jnp.arctanh(offset / half_range)
        return jnp.tanh(projected + shift) * half_range - offset


def make_quantizer(config: QuantizerConfig, width: int) -> CosineVQ | FSQ:
    """The quantizer that a config names, for features of this width."""
    return (FSQ if config.kind == "fsq" else CosineVQ)(config, width)


def _l2_normalize(vectors: Float[Array, "*batch width"]) -> Float[Array, "*batch width"]:
    return vectors * jax.lax.rsqrt(jnp.sum(vectors**2, axis=-1, keepdims=True) + 1e-12)
