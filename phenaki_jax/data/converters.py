"""From the features of a task to those of a model: of one length, with masks that tell what is padding."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from phenaki_jax.data.tensorflow_stack import seqio, tf
from phenaki_jax.errors import UserError
from phenaki_jax.text.sentencepiece_tokenizer import SentencePieceTokenizer
from phenaki_jax.text.tokenizer import EOS_ID

_Spec = seqio.FeatureConverter.FeatureSpec
_CUT = "cut windows of them in the task"
_Example = dict[str, tf.Tensor]


class TokenizerFeatureConverter(seqio.FeatureConverter):
    """`video` uint8 [frames, height, width, 3] and `frame_mask` bool [frames]; an image is padded with black frames.

    Args:
      pack: as seqio passes it; videos are not packed.
      temporal_patch: frames of a token time step after the first frame; videos have 1 + k times as many.
      options: those of `seqio.FeatureConverter`.

    Raises:
      UserError: packing is asked for.
    """

    TASK_FEATURES = {"video": _Spec(dtype=tf.uint8, rank=4)}
    MODEL_FEATURES = {"video": _Spec(dtype=tf.uint8, rank=4), "frame_mask": _Spec(dtype=tf.bool)}
    PACKING_FEATURE_DTYPES = None

    def __init__(self, pack: bool = False, *, temporal_patch: int = 1, **options: Any) -> None:
        if pack:
            raise UserError("found pack=True, expected pack=False: videos are padded, never packed")
        self._temporal_patch = temporal_patch
        super().__init__(pack=False, **options)

    def _convert_features(self, ds: tf.data.Dataset, task_feature_lengths: Mapping[str, int]) -> tf.data.Dataset:
        found, most = ds.element_spec["video"].shape[0], task_feature_lengths["video"]
        if found is not None and found > most:
            raise UserError(f"found videos of {found} frames, expected at most the model's {most}: {_CUT}")
        return ds.map(lambda example: self._convert(example, task_feature_lengths), num_parallel_calls=tf.data.AUTOTUNE)

    def _convert(self, example: _Example, lengths: Mapping[str, int]) -> _Example:
        found, most = tf.shape(example["video"])[0], lengths["video"]
        fits = tf.debugging.Assert(
            found <= most,
            ["found videos of", found, f"frames, expected at most {most}, those of the model: {_CUT}"],
        )
        with tf.control_dependencies([fits, self._whole_steps("videos of", "frames", found)]):
            video, frame_mask = padded(example["video"], most)
        return {"video": video, "frame_mask": frame_mask}

    def _whole_steps(self, before: str, after: str, found: tf.Tensor) -> tf.Operation:
        patch = self._temporal_patch
        below = 1 + (tf.maximum(found, 1) - 1) // patch * patch
        expected = f"{after}, expected 1 + k * {patch}, such as"
        return tf.debugging.Assert(
            found == below, [f"found {before}", found, expected, below, "or", below + patch, f"frames: {_CUT}"]
        )

    def get_model_feature_lengths(self, task_feature_lengths: Mapping[str, int]) -> Mapping[str, int]:
        frames = task_feature_lengths["video"]
        return {"video": frames, "frame_mask": frames}


class TransformerFeatureConverter(TokenizerFeatureConverter):
    """Further `text_tokens` int32 [text_length], `text_mask` bool [text_length] and `prefix_frames` int32 scalar.

    Args:
      encode: makes ids of a text, see `text_encoder`; longer texts are cut, all are ended.
      text_length: tokens of a text where the length of `text` that it is called with is None, as where seqio, which
        cannot cut texts before they are tokens, is called with the same lengths.
      options: those of `TokenizerFeatureConverter`.
    """

    TASK_FEATURES = {
        **TokenizerFeatureConverter.TASK_FEATURES,
        "text": _Spec(dtype=tf.string, rank=0),
        "prefix_frames": _Spec(dtype=tf.int32),
    }
    MODEL_FEATURES = {
        **TokenizerFeatureConverter.MODEL_FEATURES,
        "text_tokens": _Spec(dtype=tf.int32),
        "text_mask": _Spec(dtype=tf.bool),
        "prefix_frames": _Spec(dtype=tf.int32, rank=0),
    }

    def __init__(
        self, *, encode: Callable[[tf.Tensor], tf.Tensor] | None = None, text_length: int = 0, **options: Any
    ) -> None:
        self._encode, self._text_length = encode or text_encoder(""), text_length
        super().__init__(**options)

    def _convert(self, example: _Example, lengths: Mapping[str, int]) -> _Example:
        text_length = lengths["text"] or self._text_length
        ids = self._encode(example["text"])[: text_length - 1]
        text_tokens, text_mask = padded(tf.concat([ids, [EOS_ID]], axis=0), text_length)
        given, found = example["prefix_frames"][0], tf.shape(example["video"])[0]
        leaves_some = tf.debugging.Assert(
            (given >= 0) & (given < found),
            ["expected prefix_frames from 0 to less than the frames of the video, found", given, "of", found],
        )
        with tf.control_dependencies(
            [leaves_some, self._whole_steps("prefix_frames", "of a video", tf.maximum(given, 1))]
        ):
            given = tf.identity(given)
        return {
            **super()._convert(example, lengths),
            "text_tokens": text_tokens,
            "text_mask": text_mask,
            "prefix_frames": given,
        }

    def get_model_feature_lengths(self, task_feature_lengths: Mapping[str, int]) -> Mapping[str, int]:
        text_length = task_feature_lengths["text"] or self._text_length
        return {
            **super().get_model_feature_lengths(task_feature_lengths),
            "text_tokens": text_length,
            "text_mask": text_length,
            "prefix_frames": 1,
        }


def text_encoder(vocabulary: str) -> Callable[[tf.Tensor], tf.Tensor]:
    """What makes ids of a text, without the end of text, where a dataset is read.

    Args:
      vocabulary: a file of sentencepiece, as `text.sentencepiece_tokenizer` takes it; bytes where empty.

    Raises:
      UserError: there is no such file, or it is none of a T5.
    """
    if not vocabulary:
        known = seqio.ByteVocabulary(extra_ids=0)
    else:
        SentencePieceTokenizer(vocabulary)
        known = seqio.SentencePieceVocabulary(vocabulary, extra_ids=0)
    return known.encode_tf


def padded(values: tf.Tensor, length: int) -> tuple[tf.Tensor, tf.Tensor]:
    """The values with zeros behind them up to `length` along the first axis, and a mask that is False on those."""
    found = tf.shape(values)[0]
    padding = [[0, length - found], *[[0, 0]] * (values.shape.rank - 1)]
    padded = tf.ensure_shape(tf.pad(values, padding), [length, *values.shape[1:]])
    return padded, tf.range(length) < found
