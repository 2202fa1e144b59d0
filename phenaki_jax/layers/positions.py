"""Positions as fixed sinusoids, added or rotated in, so that they carry to lengths and sizes not trained."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from phenaki_jax.layers.layout import platform

# In positions: longer than any axis of a window.
_LONGEST_PERIOD = 64.0
_LONGEST_ROTARY_PERIOD = 100.0


def grid_positions(times: int, rows: int, columns: int) -> Int[Array, "length 3"]:
    """(time, row, column) of every token of a clip, time slowest and column fastest."""
    axes = jnp.meshgrid(jnp.arange(times), jnp.arange(rows), jnp.arange(columns), indexing="ij")
    return jnp.stack(axes, axis=-1).reshape(-1, 3)


def sinusoidal_embedding(
    positions: Int[Array, "*batch length axes"], width: int
) -> Float[Array, "*batch length {width}"]:
    """Sines and cosines of every axis at geometric frequencies, the width shared evenly between the axes.

    Raises:
      ValueError: the width does not hold a sine and a cosine for each axis.
    """
    axes = positions.shape[-1]
    if width < 2 * axes:
        raise ValueError(f"width {width} is too small for positions with {axes} axes; at least {2 * axes} is needed")
    pairs = width // (2 * axes)
    frequencies = 2 * jnp.pi * _LONGEST_PERIOD ** (-(jnp.arange(pairs, dtype=jnp.float32) + 1) / pairs)
    angles = jnp.multiply.outer(positions.astype(jnp.float32), frequencies)
    waves = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)
    flat = waves.reshape(*positions.shape[:-1], 2 * axes * pairs)
    return jnp.pad(flat, [(0, 0)] * (flat.ndim - 1) + [(0, width - flat.shape[-1])])


def rotary_angles(positions: Int[Array, "*batch length axes"], head_width: int) -> Float[Array, "*batch length pairs"]:
    """Angles by which pairs of a head's features turn (RoFormer, arXiv 2104.09864), split over the axes in turn."""
    axes = positions.shape[-1]
    pairs = head_width // 2
    per_axis = -(-pairs // axes)
    frequencies = _LONGEST_ROTARY_PERIOD ** (-jnp.arange(per_axis, dtype=jnp.float32) / per_axis)
    angles = jnp.multiply.outer(positions.astype(jnp.float32), frequencies).swapaxes(-1, -2)
    return angles.reshape(*positions.shape[:-1], per_axis * axes)[..., :pairs]


def _swap_of_halves(width: int, dtype: DTypeLike) -> Float[Array, "kv kv"]:
    """What (first, second) is multiplied with to give (-second, first)."""
    half = jnp.eye(width // 2, dtype=dtype)
    return jnp.block([[jnp.zeros_like(half), half], [-half, jnp.zeros_like(half)]])


def rotate(
    features: Float[Array, "batch length heads kv"], angles: Float[Array, "#batch length pairs"]
) -> Float[Array, "batch length heads kv"]:
    """Turns each pair (i, i + kv/2) of a head's features by its angle; in float32."""
    # As tables: left to fuse, XLA on CPU computes a sine and a cosine anew for every feature that they turn.
    cos, sin = jax.lax.optimization_barrier((jnp.cos(angles), jnp.sin(angles)))
    cos, sin = cos[..., None, :], sin[..., None, :]
    if platform() == "tpu":
        # Halves of a head fill a quarter of a TPU's lanes each: it is quicker to swap them by a matrix product.
        swapped = jnp.matmul(features, _swap_of_halves(features.shape[-1], features.dtype), precision="highest")
        cos, sin = (jnp.concatenate([wave, wave], axis=-1) for wave in (cos, sin))
        return (features.astype(jnp.float32) * cos + swapped.astype(jnp.float32) * sin).astype(features.dtype)
    first, second = jnp.split(features.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return turned.astype(features.dtype)
