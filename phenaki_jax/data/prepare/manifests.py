"""Tables of files and captions, in csv or jsonl: read row by row, so that one bad row is one bad row."""

from __future__ import annotations

import codecs
import csv
import json
import math
import os
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from phenaki_jax.data.prepare.captions import clean_captions, decode_text
from phenaki_jax.data.prepare.metadata import SPLITS
from phenaki_jax.data.prepare.settings import PrepareSettings
from phenaki_jax.data.prepare.sources import Found, Place, Problem, Source, check_suffix
from phenaki_jax.errors import UserError, kind_of, reason_of

MANIFEST_SUFFIXES = (".csv", ".jsonl")
_FILE_COLUMNS = ("file", "video", "image")
_CAPTION_COLUMNS = ("caption", "captions")
_TIME_COLUMNS = ("start", "end")
COLUMNS = (*_FILE_COLUMNS, *_CAPTION_COLUMNS, *_TIME_COLUMNS, "split")
# A quote that nobody closed would take all rows after it along.
_MOST_LINES_OF_A_ROW = 64
_LONGEST_QUOTED = 200

Row = Mapping[str, Any]


class _Numbered(NamedTuple):
    """A row and the line it begins at, counted from 1; or what is wrong with it."""

    line: int
    row: Row | None
    notes: tuple[str, ...]
    problem: str


def read_manifest(path: Path, settings: PrepareSettings, prefix: str = "", within: str = "") -> Found:
    """The sources of a table, whose files stand relative to it.

    Args:
      path: a .csv with a line of columns, or a .jsonl with an object in each line.
      settings: how captions are cleaned, and which columns are ignored.
      prefix: of the keys.
      within: the folder of the table in the one that is prepared, empty or with a slash at its end.

    Raises:
      UserError: a column, of a csv or of the first row, that is not known; a csv without one of files.
    """
    called = f"{prefix.removesuffix(f'{path.name}/')}{within}{path.name}"
    rows = _csv_rows(path, settings) if path.suffix.lower() == ".csv" else _jsonl_rows(path, settings)
    for line, row, notes, problem in rows:
        try:
            if row is None:
                raise UserError(problem)
            if settings.ignored_columns:
                row = {name: value for name, value in row.items() if name not in settings.ignored_columns}
            source = _source(path.parent, row, notes, settings)
            # The same whichever way tables take to the file.
            yield source._replace(key=os.path.join(prefix, os.path.normpath(os.path.join(within, source.key))))
        except UserError as error:
            yield Problem(f"{called}, line {line}", str(error))


def check_columns(path: Path, found: list[str], settings: PrepareSettings) -> None:
    """Refuses a table that has other columns than are known, no files, or a column twice.

    Raises:
      UserError: names them.
    """
    _check_known(path, found, settings)
    if twice := [name for name in COLUMNS if found.count(name) > 1 and name not in settings.ignored_columns]:
        raise UserError(
            f"{path}: found column {twice[0]!r} {found.count(twice[0])} times, expected it once: rename one"
        )
    if not set(found) & set(_FILE_COLUMNS):
        raise UserError(
            f"{path}: found columns {', '.join(found) or 'of no name'}, expected one of {', '.join(_FILE_COLUMNS)}, "
            "which names the files"
        )


def _check_known(path: Path, found: list[str], settings: PrepareSettings) -> None:
    if unknown := [name for name in found if name not in (*COLUMNS, *settings.ignored_columns)]:
        raise UserError(
            f"{path}: found unknown column {', '.join(map(repr, unknown))}, expected of {', '.join(COLUMNS)}: rename "
            f"what is meant by one of these, and leave out the rest with --ignore_columns {' '.join(unknown)}"
        )


def _source(folder: Path, row: Row, notes: tuple[str, ...], settings: PrepareSettings) -> Source:
    """Of a row, its key as the row names it."""
    named = [row[name] for name in _FILE_COLUMNS if row.get(name)]
    if len(named) != 1 or not isinstance(named[0], str):
        raise UserError(f"found {len(named)} files ({', '.join(map(_quoted, named))}), expected the name of one")
    file = folder / named[0]
    check_suffix(named[0])
    _check_file(file, named[0])
    start, end = _seconds(row, "start", 0.0), _seconds(row, "end", -1.0)
    if 0 <= end <= start:
        raise UserError(f"found start {start:g} and end {end:g}, expected the end after the start")
    captions, lost = clean_captions(_captions(row), settings.caption_length)
    return Source(named[0], Place.whole(file), start, end, tuple(captions), (*notes, *lost), _split(row))


def _check_file(file: Path, named: str) -> None:
    reason = ""
    try:
        if file.is_file():
            return
    except (OSError, ValueError) as error:
        # Of a name that no file can have.
        reason = f" ({reason_of(error)})"
    raise UserError(f"found no file {_quoted(named)}{reason}, expected it beside the table or at its full path")


def _seconds(row: Row, name: str, absent: float) -> float:
    value = row.get(name)
    if value is None or value == "":
        return absent
    try:
        seconds = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise UserError(f"found {name} {_quoted(value)}, expected seconds")
    return seconds


def _split(row: Row) -> str:
    value = row.get("split")
    if value is None or value == "":
        return ""
    if value not in SPLITS:
        raise UserError(f"found split {_quoted(value)}, expected {' or '.join(SPLITS)}, or nothing")
    return str(value)


def _quoted(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_QUOTED else f"{text[: _LONGEST_QUOTED // 2]}...{text[-_LONGEST_QUOTED // 2 :]}"


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
    """Lines with their numbers from 1, of a table in UTF-16 too, which is then in UTF-8."""
    try:
        with path.open("rb") as file:
            is_utf16 = file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
            file.seek(0)
            if not is_utf16:
                yield from enumerate(file, 1)
                return
        with path.open(encoding="utf-16", errors="replace", newline="\n") as text:
            yield from ((number, line.encode()) for number, line in enumerate(text, 1))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({reason_of(error)}): see whether it is whole and yours") from error


def _csv_rows(path: Path, settings: PrepareSettings) -> Iterator[_Numbered]:
    columns: list[str] = []
    for line, data in (records := _CsvRecords(_lines(path))):
        try:
            text, note = decode_text(data)
            values = _csv_values(text, records.delimiter)
        except (UserError, csv.Error) as error:
            yield _Numbered(line, None, (), f"cannot be read ({error})")
            continue
        if not columns:
            columns = [value.strip() for value in values]
            check_columns(path, columns, settings)
            records.columns = len(columns)
        elif len(values) != len(columns):
            yield _Numbered(line, None, (), f"found {len(values)} values, expected {len(columns)}, one of each column")
        else:
            row = dict(zip(columns, values, strict=True))
            yield _Numbered(line, row, (note,) if note else (), "")
    if not columns:
        raise UserError(f"{path}: found an empty table, expected a line of columns such as file,caption")


def _csv_values(text: str, delimiter: str) -> list[str]:
    """Of one row.

    Raises:
      csv.Error: it is none, or not one.
    """
    if text.count('"') % 2:
        raise csv.Error("a quote is not closed")
    # What is longer than this reads is no caption.
    rows = list(csv.reader([text.replace("\0", "")], delimiter=delimiter, strict=True))
    if len(rows) != 1:
        raise csv.Error(f"found {len(rows)} rows in one")
    return rows[0]


class _CsvRecords:
    """Rows of a csv and the lines they begin at.

    A quoted value may go over several lines. A quote that nobody closes ends with its line, and so does one whose end
    makes no row of the columns there are: it would be the beginning of another one.

    Args:
      lines: of the file, numbered.
    """

    def __init__(self, lines: Iterator[tuple[int, bytes]]) -> None:
        self._lines = lines
        self._waiting: deque[tuple[int, bytes]] = deque()
        # How many there are, once it is known.
        self.columns = 0
        self.delimiter = ","

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        while (first := self._next()) is not None:
            line, data = first
            if not data.strip():
                continue
            if not self.columns:
                self.delimiter = _delimiter(data)
            yield line, self._gathered(data) if data.count(b'"') % 2 else data

    def _next(self) -> tuple[int, bytes] | None:
        return self._waiting.popleft() if self._waiting else next(self._lines, None)

    def _gathered(self, data: bytes) -> bytes:
        """A line, and those that belong to it."""
        gathered, taken = data, list[tuple[int, bytes]]()
        while gathered.count(b'"') % 2 and len(taken) < _MOST_LINES_OF_A_ROW and (more := self._next()) is not None:
            taken.append(more)
            gathered += more[1]
        if not taken or self._is_row(gathered):
            return gathered
        self._waiting.extendleft(reversed(taken))
        return data

    def _is_row(self, data: bytes) -> bool:
        try:
            found = len(_csv_values(decode_text(data)[0], self.delimiter))
        except (UserError, csv.Error):
            return False
        return found == self.columns or not self.columns


def _delimiter(columns: bytes) -> str:
    """What spreadsheets write between values: a comma, or in some countries and formats a semicolon or a tab."""
    return next((mark for mark in (",", "\t", ";") if mark.encode() in columns), ",")


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
                _check_known(path, list(row), settings)
        except (UserError, ValueError, RecursionError) as error:
            yield _Numbered(line, None, (), f"cannot be read ({error})")
            continue
        if not checked:
            _check_known(path, list(row), settings)
            checked = True
        yield _Numbered(line, row, (note,) if note else (), "")
