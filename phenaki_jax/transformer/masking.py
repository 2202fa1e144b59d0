"""Which tokens are hidden while training, and how many stay hidden while sampling."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray


def cosine_schedule(progress: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Share of tokens that are masked at a progress of 0 (all) to 1 (none): cos(pi / 2 * progress), as in MaskGIT."""
    return jnp.cos(jnp.pi / 2 * progress)


# How much of what decides over a tube's token is its own: some tubes are hidden in part.
_TUBE_JITTER = 0.1


def random_mask(
    rng: PRNGKeyArray, candidates: Bool[Array, "batch length"], *, places: int = 1, tube_share: float = 0.0
) -> tuple[Bool[Array, "batch length"], Float[Array, " batch"]]:
    """Draws what is masked while training: a cosine-distributed share of the candidates of each example.

    Which ones they are is independent from token to token, as in MaskGIT, or decided for a place in all time steps at
    once, as in VideoMAE (arXiv 2203.12602). Sampling meets the latter: once one token is known, those before and after
    it in its place are the surest, so that whole tubes become known while their neighbours are not.

    Args:
      rng: randomness.
      candidates: tokens that may be masked; padding and given prefixes are not among them.
      places: tokens of one time step.
      tube_share: share of the examples that are masked in tubes.

    Returns:
      The mask (at least one token where there is a candidate), and the share drawn for each example.
    """
    permute_rng, share_rng, noise_rng, tube_rng, choice_rng = jax.random.split(rng, 5)
    batch = candidates.shape[0]
    # One draw per stratum of the batch: the mean share, and with it the loss, moves less from step to step.
    offsets = jax.random.permutation(permute_rng, jnp.arange(batch, dtype=jnp.float32))
    progress = (offsets + jax.random.uniform(share_rng, (batch,))) / batch
    share = cosine_schedule(progress)
    count = jnp.ceil(share * jnp.sum(candidates, axis=1).astype(jnp.float32))
    noise = jax.random.uniform(noise_rng, candidates.shape)
    if tube_share:
        tubes = jnp.tile(jax.random.uniform(tube_rng, (batch, places)), (1, candidates.shape[1] // places))
        in_tubes = jax.random.uniform(choice_rng, (batch, 1)) < tube_share
        noise = jnp.where(in_tubes, (1 - _TUBE_JITTER) * tubes + _TUBE_JITTER * noise, noise)
    rank = jnp.argsort(jnp.argsort(jnp.where(candidates, noise, 2.0), axis=1), axis=1)
    return candidates & (rank < jnp.maximum(count, 1.0).astype(jnp.int32)[:, None]), share
