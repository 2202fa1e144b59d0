"""The seqio tasks of published datasets that TFDS has: windows of videos and images, decoded and resized late."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

from phenaki_jax.data.published.catalog import PublishedDataset, TfdsLayout
from phenaki_jax.data.published.records import TfdsExamples
from phenaki_jax.data.tensorflow_stack import seqio, tf
from phenaki_jax.data.windows import (
    OUTPUT_FEATURES,
    Prefix,
    Seed,
    draw_caption,
    draw_given,
    draw_lots,
    fitting_prefix,
)
from phenaki_jax.errors import UserError


def tfds_task(dataset: PublishedDataset, name: str, size: int) -> seqio.Task:
    """Windows of a dataset's videos, anywhere in them; or its images, one frame each; with text, if there is any.

    Args:
      dataset: one that TFDS has.
      name: of the task.
      size: of the square frames: the middle of each, resized by the mean over its pixels.

    Raises:
      UserError: TFDS has it not.
    """
    if dataset.tfds is None:
        raise UserError(f"found {dataset.name}, expected a dataset of TFDS: prepare it")
    source = TfdsExamples(dataset.tfds)
    windows = functools.partial(_windows, dataset=dataset, layout=dataset.tfds, source=source, size=size)
    return seqio.Task(
        name, source=source, preprocessors=[windows], output_features=OUTPUT_FEATURES, shuffle_buffer_size=None
    )


def prefix_of(dataset: PublishedDataset) -> Prefix:
    """What of a dataset's windows is given."""
    return Prefix() if dataset.given is None else Prefix(float(dataset.given > 0), dataset.given)


def _windows(
    examples: tf.data.Dataset,
    sequence_length: Mapping[str, int],
    *,
    dataset: PublishedDataset,
    layout: TfdsLayout,
    source: TfdsExamples,
    size: int,
) -> tf.data.Dataset:
    frames = 1 if dataset.images else sequence_length["video"]
    offsets = _offsets(frames, layout, dataset.fps)
    if layout.length and offsets[-1] >= layout.length:
        raise UserError(
            f"found windows of {frames} frames, expected at most {layout.length}, those of a video of {dataset.name}: "
            "set fewer FRAMES"
        )
    probability, given = (0.0, 0) if dataset.images else fitting_prefix(frames, *prefix_of(dataset))
    return _window(
        examples,
        layout=layout,
        classes=source.class_names() if layout.names_classes else (),
        offsets=offsets,
        is_sized=source.frame_shape()[:2] == (size, size),
        size=size,
        prefix_probability=probability,
        prefix_frames=given,
    )


@seqio.map_over_dataset(num_seeds=1)
@tf.autograph.experimental.do_not_convert
def _window(
    example: dict[str, tf.Tensor],
    seed: Seed,
    *,
    layout: TfdsLayout,
    classes: Sequence[str],
    offsets: Sequence[int],
    is_sized: bool,
    size: int,
    prefix_probability: float,
    prefix_frames: int,
) -> dict[str, tf.Tensor]:
    encoded, texts = _parse(example["record"], layout, classes)
    prefix_lots, place_lots, caption_lots = draw_lots(seed, [1, 1, 1])
    count = tf.size(encoded)
    places = tf.maximum(count - offsets[-1], 1)
    start = tf.minimum(tf.cast(place_lots[0] * tf.cast(places, tf.float32), tf.int32), places - 1)
    # A video that is too short ends with its last frame, so that all lengths go into one batch.
    chosen = tf.gather(encoded, tf.minimum(start + tf.constant(offsets), count - 1))
    # It reads PNG too.
    video = tf.stack([tf.io.decode_jpeg(frame, channels=3) for frame in tf.unstack(chosen, len(offsets))])
    video = video if is_sized else _fitted(video, size)
    return {
        "video": tf.ensure_shape(video, [len(offsets), size, size, 3]),
        "text": draw_caption(texts, caption_lots),
        "prefix_frames": draw_given(prefix_lots, prefix_probability, prefix_frames)[None],
    }


def _offsets(frames: int, layout: TfdsLayout, fps: float) -> list[int]:
    """Which frames after the first make a window, at the nearest times."""
    apart = layout.fps / fps if layout.fps and fps else 1.0
    return [int(index * apart + 0.5) for index in range(frames)]


def _parse(record: tf.Tensor, layout: TfdsLayout, classes: Sequence[str]) -> tuple[tf.Tensor, tf.Tensor]:
    """The encoded frames of a record and its texts."""
    strings = tf.io.FixedLenSequenceFeature([], tf.string, allow_missing=True)
    features = {layout.frames: strings}
    if layout.text:
        features[layout.text] = tf.io.FixedLenFeature([1], tf.int64) if classes else strings
    parsed = tf.io.parse_single_example(record, features)
    texts = parsed[layout.text] if layout.text else tf.constant([], tf.string)
    return parsed[layout.frames], tf.gather(tf.constant(classes), texts) if classes else texts


def _fitted(video: tf.Tensor, size: int) -> tf.Tensor:
    """The middle square of each frame, [frames, size, size, 3]."""
    height, width = tf.shape(video)[1], tf.shape(video)[2]
    side = tf.minimum(height, width)
    video = tf.image.crop_to_bounding_box(video, (height - side) // 2, (width - side) // 2, side, side)
    # The mean would repeat pixels where frames are made larger.
    resized = tf.cond(
        side >= size,
        lambda: tf.image.resize(video, [size, size], tf.image.ResizeMethod.AREA),
        lambda: tf.image.resize(video, [size, size], tf.image.ResizeMethod.BICUBIC),
    )
    return tf.cast(tf.clip_by_value(tf.round(resized), 0.0, 255.0), tf.uint8)
