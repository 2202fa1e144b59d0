"""Model features: of one length, with masks that are True on what is there."""

import numpy as np
import pytest

from phenaki_jax.data.converters import TokenizerFeatureConverter, TransformerFeatureConverter
from phenaki_jax.data.tensorflow_stack import seqio, tf, tfds
from phenaki_jax.errors import UserError

LENGTHS = {"video": 5, "text": 6, "prefix_frames": 1}


def task_examples(frames: int) -> tf.data.Dataset:
    """One example of as many frames, of which the pixels are 1, 2, 3... by frame."""
    pixels = np.arange(1, frames + 1, dtype=np.uint8)[:, None, None, None]
    example = {
        "video": np.broadcast_to(pixels, (frames, 2, 2, 3)),
        "text": b"ab",
        "prefix_frames": np.array([3], np.int32),
    }
    return tf.data.Dataset.from_tensors(example)


def convert(converter: seqio.FeatureConverter, frames: int) -> dict[str, np.ndarray]:
    lengths = {name: LENGTHS[name] for name in converter.TASK_FEATURES}
    (converted,) = tfds.as_numpy(converter(task_examples(frames), lengths))
    return converted


@pytest.mark.parametrize("frames", [1, 3, 5])
def test_videos_are_padded_in_time_and_the_mask_says_where(frames: int) -> None:
    converted = convert(TokenizerFeatureConverter(), frames)
    assert set(converted) == {"video", "frame_mask"}
    assert converted["video"].dtype == np.uint8
    expected = [1, 2, 3, 4, 5][:frames] + [0] * (5 - frames)
    np.testing.assert_array_equal(converted["video"], np.broadcast_to(np.reshape(expected, (5, 1, 1, 1)), (5, 2, 2, 3)))
    np.testing.assert_array_equal(converted["frame_mask"], np.arange(5) < frames)


def test_transformer_features_have_text_with_its_mask_and_a_number_of_given_frames() -> None:
    converted = convert(TransformerFeatureConverter(), 4)
    np.testing.assert_array_equal(converted["text_tokens"], [100, 101, 1, 0, 0, 0])
    np.testing.assert_array_equal(converted["text_mask"], [True, True, True, False, False, False])
    np.testing.assert_array_equal(converted["frame_mask"], [True, True, True, True, False])
    assert converted["prefix_frames"].shape == ()
    assert converted["prefix_frames"] == 3
    assert converted["text_tokens"].dtype == converted["prefix_frames"].dtype == np.int32


def test_shapes_are_known_before_an_example_is_read() -> None:
    spec = TransformerFeatureConverter()(task_examples(3), LENGTHS).element_spec
    assert {name: tuple(tensor.shape) for name, tensor in spec.items()} == {
        "video": (5, 2, 2, 3),
        "frame_mask": (5,),
        "text_tokens": (6,),
        "text_mask": (6,),
        "prefix_frames": (),
    }


@pytest.mark.parametrize("converter", [TokenizerFeatureConverter, TransformerFeatureConverter])
def test_packing_is_refused(converter: type[seqio.FeatureConverter]) -> None:
    with pytest.raises(UserError, match="never packed"):
        converter(pack=True)


def _video_alone(example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    return {"video": example["video"]}


def test_a_video_longer_than_the_model_is_refused_not_cut() -> None:
    with pytest.raises(UserError, match="found videos of 7 frames, expected at most the model's 5"):
        convert(TokenizerFeatureConverter(), 7)
    (example,) = task_examples(7)
    signature = {name: tf.TensorSpec(value.shape, value.dtype) for name, value in example.items()}
    signature["video"] = tf.TensorSpec((None, 2, 2, 3), tf.uint8)
    of_any_length = tf.data.Dataset.from_generator(lambda: [example], output_signature=signature)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"videos of. .7. .frames, expected at most 5"):
        list(TokenizerFeatureConverter(apply_length_check=False)(of_any_length.map(_video_alone), {"video": 5}))


def test_given_frames_that_leave_nothing_to_draw_are_refused() -> None:
    with pytest.raises(
        tf.errors.InvalidArgumentError, match=r"less than the frames of the video, found. \[3\] .*\[3\]"
    ):
        convert(TransformerFeatureConverter(), 3)


def test_lengths_that_leave_a_time_step_in_part_are_refused() -> None:
    assert convert(TransformerFeatureConverter(temporal_patch=2), 5)["prefix_frames"] == 3
    with pytest.raises(
        tf.errors.InvalidArgumentError,
        match=r"found videos of. .4. .frames, expected 1 \+ k \* 2, such as. .3. .or. .5. .*cut",
    ):
        convert(TokenizerFeatureConverter(temporal_patch=2), 4)
    with pytest.raises(
        tf.errors.InvalidArgumentError,
        match=r"found prefix_frames. .3. .*expected 1 \+ k \* 4, such as. .1. .or. .5. .*cut",
    ):
        convert(TransformerFeatureConverter(temporal_patch=4), 5)


def test_a_longer_text_is_cut_and_ended() -> None:
    examples = task_examples(5).map(lambda example: {**example, "text": "abcdefgh"})
    (converted,) = tfds.as_numpy(TransformerFeatureConverter(apply_length_check=False)(examples, LENGTHS))
    np.testing.assert_array_equal(converted["text_tokens"], [100, 101, 102, 103, 104, 1])
    assert converted["text_mask"].all()
