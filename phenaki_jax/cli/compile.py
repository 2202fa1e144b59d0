"""phenaki compile: compiles a training's programs for a pod that is not there, and tells what they would cost."""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from pathlib import Path
from typing import Any

from phenaki_jax.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.description = (
        "Compiles a training step, or what samples or precomputes, with the real TPU compiler for chips that need not "
        "be there; prints memory, FLOPs, traffic and time by a roofline. Nothing that a run file names is read."
    )
    parser.epilog = (
        "examples:\n"
        "  phenaki compile --gin_file gin_configs/runs/phenaki_paper.gin --topology v5p:4x4x4 "
        "--gin.PRECOMPUTED=\"'folder'\"\n"
        "  phenaki compile --gin_file gin_configs/runs/phenaki_paper.gin --topology v6e:8x8 --plan --out v6e.gin "
        "--gin.PRECOMPUTED=\"'folder'\""
    )
    parser.add_argument("--gin_file", action="append", required=True, metavar="FILE", help="a run file; repeatable")
    parser.add_argument("--topology", required=True, metavar="CHIP:AxBxC", help="such as v5p:4x4x4 or v6e:8x8")
    parser.add_argument("--slices", type=int, default=1, metavar="N", help="so many of them, joined by their network")
    parser.add_argument(
        "--program",
        default="train",
        metavar="NAME",
        help="train, sample (a window of video), tokens or texts (what phenaki precompute runs); train unless said",
    )
    parser.add_argument("--batch", type=int, metavar="N", help="rows over all chips; those of the run file unless said")
    parser.add_argument(
        "--gin_binding",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting over what the files say; --gin.NAME=VALUE is the same; repeatable",
    )
    parser.add_argument("--plan", action="store_true", help="try shardings, remat policies and microbatches")
    parser.add_argument("--out", metavar="FILE.gin", help="of --plan: an overlay with what it recommends")
    parser.add_argument("--json", action="store_true", help="print it as one line of JSON")


def run(args: argparse.Namespace) -> int:
    """Compiles; returns 0, or 1 where the program does not fit.

    Raises:
      UserError: a topology or a program that does not exist, settings that do not fit, or a plan that finds nothing.
    """
    from phenaki_jax.files import check_output, write_text
    from phenaki_jax.training.pods import topology as topology_lib

    if args.out is not None:
        check_output(args.out, (".gin",))
        if not args.plan:
            raise UserError("found --out without --plan, expected both: it is the plan that is written")
    topology = topology_lib.topology_of(args.topology, args.slices)
    topology_lib.check_compiler()
    from phenaki_jax.training.pods import plan, programs
    from phenaki_jax.training.train import settings_of

    if args.program not in programs.PROGRAMS:
        raise UserError(f"found program {args.program!r}, expected one of {', '.join(programs.PROGRAMS)}")
    settings = settings_of(args.gin_file, args.gin_binding, stand_ins=True)
    rows = settings["data"].batch_size if args.batch is None else args.batch
    if rows < 1:
        raise UserError(f"found --batch {rows}, expected at least 1")
    quiet = args.json
    if args.plan:
        choice, report = plan.plan(settings, topology, rows, lambda choice, what: _tell(choice, rows, what))
        if args.out is not None:
            write_text(Path(args.out), _overlay(args, choice, report))
    else:
        choice = _asked(settings)
        try:
            report = plan.cost(settings, topology, choice, args.program, rows)
        except programs.DoesNotFitError as error:
            needed, there = (size * topology.chip.devices / 2**30 for size in (error.needed, error.there))
            raise UserError(
                f"{args.program} on {topology.name} needs {needed:.2f} GiB of a chip's {there:.2f}: "
                f"{needed - there:.2f} GiB more than there are; try "
                "--gin.REMAT=\"'full'\", more --gin.MICROBATCHES, --gin.RULES=\"'fully_sharded'\", or --plan"
            ) from error
    if quiet:
        print(json.dumps(report.as_json()))
    else:
        print("\n".join(report.lines()))
        if args.plan:
            print(f"recommended\n{choice.overlay()}", end="")
    return 0 if report.fits else 1


def _asked(settings: dict[str, Any]) -> Any:
    """What the run file asks for; its remat policies as they are."""
    from phenaki_jax.training.pods.plan import Choice
    from phenaki_jax.training.sharding import MeshConfig
    from phenaki_jax.training.state import StepConfig

    step = settings.get("step_config") or StepConfig()
    return Choice(settings.get("mesh_config") or MeshConfig(), "", step.microbatches)


def _tell(choice: Any, rows: int, what: str) -> None:
    settings = ", ".join(f"{name} {value}" for name, value in choice.settings(rows).items())
    print(f"{settings}: {what}", file=sys.stderr, flush=True)


def _overlay(args: argparse.Namespace, choice: Any, report: Any) -> str:
    ways = ("with full overlap", "without overlap")
    fast, slow = (report.seconds[how] for how in ways)
    most, least = (report.utilization(how) for how in ways)
    files = (word for file in args.gin_file for word in ("--gin_file", file))
    # Texts in quotes of their own, as a shell leaves them to gin.
    set_over = (binding.partition("=") for binding in args.gin_binding)
    bindings = (f'--gin.{name}="{value}"' if "'" in value else f"--gin.{name}={value}" for name, _, value in set_over)
    asked = textwrap.wrap(" ".join((*files, *bindings)), 110, break_long_words=False, break_on_hyphens=False)
    return (
        f"# How a training runs on {report.topology}, as phenaki compile --plan found; asked for with\n"
        + "".join(f"#     {line}\n" for line in asked)
        + "#\n"
        f"# A step:    {fast:.2f} to {slow:.2f} s by the roofline, with full overlap and without\n"
        f"# MFU:       {most:.2f} to {least:.2f}, of bfloat16 products; what is computed again is not counted\n"
        f"# Memory:    {report.memory['peak'] / 2**30:.1f} of {report.memory_there / 2**30:.0f} GiB a chip\n"
        "# To be named after the run file, as in --gin_file RUN.gin --gin_file THIS.gin\n"
        f"{choice.overlay()}"
    )
