"""Which rows of a batch, and which frames of a clip, count."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def mask_of(outputs: Mapping[str, Any], name: str) -> Any:
    """The mask of an output: what is called as it, with `_mask` at the end, or else `mask`; None without any."""
    mask = outputs.get(f"{name}_mask", outputs.get("mask"))
    return None if mask is None else jnp.asarray(mask)


def valid_rows(mask: Array | None, rows: int) -> Bool[Array, " {rows}"]:
    """The mask as one of booleans; all of so many rows where there is none."""
    return jnp.ones(rows, bool) if mask is None else mask.astype(bool)


def mean_over_frames(
    values: Float[Array, "batch frames"], frame_mask: Bool[Array, "batch frames"]
) -> Float[Array, " batch"]:
    """Means over valid frames, whatever the values of others; 0 without any."""
    total = jnp.sum(jnp.where(frame_mask, values, 0.0), axis=1)
    return total / jnp.maximum(jnp.sum(frame_mask, axis=1, dtype=jnp.float32), 1.0)
