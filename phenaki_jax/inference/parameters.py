"""The parameters that make a model whole: how they begin, and what shape they have."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from phenaki_jax.inference.window import PhenakiConfig
from phenaki_jax.layers.positions import grid_positions
from phenaki_jax.text.encoder import TextEncoder
from phenaki_jax.tokenizer.config import CViViTConfig
from phenaki_jax.tokenizer.cvivit import CViViT
from phenaki_jax.transformer.model import MaskedTransformer


def init_params(config: PhenakiConfig | CViViTConfig, rng: PRNGKeyArray) -> dict[str, Any]:
    """Parameters before any training, boxed with their logical axis names.

    Returns:
      Those of "tokenizer" and, where the config is of all three models, of "text" and "transformer".
    """
    if isinstance(config, CViViTConfig):
        video = jnp.zeros((1, config.frames, config.frame_size, config.frame_size, 3))
        return {"tokenizer": CViViT(config).init(rng, video)["params"]}
    tokenizer_rng, text_rng, transformer_rng = jax.random.split(rng, 3)
    positions = grid_positions(*config.token_shape)[None]
    tokens = jnp.zeros(positions.shape[:2], jnp.int32)
    text = jnp.zeros((1, config.text.length), jnp.int32)
    embeddings = jnp.zeros((*text.shape, config.text.width))
    transformer = MaskedTransformer(config.transformer).init(
        transformer_rng, tokens, positions, tokens == 0, embeddings, text == 0, jnp.zeros(1, bool)
    )
    return {
        **init_params(config.tokenizer, tokenizer_rng),
        "text": TextEncoder(config.text).init(text_rng, text, text == 0)["params"],
        "transformer": transformer["params"],
    }


def parameter_shapes(config: PhenakiConfig | CViViTConfig) -> dict[str, Any]:
    """Shape and type of every parameter, without computing it."""
    return jax.eval_shape(lambda: nn.unbox(init_params(config, jax.random.key(0))))
