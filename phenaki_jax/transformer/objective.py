"""What the masked transformer is trained to do: name the codes that are hidden (Phenaki, section 2.2)."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


class MaskedLoss(NamedTuple):
    """Sums over the masked tokens of each example.

    Attributes:
      cross_entropy: in nats.
      correct: masked tokens than whose true code none is likelier.
      masked: masked tokens.
    """

    cross_entropy: Float[Array, " batch"]
    correct: Float[Array, " batch"]
    masked: Float[Array, " batch"]


def masked_loss(
    logits: Float[Array, "batch length codes"],
    video_tokens: Int[Array, "batch length"],
    mask: Bool[Array, "batch length"],
) -> MaskedLoss:
    """Cross-entropy of the masked tokens; the others count for nothing."""
    logits = logits.astype(jnp.float32)
    chosen = jnp.take_along_axis(logits, video_tokens[..., None], axis=-1)[..., 0]
    cross_entropy = jax.nn.logsumexp(logits, axis=-1) - chosen
    weights = mask.astype(jnp.float32)
    # An argmax takes XLA on CPU ten times as long as a maximum, which the logsumexp needs anyway.
    correct = (chosen >= jnp.max(logits, axis=-1)).astype(jnp.float32)
    return MaskedLoss(
        jnp.sum(cross_entropy * weights, axis=1), jnp.sum(correct * weights, axis=1), jnp.sum(weights, axis=1)
    )
