"""The clips of a task as they are, in an order that never changes: for evaluation, which makes no batches of them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from phenaki_jax.data.feed import FeedSettings, told_damage
from phenaki_jax.data.records import EncodedRecords
from phenaki_jax.data.sources import data_dir_of_seqio, provider_of
from phenaki_jax.data.splits import check_split
from phenaki_jax.data.tensorflow_stack import seqio, tf
from phenaki_jax.errors import UserError, reason_of


class Clip(NamedTuple):
    """A window of a clip.

    Attributes:
      video: its frames.
      text: its caption, or the name of its class.
    """

    video: UInt8[np.ndarray, "frames height width 3"]
    text: str


def read_clips(task: str, split: str, frames: int, seed: int, data_dir: str | os.PathLike[str]) -> Iterator[Clip]:
    """One window of each clip of a split, in the order in which they are stored.

    Args:
      task: its name.
      split: "train" or "test".
      frames: of a window.
      seed: of the windows and wordings.
      data_dir: the folder of datasets.

    Raises:
      UserError: the task, the split or its dataset is not there, it has other clips, or one cannot be read.
    """
    provider = _task(task, split, data_dir)
    lengths = {"video": frames, "text": 1, "prefix_frames": 1}
    with data_dir_of_seqio(data_dir):
        dataset = provider.get_dataset(
            sequence_length=lengths,
            split=split,
            shuffle=False,
            seed=seed % 2**31,
            num_epochs=1,
            try_in_mem_cache=False,
            trim_output_features=False,
        )
    settings = FeedSettings(task, split, 1, frames, 1, 1, "transformer", seed, shuffle=False, repeat=False)
    for example in told_damage(dataset.prefetch(8), settings):
        yield Clip(example["video"], bytes(example["text"]).decode("utf-8", "replace"))


def count_clips(task: str, split: str, data_dir: str | os.PathLike[str]) -> int:
    """How many clips `read_clips` gives.

    Raises:
      UserError: the task, the split or its dataset is not there, or cannot be read.
    """
    source = _task(task, split, data_dir).source
    with data_dir_of_seqio(data_dir):
        # For its refusal of files that are not all there.
        source.list_shards(split)
        try:
            if isinstance(source, EncodedRecords):
                return source.count(split)
            records = source.get_dataset(split=split, shuffle=False)
            return int(records.reduce(np.int64(0), lambda count, _: count + 1))
        except tf.errors.OpError as error:
            raise UserError(
                f"the {split} examples of {task} cannot be counted ({reason_of(error)}), expected whole files; copy or "
                "make the dataset again"
            ) from error


def fingerprint_of_split(task: str, split: str, data_dir: str | os.PathLike[str]) -> str:
    """16 hexadecimal digits that change where a split's files have other names or sizes; what is in them is not read.

    Raises:
      UserError: the task, the split or its dataset is not there.
    """
    provider = _task(task, split, data_dir)
    with data_dir_of_seqio(data_dir):
        files = sorted(provider.source.list_shards(split))
    told = [(Path(file).name, os.path.getsize(file) if os.path.exists(file) else 0) for file in files]
    return hashlib.sha256(repr((task, split, told)).encode()).hexdigest()[:16]


def _task(name: str, split: str, data_dir: str | os.PathLike[str]) -> seqio.Task:
    provider = provider_of(name, data_dir)
    if not isinstance(provider, seqio.Task):
        raise UserError(f"found the mixture {name}, expected a task, such as {name}_video_text: name one")
    check_split(provider, split)
    return provider
