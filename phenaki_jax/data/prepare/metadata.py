"""What is said of a prepared dataset beside its files: `prepare.json` and `statistics.json`."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phenaki_jax.errors import UserError, kind_of, reason_of
from phenaki_jax.files import write_text

SETTINGS_FILE = "prepare.json"
STATISTICS_FILE = "statistics.json"
# What the name of a dataset's folder begins with until it is whole, as TFDS has it.
UNFINISHED = "incomplete."
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
      fps: frames per second of a clip; 0 where it is not told.
    """

    folder: Path
    name: str
    size: int
    frames: int
    examples: Mapping[str, int]
    fps: float = 0.0

    @classmethod
    def read(cls, folder: Path) -> PreparedDataset:
        """What a folder says that it holds.

        Raises:
          UserError: it is damaged.
        """
        settings, statistics = read_json(folder / SETTINGS_FILE), read_json(folder / STATISTICS_FILE)
        try:
            examples = {name: split["examples"] for name, split in statistics["splits"].items()}
            fps = float(settings.get("fps", 0.0))
            return cls(folder, settings["name"], settings["size"], settings["frames"], examples, fps)
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{folder}: found metadata without {error}, expected it: delete {folder} and prepare the dataset again"
            ) from error

    def shards(self, split: str) -> list[Path]:
        """The files of a split, in order."""
        return sorted(self.folder.glob(f"{self.name}-{split}.tfrecord-*-of-*"))


def prepared_datasets(data_dir: str | os.PathLike[str]) -> dict[str, Path]:
    """The folders of the prepared datasets in a folder of TFDS datasets, by name, each of the newest version."""
    found: dict[str, Path] = {}
    for file in sorted(Path(data_dir).glob(f"*/*.*.*/{SETTINGS_FILE}"), key=_version):
        if not file.parent.name.startswith(UNFINISHED):
            found[file.parent.parent.name] = file.parent
    return found


def told_of_one_dataset(data_dir: str | os.PathLike[str], config: str = "") -> str:
    """What to say of a folder that was named for that of datasets and is of one; empty where it is of none.

    Args:
      data_dir: the folder.
      config: of a dataset of TFDS that may be meant, whose versions are in a folder of this name.
    """
    places = {f"*.*.*/{SETTINGS_FILE}": "..", SETTINGS_FILE: "../.."}
    if config:
        places[f"{config}/*.*.*/dataset_info.json"] = ".."
    for pattern, above in places.items():
        if any(Path(data_dir).glob(pattern)):
            wanted = os.path.normpath(os.path.join(data_dir, above))
            return f"; {data_dir} is the folder of one dataset: set DATA_DIR to {wanted}"
    return ""


def read_json(file: Path) -> dict[str, Any]:
    """What a file of a dataset holds.

    Raises:
      UserError: it is not there, or no object in JSON.
    """
    try:
        found: dict[str, Any] = json.loads(file.read_text())
        if not isinstance(found, dict):
            raise ValueError(f"found {kind_of(found)} in it")
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{file} cannot be read ({reason_of(error)}), expected what phenaki prepare wrote: delete {file.parent} "
            "and prepare the dataset again"
        ) from error
    return found


def read_statistics(folder: Path) -> dict[str, Any]:
    """The statistics of a dataset.

    Raises:
      UserError: they are not there, or damaged.
    """
    return read_json(folder / STATISTICS_FILE)


def shard_name(name: str, split: str, index: int, count: int) -> str:
    """A file of a dataset, as TFDS names it."""
    return f"{name}-{split}.tfrecord-{index:05}-of-{count:05}"


def read_settings(folder: Path) -> dict[str, Any]:
    """The settings that a dataset was made with.

    Raises:
      UserError: they are not there, or damaged.
    """
    return read_json(folder / SETTINGS_FILE)


def read_inputs(folder: Path) -> list[str] | None:
    """What a dataset was made of; None where it is not told, as of one that was copied without what is beside it."""
    try:
        found = json.loads(_inputs_file(folder).read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, list) and all(isinstance(each, str) for each in found) else None


def write_inputs(folder: Path, inputs: list[str]) -> None:
    """Says beside a dataset what it is made of, so that it is the same wherever that lies."""
    write_text(_inputs_file(folder), json.dumps(inputs, indent=2) + "\n")


def _inputs_file(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.inputs.json")


def _version(file: Path) -> tuple[str, list[int]]:
    version = file.parent.name
    return file.parent.parent.name, [int(part) for part in version.split(".") if part.isdigit()]
