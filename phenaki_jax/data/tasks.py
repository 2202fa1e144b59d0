"""The seqio tasks and mixtures of `moving_shapes`; importing this module registers them.

    moving_shapes_video_text                a window of a clip and a caption of its new frames
    moving_shapes_openings                  the same without given frames, as clips are evaluated
    moving_shapes_video_text_any_length     a window of 3, 5, 7... frames, up to those asked for
    moving_shapes_image_text                an image and its caption
    moving_shapes_joint                     80 % of the first, 20 % images
    moving_shapes_joint_any_length          80 % of the second, 20 % images

These are of 32 px; at 64 px their names end in "_64".

Their output features are `video` uint8 [frames, size, size, 3], as many frames as the caller asks for, `text`, the
caption as a string, which the feature converter makes tokens of, and `prefix_frames` int32 [1]: how many of the first
frames are given, and the rest is what the caption tells.

The datasets are looked for where `seqio.set_tfds_data_dir_override` says.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

from phenaki_jax.data.moving_shapes import examples, world
from phenaki_jax.data.moving_shapes.builder import SIZES, MovingShapes, feature_shapes
from phenaki_jax.data.prepare.metadata import told_of_one_dataset
from phenaki_jax.data.records import SHUFFLE_BUFFER, EncodedRecords
from phenaki_jax.data.tensorflow_stack import seqio, tf
from phenaki_jax.data.windows import (
    OUTPUT_FEATURES,
    PREFIX_FRAMES,
    PREFIX_PROBABILITY,
    VIDEO_RATE,
    Seed,
    check_prefix_probability,
    check_shards,
    choose,
    decode_window,
    draw_given,
    draw_lots,
)
from phenaki_jax.errors import UserError

# Of the tasks of any length: frames from one length to the next, as many as those of a later token of the models.
LENGTH_STEP = 2

# A colour changes over the first frames of its segment; a window that begins later than this shows too little of it.
LATEST_COLOR_CHANGE_OFFSET = 2


class EncodedExamples(EncodedRecords):
    """The records of a `moving_shapes` dataset, unparsed.

    Args:
      config: name of the dataset's configuration, such as "video_32".
      shuffle_buffer: records to shuffle among.
    """

    def __init__(self, config: str, *, shuffle_buffer: int = SHUFFLE_BUFFER) -> None:
        super().__init__(examples.SPLITS, shuffle_buffer=shuffle_buffer)
        self._config = config

    def list_shards(self, split: str) -> Sequence[str]:
        """The files of a split; see `EncodedRecords.list_shards`."""
        dataset = f"{MovingShapes.name}/{self._config}:{MovingShapes.VERSION}"
        # A new loader each time: one remembers the first override of the data folder that it sees.
        data_dir = seqio.LazyTfdsLoader(dataset).data_dir
        if data_dir is None:
            raise UserError(f"found no data_dir, expected the folder that holds {dataset}: set data_dir")
        folder = f"{data_dir}/{dataset.replace(':', '/')}"
        files = sorted(tf.io.gfile.glob(f"{folder}/{MovingShapes.name}-{split}.tfrecord-*"))
        if not files:
            size = self._config.partition("_")[2]
            raise UserError(
                f"found no {split} files in {folder}, expected a dataset{told_of_one_dataset(data_dir, self._config)}: "
                "set data_dir to where it is, or make it with "
                f'python -c "from phenaki_jax.data.moving_shapes.builder import prepare; '
                f"prepare('{data_dir}', size={size})\""
            )
        check_shards(files, split, folder, "delete the folder and make the dataset again")
        return files


def video_text_task(
    size: int = 32,
    *,
    prefix_probability: float = PREFIX_PROBABILITY,
    prefix_frames: int = PREFIX_FRAMES,
    length_step: int | None = None,
) -> seqio.Task:
    """Windows of clips with a caption of their new frames, all of which are of one segment.

    An opening is a window within a segment. A continuation begins with given frames, which may be of the segment
    before, and then shows new ones.

    Args:
      size: the frame's side in pixels.
      prefix_probability: how many of the windows are continuations, from 0 to 1.
      prefix_frames: given frames of a continuation.
      length_step: where None, windows have all the frames that are asked for; else 1 + k * length_step, any k from 1
        whose frames are no more than those asked for, and more than the given ones, as likely as another.
    """
    windows = functools.partial(
        _windows_of_clips,
        size=size,
        prefix_probability=prefix_probability,
        prefix_frames=prefix_frames,
        length_step=length_step,
    )
    return _task("video", _name("video_text", size, any_length=length_step is not None), size, windows)


def openings_task(size: int = 32) -> seqio.Task:
    """Windows within a segment, without given frames, and a caption of them."""
    windows = functools.partial(_windows_of_clips, size=size, prefix_probability=0.0, prefix_frames=0, length_step=None)
    return _task("video", _name("openings", size), size, windows)


def image_text_task(size: int = 32) -> seqio.Task:
    """Images, one frame each, with a caption."""
    return _task("image", _name("image_text", size), size, functools.partial(_image, size=size))


def joint_mixture(
    size: int = 32,
    *,
    video_rate: float = VIDEO_RATE,
    prefix_probability: float = PREFIX_PROBABILITY,
    prefix_frames: int = PREFIX_FRAMES,
    length_step: int | None = None,
) -> seqio.Mixture:
    """Video-text and image-text examples; the arguments are those of `video_text_task`.

    Args:
      size: the frame's side in pixels.
      video_rate: how many of the examples are videos, from 0 to 1.
      prefix_probability: how many of the videos are continuations, from 0 to 1.
      prefix_frames: given frames of a continuation.
      length_step: of the videos' lengths, where they differ.
    """
    videos = video_text_task(
        size, prefix_probability=prefix_probability, prefix_frames=prefix_frames, length_step=length_step
    )
    rates = [(videos, video_rate), (image_text_task(size), 1 - video_rate)]
    return seqio.Mixture(_name("joint", size, any_length=length_step is not None), rates)


def register() -> None:
    """Makes the tasks and mixtures known to seqio by name, once."""
    for size in SIZES:
        videos = video_text_task(size), video_text_task(size, length_step=LENGTH_STEP)
        for task in (*videos, openings_task(size), image_text_task(size)):
            if task.name not in seqio.TaskRegistry.names():
                seqio.TaskRegistry.add_provider(task.name, task)
        for mixture in (joint_mixture(size), joint_mixture(size, length_step=LENGTH_STEP)):
            if mixture.name not in seqio.MixtureRegistry.names():
                seqio.MixtureRegistry.add_provider(mixture.name, mixture)


def _name(what: str, size: int, *, any_length: bool = False) -> str:
    return f"{MovingShapes.name}_{what}" + "_any_length" * any_length + ("" if size == SIZES[0] else f"_{size}")


def _task(kind: str, name: str, size: int, preprocessor: functools.partial) -> seqio.Task:
    return seqio.Task(
        name,
        source=EncodedExamples(f"{kind}_{size}"),
        preprocessors=[preprocessor],
        output_features=OUTPUT_FEATURES,
        shuffle_buffer_size=None,
    )


def _windows_of_clips(
    dataset: tf.data.Dataset,
    sequence_length: Mapping[str, int],
    *,
    size: int,
    prefix_probability: float,
    prefix_frames: int,
    length_step: int | None,
) -> tf.data.Dataset:
    # Not in the mapped function, where TensorFlow would wrap the error in pages of its own.
    lengths = _lengths(sequence_length["video"], length_step)
    _check_window(lengths[-1], prefix_probability, prefix_frames)
    return _window_of_clip(
        dataset,
        size=size,
        prefix_probability=prefix_probability,
        prefix_frames=prefix_frames,
        lengths=lengths,
    )


@seqio.map_over_dataset(num_seeds=1)
@tf.autograph.experimental.do_not_convert
def _window_of_clip(
    example: dict[str, tf.Tensor],
    seed: Seed,
    *,
    size: int,
    prefix_probability: float,
    prefix_frames: int,
    lengths: Sequence[int],
) -> dict[str, tf.Tensor]:
    clip = _parse(example["record"], kind="video")
    places, wordings = examples.VIDEO_SEGMENTS * world.SEGMENT_FRAMES, clip["captions"].shape[1]
    prefix_lots, place_lots, offset_lots, wording_lots, length_lots = draw_lots(
        seed, [1, places, world.SEGMENT_FRAMES, wordings, len(lengths)]
    )
    given = draw_given(prefix_lots, prefix_probability, prefix_frames)
    length = choose(tf.constant(lengths) > given, length_lots)
    new = tf.constant(lengths)[length] - given
    latest_color_change = tf.where(given > 0, LATEST_COLOR_CHANGE_OFFSET, 0)

    # [segments, offsets]: where in which segment the new frames may begin.
    offsets = tf.range(world.SEGMENT_FRAMES)
    segments = tf.range(examples.VIDEO_SEGMENTS)[:, None]
    fits = (offsets + new <= world.SEGMENT_FRAMES) & (segments * world.SEGMENT_FRAMES + offsets >= given)
    changes_color = (clip["motion"] == "changes color")[:, None]
    allowed = fits & (~changes_color | (offsets <= latest_color_change))

    segment = choose(fits & tf.reduce_any(allowed, axis=1, keepdims=True), place_lots) // world.SEGMENT_FRAMES
    offset = choose(allowed[segment], offset_lots)
    start = segment * world.SEGMENT_FRAMES + offset - given
    windows = [
        functools.partial(decode_window, clip["frames"], start, frames, size, tf.io.decode_png) for frames in lengths
    ]
    video = windows[0]() if len(windows) == 1 else tf.switch_case(length, windows)
    return {
        "video": video,
        "text": clip["captions"][segment][tf.argmax(wording_lots)],
        "prefix_frames": given[None],
    }


@seqio.map_over_dataset(num_seeds=1)
@tf.autograph.experimental.do_not_convert
def _image(example: dict[str, tf.Tensor], seed: Seed, *, size: int) -> dict[str, tf.Tensor]:
    image = _parse(example["record"], kind="image")
    (wording_lots,) = draw_lots(seed, [image["captions"].shape[1]])
    return {
        "video": decode_window(image["frames"], 0, 1, size, tf.io.decode_png),
        "text": image["captions"][0][tf.argmax(wording_lots)],
        "prefix_frames": tf.constant([0]),
    }


def _lengths(frames: int, step: int | None) -> list[int]:
    """The lengths that windows may have, the longest last."""
    if step is None:
        return [frames]
    if step < 1 or frames <= step:
        raise UserError(
            f"found windows of any length up to {frames} frames with length_step {step}, expected a step of at least 1 "
            f"and more frames than it: ask for more frames, or for images alone"
        )
    return list(range(1 + step, frames + 1, step))


def _check_window(frames: int, prefix_probability: float, prefix_frames: int) -> None:
    check_prefix_probability(prefix_probability)
    if prefix_probability < 1 and not 1 <= frames <= world.SEGMENT_FRAMES:
        raise UserError(
            f"found windows of {frames} frames, expected 1 to {world.SEGMENT_FRAMES}: clips of {MovingShapes.name} "
            f"have {examples.VIDEO_SEGMENTS * world.SEGMENT_FRAMES} frames, in segments of {world.SEGMENT_FRAMES}, and "
            "a window without given frames is of one; set fewer FRAMES"
        )
    # With more given frames, the clips whose last segment changes its colour would have no place for a window.
    most_given = (examples.VIDEO_SEGMENTS - 1) * world.SEGMENT_FRAMES
    new_frames = frames - prefix_frames
    possible = 1 <= prefix_frames <= most_given and 1 <= new_frames <= world.SEGMENT_FRAMES
    if prefix_probability > 0 and not possible:
        raise UserError(
            f"found continuations of {frames} frames, {prefix_frames} of them given, expected 1 to {most_given} given "
            f"and 1 to {world.SEGMENT_FRAMES} new: change the frames or prefix_frames, or set prefix_probability to 0"
        )


def _parse(record: tf.Tensor, kind: str) -> dict[str, tf.Tensor]:
    """What the tasks need of a record, the frames still encoded."""
    shapes = feature_shapes(kind)
    return tf.io.parse_single_example(
        record, {name: tf.io.FixedLenFeature(shapes[name], tf.string) for name in ("frames", "captions", "motion")}
    )


register()
