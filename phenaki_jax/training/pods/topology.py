"""Pods that are not there: what a TPU's chips can do, and devices that the real TPU compiler compiles for."""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from phenaki_jax.errors import UserError

_LIBRARY = "TPU_LIBRARY_PATH"
_SMALL_CUBES = ((2, 2, 1), (2, 2, 2), (2, 2, 4), (2, 4, 4))
_PLANES = ((1, 1), (2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16))
_LONGEST_SIDE = 24


@dataclasses.dataclass(frozen=True)
class Chip:
    """A chip as its maker describes it (Google Cloud's TPU pages; links as in "How to Scale Your Model", 2025).

    Attributes:
      name: as topologies begin with.
      flops: of bfloat16 matrix products, a second.
      memory: bytes of it.
      bandwidth: bytes a second from and to that memory.
      link_bandwidth: bytes a second and direction of each link to a neighbour.
      dimensions: of the torus of links.
      most_chips: of a slice.
      wraps_at: sides of a slice that are a multiple of it are closed to a ring.
      devices: that JAX sees of a chip.
      network_bandwidth: bytes a second of a chip's share of its host's network, which joins slices.
    """

    name: str
    flops: float
    memory: int
    bandwidth: float
    link_bandwidth: float
    dimensions: int
    most_chips: int
    wraps_at: int
    devices: int = 1
    network_bandwidth: float = 6.25e9

    def shapes(self) -> Iterator[tuple[int, ...]]:
        """The slices that there are."""
        if self.dimensions == 2:
            yield from _PLANES
            return
        yield from _SMALL_CUBES
        for shape in itertools.combinations_with_replacement(range(4, _LONGEST_SIDE + 1, 4), 3):
            if math.prod(shape) <= self.most_chips:
                yield shape


CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v4", 275e12, 32 * 2**30, 1228e9, 45e9, 3, 4096, 4),
        Chip("v5e", 197e12, 16 * 2**30, 819e9, 45e9, 2, 256, 16),
        Chip("v5p", 459e12, 95 * 2**30, 2765e9, 90e9, 3, 6144, 4),
        Chip("v6e", 918e12, 32 * 2**30, 1640e9, 90e9, 2, 256, 16),
        Chip("tpu7x", 2307e12, 192 * 2**30, 7380e9, 90e9, 3, 9216, 4, devices=2),
    )
}


class Topology(NamedTuple):
    """Slices of a pod.

    Attributes:
      chip: of which kind.
      shape: chips of a slice along each side.
      slices: how many there are.
    """

    chip: Chip
    shape: tuple[int, ...]
    slices: int = 1

    @property
    def name(self) -> str:
        """As users name it."""
        return f"{self.chip.name}:{'x'.join(map(str, self.shape))}" + (f" x {self.slices}" if self.slices > 1 else "")

    @property
    def chips(self) -> int:
        """How many chips there are in all."""
        return self.slices * math.prod(self.shape)

    def devices(self) -> Sequence[Any]:
        """Devices that programs can be compiled for, and that nothing can run on.

        Raises:
          UserError: the TPU compiler is not installed, or knows no such topology.
        """
        check_compiler()
        import jax
        from jax.experimental import topologies

        options: dict[str, Any] = {"chip_config_name": "megacore"} if self.chip.name == "v4" else {}
        if self.slices > 1:
            options["num_slices"] = self.slices
        name = f"{self.chip.name}:{'x'.join(map(str, self.shape))}"
        try:
            return topologies.get_topology_desc(platform="tpu", topology_name=name, **options).devices
        except jax.errors.JaxRuntimeError as error:
            raise UserError(
                f"the TPU compiler refuses {self.name} ({' '.join(str(error).split())}); "
                f"{self.chip.name} has {_listed(self.chip)}"
            ) from error

    def bandwidth(self, members: Sequence[Any]) -> float:
        """Bytes a second that each of these devices can send to the others at once, at most.

        Along each side that they lie along, both directions of a ring, or one where the side is not closed: the links
        in the middle of a line then carry twice as much. Between slices, the hosts' network.
        """
        if len({getattr(device, "slice_index", 0) for device in members}) > 1:
            return self.chip.network_bandwidth / self.chip.devices
        extents = [len(set(places)) for places in zip(*(device.coords for device in members), strict=True)]
        sides = [(extent, side) for extent, side in zip(extents, self.shape, strict=False) if extent > 1]
        if not sides:
            # Of one chip, whose devices share its memory.
            return self.chip.bandwidth / self.chip.devices
        rings = sum(2 if extent == side and side % self.chip.wraps_at == 0 else 1 for extent, side in sides)
        return rings * self.chip.link_bandwidth / self.chip.devices


def topology_of(name: str, slices: int = 1) -> Topology:
    """The topology of a name such as "v5p:4x4x4".

    Raises:
      UserError: there is no such chip or slice; names those that there are.
    """
    kind, _, sides = name.partition(":")
    if kind not in CHIPS:
        raise UserError(f"found topology {name!r}, expected a chip and a slice, of {', '.join(CHIPS)}: as v5p:4x4x4")
    chip = CHIPS[kind]
    shape = tuple(int(side) if side.isdigit() else 0 for side in sides.split("x"))
    if shape not in set(chip.shapes()):
        raise UserError(f"found topology {name!r}, expected one that exists: {kind} has {_listed(chip)}")
    if slices < 1:
        raise UserError(f"found {slices} slices, expected at least 1")
    return Topology(chip, shape, slices)


def _listed(chip: Chip) -> str:
    return ", ".join("x".join(map(str, shape)) for shape in chip.shapes())


def check_compiler() -> None:
    """Refuses to go on where the TPU compiler is not installed; tells it that no TPU is there.

    Raises:
      UserError: how to install it.
    """
    library = os.environ.get(_LIBRARY, "")
    if library and not Path(library).is_file():
        raise UserError(f"found {_LIBRARY} {library}, which is no file, expected the libtpu.so of the package libtpu")
    if not library and importlib.util.find_spec("libtpu") is None:
        raise UserError(
            "the TPU compiler is not installed: pip install --target libtpu --no-deps 'libtpu==0.0.42.*', and set "
            f"{_LIBRARY} to libtpu/libtpu/libtpu.so; no TPU is needed"
        )
    # Programs for a pod are compiled beside devices that are there.
    os.environ["JAX_PLATFORMS"] = "cpu"
    # Nothing holds a chip here, so that several may compile at once.
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    # Asking for the machine that it runs on would wait for minutes where there is no TPU.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5p-8")
