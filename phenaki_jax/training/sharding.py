"""The mesh, and which logical axis of an array lies on which axis of the mesh: all sharding is decided here."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from phenaki_jax.errors import UserError, check_types

MESH_AXES = ("replica", "data", "model")

Rules = tuple[tuple[str, str | tuple[str, ...] | None], ...]

BATCH_AXES = ("replica", "data")
DATA_PARALLEL: Rules = (("batch", BATCH_AXES),)
# Not "vocab": tables have a row more than there are codes, which no number of devices divides.
FULLY_SHARDED: Rules = (
    *DATA_PARALLEL,
    ("embed", "data"),
    ("heads", "model"),
    ("mlp", "model"),
    ("codes", "model"),
    ("conv_in", "data"),
    ("conv_out", "model"),
)
RULES = {"data_parallel": DATA_PARALLEL, "fully_sharded": FULLY_SHARDED}


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """How devices are laid out and arrays cut.

    Attributes:
      replica: slices that each hold all parameters; they talk over the data-center network.
      data: devices a batch is divided over within a slice; -1 for all that are left.
      model: devices a layer is divided over.
      rules: a name in `RULES`.
    """

    replica: int = 1
    data: int = -1
    model: int = 1
    rules: str = "data_parallel"

    def __post_init__(self) -> None:
        check_types(self)
        if self.rules not in RULES:
            raise UserError(f"sharding rules {self.rules!r} are unknown; known are {', '.join(RULES)}")
        if min(self.replica, self.model) < 1 or (self.data < 1 and self.data != -1):
            raise UserError(f"{self} needs replica, data and model of at least 1, or data -1 for all that are left")

    def make(self) -> Mesh:
        """The mesh over all devices of all processes.

        Raises:
          UserError: the axes do not multiply to the number of devices.
        """
        devices = jax.device_count()
        data = devices // (self.replica * self.model) if self.data == -1 else self.data
        if self.replica * data * self.model != devices:
            raise UserError(
                f"mesh replica {self.replica} x data {data} x model {self.model} is not the {devices} devices "
                "there are; set MeshConfig.data to -1 or to a number that fits"
            )
        shape = (self.replica, data, self.model)
        return Mesh(np.asarray(jax.devices()).reshape(shape), MESH_AXES)


def compiler_options(mesh: Mesh) -> dict[str, str]:
    """What XLA is told for the devices of a mesh.

    On CPU, its YNNPACK fusions are left out: with them a step of a small model takes 13 % longer (jaxlib 0.10).
    """
    return {"xla_cpu_experimental_ynn_fusion_type": ""} if mesh.devices.flat[0].platform == "cpu" else {}


def parameter_shardings(boxed_params: Any, mesh: Mesh, rules: str) -> Any:
    """A sharding for every parameter, from the logical axis names it is boxed with."""
    return nn.logical_to_mesh_sharding(nn.get_partition_spec(boxed_params), mesh, list(RULES[rules]))


def shardings_like(tree: Any, parameter_shardings: Any, otherwise: NamedSharding) -> Any:
    """Gives what mirrors a parameter in another tree (an optimizer's moments) that parameter's sharding.

    A leaf mirrors the parameter whose path its own path ends with; scalars and all else get `otherwise`.
    """
    known = {tuple(map(str, path)): place for path, place in jax.tree_util.tree_leaves_with_path(parameter_shardings)}

    def find(path: Any, leaf: Any) -> NamedSharding:
        names = tuple(map(str, path))
        matches = (known[names[start:]] for start in range(len(names)) if names[start:] in known)
        return next(matches, otherwise) if leaf.ndim else otherwise

    return jax.tree_util.tree_map_with_path(find, tree)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of a batch, whose first axis is divided."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of what every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())
