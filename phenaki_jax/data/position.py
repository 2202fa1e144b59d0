"""Positions of feeds on disk: where the iterators of each share are, and the settings that this holds for."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from phenaki_jax.data.tensorflow_stack import seqio, tf
from phenaki_jax.errors import UserError

_SETTINGS_FILE = "feed.json"
# Of datasets, which older positions do not tell.
_VERSIONS = "data"
_SHARE = re.compile(r"share_\d+_of_(\d+)")


class Order(NamedTuple):
    """In which order examples come.

    Attributes:
      shares: parts that they are read in, each in an order of its own; every process reads as many of them.
      begun: step at which it began: 0, but in a run that goes on in more processes than its shares were made for.
    """

    shares: int
    begun: int = 0


def saved_order(folder: str | os.PathLike[str]) -> Order | None:
    """That of the position in a folder; None without one."""
    for place in sorted(Path(folder).glob("share_*")):
        if found := _SHARE.fullmatch(place.name):
            begun = 0
            # What is wrong with it is told where it is restored.
            with contextlib.suppress(OSError, ValueError):
                begun = json.loads((place / _SETTINGS_FILE).read_text()).get("begun", 0)
            return Order(int(found[1]), begun)
    return None


def save_position(
    folder: str | os.PathLike[str],
    share: seqio.ShardInfo,
    iterators: Sequence[tf.data.Iterator],
    settings: Mapping[str, Any],
) -> None:
    """Writes where the iterators of a share are into its subfolder, which appears complete or not at all.

    Args:
      folder: of one position of all shares.
      share: which of how many.
      iterators: of `tf.data` datasets.
      settings: what `restore_position` compares with, and whatever else it is to give back, as JSON. With several
        iterators, `feeds` holds the settings of each.
    """
    place = _folder_of(folder, share)
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
    folder: str | os.PathLike[str],
    share: seqio.ShardInfo,
    iterators: Sequence[tf.data.Iterator],
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """Moves iterators to where `save_position` found theirs; returns the settings saved with that.

    Raises:
      UserError: there is no such position, or one of these settings was another, or the number of shares.
    """
    place = _folder_of(folder, share)
    if not (place / _SETTINGS_FILE).exists():
        found = sorted(path.name for path in Path(folder).glob("share_*"))
        if not found:
            raise UserError(
                f"found no data position in {folder}, expected that of the checkpoint of this step: restore it, or "
                "move that checkpoint away to go on from the one before"
            )
        raise UserError(
            f"found {', '.join(found)} in {folder}, expected {place.name} among them: restore it, or resume with as "
            "many shares as before"
        )
    saved = json.loads((place / _SETTINGS_FILE).read_text())
    feeds, expected = (len(each.get("feeds", [each])) for each in (saved, settings))
    if feeds != expected:
        raise UserError(
            f"found a position in {place} of {feeds} mixture(s) in turn, not {expected}: "
            "resume with the settings it was saved with"
        )
    before, wanted = _flat(saved), _flat(settings)
    told = [name for name in wanted if name in before or not _is_of_versions(name)]
    if differing := [name for name in told if before.get(name) != wanted[name]]:
        differences = ", ".join(f"{name}={before.get(name)!r}, not {wanted[name]!r}" for name in differing)
        newer = "; of a dataset the newest version is read: move it away until this training is done"
        raise UserError(
            f"found a position in {place} with {differences}: resume with the settings it was saved with"
            f"{newer if _is_of_versions(differing[0]) else ''}"
        )
    _checkpoint(iterators).read(str(place / "iterator")).assert_consumed()
    return saved


def _folder_of(folder: str | os.PathLike[str], share: seqio.ShardInfo) -> Path:
    return Path(folder) / f"share_{share.index}_of_{share.num_shards}"


def _checkpoint(iterators: Sequence[tf.data.Iterator]) -> tf.train.Checkpoint:
    first, *others = iterators
    return tf.train.Checkpoint(
        iterator=first, **{f"iterator_{index}": iterator for index, iterator in enumerate(others, start=1)}
    )


def _is_of_versions(name: str) -> bool:
    """Of one feed, or of one of several."""
    return name.rpartition(".")[2] == _VERSIONS


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of each feed by names such as "feeds[1].batch_size", beside those of all."""
    feeds = enumerate(settings.get("feeds", ()))
    return {
        **{name: value for name, value in settings.items() if name != "feeds"},
        **{f"feeds[{index}].{name}": value for index, feed in feeds for name, value in feed.items()},
    }
