"""From a seqio mixture to batches on the devices of a mesh, with a position that can be saved and restored."""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding

from phenaki_jax.data.converters import TokenizerFeatureConverter, TransformerFeatureConverter, text_encoder
from phenaki_jax.data.packing import pack_images
from phenaki_jax.data.position import restore_position, save_position
from phenaki_jax.data.precomputed import PrecomputedFeatureConverter
from phenaki_jax.data.sources import data_dir_of_seqio, provider_of
from phenaki_jax.data.tensorflow_stack import seqio, tf
from phenaki_jax.errors import UserError, reason_of
from phenaki_jax.text.sentencepiece_tokenizer import fingerprint_of

CONVERTERS = ("tokenizer", "transformer", "precomputed")
_BATCHES_AHEAD = 2
# How many calls of a map tf.data makes at once at most where nothing is tuned.
_CORES_USED_UNTUNED = 16
# What TensorFlow makes of a failed assertion, in whose data are the words and numbers of `converters`.
_FAILED_CHECK = re.compile(r"assertion failed: (\[.*\])")
_PART = re.compile(r"\[([^\[\]]*)\]")
_ABSENT = re.compile(r"missing an expected feature during \w+ validation: '(\w+)'")
_WRONG_TYPE = re.compile(r"incorrect type for feature '(\w+)'.* Got (\w+), expected (\w+)", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class FeedSettings:
    """What decides which batches a feed yields; a position belongs to one such choice.

    Attributes:
      mixture: name of a seqio mixture or task.
      split: "train" or "test".
      batch_size: examples per batch over all processes.
      frames: frames per video; images are padded to it.
      temporal_patch: frames of a token time step after the first frame.
      text_length: tokens per text, the end of text included.
      converter: one of `CONVERTERS`.
      seed: of the order, the windows and the wordings.
      shuffle: whether the order is random.
      repeat: whether the examples begin anew when they end.
      vocabulary: of sentencepiece, a file; bytes where empty.
      pack_images: whether images share rows.
    """

    mixture: str
    split: str
    batch_size: int
    frames: int
    temporal_patch: int
    text_length: int
    converter: str
    seed: int
    shuffle: bool
    repeat: bool
    vocabulary: str = ""
    pack_images: bool = False

    @property
    def times(self) -> int:
        """Token time steps of a video."""
        return 1 + (self.frames - 1) // self.temporal_patch


class Feed(abc.ABC):
    """An iterator over batches, dicts of global arrays whose first axis is sharded over devices, with a position."""

    def __iter__(self) -> Feed:
        return self

    @abc.abstractmethod
    def __next__(self) -> dict[str, jax.Array]:
        """The next batch.

        Raises:
          StopIteration: the examples have ended.
          UserError: an example is damaged, or not what its task says.
        """

    @abc.abstractmethod
    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes the position, so that a feed restored from it yields the batches that this one would yield next.

        Every process calls this and writes a subfolder of its own, which appears complete or not at all.
        """

    @abc.abstractmethod
    def restore(self, folder: str | os.PathLike[str]) -> None:
        """Continues from a position that `save` wrote, in this process or another.

        Raises:
          UserError: there is no such position, or it is of a feed with other settings or another number of processes.
        """


class MixtureFeed(Feed):
    """Batches of one mixture, all of one shape, `batch_spec`; a last one that is not full is left out.

    Args:
      dataset: this process's share of every batch.
      settings: what the dataset was made from.
      sharding: of a batch.
      shard: which share of how many.
    """

    def __init__(
        self, dataset: tf.data.Dataset, settings: FeedSettings, sharding: NamedSharding, shard: seqio.ShardInfo
    ) -> None:
        self.settings, self._sharding = settings, sharding
        self.iterator = iter(dataset)
        # Which file a vocabulary is in says nothing of where a feed is.
        self.identity = {
            **dataclasses.asdict(settings),
            "vocabulary": fingerprint_of(settings.vocabulary),
            "share": f"{shard.index} of {shard.num_shards}",
        }
        self.batch_spec: dict[str, jax.ShapeDtypeStruct] = {
            name: jax.ShapeDtypeStruct(
                (settings.batch_size, *spec.shape[1:]), spec.dtype.as_numpy_dtype, sharding=sharding
            )
            for name, spec in dataset.element_spec.items()
        }

    def __next__(self) -> dict[str, jax.Array]:
        """The next batch."""
        batch = next(told_damage(self.iterator, self.settings))
        return {
            name: jax.make_array_from_process_local_data(self._sharding, value, self.batch_spec[name].shape)
            for name, value in batch.items()
        }

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes the position; see `Feed.save`."""
        save_position(folder, [self.iterator], self.identity)

    def restore(self, folder: str | os.PathLike[str]) -> None:
        """Continues from a position that `save` wrote; see `Feed.restore`."""
        restore_position(folder, [self.iterator], self.identity)


def told_damage(batches: Iterable[Any], settings: FeedSettings) -> Iterator[dict[str, np.ndarray]]:
    """The same batches as arrays.

    Raises:
      UserError: an example cannot be read, or is not what is expected.
    """
    try:
        for batch in batches:
            yield {name: value.numpy() for name, value in batch.items()}
    except tf.errors.OpError as error:
        examples = f"the {settings.split} examples of {settings.mixture}"
        if failed := _FAILED_CHECK.search(str(error)):
            raise UserError(f"{examples} do not fit: {' '.join(_PART.findall(failed[1]))}") from error
        raise UserError(
            f"{examples} cannot be read ({reason_of(error)}); see whether their files are whole and their features as "
            "the task says"
        ) from error


def make_feed(
    *,
    mixture: str | seqio.Mixture | seqio.Task,
    split: str,
    batch_size: int,
    frames: int,
    text_length: int,
    converter: str,
    seed: int,
    sharding: NamedSharding,
    data_dir: str | os.PathLike[str],
    temporal_patch: int = 1,
    shuffle: bool = True,
    repeat: bool = True,
    vocabulary: str = "",
    pack_images: bool = False,
) -> MixtureFeed:
    """A feed of one mixture for all devices that its batches are divided over.

    Args:
      mixture: name of a registered mixture or task, or one made by `phenaki_jax.data.tasks`.
      split: "train" or "test".
      batch_size: examples per batch over all processes.
      frames: frames per video; images are padded to it.
      text_length: tokens per text, the end of text included; longer captions are cut.
      converter: "tokenizer" for `video` uint8 [batch, frames, height, width, 3] and `frame_mask` bool [batch, frames];
        "transformer" for also `text_tokens` int32 [batch, text_length], `text_mask` bool [batch, text_length] and
        `prefix_frames` int32 [batch]; "precomputed" for what `PrecomputedFeatureConverter` says, of a mixture that
        `precomputed_mixture` made.
      seed: of the order, the windows and the wordings.
      sharding: of a batch's first axis over a mesh, see `phenaki_jax.training.sharding.Layout`.
      data_dir: the folder of TFDS datasets.
      temporal_patch: examples are refused whose frames, or given ones, are not 1 + k times as many.
      shuffle: whether the order is random.
      repeat: whether the examples begin anew when they end.
      vocabulary: of sentencepiece, a file; bytes where empty.
      pack_images: whether as many images share a row of a batch as it has time steps; see `packing.pack_images`.

    Raises:
      UserError: the mixture, the split, the converter or the dataset is not there, or the batch cannot be divided.
    """
    provider = provider_of(mixture)
    settings = FeedSettings(
        provider.name,
        split,
        batch_size,
        frames,
        temporal_patch,
        text_length,
        converter,
        seed,
        shuffle=shuffle,
        repeat=repeat,
        vocabulary=vocabulary,
        pack_images=pack_images,
    )
    if converter not in CONVERTERS:
        raise UserError(f"found converter {converter!r}, expected one of {', '.join(CONVERTERS)}")
    if split not in provider.splits:
        raise UserError(f"found split {split!r}, expected one of {', '.join(sorted(provider.splits))}")
    shard = _share_of_process(sharding, settings)
    dataset = _dataset(provider, settings, shard, os.fspath(data_dir))
    return MixtureFeed(dataset, settings, sharding, shard)


def _share_of_process(sharding: NamedSharding, settings: FeedSettings) -> seqio.ShardInfo:
    """Which of how many equal shares of a batch this process loads; processes that hold the same rows share one."""
    batch_size = settings.batch_size
    if batch_size < 1:
        raise UserError(f"found batch_size {batch_size} of {settings.mixture}, expected at least 1")
    ways = len(set(map(str, sharding.devices_indices_map((sharding.num_devices,)).values())))
    if batch_size % ways:
        raise UserError(
            f"found batch_size {batch_size}, expected a multiple of {ways}, the devices that batches are divided over: "
            f"set that of {settings.mixture} to {max(1, round(batch_size / ways)) * ways}"
        )
    rows: dict[int, set[int]] = {}
    pieces: Mapping[jax.Device, tuple[slice, ...]] = sharding.devices_indices_map((batch_size,))
    for device, (piece,) in pieces.items():
        rows.setdefault(device.process_index, set()).update(range(batch_size)[piece])
    shares = sorted({tuple(sorted(held)) for held in rows.values()})
    if sum(map(len, shares)) != batch_size:
        raise UserError("found a mesh whose hosts hold overlapping parts of a batch, expected equal or separate ones")
    return seqio.ShardInfo(shares.index(tuple(sorted(rows[jax.process_index()]))), len(shares))


def _dataset(
    provider: seqio.Mixture | seqio.Task, settings: FeedSettings, shard: seqio.ShardInfo, data_dir: str
) -> tf.data.Dataset:
    dataset = examples_of(provider, settings, shard, data_dir)
    if settings.pack_images:
        dataset = pack_images(dataset, settings.times)
    dataset = dataset.batch(settings.batch_size // shard.num_shards, drop_remainder=True).prefetch(_BATCHES_AHEAD)
    options = tf.data.Options()
    # So few cores are all used from the start, and letting go of a dataset that is tuned takes up to half a minute.
    options.autotune.enabled = (os.cpu_count() or 1) > _CORES_USED_UNTUNED
    return dataset.with_options(options)


def examples_of(
    provider: seqio.Mixture | seqio.Task, settings: FeedSettings, shard: seqio.ShardInfo, data_dir: str
) -> tf.data.Dataset:
    """A share of the converted examples, neither packed nor batched."""
    lengths = {
        "video": settings.frames,
        "video_tokens": settings.times,
        **dict.fromkeys(("text", "text_tokens", "text_embeddings"), settings.text_length),
        "prefix_frames": 1,
    }
    feature_converter = _converter(provider, settings)
    wanted = {name: lengths[name] for name in feature_converter.TASK_FEATURES}
    with data_dir_of_seqio(data_dir), _without_repeated_errors(), _told_features(provider.name):
        dataset = provider.get_dataset(
            sequence_length=lengths,
            split=settings.split,
            shuffle=settings.shuffle,
            seed=settings.seed,
            shard_info=shard,
            num_epochs=None if settings.repeat else 1,
            try_in_mem_cache=False,
            trim_output_features=False,
        )
        return feature_converter(dataset, wanted)


def _converter(provider: seqio.Mixture | seqio.Task, settings: FeedSettings) -> seqio.FeatureConverter:
    options: dict[str, Any] = {"temporal_patch": settings.temporal_patch, "apply_length_check": False}
    if settings.converter == "precomputed":
        return PrecomputedFeatureConverter(has_embeddings="text_embeddings" in provider.output_features, **options)
    if settings.converter == "tokenizer":
        return TokenizerFeatureConverter(**options)
    return TransformerFeatureConverter(encode=text_encoder(settings.vocabulary), **options)


@contextlib.contextmanager
def _told_features(mixture: str) -> Iterator[None]:
    """Tells in one line what seqio refuses of a task's features."""
    try:
        yield
    except ValueError as error:
        if absent := _ABSENT.search(str(error)):
            raise UserError(
                f"the examples of {mixture} have no {absent[1]}, expected it: add it in the task"
            ) from error
        if not (found := _WRONG_TYPE.search(str(error))):
            raise
        feature, kind, expected = found.groups()
        what = "videos" if feature == "video" else feature
        values = " in 0..255" if expected == "uint8" else ""
        raise UserError(
            f"the {what} of {mixture} are {kind}, expected {expected}{values}: convert them in the task"
        ) from error


@contextlib.contextmanager
def _without_repeated_errors() -> Iterator[None]:
    """A mixture of seqio logs the errors that it passes on; whoever catches them tells them once."""

    def is_news(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("Failed to load task")

    logger = logging.getLogger("absl")
    logger.addFilter(is_news)
    try:
        yield
    finally:
        logger.removeFilter(is_news)
