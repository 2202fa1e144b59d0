"""Tables of files and captions: what each row says of a file."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

from phenaki_jax.data.prepare.captions import clean_captions
from phenaki_jax.data.prepare.metadata import SPLITS
from phenaki_jax.data.prepare.settings import PrepareSettings
from phenaki_jax.data.prepare.sources import Found, Place, Problem, Source, check_suffix
from phenaki_jax.data.prepare.tables import CAPTION_COLUMNS, FILE_COLUMNS, Row, quoted, rows_of
from phenaki_jax.errors import UserError, kind_of, reason_of


def read_manifest(path: Path, settings: PrepareSettings, prefix: str = "", within: str = "") -> Found:
    """The sources of a table, whose files stand relative to it.

    Args:
      path: a .csv or .tsv with a line of columns, or a .jsonl with an object in each line.
      settings: how captions are cleaned, and which columns are ignored.
      prefix: of the keys.
      within: the folder of the table in the one that is prepared, empty or with a slash at its end.

    Raises:
      UserError: see `tables.rows_of`.
    """
    called = f"{prefix.removesuffix(f'{path.name}/')}{within}{path.name}"
    for line, row, notes, problem in rows_of(path, settings):
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


def _source(folder: Path, row: Row, notes: tuple[str, ...], settings: PrepareSettings) -> Source:
    """Of a row, its key as the row names it."""
    named = _file_name(row)
    file = folder / named
    check_suffix(named)
    _check_file(file, named)
    start, end = _seconds(row, "start", 0.0), _seconds(row, "end", -1.0)
    if 0 <= end <= start:
        raise UserError(f"found start {start:g} and end {end:g}, expected the end after the start")
    captions, lost = clean_captions(_captions(row), settings.caption_length)
    return Source(named, Place.whole(file), start, end, tuple(captions), (*notes, *lost), _split(row))


def _file_name(row: Row) -> str:
    named = {name: row[name] for name in FILE_COLUMNS if row.get(name) not in (None, "")}
    if not named:
        raise UserError(f"found nothing in {', '.join(FILE_COLUMNS)}, expected the name of a file in one of them")
    if len(named) > 1:
        raise UserError(f"found {len(named)} files ({', '.join(map(quoted, named.values()))}), expected one in a row")
    [(column, name)] = named.items()
    if not isinstance(name, str):
        raise UserError(f"found {kind_of(name)} ({quoted(name)}) as {column}, expected the name of a file, in quotes")
    return name


def _check_file(file: Path, named: str) -> None:
    reason = ""
    try:
        if file.is_file():
            return
    except (OSError, ValueError) as error:
        # Of a name that no file can have.
        reason = f" ({reason_of(error)})"
    raise UserError(f"found no file {quoted(named)}{reason}, expected it beside the table or at its full path")


def _seconds(row: Row, name: str, absent: float) -> float:
    value = row.get(name)
    if value is None or value == "":
        return absent
    try:
        seconds = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise UserError(f"found {name} {quoted(value)}, expected seconds")
    return seconds


def _split(row: Row) -> str:
    value = row.get("split")
    if value is None or value == "":
        return ""
    if value not in SPLITS:
        raise UserError(f"found split {quoted(value)}, expected {' or '.join(SPLITS)}, or nothing")
    return str(value)


def _captions(row: Row) -> list[str]:
    texts: list[str] = []
    for name in CAPTION_COLUMNS:
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
