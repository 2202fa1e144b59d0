"""Which sharding, microbatches and remat policy suit a topology: those that fit are compared by their roofline."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from phenaki_jax.errors import UserError
from phenaki_jax.training.pods import programs
from phenaki_jax.training.pods.flops import with_remat
from phenaki_jax.training.pods.report import Report, report
from phenaki_jax.training.pods.topology import Topology
from phenaki_jax.training.sharding import MeshConfig
from phenaki_jax.training.state import StepConfig

# From what keeps all to what keeps least.
_REMAT = ("none", "save_products", "save_attention", "full")
_MOST_MICROBATCHES = 16
_FULLY_SHARDED_AT_MOST = 64


class Choice(NamedTuple):
    """One way of running a training.

    Attributes:
      mesh: of the devices.
      remat: policy of all stacks.
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
            "remat": self.remat,
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
    learner = settings["learner"] if choice.remat == "" else with_remat(settings["learner"], choice.remat)
    settings = {**settings, "learner": learner, "step_config": step}
    layout = choice.mesh.over(topology.devices())
    made = programs.make_program(program, settings, layout, rows)
    compiled = programs.compile_program(made, layout)
    steps = settings["schedule"].steps if program == "train" else 0
    return report(program, made, compiled, topology, layout, settings=choice.settings(rows), steps=steps)


def candidates(settings: dict[str, Any], topology: Topology, rows: int) -> Iterator[Choice]:
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
        replica = max(topology.slices, devices // _FULLY_SHARDED_AT_MOST if rules != "data_parallel" else 1)
        if devices % (replica * model):
            continue
        mesh = MeshConfig(replica=replica, model=model, rules=rules)
        ways = devices if rules in ("data_parallel", "fully_sharded") else devices // model
        if rows % ways:
            continue
        for remat in _REMAT:
            yield Choice(mesh, remat, 1)
        microbatches = 2
        while microbatches <= _MOST_MICROBATCHES and rows % (microbatches * ways) == 0:
            yield Choice(mesh, "full", microbatches)
            microbatches *= 2


def plan(
    settings: dict[str, Any], topology: Topology, rows: int, tell: Callable[[Choice, str], None]
) -> tuple[Choice, Report]:
    """The quickest of the candidates that fit, without overlap.

    Args:
      settings: arguments of `loop.train`.
      topology: of the pod.
      rows: of a batch.
      tell: is told of each that was tried, and how it went.

    Raises:
      UserError: none fits; says by how much, and what would.
    """
    best: tuple[Choice, Report] | None = None
    least = math.inf
    # Rules, of which a choice that keeps all fits already with the whole batch at once.
    fitted: set[str] = set()
    for choice in candidates(settings, topology, rows):
        if choice.microbatches > 1 and choice.mesh.rules in fitted:
            continue
        try:
            found = cost(settings, topology, choice, "train", rows)
        except programs.DoesNotFitError as error:
            least = min(least, error.needed - error.there)
            tell(choice, f"does not fit, by {(error.needed - error.there) / 2**30:.1f} GiB")
            continue
        except UserError as error:
            tell(choice, f"cannot be: {error}")
            continue
        if not found.fits:
            least = min(least, found.memory["peak"] - found.memory_there)
            tell(choice, f"does not fit, by {(found.memory['peak'] - found.memory_there) / 2**30:.1f} GiB")
            continue
        fitted.add(choice.mesh.rules)
        seconds = found.seconds["without overlap"]
        tell(choice, f"{1000 * seconds:.0f} ms without overlap, {found.memory['peak'] / 2**30:.1f} GiB")
        if best is None or seconds < best[1].seconds["without overlap"]:
            best = choice, found
    if best is None:
        raise UserError(
            f"nothing that was tried fits on {topology.name} with a batch of {rows}: the best is {least / 2**30:.1f} "
            f"GiB a chip above its {topology.chip.memory / 2**30:.0f}; take more chips, a smaller batch, or chips with "
            "more memory"
        )
    return best
