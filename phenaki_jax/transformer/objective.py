"""What the masked transformer and the token critic are trained to do (Phenaki, section 2.2; arXiv 2209.04439)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Shaped

from phenaki_jax.transformer.factors import split_codes
from phenaki_jax.transformer.model import Logits

_Judged = TypeVar("_Judged")


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


def in_parts(judge: Callable[..., _Judged], parts: int, *rows: Shaped[Array, "..."], rng: PRNGKeyArray) -> _Judged:
    """What `judge` says of all tokens, of a part of every row's after the other.

    The backward pass computes each part again, so that logits of all tokens, which for 2^18 codes fill any memory, are
    never there.

    Args:
      judge: of arrays [batch, length / parts, ...] and a key; gives arrays that begin with the same two axes.
      parts: a divisor of the length.
      rows: arrays [batch, length, ...].
      rng: the key that each part has one of.
    """

    def split(array: Array) -> Array:
        # Where devices share a row, each has tokens of every part.
        return jnp.moveaxis(array.reshape(len(array), -1, parts, *array.shape[2:]), 2, 0)

    def join(array: Array) -> Array:
        return jnp.moveaxis(array, 0, 2).reshape(array.shape[1], -1, *array.shape[3:])

    again = jax.checkpoint(lambda *part: judge(*part[:-1], rng=part[-1]), prevent_cse=False)
    _, judged = jax.lax.scan(
        lambda _, part: (None, again(*part)), None, (*map(split, rows), jax.random.split(rng, parts))
    )
    return jax.tree.map(join, judged)


def critic_loss(scores: Float[Array, "batch length"], own: Bool[Array, "batch length"]) -> Float[Array, "batch length"]:
    """Cross-entropy of telling the video's own tokens from those that were drawn, in nats for each token."""
    return jax.nn.softplus(jnp.where(own, -scores, scores))
