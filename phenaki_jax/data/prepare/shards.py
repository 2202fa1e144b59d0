"""The files of a split as they grow: several at a time, among which clips are dealt out, then shuffled each."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from phenaki_jax.data.prepare.metadata import shard_name
from phenaki_jax.data.prepare.records import framed, payload, read_framed
from phenaki_jax.errors import UserError
from phenaki_jax.files import whole_file

# Clips of one source go to as many files, which are read side by side.
_FILES_AT_ONCE = 16


class Shards:
    """Files of a split, in groups; a source's clips are dealt out among the files of one group.

    A group is closed at the end of a source, when its files have their size on average. The records of each are then
    put in an order of their own, by the hash of what they hold, so that the clips of one source are far apart.

    What has been written is as long as `state` says; what is longer, after an interruption, is cut off.

    Args:
      folder: of the files.
      name: of the dataset.
      split: of it.
      most_bytes: about the size of a file.
      state: as `state` was; None to begin.

    Raises:
      UserError: files are shorter than they were.
    """

    def __init__(self, folder: Path, name: str, split: str, most_bytes: int, state: dict[str, Any] | None) -> None:
        self._folder, self._name, self._split, self._most_bytes = folder, name, split, most_bytes
        state = state or {"closed": [], "bytes": 0, "sizes": [], "counts": []}
        # Records of each file of closed groups, and of the open group the bytes and the records of each file.
        self._closed: list[int] = state["closed"]
        self._bytes: int = state["bytes"]
        self._sizes: list[int] = state["sizes"]
        self._counts: list[int] = state["counts"]
        self._dealt = sum(self._counts)
        self._files = {index: self._reopened(index, size) for index, size in enumerate(self._sizes)}

    @property
    def state(self) -> dict[str, Any]:
        """All that is known, but for what the files hold."""
        return {"closed": self._closed, "bytes": self._bytes, "sizes": self._sizes, "counts": self._counts}

    @property
    def records(self) -> int:
        """How many there are."""
        return sum(self._closed) + sum(self._counts)

    def write(self, record: bytes) -> None:
        """Deals out a record."""
        index = self._dealt % _FILES_AT_ONCE
        if index not in self._files:
            self._files[index] = self._growing(index).open("wb")
            self._sizes.append(0)
            self._counts.append(0)
        frame = framed(record)
        self._files[index].write(frame)
        self._sizes[index] += len(frame)
        self._counts[index] += 1
        self._dealt += 1

    def flush(self) -> None:
        """Has all written, and a group closed that is large enough; after this, `state` can be kept."""
        for file in self._files.values():
            file.flush()
        if sum(self._sizes) >= self._most_bytes * _FILES_AT_ONCE:
            self.close_group()

    def close_group(self) -> None:
        """Shuffles the open files; what is done of it when this is interrupted is done again.

        The files that grew stay until the next group grows, or `finish`.
        """
        for index, file in self._files.items():
            file.close()
            growing = self._growing(index)
            with growing.open("rb") as records:
                shuffled = sorted(read_framed(records), key=_order)
            with whole_file(self._shuffled(len(self._closed) + index)) as unfinished:
                unfinished.write_bytes(b"".join(shuffled))
        self._closed += self._counts
        self._bytes += sum(self._sizes)
        self._files, self._sizes, self._counts, self._dealt = {}, [], [], 0

    def finish(self, split: str) -> None:
        """Gives the files their last names; again too, where it was interrupted.

        Args:
          split: what it is called in the end.

        Raises:
          UserError: a file is gone.
        """
        for index in range(_FILES_AT_ONCE):
            self._growing(index).unlink(missing_ok=True)
        for index in range(len(self._closed)):
            last = self._folder / shard_name(self._name, split, index, len(self._closed))
            if not last.exists():
                self._shuffled(index).rename(last)

    def describe(self) -> tuple[Sequence[int], int]:
        """Records of each file, and bytes of all."""
        return self._closed, self._bytes

    def _growing(self, index: int) -> Path:
        return self._folder / f"{self._split}-{index:02}.growing"

    def _shuffled(self, index: int) -> Path:
        return self._folder / f"{self._split}-{index:05}.shuffled"

    def _reopened(self, index: int, size: int) -> Any:
        path = self._growing(index)
        found = path.stat().st_size if path.is_file() else 0
        if found < size:
            raise UserError(
                f"{path}: found {found} bytes, expected at least {size}, as many as were written: delete "
                f"{self._folder.parent} and begin anew"
            )
        file = path.open("r+b")
        file.truncate(size)
        file.seek(size)
        return file


def _order(frame: bytes) -> bytes:
    return hashlib.blake2b(payload(frame), digest_size=16).digest()
