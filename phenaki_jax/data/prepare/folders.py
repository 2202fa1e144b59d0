"""What a user names to be prepared: a folder, a table of files, or tars."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence, Set
from pathlib import Path
from typing import NamedTuple

from phenaki_jax.data.prepare.archives import TAR_SUFFIX, read_archive
from phenaki_jax.data.prepare.captions import clean_captions, decode_text
from phenaki_jax.data.prepare.inputs import check_inputs
from phenaki_jax.data.prepare.manifests import read_manifest
from phenaki_jax.data.prepare.metadata import SETTINGS_FILE
from phenaki_jax.data.prepare.settings import PrepareSettings
from phenaki_jax.data.prepare.sources import (
    SUFFIXES,
    UNREAD_MEDIA,
    Found,
    PassedOver,
    Place,
    Problem,
    Source,
    captions_alone,
)
from phenaki_jax.data.prepare.tables import TABLE_SUFFIXES
from phenaki_jax.errors import UserError, reason_of

_CAPTION_SUFFIX = ".txt"
_METADATA_FILES = tuple(f"metadata{suffix}" for suffix in TABLE_SUFFIXES)


def find_sources(
    inputs: Sequence[str | os.PathLike[str]], settings: PrepareSettings, out: str | os.PathLike[str] | None = None
) -> Found:
    """Everything in folders, with those within them, in tables and in tars.

    One input's keys are names within it. Keys of several begin with their input, as those of a tar always do.

    Args:
      inputs: folders, tables and tars.
      settings: how captions are cleaned, and which columns of tables are ignored.
      out: where datasets are made; this, and datasets that were made elsewhere, are passed over in folders.

    Raises:
      UserError: an input that is not there or is nothing of these; a table that has unknown columns.
    """
    check_inputs(inputs)
    for path in map(Path, inputs):
        prefix = f"{path.name}/" if len(inputs) > 1 else ""
        if path.is_dir():
            yield from _in_folder(path, settings, prefix, os.path.realpath(out) if out is not None else "")
        elif path.suffix.lower() in TABLE_SUFFIXES:
            yield from read_manifest(path, settings, prefix)
        else:
            yield from read_archive(path, settings)


class _Folder(NamedTuple):
    """A folder in an input.

    Attributes:
      path: of it.
      within: the input, empty or with a slash at its end.
      names: of the files in it, in order.
    """

    path: Path
    within: str
    names: list[str]


def _in_folder(folder: Path, settings: PrepareSettings, prefix: str, out: str) -> Found:
    named: set[str] = set()
    for place in _folders(folder, out):
        if isinstance(place, Problem):
            yield place._replace(key=prefix + place.key)
            continue
        for name in filter(_METADATA_FILES.__contains__, place.names):
            for each in read_manifest(place.path / name, settings, prefix, place.within):
                if isinstance(each, Source):
                    named.add(each.place.path)
                yield each
    for place in _folders(folder, out):
        if isinstance(place, _Folder):
            yield from _files_of(place, settings, prefix, named)


def _files_of(place: _Folder, settings: PrepareSettings, prefix: str, named: Set[str]) -> Found:
    """What is in one folder but for its tables; of the files that tables name, those with captions beside them."""
    beside = {Path(name).stem: name for name in place.names if Path(name).suffix.lower() == _CAPTION_SUFFIX}
    without_file, unread = dict(beside), dict[str, str]()
    for name in place.names:
        stem, suffix = Path(name).stem, Path(name).suffix.lower()
        if suffix == TAR_SUFFIX:
            yield from read_archive(place.path / name, settings, prefix + place.within)
        elif suffix in SUFFIXES:
            without_file.pop(stem, None)
            if stem in beside or os.path.abspath(place.path / name) not in named:
                yield _with_captions(place.path / name, beside.get(stem), prefix + place.within + name, settings)
        elif suffix != _CAPTION_SUFFIX and name not in _METADATA_FILES:
            if suffix in UNREAD_MEDIA:
                unread[stem] = name
            yield PassedOver(suffix)
    for stem, name in without_file.items():
        yield Problem(prefix + place.within + name, captions_alone(unread.get(stem)))


def _folders(folder: Path, out: str) -> Iterator[_Folder | Problem]:
    """A folder and those in it, in the order of their names; links are followed, once each.

    Hidden files and folders, datasets of phenaki prepare and `out` are passed over.
    """
    unread: list[OSError] = []
    seen: set[str] = set()
    for place, folders, names in os.walk(folder, followlinks=True, onerror=unread.append):
        real, is_input = os.path.realpath(place), not seen
        if real in seen or (not is_input and (real == out or SETTINGS_FILE in names)):
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        within = os.path.relpath(place, folder)
        yield _Folder(
            Path(place),
            "" if within == os.curdir else f"{within}/",
            sorted(name for name in names if not name.startswith(".")),
        )
    for error in unread:
        yield Problem(os.path.relpath(error.filename, folder), f"cannot be listed ({reason_of(error)})")


def _with_captions(path: Path, beside: str | None, key: str, settings: PrepareSettings) -> Source | Problem:
    texts, notes = [], []
    if beside is not None:
        try:
            text, note = decode_text(path.with_name(beside).read_bytes())
        except (UserError, OSError) as error:
            return Problem(key, f"its caption {beside!r}: {reason_of(error)}")
        texts, notes = text.splitlines(), [note] if note else []
    captions, lost = clean_captions(texts, settings.caption_length)
    return Source(key, Place.whole(path), 0.0, -1.0, tuple(captions), (*notes, *lost))
