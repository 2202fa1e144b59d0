"""The published weights of I3D as parameters of the module here; see `weights`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import unflatten_dict

from phenaki_jax.features.i3d import ENDPOINTS, I3D
from phenaki_jax.features.weights import NORM, Published, Shapes, channels_last, folded, kernel_shapes, load_tensors

# Added to the variances of I3D's batch norms. The original network has 1e-3, and so has pytorch-i3d. The copies in
# VideoGPT, TATS and cd-fvd, whose FVD is much quoted, have 1e-5 with the same weights.
I3D_EPSILON = 1e-3

_I3D = Published(
    "I3D weights",
    "https://github.com/songweige/TATS/raw/main/tats/fvd/i3d_pretrained_400.pt",
    "i3d_pretrained_400.pt",
    "PerceptualConfig.i3d_file",
    r".*\.bn\.num_batches_tracked",
)
_INPUT = (1, 9, 224, 224, 3)


def load_i3d(path: str | Path, setting: str | None = None, epsilon: float = I3D_EPSILON) -> dict[str, Any]:
    """Parameters of `I3D` from the state dict of pytorch-i3d, its batch norms folded into the convolutions.

    Args:
      path: of i3d_pretrained_400.pt, which VideoGPT, TATS and cd-fvd share, or of pytorch-i3d's rgb_imagenet.pt; or of
        the same tensors as `.safetensors`.
      setting: names the loss's weight, which messages then say to set to 0.
      epsilon: added to the batch norms' variances; see `I3D_EPSILON`.

    Returns:
      Float32 NumPy arrays.

    Raises:
      UserError: the file is missing or damaged, or has a tensor too few, too many, of another shape or with values
        that are no numbers.
    """
    return i3d_params(load_tensors(path, _I3D, i3d_tensors(), setting), epsilon)


def i3d_tensors() -> Shapes:
    """Names and shapes of what `i3d_params` needs: kernels are [out, in, time, height, width]."""
    shapes = {}
    for layer, shape in kernel_shapes(I3D(), _INPUT, ENDPOINTS).items():
        shapes[_name(layer, "conv3d.weight")] = shape
        names = ["conv3d.bias"] if layer == "logits" else [f"bn.{kind}" for kind in NORM]
        shapes.update({_name(layer, name): shape[:1] for name in names})
    return shapes


def i3d_params(tensors: Mapping[str, np.ndarray], epsilon: float = I3D_EPSILON) -> dict[str, Any]:
    """Parameters of `I3D` from the tensors that `i3d_tensors` names; batch norms go into kernels and biases."""
    params = {}
    for layer in kernel_shapes(I3D(), _INPUT, ENDPOINTS):
        kernel = channels_last(tensors[_name(layer, "conv3d.weight")])
        if layer == "logits":
            params[layer] = {"kernel": kernel, "bias": tensors[_name(layer, "conv3d.bias")]}
        else:
            norm = {kind: tensors[_name(layer, f"bn.{kind}")] for kind in NORM}
            params[layer] = folded(kernel, norm, epsilon)
    return unflatten_dict(params, sep="/")


def _name(layer: str, name: str) -> str:
    return f"{layer.replace('/', '.')}.{name}"
