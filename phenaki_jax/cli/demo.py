"""phenaki demo: all of Phenaki on one machine, from a dataset made on the spot to a story and a report."""

from __future__ import annotations

import argparse
import time
from pathlib import Path


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
    from phenaki_jax.cli.demonstration.stages import run_stages
    from phenaki_jax.files import locked

    settings, usual = (QUICK, "quick_demo") if args.quick else (FULL, "demo")
    out = Path(args.out or usual)
    with locked(out, f"another demo is writing to {out}: wait for it, or name another folder with --out"):
        return run_stages(out, settings, began)
