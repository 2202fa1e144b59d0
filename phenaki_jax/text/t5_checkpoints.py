"""Released T5 encoders as parameters of `T5Encoder`, read piece by piece to wherever they shall lie.

Checkpoints hold the decoder too, and an optimizer's state, of which nothing is read.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.typing import DTypeLike

from phenaki_jax.errors import UserError
from phenaki_jax.text.stored_arrays import AGAIN, Index, StoredArray, lifted, open_arrays, split, transposed
from phenaki_jax.text.t5 import SIZES, T5Config, t5_shapes

Shardings = Mapping[str, Any] | Callable[[Any], Mapping[str, Any]]

# Which axis of a layer's kernel is the heads', before that of their features.
_HEADS_AXES = {"layers/query": 1, "layers/key": 1, "layers/value": 1, "layers/attention_out": 0}


@dataclasses.dataclass(frozen=True)
class _Layout:
    """What a kind of checkpoint calls the parameters, and how it holds them.

    Attributes:
      names: of each parameter of `T5Encoder`; `{}` stands for the layer. A layer's parameter without it is an array
        that has all layers as its second axis.
      merges_heads: whether heads and their features are one axis.
      transposes: whether kernels are [out, in] and position biases [buckets, heads].
    """

    names: Mapping[str, str]
    merges_heads: bool
    transposes: bool

    def stored(self, parameter: str, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the arrays that a parameter of this shape is in, first layer first."""
        name = self.names[parameter]
        if not parameter.startswith("layers/"):
            return {name: self._stored_shape(parameter, shape)}
        of_layer = self._stored_shape(parameter, shape[1:])
        if "{}" in name:
            return {name.format(layer): of_layer for layer in range(shape[0])}
        return {name: (of_layer[0], shape[0], *of_layer[1:])}

    def placed(self, parameter: str, array: StoredArray, head_width: int) -> StoredArray:
        """A view of such an array with the parameter's axes; for one of a layer, the first has length 1."""
        if parameter.startswith("layers/") and "{}" not in self.names[parameter]:
            return transposed(array, (1, 0, *range(2, len(array.shape))))
        if self._is_transposed(parameter):
            array = transposed(array, tuple(reversed(range(len(array.shape)))))
        if self.merges_heads and parameter in _HEADS_AXES:
            array = split(array, _HEADS_AXES[parameter], head_width)
        return lifted(array) if parameter.startswith("layers/") else array

    def _stored_shape(self, parameter: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        if self.merges_heads and parameter in _HEADS_AXES:
            axis = _HEADS_AXES[parameter]
            shape = (*shape[:axis], shape[axis] * shape[axis + 1], *shape[axis + 2 :])
        return shape[::-1] if self._is_transposed(parameter) else shape

    def _is_transposed(self, parameter: str) -> bool:
        return self.transposes and parameter != "embedding"


def _t5x_names(layer: str) -> dict[str, str]:
    return {
        "embedding": "token_embedder/embedding",
        "position_bias": "encoder/relpos_bias/rel_embedding",
        "layers/position_bias": f"{layer}/relpos_bias/rel_embedding",
        "layers/attention_norm/scale": f"{layer}/pre_attention_layer_norm/scale",
        "layers/query": f"{layer}/attention/query/kernel",
        "layers/key": f"{layer}/attention/key/kernel",
        "layers/value": f"{layer}/attention/value/kernel",
        "layers/attention_out": f"{layer}/attention/out/kernel",
        "layers/mlp_norm/scale": f"{layer}/pre_mlp_layer_norm/scale",
        "layers/mlp_gate": f"{layer}/mlp/wi_0/kernel",
        "layers/mlp_into": f"{layer}/mlp/wi_1/kernel",
        "layers/mlp_out": f"{layer}/mlp/wo/kernel",
        "final_norm/scale": "encoder/encoder_norm/scale",
    }


# t5x's examples/t5, as T5 1.1 and flan-T5 are released, and its examples/scalable_t5, as umT5 is.
_T5X = _Layout(_t5x_names("encoder/layers_{}"), merges_heads=True, transposes=False)
_T5X_SCANNED = _Layout(_t5x_names("encoder/encoder"), merges_heads=False, transposes=False)
_ATTENTION, _MLP = "encoder.block.{}.layer.0", "encoder.block.{}.layer.1"
_HUGGING_FACE = _Layout(
    {
        "embedding": "encoder.embed_tokens.weight",
        "position_bias": f"{_ATTENTION.format(0)}.SelfAttention.relative_attention_bias.weight",
        "layers/position_bias": f"{_ATTENTION}.SelfAttention.relative_attention_bias.weight",
        "layers/attention_norm/scale": f"{_ATTENTION}.layer_norm.weight",
        "layers/query": f"{_ATTENTION}.SelfAttention.q.weight",
        "layers/key": f"{_ATTENTION}.SelfAttention.k.weight",
        "layers/value": f"{_ATTENTION}.SelfAttention.v.weight",
        "layers/attention_out": f"{_ATTENTION}.SelfAttention.o.weight",
        "layers/mlp_norm/scale": f"{_MLP}.layer_norm.weight",
        "layers/mlp_gate": f"{_MLP}.DenseReluDense.wi_0.weight",
        "layers/mlp_into": f"{_MLP}.DenseReluDense.wi_1.weight",
        "layers/mlp_out": f"{_MLP}.DenseReluDense.wo.weight",
        "final_norm/scale": "encoder.final_layer_norm.weight",
    },
    merges_heads=True,
    transposes=True,
)
# Where a tree of t5x begins: in its own checkpoints, in those of parameters alone, and in bare ones.
_TREES = ("target/", "params/", "")


class _Encoder(NamedTuple):
    """The encoder of a checkpoint, its arrays by the layout's names."""

    path: Path
    layout: _Layout
    arrays: dict[str, StoredArray]

    def parts(self, parameter: str, shape: tuple[int, ...], head_width: int) -> list[StoredArray]:
        """What a parameter of this shape is put together of, along its first axis."""
        arrays = [self.arrays[name] for name in self.layout.stored(parameter, shape)]
        return [self.layout.placed(parameter, array, head_width) for array in arrays]


def load_t5(
    path: str | Path, config: T5Config, sharding: Shardings | None = None, dtype: DTypeLike = jnp.float32
) -> dict[str, Any]:
    """Parameters of `T5Encoder` from a released checkpoint.

    Args:
      path: of t5x, a folder `checkpoint_1000000`; of orbax, a folder; of Hugging Face, a folder, a `.safetensors` file
        or a `.safetensors.index.json`.
      config: the encoder's sizes, see `t5_config_of`.
      sharding: a tree with a sharding for each parameter, or what makes it of the tree of their shapes, boxed with
        logical axis names, as `MeshConfig(rules="fully_sharded").make().parameters`. Parameters are then
        read one after the other, and of each only what this process's devices hold.
      dtype: of embedding and kernels; scales of norms and position biases are always float32.

    Returns:
      JAX arrays that lie as the shardings say, or NumPy arrays where there are none.

    Raises:
      UserError: there is no such checkpoint, it is damaged, is of other sizes than the config, or has a tensor of the
        encoder too few, too many, or with values that are no numbers.
    """
    encoder = _open(Path(path))
    boxed = t5_shapes(config, dtype)
    leaves = flatten_dict(nn.unbox(boxed), sep="/")
    _check(encoder, config, {name: leaf.shape for name, leaf in leaves.items()})
    places = sharding(boxed) if callable(sharding) else sharding
    flat_places = {} if places is None else flatten_dict(places, sep="/")
    params = {}
    for parameter, leaf in leaves.items():
        shape = leaf.shape
        read = functools.partial(_read, encoder.parts(parameter, shape, config.head_width), shape, leaf.dtype)
        params[parameter] = (
            read((slice(None),) * len(shape))
            if places is None
            else jax.make_array_from_callback(shape, flat_places[parameter], _reading_once(read))
        )
    return unflatten_dict(params, sep="/")


def check_t5(path: str | Path, config: T5Config) -> str:
    """Refuses a checkpoint that `load_t5` would refuse for its arrays' shapes; reads next to nothing.

    Returns:
      A fingerprint, which tells encoders of one size from each other.

    Raises:
      UserError: see `load_t5`.
    """
    encoder = _open(Path(path))
    shapes = {name: leaf.shape for name, leaf in flatten_dict(nn.unbox(t5_shapes(config)), sep="/").items()}
    _check(encoder, config, shapes)
    told = hashlib.sha256()
    for parameter in ("final_norm/scale", "layers/attention_norm/scale", "layers/mlp_norm/scale"):
        shape = shapes[parameter]
        parts = encoder.parts(parameter, shape, config.head_width)
        told.update(_read(parts, shape, np.dtype(np.float32), (slice(None),) * len(shape)).tobytes())
    return told.hexdigest()[:16]


def t5_config_of(path: str | Path) -> T5Config:
    """The sizes of a checkpoint's encoder, told by shapes; `length` and `longest_distance` are the usual ones.

    Args:
      path: see `load_t5`.

    Raises:
      UserError: there is no such checkpoint, it is damaged, or lacks an encoder.
    """
    encoder = _open(Path(path))
    config = _config_of(encoder)
    if config is None:
        raise UserError(f"{path}: found a part of a T5 encoder, expected a whole one; {AGAIN}")
    return config


def _read(parts: list[StoredArray], shape: tuple[int, ...], dtype: np.dtype, index: Index) -> np.ndarray:
    """What lies between slices of an array that has these parts, one after the other along its first axis."""
    rows, *others = (slice(*part.indices(size)[:2]) for part, size in zip(index, shape, strict=True))
    values = np.empty([part.stop - part.start for part in (rows, *others)], dtype)
    start = 0
    for part in parts:
        first, last = max(rows.start, start), min(rows.stop, start + part.shape[0])
        if first < last:
            found = part.read((slice(first - start, last - start), *others))
            values[first - rows.start : last - rows.start] = found
        start += part.shape[0]
    return values


def _reading_once(read: Callable[[Index], np.ndarray]) -> Callable[[Any], np.ndarray]:
    """For devices that hold the same part."""
    known: dict[tuple[tuple[Any, Any], ...], np.ndarray] = {}

    def callback(index: Index) -> np.ndarray:
        key = tuple((part.start, part.stop) for part in index)
        if key not in known:
            known[key] = read(index)
        return known[key]

    return callback


def _open(path: Path) -> _Encoder:
    """Opens the arrays of an encoder, and no others.

    Raises:
      UserError: there is no checkpoint, it is damaged, or has no encoder of a kind that is known.
    """
    found = open_arrays(path)
    names = sorted(found)
    tree = next((tree for tree in _TREES if f"{tree}token_embedder/embedding" in found), None)
    if tree is not None:
        found = {name.removeprefix(tree): open_array for name, open_array in found.items() if name.startswith(tree)}
        layout = _T5X_SCANNED if any(name.startswith("encoder/encoder/") for name in found) else _T5X
        is_encoders = re.compile("encoder/|token_embedder/")
    else:
        if not any(name.startswith("encoder.") for name in found):  # saved without the model around it
            found = {f"encoder.{name}" if name != "shared.weight" else name: each for name, each in found.items()}
        if "shared.weight" in found:
            found.setdefault("encoder.embed_tokens.weight", found["shared.weight"])
        layout, is_encoders = _HUGGING_FACE, re.compile(r"encoder\.")
    arrays = {name: open_array for name, open_array in found.items() if is_encoders.match(name)}
    if layout.names["embedding"] not in arrays or not any(_layer_of(name) is not None for name in arrays):
        raise UserError(
            f"{path}: found no T5 encoder but {', '.join(names[:3]) or 'no arrays'}, expected that of T5 1.1, flan-T5 "
            "or umT5; name another checkpoint"
        )
    if ungated := [name for name in arrays if re.search(r"mlp/wi/kernel|DenseReluDense\.wi\.weight", name)]:
        raise UserError(
            f"{path}: found {ungated[0]}, of an MLP without a gate as T5 1.0 has it, expected T5 1.1, flan-T5 or umT5; "
            "take a checkpoint of one of these"
        )
    return _Encoder(path, layout, {name: open_array() for name, open_array in arrays.items()})


def _check(encoder: _Encoder, config: T5Config, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuses an encoder whose arrays are not those of parameters of these shapes.

    Raises:
      UserError: names the first that is not, and what would be right.
    """
    wanted = {
        name: stored
        for parameter, shape in shapes.items()
        for name, stored in encoder.layout.stored(parameter, shape).items()
    }
    common = [name for name in wanted if name in encoder.arrays]
    if other := [name for name in common if encoder.arrays[name].shape != wanted[name]]:
        found = f"{other[0]} as {list(encoder.arrays[other[0]].shape)}, expected {list(wanted[other[0]])}"
    elif absent := [name for name in wanted if name not in encoder.arrays]:
        found = f"no {absent[0]}, expected it in an encoder of this T5Config"
    elif surplus := [name for name in encoder.arrays if name not in wanted]:
        found = f"{surplus[0]}, expected none in an encoder of this T5Config"
    else:
        return
    raise UserError(f"{encoder.path}: found {found}; {_advice(config, _config_of(encoder))}")


def _advice(config: T5Config, found: T5Config | None) -> str:
    """What to do where an encoder of some sizes is not what this config expects."""
    if found is None:
        return AGAIN
    found = dataclasses.replace(found, length=config.length, longest_distance=config.longest_distance)
    for size in SIZES:
        if found == T5Config.named(size, length=config.length, longest_distance=config.longest_distance):
            right = f"the sizes of T5 {size}: load them with T5Config.named({size!r})"
            break
    else:
        fields = dataclasses.asdict(found).items()
        differing = {name: value for name, value in fields if value != getattr(config, name)}
        right = f"other sizes: load them with {', '.join(f'{name}={value}' for name, value in differing.items())}"
    return AGAIN if found == config else f"these are {right}, or choose another checkpoint"


def _config_of(encoder: _Encoder) -> T5Config | None:
    """The sizes that shapes tell, where all are there that tell one."""
    layout, arrays = encoder.layout, encoder.arrays
    is_scanned = layout is _T5X_SCANNED
    try:
        first = {
            name: arrays[stored.format(0)].shape for name, stored in layout.names.items() if stored.format(0) in arrays
        }
        layers = first["layers/mlp_gate"][1] if is_scanned else 1 + max(map(int, filter(None, map(_layer_of, arrays))))
        vocabulary_size, width = first["embedding"]
        bias = first["layers/position_bias" if is_scanned else "position_bias"]
        heads, buckets = (bias[-1], bias[0]) if layout.transposes else (bias[0], bias[-1])
        inputs = width * layers if is_scanned else width
        return T5Config(
            vocabulary_size=vocabulary_size,
            layers=layers,
            width=width,
            heads=heads,
            head_width=math.prod(first["layers/query"]) // (inputs * heads),
            mlp_width=math.prod(first["layers/mlp_gate"]) // inputs,
            buckets=buckets,
            bias_per_layer=is_scanned or layout.names["layers/position_bias"].format(1) in arrays,
        )
    except (ArithmeticError, LookupError, ValueError):  # shapes that no encoder has
        return None


def _layer_of(name: str) -> str | None:
    """The number in the name of a layer's array; empty where the array has those of all layers."""
    found = re.match(r"encoder(?:/layers_(\d+)/|\.block\.(\d+)\.|/encoder/())", name)
    return next(group for group in found.groups() if group is not None) if found else None
