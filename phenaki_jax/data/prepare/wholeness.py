"""Whether a finished dataset still is what was written, as far as names and sizes of its files tell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from phenaki_jax.data.prepare.metadata import PreparedDataset, read_json, shard_name
from phenaki_jax.errors import UserError

# What TFDS writes, and reads a dataset by.
_INFO_FILE, _FEATURES_FILE = "dataset_info.json", "features.json"


def check_whole(folder: Path) -> None:
    """Refuses a dataset of which a file is absent, cut off or no JSON; what is in its records is not read.

    Raises:
      UserError: says what is damaged, and how to make it again.
    """
    info, _ = (read_json(folder / name) for name in (_INFO_FILE, _FEATURES_FILE))
    name = PreparedDataset.read(folder).name
    try:
        wanted = {split["name"]: (len(split["shardLengths"]), int(split["numBytes"])) for split in _splits(info)}
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(folder, f"{_INFO_FILE} without the files of its splits, expected them") from error
    for split, (count, size) in wanted.items():
        files = [folder / shard_name(name, split, index, count) for index in range(count)]
        if absent := [file for file in files if not file.is_file()]:
            raise _damaged(folder, f"{count - len(absent)} of {count} {split} files, expected also {absent[0].name}")
        if (found := sum(file.stat().st_size for file in files)) != size:
            raise _damaged(folder, f"{split} files of {found} bytes together, expected {size}")


def _splits(info: dict[str, Any]) -> list[dict[str, Any]]:
    splits: list[dict[str, Any]] = info["splits"]
    if not splits:
        raise ValueError("no split")
    return splits


def _damaged(folder: Path, found: str) -> UserError:
    return UserError(
        f"{folder} is damaged: found {found}: delete that folder, and phenaki prepare makes the dataset again"
    )
