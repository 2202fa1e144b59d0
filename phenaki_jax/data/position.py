"""Positions of feeds on disk: where their iterators are, and the settings that this holds for."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from phenaki_jax.data.tensorflow_stack import tf
from phenaki_jax.errors import UserError

_SETTINGS_FILE = "feed.json"


def save_position(
    folder: str | os.PathLike[str], iterators: Sequence[tf.data.Iterator], settings: Mapping[str, Any]
) -> None:
    """Writes where iterators are into this process's subfolder, which appears complete or not at all.

    Args:
      folder: of one position of all processes.
      iterators: of `tf.data` datasets.
      settings: what `restore_position` compares with, and whatever else it is to give back, as JSON. With several
        iterators, `feeds` holds the settings of each.
    """
    place = _folder_of_process(folder)
    unfinished = place.with_name(f"{place.name}.incomplete")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        _checkpoint(iterators).write(str(unfinished / "iterator"))
        (unfinished / _SETTINGS_FILE).write_text(json.dumps(settings, indent=2))
        shutil.rmtree(place, ignore_errors=True)
        unfinished.rename(place)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
        with contextlib.suppress(OSError):  # the folder of this step stays where it holds a position
            place.parent.rmdir()


def restore_position(
    folder: str | os.PathLike[str], iterators: Sequence[tf.data.Iterator], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Moves iterators to where `save_position` found theirs; returns the settings saved with that.

    Raises:
      UserError: there is no such position, or one of these settings was another, or the number of processes.
    """
    place = _folder_of_process(folder)
    if not (place / _SETTINGS_FILE).exists():
        found = sorted(path.name for path in Path(folder).glob("process_*"))
        if not found:
            raise UserError(
                f"found no data position in {folder}, expected that of the checkpoint of this step: restore it, or "
                "move that checkpoint away to go on from the one before"
            )
        raise UserError(
            f"found {', '.join(found)} in {folder}, expected {place.name}: "
            "a feed resumes in as many processes as before"
        )
    saved = json.loads((place / _SETTINGS_FILE).read_text())
    feeds, expected = (len(each.get("feeds", [each])) for each in (saved, settings))
    if feeds != expected:
        raise UserError(
            f"found a position in {place} of {feeds} mixture(s) in turn, not {expected}: "
            "resume with the settings it was saved with"
        )
    before, wanted = _flat(saved), _flat(settings)
    if differing := [name for name in wanted if before.get(name) != wanted[name]]:
        differences = ", ".join(f"{name}={before.get(name)!r}, not {wanted[name]!r}" for name in differing)
        raise UserError(f"found a position in {place} with {differences}: resume with the settings it was saved with")
    _checkpoint(iterators).read(str(place / "iterator")).assert_consumed()
    return saved


def _folder_of_process(folder: str | os.PathLike[str]) -> Path:
    return Path(folder) / f"process_{jax.process_index()}_of_{jax.process_count()}"


def _checkpoint(iterators: Sequence[tf.data.Iterator]) -> tf.train.Checkpoint:
    first, *others = iterators
    return tf.train.Checkpoint(
        iterator=first, **{f"iterator_{index}": iterator for index, iterator in enumerate(others, start=1)}
    )


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of each feed by names such as "feeds[1].batch_size", beside those of all."""
    feeds = enumerate(settings.get("feeds", ()))
    return {
        **{name: value for name, value in settings.items() if name != "feeds"},
        **{f"feeds[{index}].{name}": value for index, feed in feeds for name, value in feed.items()},
    }
