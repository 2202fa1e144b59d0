"""Several images in one row of a batch, which is as long as a video and would be padding otherwise."""

from __future__ import annotations

from collections.abc import Callable

from phenaki_jax.data.tensorflow_stack import tf

_Example = dict[str, tf.Tensor]


def pack_images(dataset: tf.data.Dataset, images: int) -> tf.data.Dataset:
    """Rows of one video, or of so many images, from examples of a converter.

    Args:
      dataset: of `TransformerFeatureConverter` or `PrecomputedFeatureConverter`.
      images: time steps of a video, which each have room for an image. A last row may have fewer of them.

    Returns:
      Rows of the same features, those of texts and `filled` with an entry for each example of the row; from raw frames
      also `packed_images`, int32 scalar: how many of the first frames are images of their own, 0 in a row of a video.
    """
    is_raw = "video" in dataset.element_spec
    is_image, row_of = (_is_one_frame, _frames_row) if is_raw else (_is_one_step, _tokens_row)

    def row(which: tf.Tensor, group: tf.data.Dataset) -> tf.data.Dataset:
        return group.batch(images).map(lambda examples: row_of(examples, which > 0, images))

    return dataset.group_by_window(
        key_func=lambda example: tf.cast(is_image(example), tf.int64),
        reduce_func=row,
        window_size_func=lambda which: tf.where(which > 0, tf.constant(images, tf.int64), 1),
    )


def _is_one_frame(example: _Example) -> tf.Tensor:
    return tf.math.count_nonzero(example["frame_mask"]) == 1


def _is_one_step(example: _Example) -> tf.Tensor:
    there = example["segment_ids"] > 0
    return tf.reduce_max(tf.where(there, example["token_positions"][:, 0], 0)) == 0


def _frames_row(examples: _Example, are_images: tf.Tensor, images: int) -> _Example:
    video, frame_mask = examples["video"], examples["frame_mask"]
    frames = video.shape[1]
    return {
        "video": _either(are_images, lambda: _filled_up(video[:, 0], frames), lambda: video[0]),
        # Of a row of images, `packed_images` says what is there.
        "frame_mask": frame_mask[0],
        "prefix_frames": examples["prefix_frames"][0],
        "packed_images": tf.where(are_images, tf.shape(video)[0], 0),
        **{name: _filled_up(examples[name], images) for name in ("text_tokens", "text_mask")},
    }


def _tokens_row(examples: _Example, are_images: tf.Tensor, images: int) -> _Example:
    """Time steps of images follow each other, each with the example's number; so do their embeddings."""
    length = examples["video_tokens"].shape[1]
    places = length // images
    number = tf.range(1, tf.shape(examples["video_tokens"])[0] + 1)[:, None]

    def in_a_row(name: str) -> tf.Tensor:
        values = examples[name]
        steps = lambda: _filled_up(_joined(values[:, :places]), length)  # noqa: E731
        return _either(are_images, steps, lambda: values[0])

    numbered = {**examples, "segment_ids": examples["segment_ids"] * number}
    examples = numbered
    row = {name: in_a_row(name) for name in ("video_tokens", "token_positions", "segment_ids", "known")}
    row["filled"] = _filled_up(examples["filled"][:, 0], images)
    if "text_embeddings" in examples:
        text_length = examples["text_embeddings"].shape[1]
        row["text_embeddings"] = _filled_up(_joined(examples["text_embeddings"]), images * text_length)
        row["text_segment_ids"] = _filled_up(_joined(examples["text_segment_ids"] * number), images * text_length)
    else:
        row |= {name: _filled_up(examples[name], images) for name in ("text_tokens", "text_mask")}
    return row


def _either(which: tf.Tensor, first: Callable[[], tf.Tensor], second: Callable[[], tf.Tensor]) -> tf.Tensor:
    return tf.cond(which, first, second)


def _joined(values: tf.Tensor) -> tf.Tensor:
    """The first two axes as one."""
    return tf.reshape(values, [-1, *values.shape[2:]])


def _filled_up(values: tf.Tensor, length: int) -> tf.Tensor:
    """The values with zeros behind them up to `length` along the first axis."""
    padding = [[0, length - tf.shape(values)[0]], *[[0, 0]] * (values.shape.rank - 1)]
    return tf.ensure_shape(tf.pad(values, padding), [length, *values.shape[1:]])
