"""What a user may name to be prepared, and what is told of anything else."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from phenaki_jax.data.prepare.archives import TAR_SUFFIX
from phenaki_jax.data.prepare.sources import SUFFIXES
from phenaki_jax.data.prepare.tables import TABLE_SUFFIXES
from phenaki_jax.errors import UserError

_UNPACKERS = {
    **dict.fromkeys((".gz", ".tgz"), "gunzip"),
    **dict.fromkeys((".bz2", ".tbz2"), "bunzip2"),
    **dict.fromkeys((".xz", ".txz"), "unxz"),
    ".zst": "unzstd",
}
_SPREADSHEETS = (".xlsx", ".xls", ".ods")
_ARCHIVES = (".zip", ".7z", ".rar")


def check_inputs(inputs: Sequence[str | os.PathLike[str]]) -> None:
    """Refuses inputs that are not there or cannot be told apart, before any work is done.

    Raises:
      UserError: an input is nothing that can be read; two have one name.
    """
    for path in map(Path, inputs):
        known = path.suffix.lower() in (*TABLE_SUFFIXES, TAR_SUFFIX)
        if not path.is_dir() and not (path.is_file() and known):
            raise UserError(_what_instead(path))
    names = [Path(each).name for each in inputs]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(
            f"found two inputs of the name {twice[0]!r}, expected names that differ, as files are told apart by them: "
            "rename one"
        )


def _what_instead(path: Path) -> str:
    """What is told of a path that is no input."""
    suffix = path.suffix.lower() if path.is_file() else ""
    if program := _UNPACKERS.get(suffix):
        return (
            f"found a compressed file at {path}, expected a plain {TAR_SUFFIX}: unpack it with {program}, or name a "
            "folder of what is in it"
        )
    if suffix in _ARCHIVES:
        return f"found a file {suffix} at {path}, expected a folder: unpack it, and name the folder of what is in it"
    if suffix in _SPREADSHEETS:
        return f"found a spreadsheet at {path}, expected a table as text: save it as .csv"
    if suffix == ".json":
        return (
            f"found a file .json at {path}, expected .jsonl: write an object for each file, each in a line of its own"
        )
    if suffix in SUFFIXES:
        return f"found one video or image at {path}, expected a folder of them: name {path.parent}"
    return (
        f"found {'a file' if path.exists() else 'nothing'} at {path}, expected a folder of videos or images, a table "
        f"({', '.join(TABLE_SUFFIXES)}) or a tar ({TAR_SUFFIX}, not compressed)"
    )
