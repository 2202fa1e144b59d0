"""The published weights of VGG16 and of LPIPS's heads on it, as parameters of the modules here; see `weights`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from phenaki_jax.features.vgg16 import ACTIVATIONS, BLOCKS, VGG16
from phenaki_jax.features.weights import Published, Shapes, channels_last, kernel_shapes, load_tensors

_VGG16 = Published(
    "VGG16 weights",
    "https://download.pytorch.org/models/vgg16-397923af.pth",
    "vgg16-397923af.pth",
    "PerceptualConfig.vgg16_file",
    r"classifier\.[036]\.(weight|bias)",
    "397923af",
)
_HEADS = Published(
    "LPIPS heads",
    "https://github.com/richzhang/PerceptualSimilarity/raw/master/lpips/weights/v0.1/vgg.pth",
    "lpips_vgg_v0.1.pth",
    "PerceptualConfig.lpips_file",
    sha256="a78928a0af1e5f0f",
)


def load_vgg16(path: str | Path, setting: str | None = None) -> dict[str, Any]:
    """Parameters of `VGG16` from torchvision's state dict, with or without its fully connected layers.

    Args:
      path: of https://download.pytorch.org/models/vgg16-397923af.pth or of the same tensors as `.safetensors`.
      setting: names the loss's weight, which messages then say to set to 0.

    Returns:
      Float32 NumPy arrays.

    Raises:
      UserError: the file is missing or damaged, or has a tensor too few, too many, of another shape or with values
        that are no numbers.
    """
    return vgg16_params(load_tensors(path, _VGG16, vgg16_tensors(), setting))


def load_lpips(vgg_path: str | Path, heads_path: str | Path, setting: str | None = None) -> dict[str, Any]:
    """Parameters of `lpips` from VGG16's weights and from the heads, `lin0.model.1.weight` and so on.

    Args:
      vgg_path: see `load_vgg16`.
      heads_path: of weights/v0.1/vgg.pth of the lpips package.
      setting: see `load_vgg16`.

    Raises:
      UserError: as `load_vgg16`.
    """
    heads = load_tensors(heads_path, _HEADS, head_tensors(), setting)
    return {"vgg16": load_vgg16(vgg_path, setting), "heads": head_params(heads)}


def vgg16_tensors() -> Shapes:
    """Names and shapes of what `vgg16_params` needs: torch's, kernels being [out, in, height, width]."""
    kernels = kernel_shapes(VGG16(), (1, 16, 16, 3))
    names = _vgg16_names()
    return {
        f"{names[layer]}.{kind}": shape[: 4 if kind == "weight" else 1]
        for layer, shape in kernels.items()
        for kind in ("weight", "bias")
    }


def head_tensors() -> Shapes:
    """Names and shapes of what `head_params` needs."""
    return {_head_name(index): (1, channels, 1, 1) for index, (channels, _) in enumerate(BLOCKS)}


def vgg16_params(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Parameters of `VGG16` from the tensors that `vgg16_tensors` names."""
    return {
        layer: {"kernel": channels_last(tensors[f"{name}.weight"]), "bias": tensors[f"{name}.bias"]}
        for layer, name in _vgg16_names().items()
    }


def head_params(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The heads of `lpips` from the tensors that `head_tensors` names."""
    return {name: tensors[_head_name(index)].reshape(-1) for index, name in enumerate(ACTIVATIONS)}


def _head_name(index: int) -> str:
    return f"lin{index}.model.1.weight"


def _vgg16_names() -> dict[str, str]:
    """Torch's name of each layer: its place in a row of convolutions, each with a ReLU, and poolings."""
    names, place = {}, 0
    for block, (_, depth) in enumerate(BLOCKS, start=1):
        for layer in range(1, depth + 1):
            names[f"conv{block}_{layer}"] = f"features.{place}"
            place += 2
        place += 1
    return names
