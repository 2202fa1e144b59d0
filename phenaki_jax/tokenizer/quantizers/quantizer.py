"""What all quantizers share: what they return, the projections around the codes, and means over valid tokens."""

from __future__ import annotations

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from phenaki_jax.tokenizer.config import QuantizerConfig


class Quantized(NamedTuple):
    """What a quantizer makes of features.

    Attributes:
      features: quantized features, with the straight-through gradient.
      indices: the code of each token, int32.
      loss: what the quantizer itself asks for, weighted as its config says, a mean over valid tokens; 0 for fsq.
      terms: the parts of the loss without their weights, by name: "commitment" of all kinds but fsq, "codebook" of
        cosine_vq, "token_entropy" and "code_entropy" (in nats) of lfq and bsq.
      statistics: what `update_codebook` needs of these tokens; {} where `config.has_codebook` is false, and without an
        rng named "restart". Those of parts of a batch add up.
    """

    features: Float[Array, "*batch width"]
    indices: Int[Array, "*batch"]
    loss: Float[Array, ""]
    terms: dict[str, Float[Array, ""]]
    statistics: dict[str, Array]


class Quantizer(nn.Module):
    """Codes of few dimensions between two linear projections; everything is computed in float32.

    Attributes:
      config: which codes there are.
      width: of the features that come in and go out.
    """

    config: QuantizerConfig
    width: int

    def setup(self) -> None:
        """Makes the projections."""
        self.into_code = _projection(self.config.dimensions, ("embed", "code"))
        self.out_of_code = _projection(self.width, ("code", "embed"))

    def __call__(self, features: Float[Array, "*batch width"], valid: Bool[Array, "*batch"] | None = None) -> Quantized:
        """Replaces each token's features by those of a code.

        Args:
          features: of any float type.
          valid: False for padding, which gets codes too but counts for nothing else; None where there is none.
        """
        raise NotImplementedError

    def codes(self, indices: Int[Array, "*batch"]) -> Float[Array, "*batch dimensions"]:
        """The code vectors of indices below `config.codebook_size`, before the output projection."""
        raise NotImplementedError

    def indices(self, codes: Float[Array, "*batch dimensions"]) -> Int[Array, "*batch"]:
        """The indices of code vectors, of others those of the code that they are quantized to; inverts `codes`."""
        raise NotImplementedError

    def lookup(self, indices: Int[Array, "*batch"]) -> Float[Array, "*batch width"]:
        """The features of indices, which are those that quantizing gave."""
        return self.out_of_code(self.codes(indices))


def mean_over_valid(values: Float[Array, "*batch"], valid: Bool[Array, "*batch"] | None) -> Float[Array, ""]:
    """The mean over valid tokens; 0 where there are none."""
    if valid is None:
        return jnp.mean(values)
    return jnp.sum(jnp.where(valid, values, 0.0)) / jnp.maximum(jnp.sum(valid, dtype=jnp.float32), 1.0)


def straight_through(
    vectors: Float[Array, "*batch width"], codes: Float[Array, "*batch width"]
) -> Float[Array, "*batch width"]:
    """Codes, with the gradient of the vectors they stand for (VQ-VAE, arXiv 1711.00937, section 3.2)."""
    return vectors + jax.lax.stop_gradient(codes - vectors)


def l2_normalize(vectors: Float[Array, "*batch width"]) -> Float[Array, "*batch width"]:
    """Vectors of length 1 in the same directions; 0 and its gradient stay finite."""
    return vectors * jax.lax.rsqrt(jnp.sum(vectors**2, axis=-1, keepdims=True) + 1e-12)


def _projection(width: int, axes: tuple[str, str]) -> nn.Dense:
    # In full float32 also where products are rounded by default, as on TPUs: codes depend on the last digits.
    return nn.Dense(
        width,
        precision=jax.lax.Precision.HIGHEST,
        kernel_init=nn.with_logical_partitioning(nn.initializers.lecun_normal(), axes),
        bias_init=nn.with_logical_partitioning(nn.initializers.zeros, axes[1:]),
    )
