"""phenaki prepare: videos and images of one's own as a dataset to train on."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phenaki_jax.errors import UserError, counted
from phenaki_jax.files import check_folder

if TYPE_CHECKING:
    from phenaki_jax.data.prepare.listing import Changes
    from phenaki_jax.data.prepare.preparation import Prepared

# In GiB: below the first, decoders cannot be loaded, and no machine has more than the other.
_LEAST_MEMORY, _MOST_MEMORY = 0.25, 2**20
# What gin_configs/runs/videos_transformer.gin takes at once; of fewer its trainer has to hear.
_BATCH_SIZE, _EVAL_BATCH_SIZE = 64, 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.description = (
        "Cuts videos into clips and writes them, and images, as a dataset that phenaki train reads by its name.\n"
        "Broken files are set aside, and report.jsonl tells the reason of each. The same command goes on where it was\n"
        "interrupted."
    )
    parser.epilog = (
        "example:\n"
        "  phenaki prepare videos --out data --name my_videos --size 64\n"
        "  phenaki train --gin_file gin_configs/runs/videos_tokenizer.gin --workdir runs/tokenizer \\\n"
        "    --gin.DATA_DIR=\"'data'\" --gin.MIXTURE=\"'my_videos'\""
    )
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="a folder (captions beside files as NAME.txt, or in metadata.csv, .tsv or .jsonl), a .csv, .tsv or "
        ".jsonl with columns file, caption and perhaps split, or a .tar of webdataset",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="the folder of datasets, DATA_DIR of a training")
    defaults = _defaults()
    for name, kind, metavar, text in (
        ("name", str, "NAME", "of the dataset"),
        ("version", str, "X.Y.Z", "of the dataset"),
        ("size", int, "PIXELS", "side of the square frames; the shorter side is resized, the middle cut out"),
        ("fps", float, "N", "frames that are taken of a second"),
        ("frames", int, "N", "of a clip, 1 + k * 2"),
        ("stride", int, "N", "frames from one clip's beginning to the next one's; 0 for as many as a clip has"),
        ("clips_per_video", int, "N", "at most, spread over the video; 0 for all"),
        ("scene_threshold", float, "X", "how much frames differ where a scene is cut, 0 to 1; 0 cuts none"),
        ("quality", int, "N", "of JPEG, 1 to 100"),
        ("caption_length", int, "N", "characters at most; longer captions are cut at a word"),
        ("on_missing_caption", str, "skip|empty", "set files without caption aside, or give them an empty one"),
        ("test_share", float, "X", "share of the sources for tests, where no table tells their split"),
    ):
        parser.add_argument(
            f"--{name}", type=kind, default=defaults[name], metavar=metavar, help=f"{text} ({defaults[name]})"
        )
    parser.add_argument(
        "--ignore_columns", nargs="+", default=[], metavar="NAME", help="columns of a table that are of no interest"
    )
    parser.add_argument("--shard_mb", type=int, default=128, metavar="N", help="about the size of a file (128)")
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="processes; 0 for one on each core (0)")
    parser.add_argument(
        "--time_limit", type=float, default=60.0, metavar="S", help="seconds without a new frame to give a file up (60)"
    )
    parser.add_argument(
        "--memory_limit", type=float, default=4.0, metavar="GIB", help="memory that a process may take for a file (4)"
    )
    parser.add_argument("--json", action="store_true", help="print what was made as one line of JSON")


def _defaults() -> dict[str, Any]:
    from phenaki_jax.data.prepare.settings import PrepareSettings

    return {field.name: field.default for field in dataclasses.fields(PrepareSettings)}


def run(args: argparse.Namespace) -> int:
    """Prepares; returns 0.

    Raises:
      UserError: see `data.prepare.preparation.prepare` and `PrepareSettings`.
    """
    from phenaki_jax.data.prepare.settings import PrepareSettings

    check_folder(Path(args.out))
    names = [field.name for field in dataclasses.fields(PrepareSettings)]
    given = {name: value for name, value in vars(args).items() if name in names}
    if args.shard_mb < 1:
        raise UserError(f"found shard_mb {args.shard_mb}, expected at least 1, such as 128")
    settings = PrepareSettings(**given, ignored_columns=tuple(args.ignore_columns), shard_bytes=args.shard_mb * 2**20)
    if args.workers < 0:
        raise UserError(f"found workers {args.workers}, expected at least 1, or 0 for one on each core")
    if not 0 < args.time_limit < math.inf:
        raise UserError(f"found time_limit {args.time_limit:g}, expected seconds above 0, such as 60")
    if not _LEAST_MEMORY <= args.memory_limit <= _MOST_MEMORY:
        raise UserError(
            f"found memory_limit {args.memory_limit:g}, expected {_LEAST_MEMORY} to {_MOST_MEMORY} GiB, such as 4"
        )
    # After what takes no time to check.
    from phenaki_jax.data.prepare.preparation import prepare
    from phenaki_jax.data.prepare.workers import WorkerSettings

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    how = WorkerSettings(args.workers or cores, args.time_limit, round(args.memory_limit * 2**30))
    done = prepare(args.inputs, args.out, settings, how)
    if args.json:
        print(
            json.dumps(
                {"folder": str(done.folder), "was_there": done.was_there, **done.changes._asdict(), **done.statistics}
            )
        )
        return 0
    print(f"{done.folder}{' was there' if done.was_there else ''}: {_in_words(done, args.test_share)}")
    return 0


def _in_words(done: Prepared, test_share: float) -> str:
    splits = done.statistics["splits"]
    told = [
        ", ".join(
            f"{split['examples']} {name} of {counted(split['sources'], 'source')}" for name, split in splits.items()
        )
    ]
    if aside := done.statistics["set_aside"]:
        told.append(f"{aside} set aside, see {done.folder / 'report.txt'}")
    if any(done.changes):
        told.append(_changes_in_words(done.changes))
    if not any(name.startswith("test") for name in splits):
        told.append(
            "nothing is for tests, which a training evaluates on: "
            f"{_way_to_tests(splits, test_share)}, or name another dataset as its EVAL_MIXTURE"
        )
    if not any(name.startswith("train") for name in splits):
        told.append("nothing is for training: it can be an EVAL_MIXTURE, and be evaluated on")
    return "; ".join([*told, *_few_in_words(splits, test_share)])


def _few_in_words(splits: Mapping[str, Mapping[str, int]], test_share: float) -> list[str]:
    """What fills none of the usual batches: of tests a training refuses that, of the others it takes some again."""
    tests, trained = (
        {name: split["examples"] for name, split in splits.items() if name.startswith(kind)}
        for kind in ("test", "train")
    )
    told = []
    # Read once, a mixture of clips and images ends with the first of them that does.
    fewest = min(tests, key=tests.__getitem__, default="")
    if fewest and tests[fewest] < _EVAL_BATCH_SIZE:
        number = counted(tests[fewest], "image" if fewest.endswith("_images") else "clip")
        alone = ", or name the others alone as its EVAL_MIXTURE" if len(tests) > 1 else ""
        share = ", or with a larger --test_share," if test_share < 1 else ""
        told.append(
            f"{number} for tests: a batch of an evaluation must not be larger, so train with "
            f"--gin.EVAL_BATCH_SIZE={tests[fewest]}{alone} (or prepare more{share} under another --version)"
        )
    if 0 < (count := sum(trained.values())) < _BATCH_SIZE:
        number = counted(count, "example" if len(trained) > 1 else "image" if "train_images" in trained else "clip")
        told.append(
            f"{number} for training: a larger batch takes some of them several times, so train with "
            f"--gin.BATCH_SIZE={count} or less, or prepare more"
        )
    return told


def _way_to_tests(splits: Mapping[str, Mapping[str, int]], test_share: float) -> str:
    if not test_share:
        return "prepare with a --test_share above 0"
    # Of two sources of a kind one is for tests, unless a table tells otherwise.
    if max(split["sources"] for split in splits.values()) > 1:
        return "name some for tests in the table's column split"
    return "prepare more files"


def _changes_in_words(changes: Changes) -> str:
    came, gone, unknown = changes
    if unknown:
        return f"what came since it was begun cannot be told ({unknown})"
    told = [f"{counted(came, 'file')} came (not in it)"] * bool(came)
    told += [f"{counted(gone, 'file')} went"] * bool(gone)
    return f"since it was begun {' and '.join(told)}: another --version or --name is made of the files as they are now"
