"""Records in TFRecord files as a seqio source: shuffled, shared among hosts and checkpointed before they are parsed."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence

import numpy as np

from phenaki_jax.data.tensorflow_stack import seqio, tf

SHUFFLE_BUFFER = 1024

_FILES_AT_ONCE = 4
# Of a file at a time, as few requests to a storage far away take less time than many.
_READ_BYTES = 2**22


class EncodedRecords(seqio.DataSource, abc.ABC):
    """The records of a dataset, unparsed: to shuffle and to checkpoint them costs little.

    Seqio shuffles after preprocessing, which may be decoded frames; this source shuffles by itself, over files and then
    over records, anew in every epoch. It does not say how many examples there are, because seqio would keep a small
    dataset in memory, in the order of the first epoch.

    Args:
      splits: names of the splits.
      shuffle_buffer: records to shuffle among.
    """

    def __init__(self, splits: Sequence[str], *, shuffle_buffer: int = SHUFFLE_BUFFER) -> None:
        super().__init__(splits=splits, performs_internal_shuffling=True, caching_permitted=False)
        self._shuffle_buffer = shuffle_buffer

    @property
    def supports_arbitrary_sharding(self) -> bool:
        return True

    @property
    def version(self) -> str:
        """Of the dataset, with its name; empty where it has none that another may take the place of."""
        return ""

    @abc.abstractmethod
    def list_shards(self, split: str) -> Sequence[str]:
        """The files of a split.

        Raises:
          UserError: the dataset is not there, or not whole.
        """

    def shuffle_buffer(self, split: str) -> int:
        """Records to shuffle among."""
        return self._shuffle_buffer

    def count(self, split: str) -> int:
        """How many records a split has; they are gone through where nothing else tells."""
        records = self.get_dataset(split, shuffle=False)
        return int(records.reduce(np.int64(0), lambda count, _: count + 1))

    def read(self, file: tf.Tensor, split: str) -> tf.data.Dataset:
        """The records of a file that are of a split."""
        return tf.data.TFRecordDataset(file, buffer_size=_READ_BYTES)

    def get_dataset(
        self,
        split: str = "train",
        shuffle: bool = True,
        seed: int | None = None,
        shard_info: seqio.ShardInfo | None = None,
        *,
        sequence_length: Mapping[str, int] | None = None,
        use_cached: bool = False,
        num_epochs: int | None = 1,
    ) -> tf.data.Dataset:
        """One epoch of `{"record": string}`; with more hosts than files, hosts divide the records instead."""
        files = self.list_shards(split)
        shards = shard_info or seqio.ShardInfo(index=0, num_shards=1)
        by_file = len(files) >= shards.num_shards
        if by_file:
            files = files[shards.index :: shards.num_shards]
        dataset = tf.data.Dataset.from_tensor_slices(files)
        if shuffle and by_file:
            dataset = dataset.shuffle(len(files), seed=seed)
        dataset = dataset.interleave(
            lambda file: self.read(file, split),
            cycle_length=_FILES_AT_ONCE,
            num_parallel_calls=_FILES_AT_ONCE,
            deterministic=True,
        )
        if not by_file:
            dataset = dataset.shard(shards.num_shards, shards.index)
        if shuffle:
            dataset = dataset.shuffle(self.shuffle_buffer(split), seed=seed)
        return dataset.map(lambda record: {"record": record})
