"""What the importers of published weights have in common: reading a file, and refusing another network's.

Files are torch's or, where they end in `.safetensors`, tensors of the same names. Nothing is downloaded. Hand the
parameters to compiled functions as arguments: closed over, they are constants, and XLA computes with them for minutes.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from phenaki_jax.errors import UserError, reason_of
from phenaki_jax.features.safetensors_files import read_safetensors
from phenaki_jax.features.torch_files import read_torch_file

Shapes = Mapping[str, tuple[int, ...]]
NORM = ("weight", "bias", "running_mean", "running_var")
"""Torch's names of what a batch norm has."""

_TOLD_OF_SHA256 = 16


class Published(NamedTuple):
    """A file of weights.

    Attributes:
      name: what is in it.
      url: where it comes from.
      file: the name to keep it under.
      setting: of a config, which names such a file; empty where none does.
      spare: its tensors that nothing here needs.
      sha256: what its SHA-256 begins with; empty where that is not publicly known.
    """

    name: str
    url: str
    file: str
    setting: str = ""
    spare: str = r"(?!)"
    sha256: str = ""


def sha256_of(path: str | Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits, which belongs beside each number that comes of its weights.

    Raises:
      UserError: it cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({reason_of(error)}), expected a file that can") from error


def load_tensors(
    path: str | Path, published: Published, shapes: Shapes, setting: str | None = None
) -> dict[str, np.ndarray]:
    """The tensors of these shapes, as float32 copies.

    Args:
      path: of the published file or of the same tensors as `.safetensors`.
      published: what is expected.
      shapes: by the tensors' names.
      setting: names the loss's weight, which messages then say to set to 0.

    Raises:
      UserError: the file is missing or damaged, or has a tensor too few, too many, of another shape or with values
        that are no numbers.
    """
    advice = _advice(path, published, setting)
    tensors = _read(path, published.name, advice)

    def refusal(found: str, expected: str) -> UserError:
        known = f" (SHA-256 {published.sha256}...)" if published.sha256 else ""
        told = sha256_of(path)[:_TOLD_OF_SHA256]
        return UserError(f"{path}: found {found} (SHA-256 {told}...), expected {expected}{known}; {advice}")

    if absent := [name for name in shapes if name not in tensors]:
        raise refusal(f"no {absent[0]}", published.name)
    if surplus := [name for name in tensors if name not in shapes and not re.fullmatch(published.spare, name)]:
        raise refusal(surplus[0], f"{published.name} alone")
    loaded = {}
    for name, shape in shapes.items():
        found = tensors[name]
        if found.shape != tuple(shape) or not jnp.issubdtype(found.dtype, jnp.floating):
            raise refusal(f"{name} as {found.dtype}{list(found.shape)}", f"float32{list(shape)}")
        loaded[name] = found.astype(np.float32)
        if not np.isfinite(loaded[name]).all():
            raise refusal(f"NaN or infinity in {name}", "numbers")
    return loaded


@functools.cache
def kernel_shapes(module: nn.Module, shape: tuple[int, ...], *options: Any) -> Shapes:
    """The shape that torch gives each kernel of a module, [out, in, ...], by its path.

    Args:
      module: of convolutions, called `kernel`.
      shape: of its input.
      *options: its other arguments.
    """
    inputs = jax.ShapeDtypeStruct(shape, jnp.float32)
    init = functools.partial(jax.eval_shape, lambda rng, inputs: module.init(rng, inputs, *options))
    params = flatten_dict(nn.unbox(init(jax.random.key(0), inputs))["params"])
    kernels = {"/".join(path[:-1]): leaf.shape for path, leaf in params.items() if path[-1] == "kernel"}
    return {path: (shape[-1], shape[-2], *shape[:-2]) for path, shape in kernels.items()}


def channels_last(kernel: np.ndarray) -> np.ndarray:
    """[out, in, ...] to [..., in, out]."""
    return np.ascontiguousarray(np.moveaxis(kernel, (0, 1), (-1, -2)))


def folded(kernel: np.ndarray, norm: Mapping[str, np.ndarray], epsilon: float) -> dict[str, np.ndarray]:
    """Kernel and bias of a convolution without a bias and the frozen batch norm behind it.

    Args:
      kernel: [..., in, out].
      norm: its tensors, [out], by the names in `NORM`.
      epsilon: added to the variances.
    """
    scale, shift, mean, variance = (norm[kind].astype(np.float64) for kind in NORM)
    scale = scale / np.sqrt(variance + epsilon)
    return {"kernel": (kernel * scale).astype(np.float32), "bias": (shift - mean * scale).astype(np.float32)}


def _advice(path: str | Path, published: Published, setting: str | None) -> str:
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
        return read_safetensors(file) if file.suffix == ".safetensors" else read_torch_file(file)
    except UserError as error:
        raise UserError(f"{error}; {advice}") from error
