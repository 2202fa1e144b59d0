"""Parallel decoding of masked video tokens with classifier-free guidance (MaskGIT; Phenaki, section 2.2)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from phenaki_jax.errors import UserError, check_types
from phenaki_jax.transformer.masking import cosine_schedule


@dataclasses.dataclass(frozen=True)
class SamplingConfig:
    """How tokens are drawn.

    Attributes:
      steps: rounds of prediction; in each, the most confident tokens are kept.
      guidance: s of (1 + s) conditional - s unconditional logits; 0 is none.
      temperature: scale of the Gumbel noise on the log-confidence in the first round, annealed to 0 in the last.
    """

    steps: int = 24
    guidance: float = 2.0
    temperature: float = 1.5

    def __post_init__(self) -> None:
        check_types(self)
        if self.steps < 1:
            raise UserError(f"found steps {self.steps}, expected at least 1")
        for name, value in (("guidance", self.guidance), ("temperature", self.temperature)):
            if not (math.isfinite(value) and value >= 0):
                raise UserError(f"found {name} {value:g}, expected a finite number of at least 0")


def decode_tokens(
    logits_of: Callable[[Int[Array, "batch length"]], tuple[Float[Array, "batch length codes"], ...]],
    config: SamplingConfig,
    rng: PRNGKeyArray,
    known_tokens: Int[Array, "batch length"],
    known: Bool[Array, "batch length"],
    mask_token: int,
) -> Int[Array, "batch length"]:
    """Fills in all tokens that are not known.

    Args:
      logits_of: (conditional, unconditional) logits for tokens of which some are `mask_token`.
      config: how tokens are drawn.
      rng: randomness; the same gives the same tokens.
      known_tokens: tokens that are given, anything elsewhere.
      known: where they are given.
      mask_token: the id of what is not known yet.
    """
    to_fill = jnp.sum(~known, axis=1)

    def round_of_prediction(tokens: Array, step: Array) -> tuple[Array, None]:
        draw_rng, noise_rng = jax.random.split(jax.random.fold_in(rng, step))
        conditional, unconditional = logits_of(tokens)
        logits = (1 + config.guidance) * conditional - config.guidance * unconditional
        masked = tokens == mask_token
        drawn = jnp.where(masked, jax.random.categorical(draw_rng, logits).astype(tokens.dtype), tokens)
        confidence = jnp.take_along_axis(jax.nn.log_softmax(logits), drawn[..., None], axis=-1)[..., 0]
        progress = (step + 1).astype(jnp.float32) / config.steps
        noise = config.temperature * (1 - progress) * jax.random.gumbel(noise_rng, confidence.shape)
        confidence = jnp.where(masked, confidence + noise, jnp.inf)
        still_masked = jnp.floor(cosine_schedule(progress) * to_fill.astype(jnp.float32)).astype(to_fill.dtype)
        still_masked = jnp.minimum(still_masked, jnp.sum(masked, axis=1) - 1)
        rank = jnp.argsort(jnp.argsort(confidence, axis=1), axis=1)
        return jnp.where(rank < still_masked[:, None], mask_token, drawn), None

    start = jnp.where(known, known_tokens, mask_token)
    tokens, _ = jax.lax.scan(round_of_prediction, start, jnp.arange(config.steps))
    return tokens
