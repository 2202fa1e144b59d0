"""Tars as webdataset lays them out: members `key.mp4` beside `key.txt` or `key.json`."""

from __future__ import annotations

import contextlib
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from phenaki_jax.data.prepare.captions import clean_captions, decode_text
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
from phenaki_jax.errors import UserError, reason_of

TAR_SUFFIX = ".tar"
_CAPTION_SUFFIXES = (".txt", ".json")
_CAPTION_FIELDS = ("caption", "captions", "text")
_LARGEST_CAPTION_FILE = 2**20
_READ_BYTES = 2**20
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_TAKEN = "what stands before the damage is taken, and nothing behind it"


class _Contents:
    """What is in a tar, by the names of its members without their endings."""

    def __init__(self) -> None:
        self.media: dict[str, list[tuple[str, Place]]] = {}
        self.texts: dict[str, list[str]] = {}
        self.notes: dict[str, list[str]] = {}
        self.unread: dict[str, str] = {}


def read_archive(path: Path, settings: PrepareSettings, prefix: str = "") -> Found:
    """The sources of a tar, whose bytes are read out of it later.

    Members of one key stand together, as webdataset writes them; others are found too.
    """
    own, contents = f"{prefix}{path.name}", _Contents()
    if packed := _compression(path):
        yield Problem(own, f"is compressed ({packed}), expected a plain .tar: unpack it, as with {packed} -dc")
        return
    try:
        yield from _gathered(path, own, contents)
    except (tarfile.TarError, OSError, EOFError) as error:
        yield Problem(own, f"is damaged ({reason_of(error)}): {_TAKEN}")
    for key in sorted(contents.media.keys() | contents.texts.keys()):
        captions, lost = clean_captions(contents.texts.get(key, []), settings.caption_length)
        for called, place in contents.media.get(key, []):
            yield Source(called, place, 0.0, -1.0, tuple(captions), (*contents.notes.get(key, []), *lost))
        if key not in contents.media:
            yield Problem(f"{own}/{key}", captions_alone(contents.unread.get(key)))


def _compression(path: Path) -> str:
    """The program that a file was compressed with; empty where it was not."""
    try:
        # A plain one begins with the name of what is first in it, which may look like anything.
        with contextlib.suppress(tarfile.TarError), tarfile.open(path, "r:"):
            return ""
        with path.open("rb") as file:
            beginning = file.read(max(map(len, _COMPRESSED)))
    except OSError:
        # Which is told where the tar is read.
        return ""
    return next((program for mark, program in _COMPRESSED.items() if beginning.startswith(mark)), "")


def _gathered(path: Path, own: str, contents: _Contents) -> Found:
    """Fills in the contents, and tells what is none."""
    whole = os.path.abspath(path)
    seen: set[str] = set()
    for member, data in _members(path):
        name = PurePosixPath(member.name)
        key, suffix = str(name.with_suffix("")), name.suffix.lower()
        if suffix in SUFFIXES and str(name) in seen:
            yield Problem(f"{own}/{name}", "is there again in the tar, of which the first of this name is taken")
        elif suffix in SUFFIXES:
            seen.add(str(name))
            place = Place(whole, member.offset_data, member.size, suffix)
            contents.media.setdefault(key, []).append((f"{own}/{name}", place))
        elif suffix in _CAPTION_SUFFIXES:
            try:
                said, note = _texts(suffix, data)
            except UserError as error:
                yield Problem(f"{own}/{name}", str(error))
                continue
            contents.texts.setdefault(key, []).extend(said)
            contents.notes.setdefault(key, []).extend([note] if note else [])
        else:
            if suffix in UNREAD_MEDIA:
                contents.unread[key] = name.name
            yield PassedOver(suffix)


def _members(path: Path) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    """All files, and what is in those of captions."""
    with tarfile.open(path, "r:") as archive:
        size = path.stat().st_size
        for member in archive:
            if not member.isfile():
                continue
            if member.offset_data + member.size > size:
                raise tarfile.ReadError(f"{member.name!r} is cut off")
            is_text = PurePosixPath(member.name).suffix.lower() in _CAPTION_SUFFIXES
            file = archive.extractfile(member) if is_text else None
            yield member, file.read(_LARGEST_CAPTION_FILE) if file else b""
        _check_end(path, archive.offset)


def _check_end(path: Path, offset: int) -> None:
    """Refuses what `tarfile` takes for the end of a tar: a damaged header, or nothing."""
    with path.open("rb") as file:
        file.seek(offset)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError(f"neither a file nor an end is at byte {offset}")
        if any(more.strip(b"\0") for more in iter(lambda: file.read(_READ_BYTES), b"")):
            raise tarfile.ReadError(f"its end is at byte {offset}, and more stands behind it")


def _texts(suffix: str, data: bytes) -> tuple[list[str], str]:
    text, note = decode_text(data)
    if suffix == ".txt":
        return text.splitlines(), note
    try:
        found: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"is no JSON ({reason_of(error)})") from error
    values = [found.get(name) for name in _CAPTION_FIELDS] if isinstance(found, dict) else []
    flat = [each for value in values for each in (value if isinstance(value, list) else [value])]
    return [each for each in flat if isinstance(each, str)], note
