"""What a model computes, compiled once for each configuration and shape."""

from __future__ import annotations

import functools
from typing import Any

import jax
from jaxtyping import Array, Int, Key, UInt, UInt8

from phenaki_jax.inference.window import encode_text, generate_window, redraw_window
from phenaki_jax.layers import pixels
from phenaki_jax.layers.module import apply
from phenaki_jax.tokenizer.config import CViViTConfig
from phenaki_jax.tokenizer.cvivit import CViViT

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
