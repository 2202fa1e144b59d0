"""Which tokens are hidden while training, and how many stay hidden while sampling."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from phenaki_jax.errors import UserError


def masked_share(schedule: str, progress: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Share of tokens that are masked at a progress of 0 (all) to 1 (none), by a name in `SCHEDULES`."""
    return jnp.clip(_SHARES[schedule](jnp.clip(progress, 0.0, 1.0)), 0.0, 1.0)


def check_schedule(schedule: str) -> None:
    """Refuses an unknown schedule.

    Raises:
      UserError: names those that are known.
    """
    if schedule not in SCHEDULES:
        raise UserError(f"mask schedule {schedule!r} is unknown; known are {', '.join(SCHEDULES)}")


# Cosine, linear and the powers are of MaskGIT (arXiv 2202.04200, section 4.3), where cosine is best. Muse's density of
# 2 / pi / sqrt(1 - share^2) is cosine's.
_SHARES: dict[str, Callable[[Array], Array]] = {
    "cosine": lambda progress: jnp.cos(jnp.pi / 2 * progress),
    "linear": lambda progress: 1 - progress,
    "square": lambda progress: 1 - progress**2,
    "cubic": lambda progress: 1 - progress**3,
    "square_root": lambda progress: 1 - jnp.sqrt(progress),
    "arccos": lambda progress: 2 / jnp.pi * jnp.arccos(progress),
}
SCHEDULES = tuple(_SHARES)

# How much of what decides over a tube's token is its own: some tubes are hidden in part.
_TUBE_JITTER = 0.1


def random_mask(
    rng: PRNGKeyArray,
    candidates: Bool[Array, "batch length"],
    segment_ids: Int[Array, "batch length"] | None = None,
    *,
    segments: int = 1,
    schedule: str = "cosine",
    places: int = 1,
    tube_share: float = 0.0,
) -> tuple[Bool[Array, "batch length"], Float[Array, "batch {segments}"]]:
    """Draws what is masked while training: a share of the candidates of each example.

    Which ones they are is independent from token to token, as in MaskGIT, or decided for a place in all time steps at
    once, as in VideoMAE (arXiv 2203.12602). Sampling meets the latter: once one token is known, those before and after
    it in its place are the surest, so that whole tubes become known while their neighbours are not.

    Args:
      rng: randomness.
      candidates: tokens that may be masked; padding and given prefixes are not among them.
      segment_ids: which example of its row a token belongs to, from 1; None for rows of one example.
      segments: most examples of a row.
      schedule: which shares are how likely, see `masked_share`: that of a progress from 0 to 1, all as likely.
      places: tokens of one time step.
      tube_share: share of the rows that are masked in tubes.

    Returns:
      The mask (at least one token where there is a candidate), and the share drawn for each example.
    """
    permute_rng, share_rng, noise_rng, tube_rng, choice_rng = jax.random.split(rng, 5)
    batch = candidates.shape[0]
    # One draw per stratum of the batch: the mean share, and with it the loss, moves less from step to step.
    strata = batch * segments
    offsets = jax.random.permutation(permute_rng, jnp.arange(strata, dtype=jnp.float32))
    progress = (offsets + jax.random.uniform(share_rng, (strata,))) / strata
    share = masked_share(schedule, progress).reshape(batch, segments)
    noise = jax.random.uniform(noise_rng, candidates.shape)
    if tube_share:
        tubes = jnp.tile(jax.random.uniform(tube_rng, (batch, places)), (1, candidates.shape[1] // places))
        in_tubes = jax.random.uniform(choice_rng, (batch, 1)) < tube_share
        noise = jnp.where(in_tubes, (1 - _TUBE_JITTER) * tubes + _TUBE_JITTER * noise, noise)
    # Examples one after the other, the candidates of each in the order of their noise.
    segment = jnp.zeros(candidates.shape, jnp.int32) if segment_ids is None else jnp.maximum(segment_ids, 1) - 1
    own = (segment[..., None] == jnp.arange(segments)) & candidates[..., None]
    found = jnp.sum(own, axis=1, dtype=jnp.float32)
    hidden = jnp.maximum(jnp.ceil(share * found), 1.0)
    place = jnp.argsort(
        jnp.argsort(jnp.where(candidates, segment.astype(jnp.float32) + noise, jnp.inf), axis=1), axis=1
    )
    begins = jnp.cumsum(found, axis=1) - found
    last = jnp.take_along_axis((begins + hidden).astype(jnp.int32), segment, axis=1)
    return candidates & (place < last), share
