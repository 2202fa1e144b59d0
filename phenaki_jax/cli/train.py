"""phenaki train: runs a gin-configured training."""

from __future__ import annotations

import argparse
from pathlib import Path

from phenaki_jax.errors import Stopped
from phenaki_jax.files import check_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.description = "Trains what gin run files describe, from the last checkpoint in the workdir if there is one."
    parser.epilog = (
        "example:\n"
        "  phenaki train --gin_file gin_configs/runs/shapes_tokenizer.gin --workdir runs/tokenizer --gin.STEPS=2000"
    )
    parser.add_argument("--gin_file", action="append", required=True, metavar="FILE", help="a run file; repeatable")
    parser.add_argument("--workdir", required=True, metavar="DIR", help="where checkpoints, metrics and pictures go")
    parser.add_argument(
        "--gin_binding",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting over what the files say; --gin.NAME=VALUE is the same; repeatable",
    )
    joined = parser.add_argument_group("several processes, each of which runs the same command")
    joined.add_argument(
        "--distributed", action="store_true", help="join those that the cluster tells: a TPU pod, SLURM, ..."
    )
    joined.add_argument("--coordinator", default="", metavar="HOST:PORT", help="where process 0 is to be reached")
    joined.add_argument("--processes", type=int, metavar="N", help="how many there are")
    joined.add_argument("--process", type=int, metavar="I", help="which one this is, from 0")
    joined.add_argument(
        "--join_timeout", type=int, default=300, metavar="S", help="seconds that all have to come (300)"
    )
    joined.add_argument(
        "--heartbeat", type=int, default=100, metavar="S", help="seconds until a silent one is lost (100)"
    )
    joined.add_argument(
        "--stopped_code", type=int, default=0, metavar="N", help="exit code where SIGTERM has stopped it early (0)"
    )
    parser.add_argument(
        "--dry_run",
        action="store_true",
        help="print what would be trained, its shardings and sizes, and stop; data is not looked at",
    )


def run(args: argparse.Namespace) -> int:
    """Trains; returns 0.

    Raises:
      UserError: see `training.train.run` and `training.hosts.connect`; or a workdir that cannot be written to.
    """
    # Before what takes long to import.
    check_folder(Path(args.workdir))
    from phenaki_jax.training import hosts, train

    if args.distributed or args.coordinator or args.processes is not None or args.process is not None:
        hosts.connect(hosts.Hosts(args.coordinator, args.processes, args.process, args.join_timeout, args.heartbeat))
    try:
        train.run(args.gin_file, args.gin_binding, args.workdir, dry_run=args.dry_run)
    except Stopped as stopped:
        stopped.exit_code = args.stopped_code
        raise
    return 0
