"""A model small enough for tests, of this package and of those that use it: random, and drawn in a second on a CPU."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from phenaki_jax.inference.decoding import SamplingConfig
from phenaki_jax.inference.model_file import ModelMetadata
from phenaki_jax.inference.parameters import init_params
from phenaki_jax.inference.window import PhenakiConfig
from phenaki_jax.text.encoder import TextEncoderConfig
from phenaki_jax.tokenizer.config import CViViTConfig, QuantizerConfig
from phenaki_jax.transformer.config import TransformerConfig


def tiny_config(heads: int = 2) -> PhenakiConfig:
    """Windows of 5 frames of 32 x 32 pixels, 2 frames and 8 x 8 pixels to a token, 16 codes, texts of 24 tokens."""
    sizes: dict[str, Any] = {"width": 16, "heads": heads, "mlp_width": 32}
    tokenizer = CViViTConfig(
        frames=5,
        frame_size=32,
        patch=8,
        temporal_patch=2,
        spatial_layers=1,
        temporal_layers=1,
        quantizer=QuantizerConfig(codes=16, code_width=4),
        **sizes,
    )
    return PhenakiConfig(
        tokenizer=tokenizer,
        text=TextEncoderConfig(length=24, layers=1, **sizes),
        transformer=TransformerConfig(codebook_size=16, text_width=16, layers=1, **sizes),
    )


def tiny_metadata() -> ModelMetadata:
    """Windows are continued from 3 frames, and drawn in 2 rounds."""
    return ModelMetadata(sampling=SamplingConfig(steps=2), prefix_frames=3)


def assert_same_pixels(found: np.ndarray, expected: np.ndarray) -> None:
    """Fails where videos, uint8, are not of one computation: those of one may differ where a value is between levels.

    As by one level in at most one pixel of a thousand, which values that agree to 1e-5 keep far below.
    """
    assert found.shape == expected.shape, f"{found.shape} is not {expected.shape}"
    differences = np.abs(found.astype(int) - expected.astype(int))
    assert differences.max() <= 1, f"pixels differ by up to {differences.max()} levels"
    share = (differences > 0).any(axis=-1).mean()
    assert share <= 1e-3, f"a share of {share:.1e} of the pixels differs"


def random_params(config: PhenakiConfig | CViViTConfig, seed: int = 0) -> dict[str, Any]:
    """Untrained parameters as NumPy arrays."""
    return jax.tree.map(np.asarray, _random_params(config, jax.random.key(seed)))


@functools.partial(jax.jit, static_argnums=0)
def _random_params(config: PhenakiConfig | CViViTConfig, rng: jax.Array) -> dict[str, Any]:
    return nn.unbox(init_params(config, rng))
