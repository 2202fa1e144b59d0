"""The one conversion between pixels in files (uint8) and pixels in models (float in [-1, 1])."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, UInt8

from phenaki_jax.errors import UserError
from phenaki_jax.layers.arrays import check_shape

VIDEOS = ("batch", "frames", "height", "width", 3)
"""The axes of videos."""

_MEND = "mend what they come from"
# Arithmetic may leave pixels so far outside.
_ROUNDING = 1e-3


def to_float(pixels: UInt8[Array, "..."], dtype: DTypeLike = jnp.float32) -> Float[Array, "..."]:
    """Maps 0..255 to [-1, 1]."""
    return pixels.astype(dtype) / 127.5 - 1.0


def to_uint8(pixels: Float[Array, "..."]) -> UInt8[Array, "..."]:
    """Maps [-1, 1] to 0..255, rounded; values outside are clipped."""
    return jnp.clip(jnp.round((pixels.astype(jnp.float32) + 1.0) * 127.5), 0.0, 255.0).astype(jnp.uint8)


def check_uint8(name: str, pixels: np.ndarray | jax.Array) -> None:
    """Refuses pixels that are not uint8 before they enter a model.

    Raises:
      UserError: names the field, the type and range found, what is expected, and how to get there from that range.
    """
    if pixels.dtype != np.uint8:
        found, advice = _told_pixels(name, np.asarray(pixels))
        raise UserError(f"{name}: found {found}, expected uint8 in 0..255; {advice}")


def check_float(name: str, pixels: np.ndarray | jax.Array, *, bounded: bool = True) -> None:
    """Refuses pixels that are no floats in [-1, 1].

    Of traced ones, and those that other processes hold, the type alone is known. Others come to the host for it.

    Args:
      name: of the pixels in the caller's program.
      pixels: of any shape.
      bounded: whether values outside, as a decoder draws some, and those that are not finite are refused.

    Raises:
      UserError: names the field, the type or range found, what is expected, and how to get there.
    """
    expected = "expected floats in [-1, 1]"
    if not jnp.issubdtype(pixels.dtype, jnp.floating):
        convert = f"; convert with phenaki_jax.layers.pixels.to_float({name})" if pixels.dtype == np.uint8 else ""
        raise UserError(f"{name}: found {pixels.dtype}, {expected}{convert}")
    known = not isinstance(pixels, jax.core.Tracer) and getattr(pixels, "is_fully_addressable", True)
    if not bounded or not pixels.size or not known:
        return
    values = np.asarray(pixels, np.float32)
    if not np.isfinite(values).all():
        raise UserError(f"{name}: found {pixels.dtype} with NaN or infinite values, {expected}; {_MEND}")
    low, high = float(values.min()), float(values.max())
    if low < -1 - _ROUNDING or high > 1 + _ROUNDING:
        advice = f"divide {name} by 127.5 and subtract 1" if low >= 0 and 2 < high <= 255 else f"clip {name} to it"
        raise UserError(f"{name}: found {pixels.dtype} in {low:.3g}..{high:.3g}, {expected}; {advice}")


def check_video(name: str, video: Any, *, batched: bool = True) -> None:
    """Refuses what is no batch of videos in uint8, or no single one.

    Raises:
      UserError: names the field, what was found and what is expected.
    """
    check_shape(name, video, VIDEOS if batched else VIDEOS[1:])
    check_uint8(name, video)


def _told_pixels(name: str, pixels: np.ndarray) -> tuple[str, str]:
    """The type and range of pixels that are not uint8, and what makes uint8 of them."""
    kind = str(pixels.dtype)
    whole = jnp.issubdtype(pixels.dtype, jnp.integer)
    if not pixels.size or not (whole or jnp.issubdtype(pixels.dtype, jnp.floating)):
        return kind, "give whole numbers"
    if not np.isfinite(pixels).all():
        return f"{kind} with NaN or infinite values", _MEND
    low, high = float(pixels.min()), float(pixels.max())
    found = f"{kind} in {low:.3g}..{high:.3g}"
    if not whole and -1 <= low < 0 and high <= 1:
        return found, f"convert with phenaki_jax.layers.pixels.to_uint8({name})"
    if low < 0 or high > 255:
        return found, "bring them into that range first"
    scaled = name if whole or high > 1 else f"(255 * {name})"
    return found, f"convert with {scaled}.round().astype(np.uint8)"
