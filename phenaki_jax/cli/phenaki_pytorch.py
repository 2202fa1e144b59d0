"""What a state dict of phenaki-pytorch (PyPI, 0.5.0) holds, and why this package's models cannot take its place.

No network of it computes what one of ours does, so that nothing is imported: parameters of the same shape in another
function are no beginning of a model but noise. What is told here is for who decides whether to train anew.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phenaki_jax.errors import UserError

if TYPE_CHECKING:
    import numpy as np

SUFFIXES = (".pt", ".pth")
_EXPECTED = "expected the state dict of a CViViT, MaskGit or Phenaki of phenaki-pytorch"
_CODEBOOK = "vq._codebook.embed"
_NETWORKS = {"C-ViViT": "to_patch_emb.2.weight", "MaskGit": "continuous_pos_bias.net.0.0.weight"}
_DIFFERS = {
    "C-ViViT": (
        "patches are normed before and after their linear layer; here they are not",
        "positions in space are a bias of attention that a small network computes; here sinusoids and rotations",
        "positions in time are a convolution of 3 x 3 x 3 tokens and a bias by distance (ALiBi); here rotations",
        "attention compares unit vectors times 8, scaled by feature; here inner products over the root of the width",
        "MLPs are gated (GEGLU); here they are not",
        "channels come before pixels in a patch, and frames in [0, 1]; here channels come last, and [-1, 1]",
    ),
    "MaskGit": (
        "positions are learned, and a bias that a small network computes; here sinusoids and rotations",
        "each layer begins with a convolution over 3 x 3 x 3 tokens that is not causal; here there is none",
        "attention compares unit vectors times 8, and texts have two learned keys and values more; here neither",
        "MLPs are gated (GEGLU), and the head has a bias; here neither",
        "guidance drops the text by its mask; here a learned null text stands for it",
    ),
}
# The same thing in both, by the ends of their names.
_ALIKE = {
    _CODEBOOK: "tokenizer: quantizer/codebook of cosine_vq, whose codes have a width of their own",
    "token_emb.weight": "transformer: embedding, and mask_embedding as its last row",
    "to_logits.weight": "transformer: head, transposed",
}


def describe_state_dict(path: Path) -> dict[str, Any]:
    """Sizes of the networks in a file, what they differ in from ours, and which tensors mean the same in both.

    Raises:
      UserError: the file cannot be read, is no state dict of phenaki-pytorch, or only a part of one.
    """
    from phenaki_jax.features.torch_files import read_torch_file

    tensors = read_torch_file(path)
    parts = {name: _part(tensors, sign) for name, sign in _NETWORKS.items()}
    try:
        networks = {name: _network(name, part) for name, part in parts.items() if part}
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    if not networks:
        raise UserError(f"{path}: found tensors such as {', '.join(list(tensors)[:2]) or 'none'}, {_EXPECTED}")
    return {
        "kind": "state dict of phenaki-pytorch",
        "parameters": sum(array.size for array in tensors.values()),
        "networks": networks,
        "differs": {name: "; ".join(_DIFFERS[name]) for name in networks},
        "alike": {name: ours for name in tensors for end, ours in _ALIKE.items() if name.endswith(end)},
        "import": "nothing of it can be imported, as no layer computes what one of ours does; train a model anew",
    }


def _part(tensors: Mapping[str, np.ndarray], sign: str) -> dict[str, np.ndarray]:
    """The tensors of the network that has a tensor of this name, by their names in it."""
    prefixes = [name.removesuffix(sign) for name in tensors if name.endswith(sign)]
    if not prefixes:
        return {}
    prefix = min(prefixes, key=len)
    return {name.removeprefix(prefix): array for name, array in tensors.items() if name.startswith(prefix)}


def _network(name: str, tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    size = {"parameters": sum(array.size for array in tensors.values())}
    if name == "MaskGit":
        codes, width = _shape(name, tensors, "to_logits.weight", 2)
        longest, _ = _shape(name, tensors, "pos_emb.weight", 2)
        return {**size, "codes": codes, "width": width, "layers": _layers(tensors, "transformer"), "longest": longest}
    width, spanned = _shape(name, tensors, "to_patch_emb.2.weight", 2)
    _, frame = _shape(name, tensors, "to_patch_emb_first_frame.2.weight", 2)
    quantizer = "lookup-free"
    if _CODEBOOK in tensors:
        quantizer = f"{_shape(name, tensors, _CODEBOOK, 3)[1]} codes by cosine"
    return {
        **size,
        "width": width,
        "values of a patch": frame,
        "temporal patch": spanned // frame,
        "spatial layers": _layers(tensors, "enc_spatial_transformer"),
        "temporal layers": _layers(tensors, "enc_temporal_transformer"),
        "quantizer": quantizer,
    }


def _shape(network: str, tensors: Mapping[str, np.ndarray], name: str, axes: int) -> tuple[int, ...]:
    """The shape of a tensor that such a network has, with so many axes."""
    if name not in tensors:
        raise UserError(f"found a {network} without {name}, {_EXPECTED}: save the whole of it")
    shape = tensors[name].shape
    if len(shape) != axes or 0 in shape:
        raise UserError(f"found {name} of the shape {list(shape)}, expected {axes} axes with values: save it again")
    return shape


def _layers(tensors: Mapping[str, np.ndarray], stack: str) -> int:
    return len({found[1] for name in tensors if (found := re.match(rf"{stack}\.layers\.(\d+)\.", name))})
