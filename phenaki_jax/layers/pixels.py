"""The one conversion between pixels in files (uint8) and pixels in models (float in [-1, 1])."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, UInt8

from phenaki_jax.errors import UserError


def to_float(pixels: UInt8[Array, "..."], dtype: DTypeLike = jnp.float32) -> Float[Array, "..."]:
    """Maps 0..255 to [-1, 1]."""
    return pixels.astype(dtype) / 127.5 - 1.0


def to_uint8(pixels: Float[Array, "..."]) -> UInt8[Array, "..."]:
    """Maps [-1, 1] to 0..255, rounded; values outside are clipped."""
    return jnp.clip(jnp.round((pixels.astype(jnp.float32) + 1.0) * 127.5), 0.0, 255.0).astype(jnp.uint8)


def check_uint8(name: str, pixels: np.ndarray | jax.Array) -> None:
    """Refuses pixels that are not uint8 before they enter a model.

    Raises:
      UserError: names the field, the type and range found, and what is expected.
    """
    if pixels.dtype == np.uint8:
        return
    found = f"{pixels.dtype} in {float(np.min(pixels)):.3g}..{float(np.max(pixels)):.3g}" if pixels.size else "nothing"
    raise UserError(f"{name}: found {found}, expected uint8 in 0..255; convert with phenaki_jax.layers.pixels.to_uint8")


def check_video(name: str, video: np.ndarray | jax.Array) -> None:
    """Refuses what is no batch of videos in uint8.

    Raises:
      UserError: names the field, what was found and what is expected.
    """
    check_uint8(name, video)
    if video.ndim != 5 or video.shape[-1] != 3:
        raise UserError(f"{name}: found shape {list(video.shape)}, expected [batch, frames, height, width, 3]")
