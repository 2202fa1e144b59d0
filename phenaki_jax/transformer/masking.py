"""Which tokens are hidden while training, and how many stay hidden while sampling."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray


def cosine_schedule(progress: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Share of tokens that are masked at a progress of 0 (all) to 1 (none): cos(pi / 2 * progress), as in MaskGIT."""
    return jnp.cos(jnp.pi / 2 * progress)


def random_mask(
    rng: PRNGKeyArray, candidates: Bool[Array, "batch length"]
) -> tuple[Bool[Array, "batch length"], Float[Array, " batch"]]:
    """Draws what is masked while training: a cosine-distributed share of the candidates of each example.

    Args:
      rng: randomness.
      candidates: tokens that may be masked; padding and given prefixes are not among them.

    Returns:
      The mask (at least one token where there is a candidate), and the share drawn for each example.
    """
    share_rng, order_rng = jax.random.split(rng)
    batch = candidates.shape[0]
    # One draw per stratum of the batch: the mean share, and with it the loss, moves less from step to step.
    offsets = jax.random.permutation(share_rng, jnp.arange(batch, dtype=jnp.float32))
    progress = (offsets + jax.random.uniform(order_rng, (batch,))) / batch
    share = cosine_schedule(progress)
    count = jnp.ceil(share * jnp.sum(candidates, axis=1).astype(jnp.float32))
    noise = jax.random.uniform(jax.random.fold_in(order_rng, 1), candidates.shape)
    rank = jnp.argsort(jnp.argsort(jnp.where(candidates, noise, 2.0), axis=1), axis=1)
    return candidates & (rank < jnp.maximum(count, 1.0).astype(jnp.int32)[:, None]), share
