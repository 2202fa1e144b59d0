"""Tasks and mixtures of published datasets by name, from what of them is in a folder.

    NAME_video_text, NAME_image_text    of a dataset of `catalog`; of one of TFDS also NAME_video_text_64 and so on
    video_image_80_20, ...              the mixtures of `catalog`

Their output features are those of `data.tasks`. A dataset that was prepared under such a name is read before that of
TFDS. They are made when they are asked for, and are no part of seqio's registry.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from phenaki_jax.data.prepare.metadata import PreparedDataset, prepared_datasets, told_of_one_dataset
from phenaki_jax.data.prepared import prepared_provider
from phenaki_jax.data.published.catalog import CATALOG, IMAGE_TEXT, MIXTURES, VIDEO_TEXT, PublishedDataset, published
from phenaki_jax.data.published.tasks import prefix_of, tfds_task
from phenaki_jax.data.tensorflow_stack import seqio
from phenaki_jax.errors import UserError

_TASK = re.compile(rf"(\w+?)({VIDEO_TEXT}|{IMAGE_TEXT})?(?:_(\d+))?")


class NotPreparedError(UserError):
    """A published dataset is not there; the message ends with the command that makes it."""


def published_names() -> list[str]:
    """What `published_provider` knows, but for sizes."""
    return [*(dataset.task for dataset in CATALOG.values()), *MIXTURES]


def published_provider(name: str, data_dir: str | os.PathLike[str] | None = None) -> seqio.Mixture | seqio.Task | None:
    """The task or mixture of a name; None where it is of nothing that is published.

    Args:
      name: see this module.
      data_dir: the folder of datasets; where None, only those of TFDS are known, which seqio looks for later.

    Raises:
      UserError: the dataset is not there, or was prepared otherwise than the name says.
    """
    if name in MIXTURES:
        return mixture_of(name, {CATALOG[part].task: rate for part, rate in MIXTURES[name].items()}, data_dir)
    return _task(name, data_dir)


def mixture_of(name: str, rates: Mapping[str, float], data_dir: str | os.PathLike[str] | None = None) -> seqio.Mixture:
    """A mixture of published tasks, all of the frame size of those that are prepared.

    Args:
      name: of the mixture.
      rates: of the examples, by the names of the tasks.
      data_dir: the folder of datasets.

    Raises:
      UserError: a task is not known, its dataset is not there, or two were prepared at different sizes.
    """
    there = _prepared(data_dir)
    sizes = {task: there[_split(task)[0]].size for task in rates if _split(task)[0] in there}
    first, size = next(iter(sizes.items()), ("", None))
    for task, found in sizes.items():
        if found != size:
            raise UserError(
                f"found {task} of {found} px and {first} of {size} px in {name}, expected one size: prepare one again "
                f"with --size {size}"
            )
    parts = []
    for task, rate in rates.items():
        provider = _task(task, data_dir, size)
        if not isinstance(provider, seqio.Task):
            raise UserError(f"found {task!r} in {name}, expected one of {', '.join(map(str, published_names()))}")
        parts.append((provider, rate))
    return seqio.Mixture(name, parts)


def _task(
    name: str, data_dir: str | os.PathLike[str] | None, size: int | None = None
) -> seqio.Mixture | seqio.Task | None:
    own, kind, ending = _split(name)
    dataset = published(own)
    if dataset is None:
        return None
    there = _prepared(data_dir)
    if own in there and not ending:
        return _prepared_task(name, dataset, there[own])
    if kind not in ("", dataset.kind):
        return None
    if dataset.tfds is not None:
        return tfds_task(dataset, name, int(ending or size or dataset.size)) if kind and own == dataset.name else None
    if data_dir is None or ending:
        return None
    raise NotPreparedError(
        f"found no dataset {own} in {data_dir}, expected it for {name}{told_of_one_dataset(data_dir)}: set data_dir to "
        "where it is, or make it of the files, their captions and their splits with: "
        f"{dataset.command(str(data_dir), own)}"
    )


def _prepared_task(name: str, dataset: PublishedDataset, found: PreparedDataset) -> seqio.Mixture | seqio.Task | None:
    if dataset.fps and found.fps and found.fps != dataset.fps:
        raise UserError(
            f"found {found.name} of {found.fps:g} frames per second in {found.folder}, expected {dataset.fps:g}: "
            f"prepare it again with --fps {dataset.fps:g}, or under another --name"
        )
    return prepared_provider(name, found.folder.parents[1], prefix_of(dataset))


def _prepared(data_dir: str | os.PathLike[str] | None) -> dict[str, PreparedDataset]:
    folders = {} if data_dir is None else prepared_datasets(data_dir)
    return {name: PreparedDataset.read(folder) for name, folder in folders.items() if published(name)}


def _split(name: str) -> tuple[str, str, str]:
    """Of a task's name the dataset, "_video_text" or "_image_text", and the size behind it."""
    found = _TASK.fullmatch(name)
    return (found[1], found[2] or "", found[3] or "") if found and found[2] else (name, "", "")
