"""Tables of files and captions, in csv or jsonl: read row by row, so that one bad row is one bad row."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from phenaki_jax.data.prepare.captions import clean_captions, decode_text
from phenaki_jax.data.prepare.settings import PrepareSettings
from phenaki_jax.data.prepare.sources import Found, Place, Problem, Source, check_suffix
from phenaki_jax.errors import UserError, kind_of, reason_of

MANIFEST_SUFFIXES = (".csv", ".jsonl")
_FILE_COLUMNS = ("file", "video", "image")
_CAPTION_COLUMNS = ("caption", "captions")
_TIME_COLUMNS = ("start", "end")
COLUMNS = (*_FILE_COLUMNS, *_CAPTION_COLUMNS, *_TIME_COLUMNS)
# A quote that nobody closed would take all rows after it along.
_MOST_LINES_OF_A_ROW = 64

Row = Mapping[str, Any]


class _Numbered(NamedTuple):
    """A row and the line it begins at, counted from 1; or what is wrong with it."""

    line: int
    row: Row | None
    notes: tuple[str, ...]
    problem: str


def read_manifest(path: Path, settings: PrepareSettings, prefix: str = "") -> Found:
    """The sources of a table, whose files stand relative to it.

    Args:
      path: a .csv with a line of columns, or a .jsonl with an object in each line.
      settings: how captions are cleaned, and which columns are ignored.
      prefix: of the keys.

    Raises:
      UserError: a column, of a csv or of the first row, that is not known; or none of files.
    """
    rows = _csv_rows(path, settings) if path.suffix.lower() == ".csv" else _jsonl_rows(path, settings)
    for line, row, notes, problem in rows:
        key = f"{prefix}{path.name}, line {line}"
        try:
            if row is None:
                raise UserError(problem)
            yield _source(path.parent, row, notes, settings, prefix)
        except UserError as error:
            yield Problem(key, str(error))


def check_columns(path: Path, found: list[str], settings: PrepareSettings) -> None:
    """Refuses a table that has other columns than are known, or no files.

    Raises:
      UserError: names them.
    """
    if unknown := [name for name in found if name not in (*COLUMNS, *settings.ignored_columns)]:
        raise UserError(
            f"{path}: found unknown column {', '.join(map(repr, unknown))}, expected of {', '.join(COLUMNS)}: rename "
            f"what is meant by one of these, and leave out the rest with --ignore_columns {' '.join(unknown)}"
        )
    if not set(found) & set(_FILE_COLUMNS):
        raise UserError(
            f"{path}: found columns {', '.join(found) or 'of no name'}, expected one of {', '.join(_FILE_COLUMNS)}, "
            "which names the files"
        )


def _source(folder: Path, row: Row, notes: tuple[str, ...], settings: PrepareSettings, prefix: str) -> Source:
    named = [row[name] for name in _FILE_COLUMNS if row.get(name)]
    if len(named) != 1 or not isinstance(named[0], str):
        raise UserError(f"found {len(named)} files ({', '.join(map(repr, named))}), expected the name of one")
    file = folder / named[0]
    check_suffix(named[0])
    if not file.is_file():
        raise UserError(f"found no file {named[0]}, expected it beside the table or at its full path")
    start, end = _seconds(row, "start", 0.0), _seconds(row, "end", -1.0)
    if 0 <= end <= start:
        raise UserError(f"found start {start:g} and end {end:g}, expected the end after the start")
    captions, lost = clean_captions(_captions(row), settings.caption_length)
    key = prefix + os.path.normpath(named[0])
    return Source(key, Place.whole(file), start, end, tuple(captions), (*notes, *lost))


def _seconds(row: Row, name: str, absent: float) -> float:
    value = row.get(name)
    if value is None or value == "":
        return absent
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise UserError(f"found {name} {value!r}, expected seconds")
    return seconds


def _captions(row: Row) -> list[str]:
    texts: list[str] = []
    for name in _CAPTION_COLUMNS:
        value = row.get(name)
        if name == "captions" and isinstance(value, str) and value.lstrip().startswith("["):
            try:
                value = json.loads(value)
            except ValueError as error:
                raise UserError(f"found captions {value[:40]!r}, expected a list in JSON, or plain text") from error
        for each in value if isinstance(value, list) else [value]:
            if each is not None and not isinstance(each, str):
                raise UserError(f"found {kind_of(each)} as {name}, expected text")
            texts += [each] if each else []
    return texts


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with path.open("rb") as file:
            yield from enumerate(file, 1)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({reason_of(error)}): see whether it is whole and yours") from error


def _csv_rows(path: Path, settings: PrepareSettings) -> Iterator[_Numbered]:
    columns: list[str] | None = None
    for line, data in _csv_records(_lines(path)):
        try:
            text, note = decode_text(data)
            # What is longer is no caption.
            [values] = list(csv.reader([text.replace("\0", "")], strict=True)) if text.count('"') % 2 == 0 else [None]
        except (UserError, csv.Error, ValueError) as error:
            yield _Numbered(line, None, (), f"cannot be read ({error})")
            continue
        if values is None:
            yield _Numbered(line, None, (), "cannot be read (a quote is not closed)")
        elif columns is None:
            columns = [value.strip() for value in values]
            check_columns(path, columns, settings)
        elif len(values) != len(columns):
            yield _Numbered(line, None, (), f"found {len(values)} values, expected {len(columns)}, one of each column")
        else:
            row = dict(zip(columns, values, strict=True))
            yield _Numbered(line, row, (note,) if note else (), "")
    if columns is None:
        raise UserError(f"{path}: found an empty table, expected a line of columns such as file,caption")


def _csv_records(lines: Iterator[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    """Rows of a csv, of which a quoted value may go over several lines; an unclosed quote ends with its line."""
    waiting: list[tuple[int, bytes]] = []
    while True:
        line, data = waiting.pop(0) if waiting else next(lines, (0, b""))
        if not line:
            return
        gathered, following = data, waiting
        taken: list[tuple[int, bytes]] = []
        while gathered.count(b'"') % 2 and len(taken) < _MOST_LINES_OF_A_ROW:
            more = following.pop(0) if following else next(lines, (0, b""))
            if not more[0]:
                break
            taken.append(more)
            gathered += more[1]
        if gathered.count(b'"') % 2:
            waiting = taken + waiting
            gathered = data
        if gathered.strip():
            yield line, gathered


def _jsonl_rows(path: Path, settings: PrepareSettings) -> Iterator[_Numbered]:
    checked = False
    for line, data in _lines(path):
        if not data.strip():
            continue
        try:
            text, note = decode_text(data)
            row = json.loads(text)
            if not isinstance(row, dict):
                raise UserError(f'found {kind_of(row)}, expected an object such as {{"file": ..., "caption": ...}}')
            if checked:
                check_columns(path, list(row), settings)
        except (UserError, ValueError, RecursionError) as error:
            yield _Numbered(line, None, (), f"cannot be read ({error})")
            continue
        if not checked:
            check_columns(path, list(row), settings)
            checked = True
        yield _Numbered(line, row, (note,) if note else (), "")
