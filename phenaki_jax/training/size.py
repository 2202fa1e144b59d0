"""What a training would keep, and where, told before any of it is there."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from phenaki_jax.training import state as state_lib
from phenaki_jax.training.sharding import MeshConfig

_KINDS = {
    "parameters": "params",
    "averages": "average",
    "optimizer": "optimizer",
    "frozen parameters": "frozen",
    "statistics": "statistics",
}


def bytes_per_device(tree: Any) -> int:
    """What one device holds of arrays, or of shapes with shardings."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * np.dtype(leaf.dtype).itemsize
        for leaf in jax.tree.leaves(tree)
    )


def lines(settings: dict[str, Any]) -> Iterator[str]:
    """Tables of a training's parameters, their shardings, and the bytes of a device by what they are for.

    Args:
      settings: arguments of `loop.train`.

    Raises:
      UserError: a mesh or sharding rules that do not fit the devices or the model.
    """
    learner, step_config = settings["learner"], settings.get("step_config") or state_lib.StepConfig()
    layout = (settings.get("mesh_config") or MeshConfig()).make()
    settings["data"].check_parts(step_config.microbatches, layout)
    layout.check_sequence(learner.sequence_length)
    transform = state_lib.transform_of(learner, settings["optimizer"])
    spec = state_lib.state_spec(learner, transform, layout, step_config)
    mesh = " x ".join(f"{axis} {size}" for axis, size in layout.mesh.shape.items())
    yield f"mesh {mesh}, {layout.rules}, of all devices of {jax.process_count()} processes"
    yield f"batch of {settings['data'].batch_size}, in {layout.batch_parts} parts"
    yield from _parameters(spec.params)
    yield ""
    kinds = {name: getattr(spec, field) for name, field in _KINDS.items()}
    kinds["gradients"] = spec.params
    yield f"{'bytes of a device':48} {'all of them':>14} {'on each':>14}"
    for name, tree in kinds.items():
        if whole := sum(leaf.size * np.dtype(leaf.dtype).itemsize for leaf in jax.tree.leaves(tree)):
            yield f"{name:48} {_size(whole):>14} {_size(bytes_per_device(tree)):>14}"
    total = sum(bytes_per_device(tree) for tree in kinds.values())
    yield f"{'in all, before activations':48} {'':14} {_size(total):>14}"


def _parameters(params: Any) -> Iterator[str]:
    """A line for each, and for each part of the model how many there are."""
    for part, tree in params.items():
        yield ""
        yield f"{part:48} {sum(leaf.size for leaf in jax.tree.leaves(tree)):>14,} parameters"
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            name = "/".join(str(getattr(key, "key", key)) for key in path)
            shape = " x ".join(map(str, leaf.shape)) or "1"
            yield f"  {name:46} {shape:>24}  {_axes(leaf) or 'whole'}"
    everything = sum(leaf.size for leaf in jax.tree.leaves(params))
    yield ""
    yield f"{'in all':48} {everything:>14,} parameters"


def _axes(leaf: Any) -> str:
    """Which axes of the mesh divide which of an array; empty where every device has it whole."""
    divided = (
        f"{size} over {names if isinstance(names, str) else ' x '.join(names)}"
        for size, names in zip(leaf.shape, leaf.sharding.spec, strict=False)
        if names
    )
    return ", ".join(divided)


def _size(number: int) -> str:
    """Of bytes, with their unit."""
    units = ("B", "KiB", "MiB", "GiB", "TiB")
    power = min(int(math.log(max(number, 1), 1024)), len(units) - 1)
    return f"{number / 1024**power:.{2 if power else 0}f} {units[power]}"
