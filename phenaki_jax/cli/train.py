"""phenaki train: runs a gin-configured training."""

from __future__ import annotations

import argparse
from pathlib import Path

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
    parser.add_argument("--dry_run", action="store_true", help="print what would be trained, and its size, and stop")


def run(args: argparse.Namespace) -> int:
    """Trains; returns 0.

    Raises:
      UserError: see `training.train.run`; or a workdir that cannot be written to.
    """
    # Before what takes long to import.
    check_folder(Path(args.workdir))
    from phenaki_jax.training import train

    train.run(args.gin_file, args.gin_binding, args.workdir, dry_run=args.dry_run)
    return 0
