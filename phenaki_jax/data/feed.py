"""From a seqio mixture to batches on the devices of a mesh, with a position that can be saved and restored."""

from __future__ import annotations

import abc
import dataclasses
import functools
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding

from phenaki_jax.data.converters import TokenizerFeatureConverter, TransformerFeatureConverter, text_encoder
from phenaki_jax.data.packing import pack_images
from phenaki_jax.data.position import Order, restore_position, save_position
from phenaki_jax.data.precomputed import PrecomputedFeatureConverter
from phenaki_jax.data.records import EncodedRecords
from phenaki_jax.data.seqio_errors import told_features, without_repeated_errors
from phenaki_jax.data.shares import shares_of_process, ways_of
from phenaki_jax.data.sources import data_dir_of_seqio, provider_of
from phenaki_jax.data.splits import check_split, fewer_than_shares, smaller_than_a_batch
from phenaki_jax.data.tensorflow_stack import seqio, tf
from phenaki_jax.errors import UserError, reason_of
from phenaki_jax.text.sentencepiece_tokenizer import fingerprint_of

CONVERTERS = ("tokenizer", "transformer", "precomputed")
_BATCHES_AHEAD = 2
_SEED_OF_STEP = 1_000_003
# How many calls of a map tf.data makes at once at most where nothing is tuned.
_CORES_USED_UNTUNED = 16
# What TensorFlow makes of a failed assertion, in whose data are the words and numbers of `converters`.
_FAILED_CHECK = re.compile(r"assertion failed: (\[.*\])")
# Around what it says of damage.
_OF_TENSORFLOW = re.compile(r"^\{\{.*?\}\} | \[Op:.*$", re.DOTALL)
_PART = re.compile(r"\[([^\[\]]*)\]")


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
      begun: see `Order`.
      data: datasets with their versions, where these may have several.
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
    begun: int = 0
    data: str = ""

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
          UserError: an example is damaged, or not what its task says; or all there are fill no batch.
        """

    @abc.abstractmethod
    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes the position, so that a feed restored from it yields the batches that this one would yield next.

        Every process calls this and writes a subfolder for each of its shares, which appears complete or not at all.
        """

    @abc.abstractmethod
    def restore(self, folder: str | os.PathLike[str]) -> None:
        """Continues from a position that `save` wrote, in this process or another.

        Raises:
          UserError: there is no such position, or it is of a feed with other settings or another number of shares.
        """


class MixtureFeed(Feed):
    """Batches of one mixture, all of one shape, `batch_spec`; a last one that is not full is left out.

    Args:
      datasets: this process's shares of every batch.
      settings: what the datasets were made from.
      sharding: of a batch.
      shares: which these are, of how many.
      too_few: what is told where all there are fill no batch.
      writes: whether this process writes their positions; of processes that read the same shares one does.
    """

    def __init__(
        self,
        datasets: Sequence[tf.data.Dataset],
        settings: FeedSettings,
        sharding: NamedSharding,
        shares: Sequence[seqio.ShardInfo],
        *,
        too_few: Callable[[], UserError],
        writes: bool = True,
    ) -> None:
        self.settings, self._sharding, self._too_few = settings, sharding, too_few
        self._is_new = True
        self.iterators, self.shares = [iter(dataset) for dataset in datasets], tuple(shares)
        self.written = range(len(shares)) if writes else range(0)
        # Which file a vocabulary is in says nothing of where a feed is.
        self.identity = {**dataclasses.asdict(settings), "vocabulary": fingerprint_of(settings.vocabulary)}
        self.batch_spec: dict[str, jax.ShapeDtypeStruct] = {
            name: jax.ShapeDtypeStruct(
                (settings.batch_size, *spec.shape[1:]), spec.dtype.as_numpy_dtype, sharding=sharding
            )
            for name, spec in datasets[0].element_spec.items()
        }

    def __next__(self) -> dict[str, jax.Array]:
        """The next batch; see `Feed.__next__`."""
        parts = self._parts()
        return {
            name: jax.make_array_from_process_local_data(
                self._sharding,
                np.concatenate([part[name] for part in parts]) if parts[1:] else parts[0][name],
                spec.shape,
            )
            for name, spec in self.batch_spec.items()
        }

    def _parts(self) -> list[dict[str, np.ndarray]]:
        """What this process reads of the next batch; where it ends for one process, it ends for all.

        Raises:
          StopIteration: the examples have ended.
          UserError: there are too few for a single batch.
        """
        try:
            parts = [next(told_damage(iterator, self.settings)) for iterator in self.iterators]
        except StopIteration:
            parts = []
        if jax.process_count() > 1 and not self.settings.repeat:
            parts = parts if np.all(multihost_utils.process_allgather(np.asarray(bool(parts)))) else []
        if not parts:
            raise self._too_few() if self._is_new else StopIteration
        self._is_new = False
        return parts

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes the position; see `Feed.save`."""
        for index in self.written:
            save_position(folder, self.shares[index], [self.iterators[index]], self.identity)

    def restore(self, folder: str | os.PathLike[str]) -> None:
        """Continues from a position that `save` wrote; see `Feed.restore`."""
        self.resumed()
        for share, iterator in zip(self.shares, self.iterators, strict=True):
            restore_position(folder, share, [iterator], self.identity)

    def resumed(self) -> None:
        """Its iterators go on from elsewhere, so that their end says nothing of how many examples there are."""
        self._is_new = False


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
        reason = _OF_TENSORFLOW.sub("", reason_of(error))
        raise UserError(
            f"{examples} cannot be read ({reason}); see whether their files are whole, or make the dataset again, and "
            "whether their features are as the task says"
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
    order: Order | None = None,
) -> MixtureFeed:
    """A feed of one mixture for all devices that its batches are divided over.

    Args:
      mixture: name of a registered mixture or task or of a prepared dataset in `data_dir`, or a task or mixture itself.
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
      order: of the examples; by default as many shares as there are processes that read different rows.

    Raises:
      UserError: the mixture, the split, the converter or the dataset is not there, or the batch cannot be divided.
    """
    provider = provider_of(mixture, data_dir)
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
        begun=order.begun if order else 0,
        data=_versions(provider),
    )
    if converter not in CONVERTERS:
        raise UserError(f"found converter {converter!r}, expected one of {', '.join(CONVERTERS)}")
    check_split(provider, split)
    shares, writes = shares_of_process(sharding, provider.name, batch_size, order.shares if order else None)
    datasets = [_dataset(provider, settings, share, os.fspath(data_dir)) for share in shares]
    count = shares[0].num_shards
    multiple = math.lcm(ways_of(sharding), count)
    too_few = functools.partial(_too_few, provider, settings, count, multiple, os.fspath(data_dir))
    return MixtureFeed(datasets, settings, sharding, shares, too_few=too_few, writes=writes)


def _versions(provider: seqio.Mixture | seqio.Task) -> str:
    """Of the datasets that may have several."""
    tasks = provider.tasks if isinstance(provider, seqio.Mixture) else [provider]
    sources = [task.source for task in tasks]
    found = {source.version for source in sources if isinstance(source, EncodedRecords)}
    return ", ".join(sorted(found - {""}))


def _dataset(
    provider: seqio.Mixture | seqio.Task, settings: FeedSettings, shard: seqio.ShardInfo, data_dir: str
) -> tf.data.Dataset:
    rows = _rows(provider, settings, shard, data_dir)
    dataset = rows.batch(settings.batch_size // shard.num_shards, drop_remainder=True).prefetch(_BATCHES_AHEAD)
    options = tf.data.Options()
    # So few cores are all used from the start, and letting go of a dataset that is tuned takes up to half a minute.
    options.autotune.enabled = (os.cpu_count() or 1) > _CORES_USED_UNTUNED
    return dataset.with_options(options)


def _rows(
    provider: seqio.Mixture | seqio.Task, settings: FeedSettings, shard: seqio.ShardInfo, data_dir: str
) -> tf.data.Dataset:
    examples = examples_of(provider, settings, shard, data_dir)
    return pack_images(examples, settings.times) if settings.pack_images else examples


def _too_few(
    provider: seqio.Mixture | seqio.Task, settings: FeedSettings, shares: int, multiple: int, data_dir: str
) -> UserError:
    """With how many rows each share of the split has, read once."""
    once = dataclasses.replace(settings, repeat=False)
    rows = (_rows(provider, once, seqio.ShardInfo(index, shares), data_dir) for index in range(shares))
    found = [int(each.reduce(np.int64(0), lambda count, _: count + 1)) for each in rows]
    if settings.repeat:
        return fewer_than_shares(provider.name, settings.split, sum(found), shares)
    parts = [task.name for task in provider.tasks] if isinstance(provider, seqio.Mixture) else []
    return smaller_than_a_batch(provider.name, settings.split, parts, settings.batch_size, found, multiple)


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
    converter = feature_converter(
        settings.converter,
        temporal_patch=settings.temporal_patch,
        vocabulary=settings.vocabulary,
        has_embeddings="text_embeddings" in provider.output_features,
    )
    wanted = {name: lengths[name] for name in converter.TASK_FEATURES}
    with data_dir_of_seqio(data_dir), without_repeated_errors(), told_features(provider.name):
        dataset = provider.get_dataset(
            sequence_length=lengths,
            split=settings.split,
            shuffle=settings.shuffle,
            # An order that begins later is another one.
            seed=(settings.seed + _SEED_OF_STEP * settings.begun) % 2**31,
            shard_info=shard,
            num_epochs=None if settings.repeat else 1,
            try_in_mem_cache=False,
            trim_output_features=False,
        )
        return converter(dataset, wanted)


def feature_converter(
    converter: str, *, temporal_patch: int, vocabulary: str = "", has_embeddings: bool = False, **options: Any
) -> seqio.FeatureConverter:
    """The converter of a name, which checks lengths by itself.

    Args:
      converter: one of `CONVERTERS`.
      temporal_patch: frames of a token time step after the first frame.
      vocabulary: of sentencepiece, a file; bytes where empty.
      has_embeddings: whether precomputed texts are embeddings.
      options: those of its class.

    Raises:
      UserError: the vocabulary is not there.
    """
    options |= {"temporal_patch": temporal_patch, "apply_length_check": False}
    if converter == "precomputed":
        return PrecomputedFeatureConverter(has_embeddings=has_embeddings, **options)
    if converter == "tokenizer":
        return TokenizerFeatureConverter(**options)
    return TransformerFeatureConverter(encode=text_encoder(vocabulary), **options)
