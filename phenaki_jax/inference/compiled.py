"""What a model computes, compiled once for each configuration and shape."""

from __future__ import annotations

import functools
from typing import Any

import jax
from jaxtyping import Array, Bool, Float, Int, Key, UInt, UInt8

from phenaki_jax.inference.decoding import SamplingConfig
from phenaki_jax.inference.window import PhenakiConfig, WindowTexts, encode_text, generate_window, redraw_window
from phenaki_jax.layers import pixels
from phenaki_jax.layers.module import apply
from phenaki_jax.tokenizer.config import CViViTConfig
from phenaki_jax.tokenizer.cvivit import CViViT


@functools.partial(jax.jit, static_argnums=(0, 1))
def draw_windows(
    config: PhenakiConfig,
    sampling: SamplingConfig,
    params: Any,
    texts: WindowTexts | None,
    prefix: UInt8[Array, "batch given height width 3"],
    rngs: Key[Array, " batch"],
) -> UInt8[Array, "batch frames height width 3"]:
    """See `window.generate_window`."""
    return generate_window(config, sampling, params, texts, prefix, rngs)


@functools.partial(jax.jit, static_argnums=(0, 1))
def redraw(
    config: PhenakiConfig,
    sampling: SamplingConfig,
    params: Any,
    texts: WindowTexts | None,
    video: UInt8[Array, "batch frames height width 3"],
    redrawn: Bool[Array, "batch frames height width"],
    rngs: Key[Array, " batch"],
) -> UInt8[Array, "batch frames height width 3"]:
    """See `window.redraw_window`."""
    return redraw_window(config, sampling, params, texts, video, redrawn, rngs)


@functools.partial(jax.jit, static_argnums=0)
def embed(
    config: PhenakiConfig, params: Any, text_tokens: Int[Array, "batch text_length"], text_mask: Bool[Array, "..."]
) -> Float[Array, "batch text_length text_width"]:
    """See `window.encode_text`."""
    return encode_text(config, params, text_tokens, text_mask)


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
