"""Sums of a checkpoint's files, by which one that was damaged since it was written is found before it is used.

workdir/checksums/<step>.json    written before the checkpoint has its name: of each of its files, the size and SHA-256
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from phenaki_jax.files import make_folder, write_text

_FOLDER = "checksums"
_METADATA = "_CHECKPOINT_METADATA"


def write_checksums(workdir: Path, step: int, folders: Mapping[str, Path]) -> None:
    """Writes the sums of all files of a checkpoint, and forgets those of checkpoints that are gone.

    Args:
      workdir: of the run.
      step: of the checkpoint.
      folders: what belongs to it, by the place in the workdir that it will have.
    """
    sums = {
        f"{place}/{file.relative_to(folder)}": _sum_of(file)
        for place, folder in folders.items()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }
    path = _path(workdir, step)
    make_folder(path.parent)
    write_text(path, json.dumps(sums, indent=0))
    for other in path.parent.glob("*.json"):
        if other != path and not (workdir / "checkpoints" / other.stem).exists():
            other.unlink(missing_ok=True)


def checkpoint_identity(workdir: str | Path, step: int) -> str:
    """16 hexadecimal digits that another checkpoint of the same step has not.

    By the sums of its files, or, where none were written, by their sizes and when they were written.
    """
    path = _path(Path(workdir), step)
    if path.exists():
        told = path.read_bytes()
    else:
        folder = Path(workdir) / "checkpoints" / str(step)
        files = [(file, file.stat()) for file in sorted(folder.rglob("*")) if file.is_file()]
        told = repr([(str(file.relative_to(folder)), each.st_size, each.st_mtime_ns) for file, each in files]).encode()
    return hashlib.sha256(told).hexdigest()[:16]


def first_damage(workdir: Path, step: int, part: int = 0, parts: int = 1) -> str:
    """What is wrong with a checkpoint's files, in words; empty where nothing is, or where no sums were written.

    Args:
      workdir: of the run.
      step: of the checkpoint.
      part: which of the files are looked at, of so many parts.
      parts: how many.
    """
    path = _path(workdir, step)
    if not path.exists():
        return ""
    try:
        sums = {name: (int(size), str(sum_)) for name, (size, sum_) in json.loads(path.read_text()).items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return f"its checksums {path} cannot be read"
    for name, (size, sum_) in sorted(sums.items())[part::parts]:
        file = workdir / name
        if not file.is_file():
            return f"{name} is missing"
        found_size, found_sum = _sum_of(file)
        if found_size != size:
            return f"{name} has {found_size} bytes, expected {size}"
        if found_sum != sum_:
            return f"{name} is not what was written: its bytes have another sum"
    return ""


def _path(workdir: Path, step: int) -> Path:
    return workdir / _FOLDER / f"{step}.json"


def _sum_of(file: Path) -> tuple[int, str]:
    if file.name == _METADATA:
        content = _without_commit(file.read_bytes())
        return len(content), hashlib.sha256(content).hexdigest()
    with file.open("rb") as opened:
        return file.stat().st_size, hashlib.file_digest(opened, "sha256").hexdigest()


def _without_commit(content: bytes) -> bytes:
    """What orbax tells of a checkpoint, less the time of its completion, added after the sums are made."""
    try:
        told = json.loads(content)
        told.pop("commit_timestamp_nsecs", None)
    except (ValueError, AttributeError):
        return content
    return json.dumps(told).encode()
