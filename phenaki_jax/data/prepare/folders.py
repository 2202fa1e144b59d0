"""What a user names to be prepared: a folder, a table of files, or tars."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from phenaki_jax.data.prepare.archives import TAR_SUFFIX, read_archive
from phenaki_jax.data.prepare.captions import clean_captions, decode_text
from phenaki_jax.data.prepare.manifests import MANIFEST_SUFFIXES, read_manifest
from phenaki_jax.data.prepare.settings import PrepareSettings
from phenaki_jax.data.prepare.sources import SUFFIXES, Found, Place, Problem, Source
from phenaki_jax.errors import UserError, reason_of

_METADATA_FILES = tuple(f"metadata{suffix}" for suffix in MANIFEST_SUFFIXES)


def find_sources(inputs: Sequence[str | os.PathLike[str]], settings: PrepareSettings) -> Found:
    """Everything in folders, with those within them, in tables and in tars.

    One input's keys are names within it. Keys of several begin with their input.

    Raises:
      UserError: an input that is not there or is nothing of these; a table that has unknown columns.
    """
    check_inputs(inputs)
    for path in map(Path, inputs):
        prefix = f"{path.name}/" if len(inputs) > 1 else ""
        if path.is_dir():
            yield from _in_folder(path, settings, prefix)
        elif path.suffix.lower() in MANIFEST_SUFFIXES:
            yield from read_manifest(path, settings, prefix)
        else:
            yield from read_archive(path, settings, prefix)


def check_inputs(inputs: Sequence[str | os.PathLike[str]]) -> None:
    """Refuses inputs that are not there or cannot be told apart, before any work is done.

    Raises:
      UserError: an input is nothing that can be read; two have one name.
    """
    for path in map(Path, inputs):
        known = path.suffix.lower() in (*MANIFEST_SUFFIXES, TAR_SUFFIX)
        if not path.is_dir() and not (path.is_file() and known):
            raise UserError(
                f"found {'a file' if path.exists() else 'nothing'} at {path}, expected a folder of videos or images, a "
                f"table ({' or '.join(MANIFEST_SUFFIXES)}) or a tar ({TAR_SUFFIX}, not compressed)"
            )
    names = [Path(each).name for each in inputs]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(
            f"found two inputs of the name {twice[0]!r}, expected names that differ, as files are told apart by them: "
            "rename one"
        )


def _in_folder(folder: Path, settings: PrepareSettings, prefix: str) -> Found:
    captions: set[str] = set()
    media: set[str] = set()
    for path in _files(folder):
        name = str(path.relative_to(folder))
        suffix = path.suffix.lower()
        if path.name in _METADATA_FILES:
            within = str(path.parent.relative_to(folder))
            yield from read_manifest(path, settings, prefix if within == "." else f"{prefix}{within}/")
        elif suffix == TAR_SUFFIX:
            yield from read_archive(path, settings, prefix + name.removesuffix(path.name))
        elif suffix in SUFFIXES:
            media.add(name.removesuffix(path.suffix))
            yield _with_captions(path, prefix + name, settings)
        elif suffix == ".txt":
            captions.add(name)
    for name in sorted(captions):
        if name.removesuffix(Path(name).suffix) not in media:
            yield Problem(prefix + name, "has captions, and no video or image of its name is beside it")


def _files(folder: Path) -> Iterator[Path]:
    """In the order of their names; links are followed, once each, and hidden files are not looked for."""
    seen: set[str] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(place)) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(place) / name for name in sorted(names) if not name.startswith("."))


def _with_captions(path: Path, key: str, settings: PrepareSettings) -> Source | Problem:
    texts, notes = [], []
    beside = path.with_suffix(".txt")
    if beside.is_file():
        try:
            text, note = decode_text(beside.read_bytes())
        except (UserError, OSError) as error:
            return Problem(key, f"its caption {beside.name}: {reason_of(error)}")
        texts, notes = text.splitlines(), [note] if note else []
    captions, lost = clean_captions(texts, settings.caption_length)
    return Source(key, Place.whole(path), 0.0, -1.0, tuple(captions), (*notes, *lost))
