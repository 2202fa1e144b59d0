"""Published weights of the frozen networks, as parameters of the modules here.

Files are torch's or, where they end in `.safetensors`, tensors of the same names. Nothing is downloaded. Hand the
parameters to compiled functions as arguments: closed over, they are constants, and XLA computes with them for minutes.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import SafetensorError
from safetensors.numpy import load_file

from phenaki_jax.errors import UserError, reason_of
from phenaki_jax.features.i3d import ENDPOINTS, I3D
from phenaki_jax.features.torch_files import read_torch_file, what_begins_with
from phenaki_jax.features.vgg16 import ACTIVATIONS, BLOCKS, VGG16

Shapes = Mapping[str, tuple[int, ...]]

# Added to the variances of I3D's batch norms. The original network has 1e-3, and so has pytorch-i3d. The copies in
# VideoGPT, TATS and cd-fvd, whose FVD is much quoted, have 1e-5 with the same weights.
I3D_EPSILON = 1e-3
_NORM = ("weight", "bias", "running_mean", "running_var")


class _Published(NamedTuple):
    """A file of weights.

    Attributes:
      name: what is in it.
      url: where it comes from.
      file: the name to keep it under.
      setting: which names such a file.
      spare: its tensors that nothing here needs.
    """

    name: str
    url: str
    file: str
    setting: str
    spare: str = r"(?!)"


_VGG16 = _Published(
    "VGG16 weights",
    "https://download.pytorch.org/models/vgg16-397923af.pth",
    "vgg16-397923af.pth",
    "PerceptualConfig.vgg16_file",
    r"classifier\.[036]\.(weight|bias)",
)
_HEADS = _Published(
    "LPIPS heads",
    "https://github.com/richzhang/PerceptualSimilarity/raw/master/lpips/weights/v0.1/vgg.pth",
    "lpips_vgg_v0.1.pth",
    "PerceptualConfig.lpips_file",
)
_I3D = _Published(
    "I3D weights",
    "https://github.com/songweige/TATS/raw/main/tats/fvd/i3d_pretrained_400.pt",
    "i3d_pretrained_400.pt",
    "PerceptualConfig.i3d_file",
    r".*\.bn\.num_batches_tracked",
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
    return vgg16_params(_load(path, _VGG16, vgg16_tensors(), setting))


def load_lpips(vgg_path: str | Path, heads_path: str | Path, setting: str | None = None) -> dict[str, Any]:
    """Parameters of `lpips` from VGG16's weights and from the heads, `lin0.model.1.weight` and so on.

    Args:
      vgg_path: see `load_vgg16`.
      heads_path: of weights/v0.1/vgg.pth of the lpips package.
      setting: see `load_vgg16`.

    Raises:
      UserError: as `load_vgg16`.
    """
    heads = _load(heads_path, _HEADS, head_tensors(), setting)
    return {"vgg16": load_vgg16(vgg_path, setting), "heads": head_params(heads)}


def load_i3d(path: str | Path, setting: str | None = None, epsilon: float = I3D_EPSILON) -> dict[str, Any]:
    """Parameters of `I3D` from the state dict of pytorch-i3d, its batch norms folded into the convolutions.

    Args:
      path: of i3d_pretrained_400.pt, which VideoGPT, TATS and cd-fvd share, or of pytorch-i3d's rgb_imagenet.pt.
      setting: see `load_vgg16`.
      epsilon: added to the batch norms' variances; see `I3D_EPSILON`.

    Raises:
      UserError: as `load_vgg16`.
    """
    return i3d_params(_load(path, _I3D, i3d_tensors(), setting), epsilon)


def vgg16_tensors() -> Shapes:
    """Names and shapes of what `vgg16_params` needs: torch's, kernels being [out, in, height, width]."""
    kernels = _kernels(VGG16(), (1, 16, 16, 3))
    names = _vgg16_names()
    return {
        f"{names[layer]}.{kind}": shape[: 4 if kind == "weight" else 1]
        for layer, shape in kernels.items()
        for kind in ("weight", "bias")
    }


def head_tensors() -> Shapes:
    """Names and shapes of what `head_params` needs."""
    return {_head_name(index): (1, channels, 1, 1) for index, (channels, _) in enumerate(BLOCKS)}


def i3d_tensors() -> Shapes:
    """Names and shapes of what `i3d_params` needs: kernels are [out, in, time, height, width]."""
    shapes = {}
    for layer, shape in _kernels(I3D(), (1, 9, 224, 224, 3), ENDPOINTS).items():
        shapes[_i3d_name(layer, "conv3d.weight")] = shape
        names = ["conv3d.bias"] if layer == "logits" else [f"bn.{kind}" for kind in _NORM]
        shapes.update({_i3d_name(layer, name): shape[:1] for name in names})
    return shapes


def vgg16_params(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Parameters of `VGG16` from the tensors that `vgg16_tensors` names."""
    return {
        layer: {"kernel": _channels_last(tensors[f"{name}.weight"]), "bias": tensors[f"{name}.bias"]}
        for layer, name in _vgg16_names().items()
    }


def head_params(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The heads of `lpips` from the tensors that `head_tensors` names."""
    return {name: tensors[_head_name(index)].reshape(-1) for index, name in enumerate(ACTIVATIONS)}


def i3d_params(tensors: Mapping[str, np.ndarray], epsilon: float = I3D_EPSILON) -> dict[str, Any]:
    """Parameters of `I3D` from the tensors that `i3d_tensors` names; batch norms go into kernels and biases."""
    params = {}
    for layer in _kernels(I3D(), (1, 9, 224, 224, 3), ENDPOINTS):
        kernel = _channels_last(tensors[_i3d_name(layer, "conv3d.weight")])
        if layer == "logits":
            bias = tensors[_i3d_name(layer, "conv3d.bias")]
        else:
            scale, shift, mean, variance = (
                tensors[_i3d_name(layer, f"bn.{kind}")].astype(np.float64) for kind in _NORM
            )
            scale = scale / np.sqrt(variance + epsilon)
            kernel = (kernel * scale).astype(np.float32)
            bias = (shift - mean * scale).astype(np.float32)
        params[layer] = {"kernel": kernel, "bias": bias}
    return unflatten_dict({tuple(layer.split("/")): entry for layer, entry in params.items()})


def _i3d_name(layer: str, name: str) -> str:
    return f"{layer.replace('/', '.')}.{name}"


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


@functools.cache
def _kernels(module: nn.Module, shape: tuple[int, ...], *options: Any) -> Shapes:
    """The shape that torch gives each kernel of a module, [out, in, ...], by its path."""
    inputs = jax.ShapeDtypeStruct(shape, jnp.float32)
    init = functools.partial(jax.eval_shape, lambda rng, inputs: module.init(rng, inputs, *options))
    params = flatten_dict(nn.unbox(init(jax.random.key(0), inputs))["params"])
    kernels = {"/".join(path[:-1]): leaf.shape for path, leaf in params.items() if path[-1] == "kernel"}
    return {path: (shape[-1], shape[-2], *shape[:-2]) for path, shape in kernels.items()}


def _channels_last(kernel: np.ndarray) -> np.ndarray:
    """[out, in, ...] to [..., in, out]."""
    return np.ascontiguousarray(np.moveaxis(kernel, (0, 1), (-1, -2)))


def _load(path: str | Path, published: _Published, shapes: Shapes, setting: str | None) -> dict[str, np.ndarray]:
    """The tensors of these shapes, as float32 copies.

    Raises:
      UserError: see `load_vgg16`.
    """
    advice = _advice(path, published, setting)
    tensors = _read(path, published.name, advice)
    if absent := [name for name in shapes if name not in tensors]:
        raise UserError(f"{path}: found no {absent[0]}, expected {published.name}; {advice}")
    surplus = [name for name in tensors if name not in shapes and not re.fullmatch(published.spare, name)]
    if surplus:
        raise UserError(f"{path}: found {surplus[0]}, expected {published.name} alone; {advice}")
    loaded = {}
    for name, shape in shapes.items():
        found = tensors[name]
        if found.shape != tuple(shape) or not jnp.issubdtype(found.dtype, jnp.floating):
            raise UserError(
                f"{path}: found {name} as {found.dtype}{list(found.shape)}, expected float32{list(shape)}; {advice}"
            )
        loaded[name] = found.astype(np.float32)
        if not np.isfinite(loaded[name]).all():
            raise UserError(f"{path}: found NaN or infinity in {name}, expected numbers; {advice}")
    return loaded


def _advice(path: str | Path, published: _Published, setting: str | None) -> str:
    """Where the published file comes from and goes, under a name that it can be read by, or how to do without it."""
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    target = folder / published.file
    advice = f"download {published.url} to {target}"
    if target != Path(path):
        advice += f" and set {published.setting} to that" if setting else " and load that"
    return f"{advice}, or set {setting} to 0 to train without this loss" if setting else advice


def _read(path: str | Path, name: str, advice: str) -> dict[str, np.ndarray]:
    file = Path(path)
    if not file.is_file():
        found = f"a folder at {path}" if file.is_dir() else f"nothing at {path}"
        raise UserError(f"{name}: found {found if str(path) else 'no name'}, expected a file; {advice}")
    try:
        return _read_safetensors(file) if file.suffix == ".safetensors" else read_torch_file(file)
    except UserError as error:
        raise UserError(f"{error}; {advice}") from error


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    try:
        with path.open("rb") as file:
            start = file.read(16)
        if start[8:9] == b"{":  # after the length of the header, the header
            return load_file(path)
    except (SafetensorError, OSError, KeyError) as error:
        raise UserError(f"{path} is damaged ({reason_of(error)}), expected safetensors") from error
    raise UserError(f"{path}: found {what_begins_with(start)}, expected safetensors")
