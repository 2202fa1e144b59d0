"""What a model computes, compiled once for each configuration and shape."""

from __future__ import annotations

import functools
import time
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Int, Key, UInt, UInt8

from phenaki_jax.inference.window import encode_text, generate_window, redraw_window
from phenaki_jax.layers import pixels
from phenaki_jax.layers.module import apply
from phenaki_jax.tokenizer.config import CViViTConfig
from phenaki_jax.tokenizer.cvivit import CViViT

_NAP_SECONDS = 0.001

draw_windows = jax.jit(generate_window, static_argnums=(0, 1))
redraw = jax.jit(redraw_window, static_argnums=(0, 1))
embed = jax.jit(encode_text, static_argnums=0)


@functools.partial(jax.jit, static_argnums=0)
def encode(config: CViViTConfig, params: Any, video: UInt8[Array, "..."]) -> Int[Array, "..."]:
    """Tokens of videos, see `CViViT.encode`."""
    tokens: Any = apply(CViViT(config), params, pixels.to_float(video), method="encode")
    return tokens


@functools.partial(jax.jit, static_argnums=0)
def decode(config: CViViTConfig, params: Any, tokens: Int[Array, "..."]) -> UInt8[Array, "..."]:
    """Videos of tokens, see `CViViT.decode`."""
    video: Any = apply(CViViT(config), params, tokens, method="decode")
    return pixels.to_uint8(video)


@jax.jit
def keys_of_window(seeds: Key[Array, " batch"], window: UInt[Array, ""]) -> Key[Array, " batch"]:
    """Those that the window of this number, from 0, is drawn with."""
    return jax.vmap(jax.random.fold_in, in_axes=(0, None))(seeds, window)


def fetched(array: Array) -> np.ndarray:
    """An array for NumPy, once it is computed.

    JAX waits without hearing signals: a window of many steps would hold up Ctrl-C until it is drawn.
    """
    while not array.is_ready():  # type: ignore[attr-defined]
        time.sleep(_NAP_SECONDS)
    return np.asarray(array)
