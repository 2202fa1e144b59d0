"""What videos have by the networks of a protocol, kept in a folder batch by batch, so that no work is done twice."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from phenaki_jax.errors import UserError
from phenaki_jax.files import locked, make_folder, remove_leftovers, whole_file, write_text

# Of a model's videos, in the folder of an evaluation.
FOLDER = "rows"
STORED = "stored"
"""The name of the row that says which stored clip a video is of, or was made of."""

_SETTINGS = "settings.json"


class Rows:
    """Batches of rows in files of one folder, each of which appears complete or not at all.

    Args:
      folder: where to; made where it is not there.
      settings: what the rows are of, as JSON knows it; a folder belongs to one choice of them.
      rows: how many there are in all.
      batch_size: of which so many are in a file.

    Raises:
      UserError: the folder holds rows of something else, or cannot be made.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], rows: int, batch_size: int) -> None:
        self._folder, self._rows, self.batch_size = make_folder(folder), rows, batch_size
        self.batches = -(-rows // batch_size)
        with locked(folder):
            _claim(folder, json.loads(json.dumps({**settings, "rows": rows, "batch_size": batch_size})))

    def missing(self, process: int = 0, processes: int = 1) -> list[int]:
        """The batches that are this process's to make and are not there."""
        return [index for index in range(process, self.batches, processes) if not self._file(index).exists()]

    def count(self, index: int) -> int:
        """How many rows a batch has; the last may have fewer."""
        return min(self.batch_size, self._rows - index * self.batch_size)

    def write(self, index: int, rows: Mapping[str, np.ndarray]) -> None:
        """Keeps a batch.

        Raises:
          UserError: it cannot be written.
        """
        file = self._file(index)
        remove_leftovers(file)
        with whole_file(file) as unfinished:
            np.savez(unfinished, allow_pickle=False, **rows)

    def read(self, name: str, start: int, stop: int) -> Iterator[np.ndarray]:
        """The rows of this name from one to another, in order, in parts that are at most a batch.

        Raises:
          UserError: a file is damaged.
        """
        for index in range(start // self.batch_size, -(-stop // self.batch_size)):
            first = index * self.batch_size
            yield self._read(index, name)[max(start - first, 0) : stop - first]

    def _read(self, index: int, name: str) -> np.ndarray:
        file = self._file(index)
        try:
            with np.load(file) as held:
                return held[name]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(f"{file} is damaged, expected rows as they were written: delete it and go on") from error

    def _file(self, index: int) -> Path:
        return self._folder / f"{index:06d}.npz"


def _claim(folder: Path, settings: Any) -> None:
    """Says what a folder will hold, or refuses one that holds something else."""
    file = folder / _SETTINGS
    if not file.exists():
        write_text(file, json.dumps(settings, indent=2) + "\n")
        return
    try:
        found = json.loads(file.read_text())
    except ValueError as error:
        raise UserError(f"{file} is damaged, expected JSON: delete {folder}, and it is made again") from error
    if differing := _difference(found, settings):
        name, before, now = differing
        raise UserError(
            f"{folder} holds an evaluation with {name} {before}, expected {now}: go on with the settings that it was "
            "begun with, or name another --out"
        )


def _difference(found: Any, expected: Any, name: str = "") -> tuple[str, Any, Any] | None:
    """The first that differs, by its name as in "protocol.examples", and what it was and is; None where none does."""
    if not (isinstance(found, dict) and isinstance(expected, dict)):
        return None if found == expected else (name or "settings", found, expected)
    for key in {**found, **expected}:
        part = f"{name}.{key}" if name else key
        if differing := _difference(found.get(key), expected.get(key), part):
            return differing
    return None
