"""The parameters that make a model whole: how they begin, and what shape they have."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from phenaki_jax.inference.window import PhenakiConfig, text_module
from phenaki_jax.layers.positions import grid_positions
from phenaki_jax.tokenizer.config import CViViTConfig
from phenaki_jax.tokenizer.cvivit import CViViT
from phenaki_jax.transformer.model import MaskedTransformer, Text


def init_params(config: PhenakiConfig | CViViTConfig, rng: PRNGKeyArray) -> dict[str, Any]:
    """Parameters before any training, boxed with their logical axis names.

    Returns:
      Those of "tokenizer" and, where the config is of all models, of "transformer" and, if there are such, "text" and
      "critic".
    """
    if isinstance(config, CViViTConfig):
        video = jnp.zeros((1, config.frames, config.frame_size, config.frame_size, 3))
        return {"tokenizer": CViViT(config).init(rng, video)["params"]}
    tokenizer_rng, text_rng, transformer_rng, critic_rng = jax.random.split(rng, 4)
    positions = grid_positions(*config.token_shape)[None]
    tokens = jnp.zeros(positions.shape[:2], jnp.int32)
    params, texts = init_params(config.tokenizer, tokenizer_rng), None
    if config.text is not None:
        text = jnp.zeros((1, config.text.length), jnp.int32)
        texts = Text(jnp.zeros((*text.shape, config.text.width)), text + 1, text > 0)
        params["text"] = text_module(config.text).init(text_rng, text, text == 0)["params"]
    networks = {"transformer": (config.transformer, transformer_rng), "critic": (config.critic, critic_rng)}
    for name, (sizes, network_rng) in networks.items():
        if sizes is not None:
            params[name] = MaskedTransformer(sizes).init(network_rng, tokens, positions, None, texts)["params"]
    return params


def parameter_shapes(config: PhenakiConfig | CViViTConfig) -> dict[str, Any]:
    """Shape and type of every parameter, without computing it."""
    shapes: dict[str, Any] = jax.tree.map(lambda leaf: leaf, _parameter_shapes(config))
    return shapes


# Tracing takes seconds, and a model that is loaded asks several times.
@functools.cache
def _parameter_shapes(config: PhenakiConfig | CViViTConfig) -> dict[str, Any]:
    return jax.eval_shape(lambda: nn.unbox(init_params(config, jax.random.key(0))))
