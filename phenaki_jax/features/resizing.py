"""Frames brought to the size that a network was trained at, each way as a published metric has it.

The ways differ in where they look and in what they do where frames shrink, and a metric's value with them (arXiv
2104.11222, section 3). Colours stay in 0..255, as fractions where nothing else is said.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

_WIDTH, _HEIGHT = -2, -3


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
    """Bicubic as Pillow has it for fractions: centred, without aliasing; beside edges colours may leave 0..255."""
    return _resize(frames.astype(jnp.float32), height, width, "cubic", antialias=True)


def like_pillow(
    frames: UInt8[Array, "*batch _ _ channels"], height: int, width: int
) -> Float[Array, "*batch {height} {width} channels"]:
    """Bicubic as Pillow has it for images: width before height, after both rounded to whole colours in 0..255.

    Pillow of late takes the height first where that is less work, which matters for nothing but noise.
    """
    columns = _rounded(_resize(frames.astype(jnp.float32), frames.shape[_HEIGHT], width, "cubic", antialias=True))
    return _rounded(_resize(columns, height, width, "cubic", antialias=True))


def _resize(frames: Array, height: int, width: int, method: str, antialias: bool) -> Array:
    shape = (*frames.shape[:_HEIGHT], height, width, frames.shape[-1])
    return jax.image.resize(frames, shape, method, antialias, jax.lax.Precision.HIGHEST)


def _rounded(colours: Array) -> Array:
    return jnp.clip(jnp.floor(colours + 0.5), 0.0, 255.0)
