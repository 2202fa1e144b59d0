"""What a C-ViViT is trained to do (Phenaki, equation 1; the perceptual and adversarial terms are not here yet)."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from phenaki_jax.tokenizer.quantizers import Quantized


@dataclasses.dataclass(frozen=True)
class ObjectiveConfig:
    """Weights of the terms.

    Attributes:
      l2: of the mean squared error, pixels in [-1, 1].
      l1: of the mean absolute error.
      quantizer: of what the quantizer asks for (commitment and codebook).
    """

    l2: float = 1.0
    l1: float = 0.0
    quantizer: float = 1.0


class TokenizerLoss(NamedTuple):
    """The terms, each a mean over valid pixels or tokens."""

    total: Float[Array, ""]
    l2: Float[Array, ""]
    l1: Float[Array, ""]
    quantizer: Float[Array, ""]


def tokenizer_loss(
    config: ObjectiveConfig,
    video: Float[Array, "batch frames height width 3"],
    reconstruction: Float[Array, "batch frames height width 3"],
    quantized: Quantized,
    frame_mask: Bool[Array, "batch frames"],
    time_mask: Bool[Array, "batch times"],
) -> TokenizerLoss:
    """Compares a reconstruction with the video, in frames that are valid."""
    pixels = frame_mask[:, :, None, None, None].astype(jnp.float32)
    count = jnp.sum(pixels) * video.shape[2] * video.shape[3] * 3
    error = (reconstruction - video) * pixels
    l2 = jnp.sum(error**2) / count
    l1 = jnp.sum(jnp.abs(error)) / count
    tokens = jnp.broadcast_to(time_mask[:, :, None, None], quantized.loss.shape).astype(jnp.float32)
    quantizer = jnp.sum(quantized.loss * tokens) / jnp.sum(tokens)
    total = config.l2 * l2 + config.l1 * l1 + config.quantizer * quantizer
    return TokenizerLoss(total, l2, l1, quantizer)
