"""Which sharding, microbatches and remat policy suit a topology: those that fit are compared by their roofline."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from phenaki_jax.errors import UserError
from phenaki_jax.training.pods import programs
from phenaki_jax.training.pods.flops import with_remat
from phenaki_jax.training.pods.report import Report, report
from phenaki_jax.training.pods.topology import Topology
from phenaki_jax.training.sharding import MeshConfig
from phenaki_jax.training.size import bytes_per_device
from phenaki_jax.training.state import StepConfig

# From what keeps least to what keeps all.
_REMAT = ("full", "save_attention", "save_products", "none")
_MICROBATCHES = (1, 2, 4, 8, 16)
_FULLY_SHARDED_AT_MOST = 64


class Choice(NamedTuple):
    """One way of running a training.

    Attributes:
      mesh: of the devices.
      remat: policy of all stacks; empty for those that they have.
      microbatches: parts of a batch.
    """

    mesh: MeshConfig
    remat: str
    microbatches: int

    def settings(self, rows: int) -> dict[str, Any]:
        """What a report tells of it."""
        mesh = self.mesh
        return {
            "rules": mesh.rules,
            "replica": mesh.replica,
            "model": mesh.model,
            "remat": self.remat or "as in the run file",
            "microbatches": self.microbatches,
            "batch": rows,
        }

    def overlay(self) -> str:
        """Macros of run files that ask for it."""
        named = {
            "REPLICA": self.mesh.replica,
            "MODEL": self.mesh.model,
            "RULES": self.mesh.rules,
            "REMAT": self.remat,
            "MICROBATCHES": self.microbatches,
        }
        return "".join(f"{name} = {value!r}\n".replace("'", '"') for name, value in named.items())


def cost(settings: dict[str, Any], topology: Topology, choice: Choice, program: str, rows: int) -> Report:
    """What a program costs, run that way.

    Args:
      settings: arguments of `loop.train`.
      topology: of the pod.
      choice: how.
      program: one of `programs.PROGRAMS`.
      rows: of a batch.

    Raises:
      UserError: it cannot be laid out that way.
      DoesNotFitError: a chip has too little memory.
    """
    step = dataclasses.replace(settings.get("step_config") or StepConfig(), microbatches=choice.microbatches)
    learner = with_remat(settings["learner"], choice.remat) if choice.remat else settings["learner"]
    settings = {**settings, "learner": learner, "step_config": step}
    layout = choice.mesh.over(topology.devices())
    made = programs.make_program(program, settings, layout, rows)
    held, there = bytes_per_device(made.arguments), topology.chip.memory / topology.chip.devices
    if held > there:
        raise programs.DoesNotFitError(held, there)
    compiled = programs.compile_program(made, layout)
    steps = settings["schedule"].steps if program == "train" else 0
    return report(program, made, compiled, topology, layout, settings=choice.settings(rows), steps=steps)


def meshes(topology: Topology) -> Iterator[MeshConfig]:
    """Ways worth trying: parameters whole, in parts, and in parts with the heads or the tokens shared.

    Parameters are cut into as many parts as a chip's share of them is small for; slices, and what is more than that,
    hold copies.
    """
    devices = topology.chips * topology.chip.devices
    for rules, model in (
        ("data_parallel", 1),
        ("fully_sharded", 1),
        ("fully_sharded_tensor_parallel", 4),
        ("fully_sharded_sequence_parallel", 4),
    ):
        copies = topology.slices if rules == "data_parallel" else devices // _FULLY_SHARDED_AT_MOST
        replica = max(topology.slices, copies)
        if devices % (replica * model) == 0:
            yield MeshConfig(replica=replica, model=model, rules=rules)


def plan(
    settings: dict[str, Any], topology: Topology, rows: int, tell: Callable[[Choice, str], None]
) -> tuple[Choice, Report]:
    """The quickest that fits, without overlap: of meshes, remat policies and, where a whole batch does not fit, parts.

    Args:
      settings: arguments of `loop.train`.
      topology: of the pod.
      rows: of a batch.
      tell: is told of each that was tried, and how it went.

    Raises:
      UserError: nothing fits; says by how much, and what would.
    """
    fitting: list[tuple[Choice, Report]] = []
    lacking: list[float] = []
    refused: list[UserError] = []
    for mesh in meshes(topology):
        for microbatches in _MICROBATCHES:
            found = list(_fitting(settings, topology, rows, mesh, microbatches, tell, lacking, refused))
            fitting += found
            if found:
                break
    if not fitting and not lacking:
        raise refused[0]
    if not fitting:
        raise UserError(
            f"nothing that was tried fits on {topology.name} with a batch of {rows}: the best is "
            f"{min(lacking) / 2**30:.1f} GiB a chip above its {topology.chip.memory / 2**30:.0f}; take more chips, a "
            "smaller batch, or chips with more memory"
        )
    return min(fitting, key=lambda found: found[1].seconds["without overlap"])


def _fitting(
    settings: dict[str, Any],
    topology: Topology,
    rows: int,
    mesh: MeshConfig,
    microbatches: int,
    tell: Callable[[Choice, str], None],
    lacking: list[float],
    refused: list[UserError],
) -> Iterator[tuple[Choice, Report]]:
    """What fits of all remat policies, up to the first that does not; adds what chips lack, and what cannot be."""
    for remat in _REMAT:
        choice = Choice(mesh, remat, microbatches)
        try:
            found = cost(settings, topology, choice, "train", rows)
            more = found.memory["peak"] - found.memory_there
        except programs.DoesNotFitError as error:
            more = (error.needed - error.there) * topology.chip.devices
        except UserError as error:
            tell(choice, f"cannot be: {error}")
            refused.append(error)
            return
        if more > 0:
            lacking.append(more)
            tell(choice, f"does not fit, by {more / 2**30:.1f} GiB a chip")
            return
        seconds = found.seconds["without overlap"]
        tell(choice, f"{1000 * seconds:.0f} ms without overlap, {found.memory['peak'] / 2**30:.1f} GiB a chip")
        yield choice, found
