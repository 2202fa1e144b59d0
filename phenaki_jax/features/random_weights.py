"""Weights drawn at random, for tests and for ablations: distances of random features still tell images apart."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from phenaki_jax.features.clip import ClipConfig
from phenaki_jax.features.clip_weights import clip_params, clip_tensors
from phenaki_jax.features.i3d_weights import i3d_params, i3d_tensors
from phenaki_jax.features.inception_weights import inception_params, inception_tensors
from phenaki_jax.features.lpips_weights import vgg16_params, vgg16_tensors
from phenaki_jax.features.vgg16 import ACTIVATIONS, BLOCKS
from phenaki_jax.features.weights import Shapes


def random_vgg16(seed: int) -> dict[str, Any]:
    """Parameters of `VGG16`, see `random_tensors`."""
    return vgg16_params(random_tensors(vgg16_tensors(), seed))


def random_lpips(seed: int) -> dict[str, Any]:
    """Parameters of `lpips`: a random VGG16 whose channels all count alike, as in the paper's baselines."""
    heads = {name: np.ones(channels, np.float32) for name, (channels, _) in zip(ACTIVATIONS, BLOCKS, strict=True)}
    return {"vgg16": random_vgg16(seed), "heads": heads}


def random_i3d(seed: int) -> dict[str, Any]:
    """Parameters of `I3D`, see `random_tensors`."""
    return i3d_params(random_tensors(i3d_tensors(), seed))


def random_inception(seed: int) -> dict[str, Any]:
    """Parameters of `Inception`, see `random_tensors`."""
    return inception_params(random_tensors(inception_tensors(), seed))


def random_clip(config: ClipConfig, seed: int) -> dict[str, Any]:
    """Parameters of a CLIP, see `random_tensors`."""
    return clip_params(config, random_tensors(clip_tensors(config), seed))


def random_tensors(shapes: Shapes, seed: int) -> dict[str, np.ndarray]:
    """Float32 tensors of a state dict, drawn in the order of their names; name and shape tell what a tensor is.

    Kernels are normal with variance 2 / fan in (arXiv 1502.01852), so that activations neither grow nor fade; scales
    and variances of norms are uniform in .5..1.5; biases, means and what else is a vector are normal with deviation .1.
    """
    rng = np.random.default_rng(seed)
    tensors = {}
    for name in sorted(shapes):
        shape = shapes[name]
        if len(shape) > 1:
            scale = math.sqrt(2 / math.prod(shape[1:]))
            tensors[name] = rng.standard_normal(shape, np.float32) * np.float32(scale)
        elif name.endswith((".weight", ".running_var")):
            tensors[name] = rng.random(shape, np.float32) + np.float32(0.5)
        else:
            tensors[name] = np.asarray(rng.standard_normal(shape, np.float32) * np.float32(0.1))
    return tensors
