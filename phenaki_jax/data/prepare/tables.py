"""The rows of tables in csv, tsv or jsonl, so that one bad row is one bad row."""

from __future__ import annotations

import codecs
import csv
import json
import shlex
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from phenaki_jax.data.prepare.captions import decode_text
from phenaki_jax.data.prepare.settings import PrepareSettings
from phenaki_jax.errors import UserError, counted, kind_of, reason_of

_CSV_SUFFIXES = (".csv", ".tsv")
TABLE_SUFFIXES = (*_CSV_SUFFIXES, ".jsonl")
FILE_COLUMNS = ("file", "video", "image")
CAPTION_COLUMNS = ("caption", "captions")
COLUMNS = (*FILE_COLUMNS, *CAPTION_COLUMNS, "start", "end", "split")
# A quote that nobody closed would take all rows after it along.
_MOST_LINES_OF_A_ROW = 64
_MOST_NAMES, _LONGEST_NAME = 6, 40
# In which a file that is no text shows it.
_BEGINNING = 4096

Row = Mapping[str, Any]


class Numbered(NamedTuple):
    """A row and the line it begins at, counted from 1; or what is wrong with it."""

    line: int
    row: Row | None
    notes: tuple[str, ...]
    problem: str


def rows_of(path: Path, settings: PrepareSettings) -> Iterator[Numbered]:
    """The rows of a table, and what is wrong with those that are none.

    Raises:
      UserError: it is no table, or has a column, of a csv or of the first row, that is not known; a csv without one of
        files.
    """
    yield from (_csv_rows if path.suffix.lower() in _CSV_SUFFIXES else _jsonl_rows)(path, settings)


def _column(name: str, settings: PrepareSettings) -> str:
    """What a column is known by, of those to read and those to ignore, which may be written in capitals."""
    if name in settings.ignored_columns:
        return name
    alike = [each for each in (*COLUMNS, *settings.ignored_columns) if each.lower() == name.lower()]
    return alike[0] if alike else name


def _known_columns(path: Path, written: list[str], settings: PrepareSettings) -> list[str]:
    """What the columns of a table are known by.

    Raises:
      UserError: its first line is no names of columns, or there are unknown ones, none of files, or one twice.
    """
    found = [_column(name, settings) for name in written]
    if not set(found) & {*COLUMNS, *settings.ignored_columns}:
        raise UserError(
            f"{path}: found {_named(found)} in the first line, expected the names of columns, of {', '.join(COLUMNS)}: "
            "write a line such as file,caption above it, or rename those that are there"
        )
    _check_known(path, found, settings)
    if twice := [name for name in COLUMNS if found.count(name) > 1 and name not in settings.ignored_columns]:
        alike = [name for name in written if _column(name, settings) == twice[0]]
        raise UserError(
            f"{path}: found column {twice[0]!r} {len(alike)} times, expected it once ({_named(alike)}): rename one"
        )
    if not set(found) & set(FILE_COLUMNS):
        raise UserError(
            f"{path}: found {'column' if len(found) == 1 else 'columns'} {_named(found)}, expected one of "
            f"{', '.join(FILE_COLUMNS)}, which names the files"
        )
    return found


def _check_known(path: Path, found: list[str], settings: PrepareSettings) -> None:
    if unknown := [name for name in found if name not in (*COLUMNS, *settings.ignored_columns)]:
        raise UserError(
            f"{path}: found unknown {'column' if len(unknown) == 1 else 'columns'} {_named(unknown)}, expected of "
            f"{', '.join(COLUMNS)}: rename what is meant by one of these, and leave out the rest with --ignore_columns "
            f"{shlex.join(unknown) if len(unknown) <= _MOST_NAMES else 'and their names'}"
        )


def _named(names: list[str]) -> str:
    told = ", ".join(quoted(name, _LONGEST_NAME) for name in names[:_MOST_NAMES])
    return f"{told} and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else told


def quoted(value: object, most: int = 200) -> str:
    """A value as it is written, of a long one the beginning and the end."""
    text = repr(value)
    return text if len(text) <= most else f"{text[: most // 2]}...{text[-most // 2 :]}"


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Lines with their numbers from 1, of a table in UTF-16 too, which is then in UTF-8."""
    try:
        with path.open("rb") as file:
            beginning = file.read(_BEGINNING)
            file.seek(0)
            if not beginning.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                # In a row it costs that row alone.
                if (zero := beginning.partition(b"\n")[0].find(b"\0")) >= 0:
                    raise UserError(
                        f"{path}: found a file that is no text (byte {zero} is zero), expected a table in UTF-8: save "
                        "it as such, or name another"
                    )
                yield from enumerate(file, 1)
                return
        with path.open(encoding="utf-16", errors="replace", newline="\n") as text:
            yield from ((number, line.encode()) for number, line in enumerate(text, 1))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({reason_of(error)}): see whether it is whole and yours") from error


def _csv_rows(path: Path, settings: PrepareSettings) -> Iterator[Numbered]:
    columns: list[str] = []
    for line, data in (records := _CsvRecords(_lines(path), "\t,;" if path.suffix.lower() == ".tsv" else ",\t;")):
        try:
            text, note = decode_text(data)
            values = _values(text, records.delimiter, len(columns))
        except (UserError, csv.Error) as error:
            yield Numbered(line, None, (), f"cannot be read ({error})")
            continue
        if not columns:
            columns = _known_columns(path, [value.strip() for value in values], settings)
            records.columns = len(columns)
        elif len(values) != len(columns):
            yield Numbered(
                line, None, (), f"found {counted(len(values), 'value')}, expected {len(columns)}, one of each column"
            )
        else:
            row = dict(zip(columns, values, strict=True))
            yield Numbered(line, row, (note,) if note else (), "")
    if not columns:
        raise UserError(f"{path}: found an empty table, expected a line of columns such as file,caption")


def _values(text: str, delimiter: str, columns: int) -> list[str]:
    """Of one row; between tabs quotes may be quotes and nothing else, as files of tabs commonly have no others."""
    try:
        return _csv_values(text, delimiter)
    except csv.Error:
        plain = text.rstrip("\r\n").split(delimiter)
        if delimiter != "\t" or len(plain) != columns:
            raise
        return plain


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
      marks: that may stand between values, of which the first that the columns have does.
    """

    def __init__(self, lines: Iterator[tuple[int, bytes]], marks: str) -> None:
        self._lines, self._marks = lines, marks
        self._waiting: deque[tuple[int, bytes]] = deque()
        # How many there are, once it is known.
        self.columns = 0
        self.delimiter = marks[0]

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        while (first := self._next()) is not None:
            line, data = first
            if not data.strip():
                continue
            if not self.columns:
                self.delimiter = _delimiter(data, self._marks)
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


def _delimiter(columns: bytes, marks: str) -> str:
    """What spreadsheets write between values: a comma, or in some countries and formats a semicolon or a tab."""
    return next((mark for mark in marks if mark.encode() in columns), marks[0])


def _jsonl_rows(path: Path, settings: PrepareSettings) -> Iterator[Numbered]:
    checked = False
    for line, data in _lines(path):
        if not data.strip():
            continue
        try:
            text, note = decode_text(data)
            row = json.loads(text)
            if not isinstance(row, dict):
                raise UserError(f'found {kind_of(row)}, expected an object such as {{"file": ..., "caption": ...}}')
            row = _with_known_columns(row, settings)
            if checked:
                _check_known(path, list(row), settings)
        except (UserError, ValueError, RecursionError) as error:
            yield Numbered(line, None, (), f"cannot be read ({error})")
            continue
        if not checked:
            _check_known(path, list(row), settings)
            checked = True
        yield Numbered(line, row, (note,) if note else (), "")


def _with_known_columns(row: Row, settings: PrepareSettings) -> Row:
    known: dict[str, Any] = {}
    for name, value in row.items():
        column = _column(name, settings)
        if column in known:
            raise UserError(f"found column {column!r} 2 times, once as {quoted(name)}, expected it once")
        known[column] = value
    return known
