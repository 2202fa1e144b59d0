"""What is said of a prepared dataset beside its files: `prepare.json` and `statistics.json`."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phenaki_jax.errors import UserError, reason_of

SETTINGS_FILE = "prepare.json"
STATISTICS_FILE = "statistics.json"
SPLITS = ("train", "test")
# What the splits of images are called: they are read beside the others, and have one frame.
IMAGES = "_images"


@dataclasses.dataclass(frozen=True)
class PreparedDataset:
    """A dataset of phenaki prepare.

    Attributes:
      folder: of its files.
      name: of it.
      size: side of its frames in pixels.
      frames: of a clip.
      examples: of each split; a split that is not there has none.
    """

    folder: Path
    name: str
    size: int
    frames: int
    examples: Mapping[str, int]

    @classmethod
    def read(cls, folder: Path) -> PreparedDataset:
        """What a folder says that it holds.

        Raises:
          UserError: it is damaged.
        """
        settings, statistics = _read(folder / SETTINGS_FILE), _read(folder / STATISTICS_FILE)
        try:
            examples = {name: split["examples"] for name, split in statistics["splits"].items()}
            return cls(folder, settings["name"], settings["size"], settings["frames"], examples)
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{folder}: found metadata without {error}: prepare the dataset again") from error

    def shards(self, split: str) -> list[Path]:
        """The files of a split, in order."""
        return sorted(self.folder.glob(f"{self.name}-{split}.tfrecord-*-of-*"))


def prepared_datasets(data_dir: str | os.PathLike[str]) -> dict[str, Path]:
    """The folders of the prepared datasets in a folder of TFDS datasets, by name, each of the newest version."""
    found: dict[str, Path] = {}
    for file in sorted(Path(data_dir).glob(f"*/*.*.*/{SETTINGS_FILE}"), key=_version):
        if not file.parent.name.startswith("incomplete."):
            found[file.parent.parent.name] = file.parent
    return found


def read_statistics(folder: Path) -> dict[str, Any]:
    """The statistics of a dataset.

    Raises:
      UserError: they are not there, or damaged.
    """
    return _read(folder / STATISTICS_FILE)


def _version(file: Path) -> tuple[str, list[int]]:
    version = file.parent.name
    return file.parent.parent.name, [int(part) for part in version.split(".") if part.isdigit()]


def _read(file: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise UserError(
            f"{file} cannot be read ({reason_of(error)}), expected what phenaki prepare wrote: delete {file.parent} "
            "and prepare the dataset again"
        ) from error
    return found
