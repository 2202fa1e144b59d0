"""What a compiled program costs on a pod: memory, time by a roofline, and a training's days and chip-hours."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax

from phenaki_jax.training.pods import hlo, programs
from phenaki_jax.training.pods.topology import Topology
from phenaki_jax.training.sharding import MESH_AXES, Layout
from phenaki_jax.training.size import bytes_per_device

ASSUMPTIONS = (
    "matrix products run at the chip's bfloat16 peak, memory and links at their published bandwidth, latency is none",
    "without overlap, operations run one after the other, each for the longer of its products and its memory traffic, "
    "and nothing runs during a collective; in series, no operation's traffic overlaps with its products",
    "useful FLOPs are those of the model and its gradients, each once: what is computed again is not counted",
    "a ring sends both ways at once along each side of the slice; a side that is not closed counts half",
)


@dataclasses.dataclass(frozen=True)
class Report:
    """What one program costs.

    Attributes:
      topology: name of it.
      chips: how many.
      program: one of `programs.PROGRAMS`.
      settings: rules, mesh, batch, microbatches and remat policy.
      memory: bytes of a chip, by what they are for; "peak" is what must be there at once.
      memory_there: bytes that a chip has.
      useful_flops: of a chip, see `programs.Program`.
      flops: that a chip computes, what is computed again included.
      memory_traffic: bytes that a chip reads from and writes to its memory.
      sent: bytes that a chip sends, by collective and mesh axes.
      overlapping: share of these that the program starts early and waits for later.
      seconds: of a run by the roofline: "products", "memory", "collectives", and all of them "in series", "without
        overlap" and "with full overlap".
      steps: of the configured training; 0 of a program that is no training.
      assumptions: that this rests on.
    """

    topology: str
    chips: int
    program: str
    settings: dict[str, Any]
    memory: dict[str, float]
    memory_there: float
    useful_flops: float
    flops: float
    memory_traffic: float
    sent: dict[str, float]
    overlapping: float
    seconds: dict[str, float]
    steps: int
    assumptions: tuple[str, ...] = ASSUMPTIONS

    @property
    def fits(self) -> bool:
        """Whether a chip has the memory."""
        return self.memory["peak"] <= self.memory_there

    @property
    def bound_by(self) -> str:
        """What the program would wait for if all else overlapped."""
        return max(("products", "memory", "collectives"), key=self.seconds.__getitem__)

    def utilization(self, how: str) -> float:
        """Model FLOPs utilization: useful FLOPs over those that the chips could do in that time."""
        peak_seconds = self.useful_flops / (self.flops / self.seconds["products"])
        return peak_seconds / self.seconds[how]

    def days(self, how: str) -> float:
        """Of the configured steps."""
        return self.steps * self.seconds[how] / 86400

    def as_json(self) -> dict[str, Any]:
        """All of it, in bytes, FLOPs and seconds."""
        ways = ("in series", "without overlap", "with full overlap")
        return {
            **dataclasses.asdict(self),
            "fits": self.fits,
            "bound_by": self.bound_by,
            "mfu": {how: self.utilization(how) for how in ways},
            "days": {how: self.days(how) for how in ways},
            "chip_hours": {how: self.days(how) * 24 * self.chips for how in ways},
        }

    def lines(self) -> Iterator[str]:
        """A table for a person."""
        yield f"{self.program} on {self.topology}, {self.chips} chips"
        yield f"  {', '.join(f'{name} {value}' for name, value in self.settings.items())}"
        yield "memory of a chip"
        for name, size in self.memory.items():
            yield f"  {name:28} {size / 2**30:9.3f} GiB"
        verdict = "fits" if self.fits else "DOES NOT FIT"
        yield f"  {'there are':28} {self.memory_there / 2**30:9.3f} GiB: {verdict}"
        yield "work of a chip"
        again = self.flops / self.useful_flops - 1
        yield f"  {'useful FLOPs':28} {self.useful_flops / 1e12:9.2f} T"
        yield f"  {'FLOPs in the program':28} {self.flops / 1e12:9.2f} T, {100 * again:+.0f} %"
        yield f"  {'memory traffic':28} {self.memory_traffic / 1e9:9.2f} GB"
        for name, size in self.sent.items():
            yield f"  {'sent, ' + name:28} {size / 1e9:9.2f} GB"
        yield f"  {'of it beside products':28} {100 * self.overlapping:9.0f} %"
        yield "time, if the assumptions below held"
        for name, seconds in self.seconds.items():
            yield f"  {name:28} {1000 * seconds:9.1f} ms" + (
                f", MFU {self.utilization(name):.2f}" if name not in ("products", "memory", "collectives") else ""
            )
        yield f"  bound by {self.bound_by}"
        if self.steps:
            slow, fast = (self.days(how) for how in ("without overlap", "with full overlap"))
            yield (
                f"  {self.steps:,} steps: {fast:.1f} to {slow:.1f} days, "
                f"{fast * 24 * self.chips:,.0f} to {slow * 24 * self.chips:,.0f} chip-hours"
            )
        yield "assumptions"
        yield from (f"  {line}" for line in self.assumptions)


def report(
    name: str, program: programs.Program, compiled: jax.stages.Compiled, topology: Topology, layout: Layout, **of: Any
) -> Report:
    """What a program that was compiled for a topology costs.

    Args:
      name: of the program.
      program: as it was made.
      compiled: the same.
      topology: what it was compiled for.
      layout: the devices of the topology.
      of: `settings` and `steps` of a `Report`.
    """
    read = hlo.Program(compiled.as_text() or "")
    cost, chip = read.cost, topology.chip
    flops, bandwidth = chip.flops / chip.devices, chip.bandwidth / chip.devices
    devices = list(layout.mesh.devices.flat)
    sent: dict[str, float] = {}
    collectives = 0.0
    for collective, size in cost.collectives.items():
        moved = collective.sent(size)
        along = _axes(collective.members, layout)
        sent[f"{collective.kind} {along}"] = sent.get(f"{collective.kind} {along}", 0.0) + moved
        collectives += moved / topology.bandwidth([devices[member] for member in collective.members])
    products, memory = cost.flops / flops, cost.memory_bytes / bandwidth
    everything = sum(sent.values())
    early = sum(collective.sent(size) for collective, size in cost.collectives.items() if collective.overlaps)
    of_a_chip = chip.devices
    return Report(
        topology=topology.name,
        chips=topology.chips,
        program=name,
        memory=_memory(program, compiled, read, of_a_chip),
        memory_there=chip.memory,
        useful_flops=program.useful_flops / topology.chips,
        flops=cost.flops * of_a_chip,
        memory_traffic=cost.memory_bytes * of_a_chip,
        sent={name: size * of_a_chip for name, size in sorted(sent.items(), key=lambda item: -item[1])},
        overlapping=early / everything if everything else 0.0,
        seconds={
            "products": products,
            "memory": memory,
            "collectives": collectives,
            "in series": products + memory + collectives,
            "without overlap": cost.seconds(flops, bandwidth) + collectives,
            "with full overlap": max(products, memory, collectives),
        },
        **of,
    )


def _memory(
    program: programs.Program, compiled: jax.stages.Compiled, read: hlo.Program, devices: int
) -> dict[str, float]:
    analysis: Any = compiled.memory_analysis()
    kept = min(read.kept_bytes, analysis.temp_size_in_bytes)
    sizes = {name: bytes_per_device(tree) for name, tree in program.kinds.items()}
    sizes |= {
        "activations kept": kept,
        "temporaries": analysis.temp_size_in_bytes - kept,
        "new outputs": max(0, analysis.output_size_in_bytes - analysis.alias_size_in_bytes),
        "code": analysis.generated_code_size_in_bytes,
    }
    sizes["peak"] = (
        analysis.argument_size_in_bytes
        + analysis.temp_size_in_bytes
        + sizes["new outputs"]
        + analysis.generated_code_size_in_bytes
    )
    return {name: devices * size for name, size in sizes.items() if size or name == "peak"}


def _axes(members: tuple[int, ...], layout: Layout) -> str:
    """The mesh axes along which the first group of a collective lies."""
    shape = layout.mesh.devices.shape
    places = [[] for _ in shape]  # type: list[list[int]]
    for member in members:
        for axis, size in reversed(list(enumerate(shape))):
            places[axis].append(member % size)
            member //= size
    along = [name for name, found in zip(MESH_AXES, places, strict=True) if len(set(found)) > 1]
    return f"along {' x '.join(along)}"
