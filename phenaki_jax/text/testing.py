"""What tests and benchmarks/t5_oracle.py, which share no process, both begin with: small encoders and their weights."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Bool, Int32

from phenaki_jax.text.t5 import T5Config, T5Encoder

# Texts long enough for distances that share a bucket; heads whose features do not add up to the width.
TINY = T5Config(vocabulary_size=64, length=40, layers=2, width=16, heads=4, head_width=8, mlp_width=24)
TINY_UMT5 = dataclasses.replace(TINY, bias_per_layer=True)
LENGTHS = (40, 7, 1, 23)


def random_t5(config: T5Config, seed: int = 0) -> dict[str, Any]:
    """Float32 parameters of `T5Encoder`, drawn in the order of their names.

    Kernels are normal with variance 1 / their first axis in a layer, those of queries times 1 / width of a head;
    embedding and position biases are normal, scales of norms uniform in .5..1.5.
    """
    tokens = jnp.zeros((1, 1), jnp.int32)
    boxed = jax.eval_shape(lambda: T5Encoder(config).init(jax.random.key(0), tokens, tokens == 0)["params"])
    shapes = {name: leaf.shape for name, leaf in flatten_dict(nn.unbox(boxed), sep="/").items()}
    rng = np.random.default_rng(seed)
    params = {}
    for name in sorted(shapes):
        shape = shapes[name]
        if name.endswith("scale"):
            params[name] = rng.random(shape, np.float32) + np.float32(0.5)
            continue
        deviation = 1.0 if name.endswith(("embedding", "position_bias")) else shape[1] ** -0.5
        if name == "layers/query":
            deviation *= config.head_width**-0.5
        params[name] = rng.standard_normal(shape, np.float32) * np.float32(deviation)
    return unflatten_dict(params, sep="/")


def random_texts(
    config: T5Config, lengths: tuple[int, ...] = LENGTHS, seed: int = 1
) -> tuple[Int32[np.ndarray, "batch length"], Bool[np.ndarray, "batch length"]]:
    """Texts of these lengths, padded to the longest, and their mask."""
    mask = np.arange(max(lengths)) < np.array(lengths)[:, None]
    tokens = np.random.default_rng(seed).integers(1, config.vocabulary_size, mask.shape, np.int32)
    return np.where(mask, tokens, 0).astype(np.int32), mask
