"""The published weights of CLIP, under the names of transformers, as parameters of the modules here; see `weights`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from phenaki_jax.features.clip import SIZES, ClipConfig, clip_shapes
from phenaki_jax.features.weights import Published, Shapes, channels_last, load_tensors

_LAYER = "encoder.layers.{}"
_TOWER_NAMES = {
    "positions": "embeddings.position_embedding.weight",
    "class_embedding": "embeddings.class_embedding",
    "patches/kernel": "embeddings.patch_embedding.weight",
    "tokens/embedding": "embeddings.token_embedding.weight",
    "layers/attention_norm": f"{_LAYER}.layer_norm1",
    "layers/attention/query": f"{_LAYER}.self_attn.q_proj",
    "layers/attention/key": f"{_LAYER}.self_attn.k_proj",
    "layers/attention/value": f"{_LAYER}.self_attn.v_proj",
    "layers/attention/out": f"{_LAYER}.self_attn.out_proj",
    "layers/mlp_norm": f"{_LAYER}.layer_norm2",
    "layers/mlp_into": f"{_LAYER}.mlp.fc1",
    "layers/mlp_out": f"{_LAYER}.mlp.fc2",
}
_NAMES = {
    **{
        f"{tower}/{ours}": f"{tower}_model.{name}"
        for tower in ("vision", "text")
        for ours, name in _TOWER_NAMES.items()
    },
    "vision/norm_before": "vision_model.pre_layrnorm",  # as it is spelled there
    "vision/norm_after": "vision_model.post_layernorm",
    "vision/projection": "visual_projection",
    "text/norm_after": "text_model.final_layer_norm",
    "text/projection": "text_projection",
    "logit_scale": "logit_scale",
}
_KINDS = {"kernel": "weight", "scale": "weight", "bias": "bias"}


def load_clip(path: str | Path, config: ClipConfig) -> dict[str, Any]:
    """Parameters of a CLIP: "vision", "text" and "logit_scale", see `clip_shapes`.

    Args:
      path: of model.safetensors or pytorch_model.bin of https://huggingface.co/openai/clip-vit-base-patch32 and the
        like.
      config: the model's sizes, such as `ClipConfig.named("clip-vit-base-patch32")`.

    Returns:
      Float32 NumPy arrays.

    Raises:
      UserError: the file is missing or damaged, or has a tensor too few, too many, of another shape or with values
        that are no numbers, as a model of other sizes has.
    """
    return clip_params(config, load_tensors(path, _published(config), clip_tensors(config)))


def clip_tensors(config: ClipConfig) -> Shapes:
    """Names and shapes of what `clip_params` needs."""
    return {name: shape for path, leaf in _leaves(config) for name, shape in _stored(path, leaf).items()}


def clip_params(config: ClipConfig, tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Parameters of a CLIP from the tensors that `clip_tensors` names."""
    params = {}
    for path, shape in _leaves(config):
        stored = [tensors[name] for name in _stored(path, shape)]
        if "/layers/" in path:
            params[path] = np.stack([_placed(path, tensor, shape[1:]) for tensor in stored])
        else:
            params[path] = _placed(path, stored[0], shape)
    return unflatten_dict(params, sep="/")


def _published(config: ClipConfig) -> Published:
    """The released model of these sizes, or where there is none, the first."""
    name = next((name for name in SIZES if ClipConfig.named(name) == config), next(iter(SIZES)))
    return Published(
        f"weights of {name}",
        f"https://huggingface.co/openai/{name}/resolve/main/pytorch_model.bin",
        f"{name}.bin",
        spare=r"(text|vision)_model\.embeddings\.position_ids",
    )


def _leaves(config: ClipConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Path and shape of each parameter."""
    for path, leaf in flatten_dict(clip_shapes(config), sep="/").items():
        yield path, leaf.shape


def _stored(path: str, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors that a parameter is in, first layer first."""
    parent, _, kind = path.rpartition("/")
    name = _NAMES[path] if path in _NAMES else f"{_NAMES[parent]}.{_KINDS[kind]}"
    if "/layers/" not in path:
        return {name: _stored_shape(path, shape)}
    return {name.format(layer): _stored_shape(path, shape[1:]) for layer in range(shape[0])}


def _stored_shape(path: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Torch has [out, in, ...], and heads and their features as one axis."""
    if path.endswith("patches/kernel"):
        return (shape[-1], shape[-2], *shape[:-2])
    if path.endswith("attention/out/kernel"):
        return shape[-1], math.prod(shape[:-1])
    if path.endswith("kernel"):
        return math.prod(shape[1:]), shape[0]
    return (math.prod(shape),) if "attention/" in path else shape


def _placed(path: str, tensor: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A tensor of the shape that `_stored_shape` tells, as a parameter of this one."""
    if path.endswith("patches/kernel"):
        return channels_last(tensor)
    return np.array((tensor.T if path.endswith("kernel") else tensor).reshape(shape))
