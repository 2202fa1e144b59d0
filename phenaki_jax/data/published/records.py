"""Datasets of TFDS as they lie on disk: their files, which are read unparsed, and the names of their classes."""

from __future__ import annotations

import re
from collections.abc import Sequence

from phenaki_jax.data.prepare.metadata import SPLITS
from phenaki_jax.data.published.catalog import TfdsLayout
from phenaki_jax.data.records import SHUFFLE_BUFFER, EncodedRecords
from phenaki_jax.data.tensorflow_stack import seqio, tf, tfds
from phenaki_jax.errors import UserError

# Records of whole videos are large, and what is shuffled is in memory and in checkpoints.
_MOST_SHUFFLED_BYTES = 2**28
_LEAST_SHUFFLED = 16


class TfdsExamples(EncodedRecords):
    """The records of a dataset of TFDS, unparsed.

    It is looked for where `seqio.set_tfds_data_dir_override` says, in its newest version, and never downloaded.

    Args:
      layout: which.
    """

    def __init__(self, layout: TfdsLayout) -> None:
        super().__init__(SPLITS)
        self._layout = layout

    def builder(self) -> tfds.core.DatasetBuilder:
        """What TFDS knows of the dataset on disk.

        Raises:
          UserError: it is not there.
        """
        data_dir, path = seqio.LazyTfdsLoader().data_dir, self._layout.path
        if data_dir is None:
            raise UserError(f"found no data_dir, expected the folder that holds {path}: set data_dir")
        found = tf.io.gfile.glob(f"{data_dir}/{path}/*.*.*/dataset_info.json")
        if not found:
            raise UserError(
                f"found no {path} in {data_dir}, expected the dataset: set data_dir to where it is, or get it with: "
                f"{self._layout.command(data_dir)}"
            )
        return tfds.builder_from_directory(max(map(_folder, found), key=_version))

    def list_shards(self, split: str) -> Sequence[str]:
        """The files of a split; see `EncodedRecords.list_shards`."""
        builder = self.builder()
        folder, shards = str(builder.data_dir), []
        again = f"delete it and get it again with: {self._layout.command(seqio.LazyTfdsLoader().data_dir)}"
        if builder.info.file_format.file_suffix != "tfrecord":
            raise UserError(
                f"found {builder.info.file_format.file_suffix} files in {folder}, expected tfrecord: {again}"
            )
        for part in self._layout.parts(split):
            if part not in builder.info.splits:
                raise UserError(f"found no split {part} in {folder}, expected it: {again}")
            expected = [str(file) for file in builder.info.splits[part].filepaths]
            files = [file for file in expected if tf.io.gfile.exists(file)]
            if len(files) != len(expected):
                raise UserError(
                    f"found {len(files)} of {len(expected)} {part} files in {folder}, expected all of them: copy the "
                    f"rest, or {again}"
                )
            shards += files
        return shards

    def count(self, split: str) -> int:
        """How many records a split has."""
        if self._layout.held_out_every:
            return super().count(split)
        infos = self.builder().info.splits
        return sum(int(infos[part].num_examples) for part in self._layout.parts(split))

    def class_names(self) -> list[str]:
        """The names of the classes as words: "apply eye makeup" for "ApplyEyeMakeup"."""
        names = self.builder().info.features[self._layout.text].names
        return [" ".join(re.findall(r"[A-Z]*[^A-Z_\s]+|[A-Z]+", name)).lower() for name in names]

    def frame_shape(self) -> tuple[int | None, ...]:
        """Height, width and colours of a frame, as far as all have the same."""
        feature = self.builder().info.features[self._layout.frames]
        return tuple(feature.shape[-3:])

    def shuffle_buffer(self, split: str) -> int:
        """As many records as are no more than some hundred megabytes."""
        parts = [self.builder().info.splits[part] for part in self._layout.parts(split)]
        records, size = (sum(getattr(part, what) for part in parts) for what in ("num_examples", "num_bytes"))
        fitting = _MOST_SHUFFLED_BYTES * records // max(size, 1)
        return min(SHUFFLE_BUFFER, max(_LEAST_SHUFFLED, fitting))

    def read(self, file: tf.Tensor, split: str) -> tf.data.Dataset:
        """The records of a file that are of a split."""
        records, every = super().read(file, split), self._layout.held_out_every
        if not every:
            return records
        numbered = records.enumerate().filter(lambda index, _: (index % every == every - 1) == (split == "test"))
        return numbered.map(lambda _, record: record)


def _folder(file: str) -> str:
    return file.rpartition("/")[0]


def _version(folder: str) -> list[int]:
    return [int(part) for part in folder.rpartition("/")[2].split(".") if part.isdigit()]
