"""What there is to do and what has been done, in a file that is right after any interruption."""

from __future__ import annotations

import collections
import contextlib
import hashlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from phenaki_jax.data.prepare.sources import Found, PassedOver, Place, Problem, Source, printable
from phenaki_jax.errors import UserError, reason_of

FORMAT_VERSION = 2
_FETCHED_AT_ONCE = 1000
_MAKE = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE problems (key TEXT, reason TEXT);
CREATE TABLE sources (
    number INTEGER PRIMARY KEY, hash BLOB, key TEXT, start REAL, end REAL, place TEXT, split TEXT, result TEXT,
    UNIQUE (key, start, end)
);
CREATE TABLE texts (
    position INTEGER PRIMARY KEY, number INTEGER, is_note INTEGER, text TEXT, UNIQUE (number, is_note, text)
);
CREATE TABLE digests (digest TEXT PRIMARY KEY, number INTEGER, split TEXT) WITHOUT ROWID;
"""
_ADD = "INSERT OR IGNORE INTO sources (hash, key, start, end, place, split) VALUES (?, ?, ?, ?, ?, ?)"


class Listed(NamedTuple):
    """A source in its place in the order of the dataset.

    Attributes:
      number: of it.
      share: from 0 to 1, its place among all: by hash, so the same whatever other sources there are.
      source: as it was found, the captions of all its mentions together.
      result: what became of it; None where nothing has yet.
    """

    number: int
    share: float
    source: Source
    result: dict[str, Any] | None


class First(NamedTuple):
    """The first source that had some bytes.

    Attributes:
      key: of it.
      split: that it went to.
      captions: of it.
    """

    key: str
    split: str
    captions: tuple[str, ...]


class Journal:
    """An SQLite file of the sources in the order of their hash, and of what became of each.

    Args:
      file: made where it is not there.

    Raises:
      UserError: it is damaged, or of another version.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        is_new = not file.exists()
        self._database = sqlite3.connect(file, isolation_level=None)
        with self._told():
            # Alone with the file, SQLite needs no memory that is shared, which network file systems do not have.
            self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = NORMAL")
            found = self._database.execute("PRAGMA user_version").fetchone()[0]
            if is_new or not found:
                with self.together():
                    for statement in filter(str.strip, _MAKE.split(";")):
                        self._database.execute(statement)
                    self._database.execute(f"PRAGMA user_version = {FORMAT_VERSION}")
            elif found != FORMAT_VERSION:
                raise UserError(
                    f"found {file} of version {found}, expected {FORMAT_VERSION}: delete {file.parent} to begin anew"
                )

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            raise UserError(
                f"{self._file} cannot be used ({reason_of(error)}): make room on its disk, or delete "
                f"{self._file.parent} to begin anew"
            ) from error

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """All that is written in here is there after an interruption, or nothing of it."""
        with self._told():
            self._database.execute("BEGIN")
            try:
                yield
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")

    def fact(self, name: str) -> Any:
        """What was written of this name; None where nothing was."""
        with self._told():
            found = self._database.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return json.loads(found[0]) if found else None

    def write_fact(self, name: str, value: Any) -> None:
        """Writes something that JSON can tell, over what was there."""
        self._database.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, json.dumps(value)))

    def add(self, found: Found) -> None:
        """Takes in all that was found; a source that is mentioned again adds its captions."""
        passed_over: collections.Counter[str] = collections.Counter()
        for each in found:
            if isinstance(each, PassedOver):
                passed_over[printable(each.ending)] += 1
            elif isinstance(each, Problem):
                self._add_problem(printable(each.key), printable(each.reason))
            else:
                self._add_source(each._replace(key=printable(each.key)))
        self.write_fact("passed_over", passed_over)
        self._database.execute("CREATE INDEX by_hash ON sources (hash, start, number)")

    def _add_problem(self, key: str, reason: str) -> None:
        self._database.execute("INSERT INTO problems VALUES (?, ?)", (key, reason))

    def _add_source(self, source: Source) -> None:
        row = (_hash(source.key), source.key, source.start, source.end, json.dumps(source.place), source.split)
        added = self._database.execute(_ADD, row)
        number = added.lastrowid if added.rowcount else self._mentioned_before(source)
        texts = [*((number, 0, text) for text in source.captions), *((number, 1, text) for text in source.notes)]
        self._database.executemany("INSERT OR IGNORE INTO texts (number, is_note, text) VALUES (?, ?, ?)", texts)

    def _mentioned_before(self, source: Source) -> int:
        number: int
        number, split = self._database.execute(
            "SELECT number, split FROM sources WHERE (key, start, end) = (?, ?, ?)",
            (source.key, source.start, source.end),
        ).fetchone()
        if source.split and not split:
            self._database.execute("UPDATE sources SET split = ? WHERE number = ?", (source.split, number))
        elif source.split not in ("", split):
            self._add_problem(source.key, f"is said to be of split {source.split} too: it goes to {split}")
        return number

    def count(self, *, done: bool = False) -> int:
        """How many sources there are, or were done."""
        condition = " WHERE result IS NOT NULL" if done else ""
        with self._told():
            found: int = self._database.execute(f"SELECT count(*) FROM sources{condition}").fetchone()[0]
        return found

    def sources(self, *, todo: bool = False) -> Iterator[Listed]:
        """All sources in order, or those of which there is no result yet."""
        last: tuple[bytes, float, int] = (b"", -1.0, -1)
        condition = " AND result IS NULL" if todo else ""
        while True:
            with self._told():
                rows = self._database.execute(
                    "SELECT hash, start, number, key, end, place, split, result FROM sources "
                    f"WHERE (hash, start, number) > (?, ?, ?){condition} ORDER BY hash, start, number LIMIT ?",
                    (*last, _FETCHED_AT_ONCE),
                ).fetchall()
            if not rows:
                return
            for digest, start, number, key, end, place, split, result in rows:
                each = Source(key, Place(*json.loads(place)), start, end, *self._texts(number), split)
                yield Listed(number, _share(digest), each, json.loads(result) if result else None)
            last = rows[-1][:3]

    def keys(self) -> Iterator[str]:
        """What the sources are called, each once."""
        with self._told():
            for (key,) in self._database.execute("SELECT DISTINCT key FROM sources ORDER BY key"):
                yield key

    def problems(self) -> Iterator[Problem]:
        """What was found and is no source, in the order of finding."""
        with self._told():
            for row in self._database.execute("SELECT key, reason FROM problems ORDER BY rowid"):
                yield Problem(*row)

    def has_told_split(self) -> bool:
        """Whether it was said of any source which split it is for."""
        with self._told():
            return self._database.execute("SELECT 1 FROM sources WHERE split != '' LIMIT 1").fetchone() is not None

    def _texts(self, number: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The captions and the notes of a source, in the order of finding."""
        with self._told():
            rows = self._database.execute(
                "SELECT is_note, text FROM texts WHERE number = ? ORDER BY position", (number,)
            ).fetchall()
        captions, notes = (tuple(text for is_note, text in rows if is_note == kind) for kind in (0, 1))
        return captions, notes

    def write_result(self, number: int, result: dict[str, Any]) -> None:
        """Writes what became of a source."""
        self._database.execute("UPDATE sources SET result = ? WHERE number = ?", (json.dumps(result), number))

    def first_of(self, digest: str) -> First | None:
        """The first source with these bytes; None where there was none."""
        with self._told():
            found = self._database.execute(
                "SELECT key, digests.split, number FROM digests JOIN sources USING (number) WHERE digest = ?", (digest,)
            ).fetchone()
        if not found:
            return None
        key, split, number = found
        return First(key, split, self._texts(number)[0])

    def write_first(self, digest: str, number: int, split: str) -> None:
        """Says which source had these bytes first, unless that is known."""
        self._database.execute("INSERT OR IGNORE INTO digests VALUES (?, ?, ?)", (digest, number, split))

    def close(self) -> None:
        """Lets go of the file."""
        self._database.close()


def _hash(key: str) -> bytes:
    return hashlib.blake2b(key.encode(), digest_size=16).digest()


def _share(digest: bytes) -> float:
    return int.from_bytes(digest[:8], "big") / 2**64
