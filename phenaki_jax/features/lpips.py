"""LPIPS v0.1: how different two images look, by the features of VGG16 (arXiv 1801.03924, section 3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from phenaki_jax.features.vgg16 import ACTIVATIONS, VGG16
from phenaki_jax.layers.module import apply

# As in the published implementation; it decides what features that are all almost zero count for.
_EPSILON = 1e-10
# Added under the root of a norm, which has no slope at 0; the squares of features below 1e-19 are 0 in float32. Its own
# root is a hundred-millionth of `_EPSILON`, so that no distance changes.
_TINY = 1e-36


def lpips(
    params: Mapping[str, Any],
    first: Float[Array, "batch height width 3"],
    second: Float[Array, "batch height width 3"],
    dtype: DTypeLike = jnp.float32,
) -> Float[Array, "batch"]:
    """The LPIPS distance of each pair of images; 0 for equal ones.

    Features are divided by their norm over channels; their squared differences, weighted by a head's non-negative
    number for each channel, are averaged over positions and added up over the five activations. The two images go
    through the network one after the other, so that nothing is kept for the gradient of one that has none.

    Args:
      params: "vgg16" and "heads", as `lpips_weights.load_lpips` or `random_weights.random_lpips` gives them.
      first: RGB in [-1, 1].
      second: the same.
      dtype: type of the convolutions; distances are float32.

    Raises:
      UserError: the images are no floats, or have less than 16 pixels along a side.
    """
    network = VGG16(dtype)
    features = apply(network, params["vgg16"], first)
    others = apply(network, params["vgg16"], second)
    distances = [_distance(features[name], others[name], params["heads"][name]) for name in ACTIVATIONS]
    return sum(distances[1:], start=distances[0])


def _distance(
    first: Float[Array, "batch height width channels"],
    second: Float[Array, "batch height width channels"],
    head: Float[Array, "channels"],
) -> Float[Array, "batch"]:
    squares = jnp.square(_normalize(first) - _normalize(second))
    return jnp.sum(squares * head, axis=(1, 2, 3)) / (first.shape[1] * first.shape[2])


def _normalize(features: Float[Array, "batch height width channels"]) -> Float[Array, "batch height width channels"]:
    """Divides by the norm over channels, in float32."""
    features = features.astype(jnp.float32)
    return features / (jnp.sqrt(jnp.sum(jnp.square(features), axis=-1, keepdims=True) + _TINY) + _EPSILON)
