"""Examples depend on their index alone, and keep to what their split may show."""

import dataclasses
import itertools
import subprocess
import sys

import numpy as np
import pytest

from phenaki_jax.data.moving_shapes import examples, world
from phenaki_jax.data.moving_shapes.examples import ExampleSet, encode_png, example_features, example_scene
from phenaki_jax.data.tensorflow_stack import tf

TRAIN = ExampleSet("video", "train", size=32, seed=0, count=200)
TEST = ExampleSet("video", "test", size=32, seed=0, count=62)
IMAGES = ExampleSet("image", "train", size=32, seed=0, count=96)


def scenes_of(example_set: ExampleSet) -> list[world.Scene]:
    return [example_scene(example_set, index) for index in range(example_set.count)]


def test_training_clips_show_nothing_that_is_held_out() -> None:
    shown = {segment.combination for scene in scenes_of(TRAIN) for segment in scene.segments}
    assert not shown & world.held_out_combinations()


def test_first_segments_of_test_clips_show_every_held_out_combination_equally_often() -> None:
    first = [scene.segments[0].combination for scene in scenes_of(TEST)]
    assert sorted(first) == sorted([*world.held_out_combinations()] * 2)


@pytest.mark.parametrize("clips", [TRAIN, TEST], ids=["train", "test"])
def test_videos_show_no_concept_that_is_for_images_only(clips: ExampleSet) -> None:
    segments = [segment for scene in scenes_of(clips) for segment in scene.segments]
    assert not {segment.shape for segment in segments} & set(world.IMAGE_ONLY_SHAPES)
    shown = {color for segment in segments for color in (segment.color, segment.target_color)}
    assert not shown & set(world.IMAGE_ONLY_COLORS)


def test_half_of_the_images_show_a_concept_that_no_video_shows() -> None:
    segments = [scene.segments[0] for scene in scenes_of(IMAGES)]
    assert {(segment.color, segment.shape) for segment in segments} == set(
        itertools.product(world.COLORS, world.SHAPES)
    )
    unseen = [
        segment.color in world.IMAGE_ONLY_COLORS or segment.shape in world.IMAGE_ONLY_SHAPES for segment in segments
    ]
    assert np.mean(unseen) == 0.5


def test_an_example_depends_on_kind_split_seed_and_index_and_not_on_the_number_of_examples() -> None:
    scene = example_scene(TRAIN, 5)
    assert scene == example_scene(ExampleSet("video", "train", size=64, seed=0, count=6), 5)
    others = [
        example_scene(TRAIN, 6),
        example_scene(TEST, 5),
        example_scene(ExampleSet("video", "train", size=32, seed=1, count=200), 5),
    ]
    assert scene not in others


def test_features_are_the_rendered_frames_with_the_truth_about_them() -> None:
    scene, features = example_scene(TRAIN, 7), example_features(TRAIN, 7)
    frames = np.stack([tf.io.decode_png(frame).numpy() for frame in features["frames"]])
    np.testing.assert_array_equal(frames, world.render(scene, 32))
    assert features["captions"] == [world.captions(segment) for segment in scene.segments]
    for index, segment in enumerate(scene.segments):
        told = [features[name][index] for name in ("color", "shape", "motion", "target_color")]
        assert told == [segment.color, segment.shape, segment.motion, segment.target_color or ""]


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 5), (64, 64)])
def test_png_is_read_back_exactly(height: int, width: int) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    np.testing.assert_array_equal(tf.io.decode_png(encode_png(frame)).numpy(), frame)


def test_several_processes_draw_what_one_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    few = ExampleSet("video", "train", size=32, seed=0, count=10)
    alone = list(examples.generate_examples(few))
    monkeypatch.setattr(examples, "_EXAMPLES_PER_TASK", 2)
    monkeypatch.setattr(examples, "_available_cpus", lambda: 2)
    assert list(examples.generate_examples(few)) == alone
    assert [example["index"] for example in alone] == list(range(10))


def test_drawing_needs_no_tensorflow() -> None:
    program = (
        "import sys; import phenaki_jax.data.moving_shapes.examples, phenaki_jax.data.moving_shapes.reader; "
        "sys.exit(not {'tensorflow', 'seqio', 'tensorflow_datasets'}.isdisjoint(sys.modules))"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("shape", sorted(world.TURN_SYMMETRY))
def test_a_turning_shape_looks_as_before_after_a_segment_and_not_between(shape: str) -> None:
    scene = world.sample_scene(np.random.default_rng(0), segments=1, first=("red", shape, "turns"))
    turned = dataclasses.replace(scene.poses[-1], angle=scene.poses[-1].angle + world.turn_rate(shape))
    frames = world.render(dataclasses.replace(scene, poses=(*scene.poses, turned)), 32).astype(int)
    np.testing.assert_allclose(frames[-1], frames[0], atol=1)
    assert all(np.abs(frame - frames[0]).max() > 50 for frame in frames[1:-1])
