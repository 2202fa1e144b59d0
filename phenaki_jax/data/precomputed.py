"""Tokens of videos and embeddings of texts that were computed once, as a sharded dataset with seqio tasks of its own.

precomputed.json                                          what was computed, of what, with which networks
moving_shapes_video_text/train.tfrecord-00000-of-00016    tf.train.Example, a file for each share of a task's split

An example has `video_tokens` (int32, with their `shape`: times, rows, columns), `prefix_frames`, `text_tokens` (int32)
and, of a frozen text encoder, `text_embeddings` (bfloat16): all without padding, numbers as little-endian bytes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Int, Shaped

from phenaki_jax.data.converters import padded
from phenaki_jax.data.precomputed_metadata import Precomputed
from phenaki_jax.data.records import EncodedRecords
from phenaki_jax.data.tensorflow_stack import seqio, tf
from phenaki_jax.errors import UserError

SPLITS = ("train", "test")

_Spec = seqio.FeatureConverter.FeatureSpec
_AGAIN = "go on with the same phenaki precompute command"


def shard_file(folder: str | os.PathLike[str], task: str, split: str, index: int, count: int) -> Path:
    """The file of a share of a task's split."""
    return Path(folder) / task / f"{split}.tfrecord-{index:05}-of-{count:05}"


def encode_example(
    video_tokens: Int[np.ndarray, "times rows columns"],
    prefix_frames: int,
    text_tokens: Int[np.ndarray, " text_length"],
    text_embeddings: Shaped[np.ndarray, "text_length text_width"] | None,
) -> bytes:
    """A record, of the same bytes in every process; see `precomputed`."""
    features = {
        "video_tokens": _bytes(video_tokens, "<i4"),
        "shape": tf.train.Feature(int64_list=tf.train.Int64List(value=video_tokens.shape)),
        "prefix_frames": tf.train.Feature(int64_list=tf.train.Int64List(value=[prefix_frames])),
        "text_tokens": _bytes(text_tokens, "<i4"),
    }
    if text_embeddings is not None:
        features["text_embeddings"] = _bytes(text_embeddings, jnp.bfloat16)
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString(deterministic=True)


def _bytes(values: np.ndarray, dtype: Any) -> tf.train.Feature:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[values.astype(dtype).tobytes()]))


def precomputed_mixture(folder: str | os.PathLike[str], mixture: str, split: str) -> seqio.Mixture:
    """A mixture or task as it was precomputed, its tasks at their rates.

    Raises:
      UserError: the folder has no such mixture, or not this split of it.
    """
    info = Precomputed.read(folder)
    if mixture not in info.mixtures:
        raise UserError(
            f"{folder}: found no mixture {mixture!r}, expected one of {', '.join(info.mixtures)}: precompute it, or "
            "name one of these"
        )
    rates = info.mixtures[mixture]
    if absent := [task for task in rates if split not in info.splits[task]]:
        raise UserError(
            f"{folder}: found no {split} split of {absent[0]}, expected it: precompute it with --split {split}"
        )
    return seqio.Mixture(
        f"{mixture}_precomputed", [(precomputed_task(folder, task), rate) for task, rate in rates.items()]
    )


def precomputed_task(folder: str | os.PathLike[str], task: str) -> seqio.Task:
    """The task of `video_tokens` int32 [times, rows, columns], `prefix_frames` int32 [1], `text_tokens` int32 [length].

    Where there is a frozen text encoder, also of `text_embeddings` bfloat16 [length, text_width].

    Raises:
      UserError: the folder is not there, damaged, or of another version. Reading raises the same of its files.
    """
    info = Precomputed.read(folder)
    features = {
        "video_tokens": seqio.ContinuousFeature(dtype=tf.int32, rank=3),
        "prefix_frames": seqio.ContinuousFeature(dtype=tf.int32, rank=1),
        "text_tokens": seqio.Feature(seqio.PassThroughVocabulary(0), add_eos=False, dtype=tf.int32, rank=1),
    }
    if info.text_width:
        features["text_embeddings"] = seqio.ContinuousFeature(dtype=tf.bfloat16, rank=2)
    grid = tuple(info.grids[task])
    return seqio.Task(
        f"{task}_precomputed",
        source=_Records(folder, task),
        preprocessors=[lambda dataset: dataset.map(lambda example: _decode(example["record"], info, grid))],
        output_features=features,
        shuffle_buffer_size=None,
    )


class _Records(EncodedRecords):
    """The records of a precomputed task."""

    def __init__(self, folder: str | os.PathLike[str], task: str) -> None:
        super().__init__(SPLITS)
        self._folder, self._task = Path(folder), task

    def list_shards(self, split: str) -> Sequence[str]:
        """The files of a split; see `EncodedRecords.list_shards`."""
        found = sorted(map(str, (self._folder / self._task).glob(f"{split}.tfrecord-*-of-*")))
        expected = int(found[0].rpartition("-of-")[2]) if found else 1
        if len(found) != expected:
            raise UserError(
                f"{self._folder / self._task}: found {len(found)} of {expected} files of the {split} split, expected "
                f"all of them: {_AGAIN}"
            )
        return found


def _decode(record: tf.Tensor, info: Precomputed, grid: tuple[int, ...]) -> dict[str, tf.Tensor]:
    names = ["video_tokens", "text_tokens", *(["text_embeddings"] if info.text_width else [])]
    features = {name: tf.io.FixedLenFeature([], tf.string) for name in names}
    features |= {
        "shape": tf.io.FixedLenFeature([3], tf.int64),
        "prefix_frames": tf.io.FixedLenFeature([1], tf.int64),
    }
    found = tf.io.parse_single_example(record, features)
    tokens = tf.io.decode_raw(found["video_tokens"], tf.int32)
    in_codebook = tf.debugging.Assert(
        tf.reduce_all((tokens >= 0) & (tokens < info.codebook_size)),
        [f"found codes beyond the codebook of {info.codebook_size} in precomputed tokens: precompute again"],
    )
    with tf.control_dependencies([in_codebook]):
        tokens = tf.ensure_shape(tf.reshape(tokens, found["shape"]), [None, *grid])
    example = {
        "video_tokens": tokens,
        "prefix_frames": tf.cast(found["prefix_frames"], tf.int32),
        "text_tokens": tf.io.decode_raw(found["text_tokens"], tf.int32),
    }
    if info.text_width:
        embeddings = tf.reshape(tf.io.decode_raw(found["text_embeddings"], tf.bfloat16), [-1, info.text_width])
        finite = tf.debugging.Assert(
            tf.reduce_all(tf.math.is_finite(embeddings)),
            ["found NaN or infinity in a precomputed text embedding, expected numbers: precompute again"],
        )
        with tf.control_dependencies([finite]):
            example["text_embeddings"] = tf.identity(embeddings)
    return example


class PrecomputedFeatureConverter(seqio.FeatureConverter):
    """Of a precomputed example, a row of one length; places are tokens, in the order of times, rows, columns.

    `video_tokens` int32 [places], `token_positions` int32 [places, 3], `segment_ids` int32 [places] (1, or 0 for
    padding), `known` bool [places] (given frames) and `filled` bool [1]. And `text_embeddings` bfloat16 [text_length,
    text_width] with `text_segment_ids` int32 [text_length], or `text_tokens` int32 and `text_mask` bool, both [1,
    text_length].

    Args:
      has_embeddings: whether texts are embeddings, and not tokens.
      temporal_patch: frames of a token time step after the first frame.
      options: those of `seqio.FeatureConverter`.
    """

    PACKING_FEATURE_DTYPES = None

    def __init__(self, *, has_embeddings: bool, temporal_patch: int, **options: Any) -> None:
        self._temporal_patch = temporal_patch
        if has_embeddings:
            embeddings = {"text_embeddings": _Spec(dtype=tf.bfloat16, rank=2)}
            text, texts = embeddings, {**embeddings, "text_segment_ids": _INTEGERS}
        else:
            text = {"text_tokens": _INTEGERS}
            texts = {"text_tokens": _Spec(dtype=tf.int32, rank=2), "text_mask": _Spec(dtype=tf.bool, rank=2)}
        self.TASK_FEATURES = {"video_tokens": _Spec(dtype=tf.int32, rank=3), "prefix_frames": _INTEGERS, **text}
        self.MODEL_FEATURES = {
            **dict.fromkeys(("video_tokens", "segment_ids"), _INTEGERS),
            "token_positions": _Spec(dtype=tf.int32, rank=2),
            **dict.fromkeys(("known", "filled"), _Spec(dtype=tf.bool)),
            **texts,
        }
        super().__init__(pack=False, **options)

    def _convert_features(self, ds: tf.data.Dataset, task_feature_lengths: Mapping[str, int]) -> tf.data.Dataset:
        return ds.map(lambda example: self._convert(example, task_feature_lengths))

    def _convert(self, example: dict[str, tf.Tensor], lengths: Mapping[str, int]) -> dict[str, tf.Tensor]:
        tokens, given, times = example["video_tokens"], example["prefix_frames"][0], lengths["video_tokens"]
        rows, columns = tokens.shape[1:]
        places, length = rows * columns, times * rows * columns
        positions = np.stack(np.meshgrid(*map(np.arange, (times, rows, columns)), indexing="ij"), -1).reshape(-1, 3)
        flat, there = padded(tf.reshape(tokens, [-1]), length)
        known_times = tf.where(given > 0, (given - 1) // self._temporal_patch + 1, 0)
        return {
            "video_tokens": flat,
            "token_positions": tf.constant(positions, tf.int32),
            "segment_ids": tf.cast(there, tf.int32),
            "known": tf.range(length) < known_times * places,
            "filled": tf.constant([True]),
            **self._texts(example, lengths),
        }

    def _texts(self, example: dict[str, tf.Tensor], lengths: Mapping[str, int]) -> dict[str, tf.Tensor]:
        if "text_embeddings" in example:
            embeddings, there = padded(example["text_embeddings"], lengths["text_embeddings"])
            return {"text_embeddings": embeddings, "text_segment_ids": tf.cast(there, tf.int32)}
        ids, there = padded(example["text_tokens"], lengths["text_tokens"])
        return {"text_tokens": ids[None], "text_mask": there[None]}

    def get_model_feature_lengths(self, task_feature_lengths: Mapping[str, int]) -> Mapping[str, int]:
        """Those of this package's feeds are known from their datasets."""
        return dict.fromkeys(self.MODEL_FEATURES, 1)


_INTEGERS = _Spec(dtype=tf.int32)
