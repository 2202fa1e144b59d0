"""The published weights of FID's Inception-v3 as parameters of the module here; see `weights`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import unflatten_dict

from phenaki_jax.features.inception import CLASSES, FEATURES, SMALLEST_SIZE, Inception
from phenaki_jax.features.weights import NORM, Published, Shapes, channels_last, folded, kernel_shapes, load_tensors

_EPSILON = 1e-3
_INCEPTION = Published(
    "weights of FID's Inception-v3",
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
    "pt_inception-2015-12-05-6726825d.pth",
    spare=r"fc\.bias|.*\.bn\.num_batches_tracked",
    sha256="6726825d",
)
_INPUT = (1, SMALLEST_SIZE, SMALLEST_SIZE, 3)


def load_inception(path: str | Path) -> dict[str, Any]:
    """Parameters of `Inception`, its batch norms folded into the convolutions.

    Args:
      path: of pytorch-fid's pt_inception-2015-12-05-6726825d.pth, of torch-fidelity's
        weights-inception-2015-12-05-6726825d.pth, or of the same tensors as `.safetensors`.

    Returns:
      Float32 NumPy arrays.

    Raises:
      UserError: the file is missing or damaged, or has a tensor too few, too many, of another shape or with values
        that are no numbers, as torchvision's network of that name has.
    """
    return inception_params(load_tensors(path, _INCEPTION, inception_tensors()))


def inception_tensors() -> Shapes:
    """Names and shapes of what `inception_params` needs: kernels are [out, in, height, width]."""
    shapes: dict[str, tuple[int, ...]] = {"fc.weight": (CLASSES, FEATURES)}
    for layer, shape in kernel_shapes(Inception(), _INPUT).items():
        shapes[_name(layer, "conv.weight")] = shape
        shapes.update({_name(layer, f"bn.{kind}"): shape[:1] for kind in NORM})
    return shapes


def inception_params(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Parameters of `Inception` from the tensors that `inception_tensors` names."""
    params: dict[str, Any] = {"fc": np.ascontiguousarray(tensors["fc.weight"].T)}
    for layer in kernel_shapes(Inception(), _INPUT):
        norm = {kind: tensors[_name(layer, f"bn.{kind}")] for kind in NORM}
        params[layer] = folded(channels_last(tensors[_name(layer, "conv.weight")]), norm, _EPSILON)
    return unflatten_dict(params, sep="/")


def _name(layer: str, name: str) -> str:
    return f"{layer.replace('/', '.')}.{name}"
