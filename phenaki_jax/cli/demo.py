"""phenaki demo: all of Phenaki on one machine, from a dataset made on the spot to a story and a report."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from phenaki_jax.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.description = (
        "Makes the dataset moving_shapes, trains the tokenizer and the masked transformer, exports the model, tells a "
        "story, measures,\nand writes a report. Interrupted, the same command goes on where it was."
    )
    parser.epilog = "example:\n  phenaki demo --out demo && xdg-open demo/report.html"
    parser.add_argument("--out", metavar="DIR", help="where everything goes (default: demo, quick_demo for --quick)")
    parser.add_argument(
        "--quick", action="store_true", help="a run of about three minutes that learns nothing, to see that all works"
    )


def run(args: argparse.Namespace) -> int:
    """Runs the demo; returns 0."""
    began = time.perf_counter()
    from phenaki_jax.cli.demonstration.settings import FULL, QUICK
    from phenaki_jax.files import locked

    settings, usual = (QUICK, "quick_demo") if args.quick else (FULL, "demo")
    out = Path(usual if args.out is None else args.out)
    _check_out(out)
    from phenaki_jax.cli.demonstration.stages import run_stages

    with locked(out, f"another demo is writing to {out}: wait for it, or name another folder with --out"):
        return run_stages(out, settings, began)


def _check_out(out: Path) -> None:
    """Refuses a folder of other files; that of a demo has its settings from the first moment on."""
    from phenaki_jax.cli.demonstration.settings import SETTINGS_FILE
    from phenaki_jax.files import check_folder

    check_folder(out)
    if not out.is_dir() or (out / SETTINGS_FILE).is_file():
        return
    # Of a volume, and hidden ones, such as the lock and settings that were not written to their end.
    names = sorted(path.name for path in out.iterdir() if path.name != "lost+found" and path.name[0] != ".")
    if names:
        raise UserError(
            f"{out}: found {names[0]!r} and no {SETTINGS_FILE} in it, expected a new or empty folder or that of an "
            "earlier demo; choose another --out"
        )
