"""The mesh, and which logical axis of an array lies on which axis of the mesh: all sharding is decided here."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from phenaki_jax.errors import UserError, check_types, counted

MESH_AXES = ("replica", "data", "model")

Rules = tuple[tuple[str, str | tuple[str, ...] | None], ...]


class ShardingRules(NamedTuple):
    """Which logical axis lies on which axes of the mesh, for one way of sharing the work; the first that fits counts.

    Attributes:
      parameters: of parameters, their averages and the optimizer's moments.
      activations: of what flows, see `layers.layout`; "batch" also of batches.
    """

    parameters: Rules
    activations: Rules


_EVERY_AXIS = MESH_AXES
_ROWS = ("replica", "data")
# Of no parameter "vocab": tables have a row more than there are codes, which no number of devices divides.
_IN_ROWS: Rules = (("embed", "data"), ("conv_in", "data"))
_IN_COLUMNS: Rules = tuple((name, "model") for name in ("heads", "mlp", "codes", "conv_out"))
_BATCH: Rules = (("batch", _EVERY_AXIS), ("sites", _EVERY_AXIS))
_HEADS: Rules = (
    *((name, _ROWS) for name in ("batch", "sites")),
    ("heads", "model"),
    ("mlp", "model"),
    ("codes", "model"),
)
_SEQUENCES: Rules = (("batch", _ROWS), ("sites", _EVERY_AXIS), ("length", "model"))
RULES = {
    "data_parallel": ShardingRules((), _BATCH),
    "fully_sharded": ShardingRules((*_IN_ROWS, *_IN_COLUMNS), _BATCH),
    "tensor_parallel": ShardingRules(_IN_COLUMNS, _HEADS),
    "fully_sharded_tensor_parallel": ShardingRules((*_IN_ROWS, *_IN_COLUMNS), _HEADS),
    "sequence_parallel": ShardingRules((), _SEQUENCES),
    "fully_sharded_sequence_parallel": ShardingRules((*_IN_ROWS, *_IN_COLUMNS), _SEQUENCES),
}
"""Ways of sharing a training among devices.

data_parallel: every device has all parameters and a part of the batch.
fully_sharded: every device has a part of the parameters too, and gathers a layer's when it is its turn (ZeRO-3).
tensor_parallel: along `model`, devices share the heads, the hidden features of MLPs and the codes (Megatron).
sequence_parallel: along `model`, devices share the tokens of each sequence, and gather keys and values.
fully_sharded_*: these, with parameters in parts along both axes.
"""


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

    def make(self) -> Layout:
        """How all devices of all processes share the work.

        Raises:
          UserError: the axes do not multiply to the number of devices.
        """
        return self.over(jax.devices())

    def over(self, devices: Sequence[Any]) -> Layout:
        """The same for these devices, which may be those of a pod that is not there.

        Raises:
          UserError: see `make`.
        """
        found, others = len(devices), self.replica * self.model
        data = found // others if self.data == -1 else self.data
        if others * data != found:
            asked = f"replica {self.replica} x data {self.data} x model {self.model}"
            if self.data == -1:
                asked = f"replica {self.replica} x model {self.model} and data for what is left"
            raise UserError(f"found {counted(found, 'device')}, expected a mesh of {asked}; {self._nearest(found)}")
        slices = _slices(devices)
        if self.replica % slices:
            raise UserError(
                f"found replica {self.replica} for devices of {slices} slices, expected a multiple of {slices}: set "
                f"MeshConfig.replica to {slices}, and data to -1"
            )
        return Layout(Mesh(arranged(devices, (self.replica, data, self.model)), MESH_AXES), self.rules)

    def _nearest(self, devices: int) -> str:
        if devices % (self.replica * self.model) == 0:
            return f"set MeshConfig.data to {devices // (self.replica * self.model)}, or to -1 for all that are left"
        if devices % self.replica == 0:
            model = _nearest_divisor(devices // self.replica, self.model)
            return f"set MeshConfig.model to {model}, the nearest that divides them, and data to -1"
        replica = _nearest_divisor(devices, self.replica)
        return f"set MeshConfig.replica to {replica}, the nearest that divides them, model to 1, and data to -1"


def arranged(devices: Sequence[Any], shape: tuple[int, ...]) -> np.ndarray:
    """Devices as an array of this shape, neighbours on a TPU's torus where the mesh has them; slices one by one."""
    if devices[0].platform != "tpu":
        return np.asarray(devices).reshape(shape)
    if (slices := _slices(devices)) == 1:
        return mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    within = (shape[0] // slices, *shape[1:])
    return mesh_utils.create_hybrid_device_mesh(within, (slices, 1, 1), devices, allow_split_physical_axes=True)


def _slices(devices: Sequence[Any]) -> int:
    """How many slices of TPUs they are of, which only their hosts' network joins."""
    return len({getattr(device, "slice_index", 0) for device in devices})


def _nearest_divisor(number: int, wanted: int) -> int:
    return min((each for each in range(1, number + 1) if number % each == 0), key=lambda each: abs(each - wanted))


@dataclasses.dataclass(frozen=True)
class Layout:
    """A mesh, and the rules by which arrays lie on it.

    Attributes:
      mesh: devices along `MESH_AXES`.
      rules: a name in `RULES`.
    """

    mesh: Mesh
    rules: str = "data_parallel"

    @property
    def batch(self) -> NamedSharding:
        """The sharding of a batch, whose first axis is divided."""
        return NamedSharding(self.mesh, PartitionSpec(dict(RULES[self.rules].activations)["batch"]))

    @property
    def batch_parts(self) -> int:
        """How many parts a batch is divided into."""
        return math.prod(self.mesh.shape[axis] for axis in self.batch.spec[0])

    def check_sequence(self, length: int) -> None:
        """Refuses sequences that devices are to share and cannot divide.

        Raises:
          UserError: names the nearest number of devices that can.
        """
        axis = dict(RULES[self.rules].activations).get("length")
        ways = self.mesh.shape[axis] if isinstance(axis, str) else 1
        if length % ways:
            raise UserError(
                f"found {axis} {ways} with {self.rules}, expected a divisor of the {length} tokens of a sequence, as "
                f"{_nearest_divisor(math.gcd(length, self.mesh.size), ways)}: change MeshConfig.{axis}"
            )

    @property
    def whole(self) -> NamedSharding:
        """The sharding of what every device holds whole."""
        return NamedSharding(self.mesh, PartitionSpec())

    def parameters(self, boxed_params: Any) -> Any:
        """A sharding for every parameter, from the logical axis names it is boxed with.

        Raises:
          UserError: an axis that the mesh does not divide.
        """
        rules = RULES[self.rules].parameters
        places = nn.logical_to_mesh_sharding(nn.get_partition_spec(boxed_params), self.mesh, rules)
        jax.tree_util.tree_map_with_path(self._check, nn.unbox(boxed_params), places)
        return places

    def _check(self, path: Any, leaf: Any, place: NamedSharding) -> None:
        for size, names in zip(leaf.shape, place.spec, strict=False):
            axes = (names,) if isinstance(names, str) else tuple(names or ())
            ways = math.prod(self.mesh.shape[axis] for axis in axes)
            if size % ways:
                nearest = _nearest_divisor(math.gcd(size, self.mesh.size), ways)
                name = "/".join(str(key.key) for key in path if hasattr(key, "key"))
                raise UserError(
                    f"the mesh has {' x '.join(axes)} of {ways}, which does not divide an axis of {size} of {name} as "
                    f"{self.rules} asks; the nearest that does is {nearest}: change the mesh, or "
                    "the sizes of the model"
                )

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """What is compiled in here is compiled for this mesh, its activations laid out by these rules."""
        with jax.set_mesh(self.mesh), nn.logical_axis_rules(RULES[self.rules].activations):
            yield

    @property
    def compiler_options(self) -> dict[str, str]:
        """What XLA is told for the devices of the mesh.

        On CPU, its YNNPACK fusions are left out: with them a step of a small model takes 13 % longer (jaxlib 0.10).
        """
        is_cpu = self.mesh.devices.flat[0].platform == "cpu"
        return {"xla_cpu_experimental_ynn_fusion_type": ""} if is_cpu else {}


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
