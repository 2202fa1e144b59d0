"""What the masked transformer and the token critic are trained to do (Phenaki, section 2.2; arXiv 2209.04439)."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from phenaki_jax.transformer.factors import split_codes
from phenaki_jax.transformer.model import Logits


class TokenLoss(NamedTuple):
    """What is found for every token, masked or not.

    Attributes:
      cross_entropy: in nats, over all factors of a code.
      objective: what is trained on: cross-entropy with smoothed labels and the z-loss, where they are asked for.
      correct: 1 where no code is likelier than the true one.
    """

    cross_entropy: Float[Array, "batch length"]
    objective: Float[Array, "batch length"]
    correct: Float[Array, "batch length"]


def token_loss(
    logits: Logits,
    video_tokens: Int[Array, "batch length"],
    *,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
) -> TokenLoss:
    """How well logits name the codes.

    Args:
      logits: over the codes, or over each factor of them.
      video_tokens: the true codes.
      label_smoothing: share of the label's weight that all codes share alike.
      z_loss: weight of the squared log of the softmax's denominator, which keeps logits from drifting (PaLM's 1e-4).
    """
    digits = split_codes(video_tokens, [part.shape[-1] for part in logits])
    cross_entropy = objective = jnp.zeros(video_tokens.shape, jnp.float32)
    correct = jnp.ones(video_tokens.shape, jnp.float32)
    for part, digit in zip(logits, digits, strict=True):
        part = part.astype(jnp.float32)
        chosen = jnp.take_along_axis(part, digit[..., None], axis=-1)[..., 0]
        log_sum = jax.nn.logsumexp(part, axis=-1)
        cross_entropy += log_sum - chosen
        target = chosen
        if label_smoothing:
            target = (1 - label_smoothing) * chosen + label_smoothing * jnp.mean(part, axis=-1)
        objective += log_sum - target + (z_loss * log_sum**2 if z_loss else 0.0)
        # An argmax takes XLA on CPU ten times as long as a maximum, which the logsumexp needs anyway.
        correct *= (chosen >= jnp.max(part, axis=-1)).astype(jnp.float32)
    return TokenLoss(cross_entropy, objective, correct)


def critic_loss(scores: Float[Array, "batch length"], own: Bool[Array, "batch length"]) -> Float[Array, "batch length"]:
    """Cross-entropy of telling the video's own tokens from those that were drawn, in nats for each token."""
    return jax.nn.softplus(jnp.where(own, -scores, scores))
