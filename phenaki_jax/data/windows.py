"""What the tasks of this package have in common: their features, lots to draw by, and frames decoded late."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from phenaki_jax.data.tensorflow_stack import seqio, tf
from phenaki_jax.errors import UserError

OUTPUT_FEATURES = {
    "video": seqio.ContinuousFeature(dtype=tf.uint8, rank=4),
    "text": seqio.Feature(vocabulary=seqio.PassThroughVocabulary(0), add_eos=False, dtype=tf.string, rank=0),
    "prefix_frames": seqio.ContinuousFeature(dtype=tf.int32, rank=1),
}
VIDEO_RATE = 0.8
PREFIX_PROBABILITY = 0.5
PREFIX_FRAMES = 5

Seed = tuple[tf.Tensor, tf.Tensor]


def draw_lots(seed: Seed, counts: Sequence[int | tf.Tensor]) -> list[tf.Tensor]:
    """Independent uniform numbers from 0 to 1, as many as each choice needs."""
    return tf.split(tf.random.stateless_uniform([sum(counts)], seed), counts)


def choose(allowed: tf.Tensor, lots: tf.Tensor) -> tf.Tensor:
    """The index of one of the allowed, all equally likely, counted over the flattened tensor."""
    return tf.argmax(tf.where(tf.reshape(allowed, [-1]), lots, -1.0), output_type=tf.int32)


def draw_given(lots: tf.Tensor, prefix_probability: float, prefix_frames: int) -> tf.Tensor:
    """How many first frames are given: `prefix_frames` of a continuation, 0 of an opening."""
    return tf.where(lots[0] < prefix_probability, prefix_frames, 0)


def check_prefix_probability(prefix_probability: float) -> None:
    """Refuses a share that is none.

    Raises:
      UserError: names it.
    """
    if not 0 <= prefix_probability <= 1:
        raise UserError(f"found prefix_probability {prefix_probability}, expected a share from 0 to 1")


def decode_window(
    encoded: tf.Tensor, start: tf.Tensor | int, frames: int, size: int, decode: Callable[..., tf.Tensor]
) -> tf.Tensor:
    """Encoded [frames] from `start` -> uint8 [frames, size, size, 3]; unrolled, since a loop takes longer than a frame.

    Args:
      encoded: all frames of a clip.
      start: first of the window.
      frames: of the window; no others are decoded.
      size: of a frame.
      decode: of TensorFlow, such as `tf.io.decode_png`.
    """
    chosen = tf.unstack(encoded[start : start + frames], frames)
    video = tf.stack([decode(frame, channels=3) for frame in chosen])
    return tf.ensure_shape(video, [frames, size, size, 3])


def check_shards(files: Sequence[str], split: str, folder: str, again: str) -> None:
    """Refuses files of a split of which some are absent.

    Args:
      files: at least one, each named -of- how many.
      split: which.
      folder: where they are.
      again: how to make them again.

    Raises:
      UserError: how many there are.
    """
    expected = int(files[0].rpartition("-of-")[2])
    if len(files) != expected:
        raise UserError(
            f"found {len(files)} of {expected} {split} files in {folder}, expected all of them: copy the rest, or "
            f"{again}"
        )
