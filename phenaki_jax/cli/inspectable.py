"""What phenaki inspect is asked for: the folders and files that it knows, and what is meant by others beside them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from phenaki_jax.cli.phenaki_pytorch import SUFFIXES
from phenaki_jax.data.prepare.metadata import UNFINISHED
from phenaki_jax.errors import UserError

TENSORS = ".safetensors"
_MARKS = {"dataset": "dataset_info.json", "exported model": "model.json", "precomputed data": "precomputed.json"}
_BESIDE_MARKS = (*_MARKS.values(), "features.json")
_EXPECTED = (
    "expected the folder of an exported model, a training, a checkpoint, precomputed data or a version of a dataset; "
    "or a video, a picture, .safetensors or .pt"
)
# As a dataset's name, configuration and version.
_DEPTH = 3
_SHOWN = 5
# By the ends of names: what such a file is, and what to do where no folder that can be inspected is around it.
_OTHERS = {
    r"\.gin": ("a gin file", "read it as a text, or inspect the workdir of its training"),
    r"\.(tfrecord|array_record)\S*": ("a file of examples", "inspect the folder of its dataset"),
    r"\.tar": ("an archive", "make a dataset of it with phenaki prepare, and inspect that"),
    r"\.(json|jsonl|ya?ml|txt|csv|tsv|md|html)": ("a text", "read it as it is"),
}


def kind_of_folder(folder: Path) -> str:
    """What can be inspected in a folder; empty where nothing can."""
    for kind, mark in _MARKS.items():
        if (folder / mark).is_file():
            return kind
    if (folder / "checkpoints").is_dir():
        return "training"
    return "checkpoint" if _absolute(folder).name.isdigit() and (folder / "state").is_dir() else ""


def find_meant(path: Path) -> Path:
    """The folder or file to inspect where this one was named.

    That is a folder above for `checkpoints` of a training, or model.json of a model; and of another folder the one in
    it that can be inspected, where there is one alone, as of a dataset's name.

    Raises:
      UserError: nothing can be inspected there; says what was found, and what to inspect instead.
    """
    if not path.exists():
        raise UserError(f"found nothing at {path}, expected a folder or a file; see phenaki inspect --help")
    if begun := next((part for part in _absolute(path).parts if part.startswith(UNFINISHED)), ""):
        raise UserError(f"{path}: found {begun}, a dataset that is not finished: run the same phenaki prepare again")
    if path.is_file():
        return _of_file(path)
    return path if kind_of_folder(path) else _near_folder(path)


def _of_file(path: Path) -> Path:
    from phenaki_jax.inference.video_reader import INPUT_SUFFIXES

    if path.name in _BESIDE_MARKS and kind_of_folder(path.parent):
        return path.parent
    if path.suffix.lower() in (*INPUT_SUFFIXES, *SUFFIXES, TENSORS):
        return path
    known = (told for ending, told in _OTHERS.items() if re.search(ending + "$", path.name.lower()))
    found, advice = next(known, (f"a file with the suffix {path.suffix!r}", "see phenaki inspect --help"))
    around = _around(path)
    raise UserError(
        f"{path}: found {found}, {_EXPECTED}; {f'inspect {around}, to which it belongs' if around else advice}"
    )


def _near_folder(folder: Path) -> Path:
    around = _around(folder)
    if folder.name == "checkpoints" and around:
        return around
    inside = list(_inside(folder, _DEPTH))
    if len(inside) == 1:
        return inside[0]
    if around and not inside:
        return around
    advice = "see phenaki inspect --help"
    if inside:
        names = [str(each.relative_to(folder)) for each in inside[:_SHOWN]]
        advice = f"inspect one in it: {', '.join(names)}{', ...' if len(inside) > _SHOWN else ''}"
    raise UserError(f"{folder}: found none of {', '.join(_MARKS.values())} and checkpoints, {_EXPECTED}; {advice}")


def _around(path: Path) -> Path | None:
    """The nearest folder above that can be inspected, such as the training of a checkpoint's file."""
    return next((folder for folder in list(_absolute(path).parents)[:_DEPTH] if kind_of_folder(folder)), None)


def _absolute(path: Path) -> Path:
    """With a name of its own, which . and .. have not."""
    return Path(os.path.abspath(path))


def _inside(folder: Path, depth: int) -> Iterator[Path]:
    for child in sorted(folder.iterdir()):
        if not child.is_dir() or child.name.startswith((".", UNFINISHED)):
            continue
        if kind_of_folder(child):
            yield child
        elif depth > 1:
            yield from _inside(child, depth - 1)
