"""phenaki inspect: tells what a checkpoint, an exported model or a dataset holds."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from phenaki_jax.cli.inspectable import TENSORS, find_meant, kind_of_folder
from phenaki_jax.cli.phenaki_pytorch import SUFFIXES, describe_state_dict
from phenaki_jax.errors import UserError, reason_of

GRID_EXAMPLES = 8
_WIDTH = 120


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.description = "Prints shapes, counts and configuration, or how a video was made."
    parser.epilog = (
        "examples:\n"
        "  phenaki inspect model\n"
        "  phenaki inspect runs/tokenizer --json\n"
        "  phenaki inspect data/moving_shapes/video_32/1.0.0 --out grid.png\n"
        "  phenaki inspect story.mp4"
    )
    parser.add_argument(
        "path",
        metavar="PATH",
        help="an exported model, a training's workdir or checkpoint, precomputed data, a TFDS dataset's folder, a "
        "video, tensors (.safetensors), or a state dict of phenaki-pytorch",
    )
    parser.add_argument("--json", action="store_true", help="print it as one line of JSON")
    parser.add_argument(
        "--out", metavar="FILE.png", help=f"of a dataset: its first {GRID_EXAMPLES} examples, a row each"
    )


def run(args: argparse.Namespace) -> int:
    """Inspects; returns 0."""
    asked = Path(args.path)
    if args.out is not None:
        from phenaki_jax.files import check_output

        check_output(args.out, (".png",))
    place = find_meant(asked)
    kind = kind_of_folder(place)
    if args.out is not None and kind != "dataset":
        raise UserError(f"found --out and {asked}, which is no dataset: pictures are made of datasets alone")
    described = {} if place == asked else {"inspected": str(place)}
    found = described | (_FOLDERS[kind](place) if kind else _file(place))
    if args.out is not None:
        _write_grid(place, Path(args.out))
        found["picture"] = args.out
    print(json.dumps(found) if args.json else "\n".join(_lines(found)))
    return 0


def _exported(folder: Path) -> dict[str, Any]:
    from phenaki_jax.inference.export import load_exported
    from phenaki_jax.inference.model_file import read_model_file, tokenizer_config

    content, config = read_model_file(folder)
    model = load_exported(folder)
    tokenizer = tokenizer_config(config)
    known = dataclasses.asdict(model.metadata)
    if tokenizer is config:
        for name in ("sampling", "prefix_frames"):
            del known[name]
    return {
        "kind": "exported model",
        "fingerprint": model.fingerprint,
        "phenaki_jax": content.phenaki_jax,
        "format": content.format,
        "config": dataclasses.asdict(config),
        "codebook_size": tokenizer.quantizer.codebook_size,
        **known,
        **_parameters(model.params),
    }


def _file(file: Path) -> dict[str, Any]:
    suffix = file.suffix.lower()
    if suffix == TENSORS:
        return _tensors(file)
    return describe_state_dict(file) if suffix in SUFFIXES else _video(file)


def _tensors(file: Path) -> dict[str, Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy") as tensors:
            slices = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118
            shapes = {name: each.get_shape() for name, each in slices.items()}
            types = sorted({each.get_dtype() for each in slices.values()})
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file} cannot be read ({reason_of(error)}), expected safetensors; copy it again") from error
    count = sum(map(math.prod, shapes.values()))
    return {"kind": "tensors", "tensors": len(shapes), "types": types, "parameters": count, "shapes": shapes}


def _video(file: Path) -> dict[str, Any]:
    from phenaki_jax.inference.video_metadata import read_making
    from phenaki_jax.inference.video_reader import open_video

    frames, shape = 0, (0, 0)
    with open_video(file) as video:
        for frame in video.frames:
            frames, shape = frames + 1, frame.shape[:2]
        rate = {} if video.fps is None else {"fps": video.fps}
    making = read_making(file) or "the file does not tell"
    return {"kind": "video", "frames": frames, "height": shape[0], "width": shape[1], **rate, "making": making}


def _precomputed(folder: Path) -> dict[str, Any]:
    from phenaki_jax.data.precomputed_metadata import Precomputed

    files = [file for file in folder.glob("*/*.tfrecord-*") if not file.name.startswith(".")]
    size = sum(file.stat().st_size for file in files)
    held = {"files": len(files), "bytes": size}
    return {"kind": "precomputed data", **held, **dataclasses.asdict(Precomputed.read(folder))}


def _checkpoint(folder: Path) -> dict[str, Any]:
    folder = Path(os.path.abspath(folder))
    return _training(folder.parents[1], int(folder.name))


def _training(workdir: Path, step: int | None = None) -> dict[str, Any]:
    from phenaki_jax.inference.model_file import config_from_plain, tokenizer_config
    from phenaki_jax.training import checkpoints

    step = int(checkpoints.latest_checkpoint(workdir, step).name)
    description = checkpoints.read_description(workdir, step)
    params = checkpoints.read_params(workdir, step)
    averaged = description.pop("average_decay", "0") != "0"
    tokenizer = config_from_plain({"tokenizer": description["tokenizer"]}, f"{workdir}, step {step}")
    return {
        "kind": "checkpoint",
        "step": step,
        "steps": checkpoints.checkpoint_steps(workdir),
        "config": description,
        "codebook_size": tokenizer_config(tokenizer).quantizer.codebook_size,
        "averaged": averaged,
        **_parameters(params),
    }


def _parameters(params: Any) -> dict[str, Any]:
    from flax.traverse_util import flatten_dict

    flat = flatten_dict(params, sep="/")
    count = sum(array.size for array in flat.values())
    return {"parameters": count, "shapes": {name: list(array.shape) for name, array in flat.items()}}


def _dataset(folder: Path) -> dict[str, Any]:
    from phenaki_jax.data.prepare.metadata import SETTINGS_FILE
    from phenaki_jax.data.prepare.wholeness import check_whole

    if (folder / SETTINGS_FILE).is_file():
        check_whole(folder)
    try:
        info, features = (json.loads((folder / f"{name}.json").read_text()) for name in ("dataset_info", "features"))
        return _described_dataset(info, features)
    except (ValueError, LookupError, TypeError, AttributeError, OSError) as error:
        raise UserError(
            f"{folder}: dataset_info.json or features.json cannot be read ({reason_of(error)}), expected them as TFDS "
            "writes them; copy or make the dataset again"
        ) from error


def _described_dataset(info: Mapping[str, Any], features: Mapping[str, Any]) -> dict[str, Any]:
    splits = {
        split["name"]: {
            "examples": sum(map(int, split["shardLengths"])),
            "files": len(split["shardLengths"]),
            "bytes": int(split["numBytes"]),
        }
        for split in info.get("splits", [])
    }
    names = list(features.get("featuresDict", {}).get("features", {}))
    described = {name: info.get(name) for name in ("name", "configName", "version")}
    return {"kind": "dataset", **described, "splits": splits, "features": names}


_FOLDERS: Mapping[str, Callable[[Path], dict[str, Any]]] = {
    "dataset": _dataset,
    "exported model": _exported,
    "precomputed data": _precomputed,
    "training": _training,
    "checkpoint": _checkpoint,
}


def _write_grid(folder: Path, out: Path) -> None:
    import numpy as np
    from PIL import Image

    from phenaki_jax.data.tensorflow_stack import tf, tfds
    from phenaki_jax.files import whole_file
    from phenaki_jax.inference.video_files import film_strips

    builder = tfds.builder_from_directory(str(folder))
    split = next(iter(builder.info.splits), "train")
    uncached = tfds.ReadConfig(try_autocache=False)
    try:
        examples = list(tfds.as_numpy(builder.as_dataset(split=split, read_config=uncached).take(GRID_EXAMPLES)))
    except (tf.errors.OpError, ValueError) as error:
        raise UserError(
            f"{folder}: the {split} examples cannot be read ({reason_of(error)}), expected whole files; "
            "copy or make the dataset again"
        ) from error
    found = [
        value
        for example in examples
        for value in example.values()
        if isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.ndim == 4
    ]
    # Clips may differ in length, and pictures in size: a grid is of those that are like the first.
    videos = [video for video in found if video.shape == found[0].shape]
    if not videos:
        raise UserError(f"{folder}: found no frames, expected a feature uint8 [frames, height, width, 3] in {split}")
    with whole_file(out) as unfinished:
        Image.fromarray(film_strips(np.stack(videos))).save(unfinished)


def _lines(found: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    for name, value in found.items():
        if value in ("", {}):
            continue
        if isinstance(value, Mapping):
            yield f"{indent}{name}:"
            yield from _lines(value, f"{indent}  ")
        elif isinstance(value, str) and "\n" in value:
            yield f"{indent}{name}:"
            yield from textwrap.indent(value.strip("\n"), f"{indent}  ").splitlines()
        else:
            shown = f"{value:,}" if name in ("parameters", "bytes", "examples") else value
            yield from textwrap.wrap(
                f"{name}: {shown}",
                _WIDTH,
                initial_indent=indent,
                subsequent_indent=f"{indent}  ",
                break_long_words=False,
                break_on_hyphens=False,
            )
