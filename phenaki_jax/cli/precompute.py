"""phenaki precompute: tokens of videos and embeddings of texts, computed once."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from phenaki_jax.files import check_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.description = (
        "Writes the tokens and, of a frozen text encoder, the text embeddings that a masked transformer's training\n"
        "reads of its mixtures. The same command goes on where it was interrupted; several processes share the work."
    )
    parser.epilog = (
        "example:\n"
        "  phenaki precompute --gin_file gin_configs/runs/shapes_transformer.gin --out data/precomputed \\\n"
        "    --gin.DATA_DIR=\"'data'\" --gin.TOKENIZER_WORKDIR=\"'runs/tokenizer'\"\n"
        "  phenaki train ... --gin.PRECOMPUTED=\"'data/precomputed'\""
    )
    parser.add_argument("--gin_file", action="append", required=True, metavar="FILE", help="a run file; repeatable")
    parser.add_argument("--out", required=True, metavar="DIR", help="a new folder, or one to complete")
    parser.add_argument(
        "--gin_binding",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting over what the files say; --gin.NAME=VALUE is the same; repeatable",
    )
    parser.add_argument("--batch_size", type=int, default=16, metavar="N", help="examples computed at once (16)")
    parser.add_argument("--shards", type=int, default=64, metavar="N", help="files of each task's split (64)")
    parser.add_argument(
        "--passes", type=int, default=1, metavar="N", help="read each training example N times, cut and worded anew (1)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of windows and wordings (0)")
    parser.add_argument("--process", type=int, default=0, metavar="I", help="which of the processes this is (0)")
    parser.add_argument("--processes", type=int, default=1, metavar="N", help="how many write to the folder (1)")
    parser.add_argument("--json", action="store_true", help="print what was done as one line of JSON")


def run(args: argparse.Namespace) -> int:
    """Computes and writes; returns 0.

    Raises:
      UserError: see `training.precompute.precompute` and `training.train.settings_of`; or a run file that trains no
        transformer.
    """
    folder = Path(args.out)
    # Before what takes long to import.
    check_folder(folder)
    from phenaki_jax.errors import UserError
    from phenaki_jax.training.precompute import PrecomputeConfig, precompute
    from phenaki_jax.training.train import settings_of
    from phenaki_jax.training.transformer_learner import TransformerLearner

    config = PrecomputeConfig(args.batch_size, args.shards, args.passes, args.seed, args.process, args.processes)
    settings = settings_of(args.gin_file, args.gin_binding)
    learner = settings["learner"]
    if not isinstance(learner, TransformerLearner):
        raise UserError(f"{args.gin_file[0]} trains a tokenizer, expected a run file of a masked transformer")
    done = precompute(learner, settings["data"], folder, config)
    if args.json:
        print(json.dumps({"folder": str(folder), **done._asdict()}))
    else:
        there = f"; {done.found} were there" if done.found else ""
        print(f"{folder}: wrote {done.files} files with {done.examples} examples{there}")
    return 0
