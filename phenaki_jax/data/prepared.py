"""The seqio tasks of what `phenaki prepare` made, by the name of the dataset.

    NAME_video_text   a window of a clip and one of its captions
    NAME_image_text   an image and one of its captions
    NAME              all of it; where there are both, images have their share of the examples, at most a fifth

Their output features are those of `data.tasks`. They are made for a folder of datasets when they are asked for, and
are no part of seqio's registry.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence

from phenaki_jax.data.prepare.metadata import IMAGES, SPLITS, PreparedDataset, prepared_datasets
from phenaki_jax.data.records import SHUFFLE_BUFFER, EncodedRecords
from phenaki_jax.data.tensorflow_stack import seqio, tf
from phenaki_jax.data.windows import (
    OUTPUT_FEATURES,
    PREFIX_PROBABILITY,
    VIDEO_RATE,
    Prefix,
    Seed,
    check_shards,
    decode_window,
    draw_caption,
    draw_given,
    draw_lots,
    fitting_prefix,
)
from phenaki_jax.errors import UserError

_VIDEO, _IMAGE = "_video_text", "_image_text"
_HALF = Prefix()


class PreparedExamples(EncodedRecords):
    """The records of a prepared dataset, unparsed: its clips or its images.

    Args:
      dataset: whose.
      images: which.
      shuffle_buffer: records to shuffle among.
    """

    def __init__(self, dataset: PreparedDataset, *, images: bool, shuffle_buffer: int = SHUFFLE_BUFFER) -> None:
        self._dataset, self._kind = dataset, IMAGES * images
        super().__init__(
            [split for split in SPLITS if dataset.examples.get(split + self._kind)], shuffle_buffer=shuffle_buffer
        )

    @property
    def version(self) -> str:
        """The one that is read, the newest; see `EncodedRecords.version`."""
        return f"{self._dataset.name} {self._dataset.folder.name}"

    def list_shards(self, split: str) -> Sequence[str]:
        """The files of a split; see `EncodedRecords.list_shards`."""
        folder = self._dataset.folder
        files = list(map(str, self._dataset.shards(split + self._kind)))
        if not files:
            raise UserError(
                f"found no {split + self._kind} files in {folder}, expected them: copy the dataset again, or delete "
                "the folder and prepare it again"
            )
        check_shards(files, split + self._kind, str(folder), "prepare the dataset again")
        return files

    def count(self, split: str) -> int:
        """How many records a split has."""
        return self._dataset.examples[split + self._kind]


def prepared_names(data_dir: str | os.PathLike[str]) -> list[str]:
    """What `prepared_provider` knows, of the datasets in a folder."""
    datasets = map(PreparedDataset.read, prepared_datasets(data_dir).values())
    return [name for dataset in datasets for name in _rates_by_name(dataset)]


def prepared_provider(
    name: str, data_dir: str | os.PathLike[str], prefix: Prefix = _HALF
) -> seqio.Mixture | seqio.Task | None:
    """The task or mixture of a name; None where no dataset of the folder has one of this name.

    Args:
      name: see this module.
      data_dir: the folder of datasets.
      prefix: what of windows is given.

    Raises:
      UserError: the dataset is damaged, or has no examples of that kind.
    """
    for own, folder in prepared_datasets(data_dir).items():
        if name not in (own, own + _VIDEO, own + _IMAGE):
            continue
        dataset = PreparedDataset.read(folder)
        windows = functools.partial(video_text_task, prefix_probability=prefix.probability, prefix_frames=prefix.frames)
        tasks: dict[str, Callable[[PreparedDataset], seqio.Task]]
        tasks = {own + _VIDEO: windows, own + _IMAGE: image_text_task}
        by_name = _rates_by_name(dataset)
        if name not in by_name:
            kind = "images" if name == own + _IMAGE else "videos"
            there = " or ".join(each for each in by_name if each != own)
            raise UserError(f"found no {kind} in {folder}, expected some for {name}: name {there}")
        rates = by_name[name]
        if name in tasks:
            return tasks[name](dataset)
        return seqio.Mixture(name, [(tasks[task](dataset), rate) for task, rate in rates.items()])
    return None


def _rates_by_name(dataset: PreparedDataset) -> dict[str, dict[str, float]]:
    """Of each name that the dataset has, the tasks and their rates."""
    counts = {
        dataset.name + task: sum(dataset.examples.get(split + kind, 0) for split in SPLITS)
        for task, kind in ((_VIDEO, ""), (_IMAGE, IMAGES))
    }
    there = {task: count for task, count in counts.items() if count}
    rates = dict.fromkeys(there, 1.0)
    if len(there) > 1:
        videos, images = there
        rates[images] = min(1 - VIDEO_RATE, there[images] / sum(there.values()))
        rates[videos] = 1 - rates[images]
    return {dataset.name: rates, **{task: {task: 1.0} for task in there}}


def video_text_task(
    dataset: PreparedDataset,
    *,
    prefix_probability: float = PREFIX_PROBABILITY,
    prefix_frames: int | None = None,
) -> seqio.Task:
    """Windows of clips, anywhere in them, with one of their captions.

    Args:
      dataset: whose.
      prefix_probability: how many of the windows are continuations, from 0 to 1.
      prefix_frames: given frames of a continuation; where None 5, or as many fewer, an odd number, as windows of few
        frames need.
    """
    windows = functools.partial(
        _windows, dataset=dataset, prefix_probability=prefix_probability, prefix_frames=prefix_frames
    )
    return _task(dataset, dataset.name + _VIDEO, windows, images=False)


def image_text_task(dataset: PreparedDataset) -> seqio.Task:
    """Images, one frame each, with one of their captions."""
    return _task(dataset, dataset.name + _IMAGE, functools.partial(_image, size=dataset.size), images=True)


def _task(dataset: PreparedDataset, name: str, preprocessor: functools.partial, *, images: bool) -> seqio.Task:
    return seqio.Task(
        name,
        source=PreparedExamples(dataset, images=images),
        preprocessors=[preprocessor],
        output_features=OUTPUT_FEATURES,
        shuffle_buffer_size=None,
    )


def _windows(
    examples: tf.data.Dataset,
    sequence_length: Mapping[str, int],
    *,
    dataset: PreparedDataset,
    prefix_probability: float,
    prefix_frames: int | None,
) -> tf.data.Dataset:
    frames = sequence_length["video"]
    if frames > dataset.frames:
        raise UserError(
            f"found windows of {frames} frames, expected at most {dataset.frames}, those of a clip of {dataset.name}: "
            f"set FRAMES to {dataset.frames} or fewer, or prepare it with --frames {frames} under another --version"
        )
    prefix_probability, prefix_frames = fitting_prefix(frames, prefix_probability, prefix_frames)
    return _window(
        examples,
        size=dataset.size,
        clip_frames=dataset.frames,
        frames=frames,
        prefix_probability=prefix_probability,
        prefix_frames=prefix_frames,
    )


@seqio.map_over_dataset(num_seeds=1)
@tf.autograph.experimental.do_not_convert
def _window(
    example: dict[str, tf.Tensor],
    seed: Seed,
    *,
    size: int,
    clip_frames: int,
    frames: int,
    prefix_probability: float,
    prefix_frames: int,
) -> dict[str, tf.Tensor]:
    clip = _parse(example["record"])
    prefix_lots, place_lots, caption_lots = draw_lots(seed, [1, clip_frames - frames + 1, 1])
    start = tf.argmax(place_lots, output_type=tf.int32)
    return {
        "video": decode_window(clip["frames"], start, frames, size, tf.io.decode_jpeg),
        "text": draw_caption(clip["captions"], caption_lots),
        "prefix_frames": draw_given(prefix_lots, prefix_probability, prefix_frames)[None],
    }


@seqio.map_over_dataset(num_seeds=1)
@tf.autograph.experimental.do_not_convert
def _image(example: dict[str, tf.Tensor], seed: Seed, *, size: int) -> dict[str, tf.Tensor]:
    image = _parse(example["record"])
    (caption_lots,) = draw_lots(seed, [1])
    return {
        "video": decode_window(image["frames"], 0, 1, size, tf.io.decode_jpeg),
        "text": draw_caption(image["captions"], caption_lots),
        "prefix_frames": tf.constant([0]),
    }


def _parse(record: tf.Tensor) -> dict[str, tf.Tensor]:
    """What the tasks need of a record, the frames still encoded."""
    strings = tf.io.FixedLenSequenceFeature([], tf.string, allow_missing=True)
    return tf.io.parse_single_example(record, {"frames": strings, "captions": strings})
