"""Frames brought to the size that a network was trained at, each way as a published metric has it.

The ways differ in where they look and in what they do where frames shrink, and a metric's value with them (arXiv
2104.11222, section 3). Colours stay in 0..255, as fractions where nothing else is said.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32, UInt8

_WIDTH, _HEIGHT = -2, -3
_SHARE_BITS = 22


def like_tensorflow1(
    frames: UInt8[Array, "*batch _ _ channels"], height: int, width: int
) -> Float[Array, "*batch {height} {width} channels"]:
    """Bilinear as TensorFlow 1 has it, with which FID and the Inception score were first computed.

    Pixel i is looked for between two neighbours along each axis, at i * input size / output size, which is not centred;
    where frames shrink, they alias.
    """
    hidden = frames.astype(jnp.float32)
    for axis, size in ((_WIDTH, width), (_HEIGHT, height)):
        places = np.arange(size, dtype=np.float32) * np.float32(hidden.shape[axis] / size)
        lower = places.astype(np.int32)
        upper = np.minimum(lower + 1, hidden.shape[axis] - 1)
        share = np.expand_dims(places - lower.astype(np.float32), tuple(range(1, -axis)))
        first = jnp.take(hidden, lower, axis)
        hidden = first + (jnp.take(hidden, upper, axis) - first) * share
    return hidden


def like_torch(
    frames: UInt8[Array, "*batch _ _ channels"], height: int, width: int
) -> Float[Array, "*batch {height} {width} channels"]:
    """Bilinear as `torch.nn.functional.interpolate` has it: centred; where frames shrink, they alias."""
    return _resize(frames.astype(jnp.float32), height, width, "linear", antialias=False)


def like_clean_fid(
    frames: UInt8[Array, "*batch _ _ channels"], height: int, width: int
) -> Float[Array, "*batch {height} {width} channels"]:
    """Bicubic as Pillow has it for fractions: centred, without aliasing; clipped, as it leaves 0..255 beside edges."""
    return jnp.clip(_resize(frames.astype(jnp.float32), height, width, "cubic", antialias=True), 0.0, 255.0)


def like_pillow(
    frames: UInt8[Array, "*batch _ _ channels"], height: int, width: int
) -> Float[Array, "*batch {height} {width} channels"]:
    """Bicubic as Pillow has it for images: width before height, after both rounded to whole colours in 0..255.

    The same to the last bit, as sums are of whole numbers here too. Pillow of late takes the height first where that is
    less work, which changes noise and little else.
    """
    hidden = frames.astype(jnp.int32)
    for axis, size in ((_WIDTH, width), (_HEIGHT, height)):
        places, shares = _pillow_shares(hidden.shape[axis], size)
        total = jnp.full((), 1 << (_SHARE_BITS - 1), jnp.int32)
        for place, share in zip(places, shares, strict=True):
            total += jnp.take(hidden, place, axis) * np.expand_dims(share, tuple(range(1, -axis)))
        hidden = jnp.clip(total >> _SHARE_BITS, 0, 255)
    return hidden.astype(jnp.float32)


def _pillow_shares(
    inputs: int, outputs: int
) -> tuple[Int32[np.ndarray, "neighbours {outputs}"], Int32[np.ndarray, "neighbours {outputs}"]]:
    """Which pixels each one is made of, and their shares of it in 1 / 2^22, which is what 32 bits have room for."""
    scale = inputs / outputs
    wide = max(scale, 1.0)
    centers = (np.arange(outputs) + 0.5) * scale
    first = np.maximum(centers - 2 * wide + 0.5, 0).astype(np.int32)
    last = np.minimum(centers + 2 * wide + 0.5, inputs).astype(np.int32) - 1
    places = first + np.arange(np.max(last - first) + 1, dtype=np.int32)[:, None]
    shares = np.where(places <= last, _cubic((places - centers + 0.5) / wide), 0.0)
    shares = np.round(shares / shares.sum(axis=0) * 2**_SHARE_BITS).astype(np.int32)
    return np.minimum(places, inputs - 1), shares


def _cubic(distance: Float[np.ndarray, "neighbours outputs"]) -> Float[np.ndarray, "neighbours outputs"]:
    """Keys' cubic convolution with a slope of -1/2 at 1."""
    x = np.abs(distance)
    return np.where(x < 1, (1.5 * x - 2.5) * x * x + 1, np.where(x < 2, ((-0.5 * x + 2.5) * x - 4) * x + 2, 0.0))


def _resize(frames: Array, height: int, width: int, method: str, antialias: bool) -> Array:
    shape = (*frames.shape[:_HEIGHT], height, width, frames.shape[-1])
    return jax.image.resize(frames, shape, method, antialias, jax.lax.Precision.HIGHEST)
