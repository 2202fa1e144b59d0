"""What judges a demo's model: ground truth is all right, and what is wrong is seen to be wrong."""

import dataclasses

import numpy as np
import pytest

from phenaki_jax.cli.demonstration import measures
from phenaki_jax.data.moving_shapes import world

FRAMES = world.SEGMENT_FRAMES


def _clips(combinations: list[tuple[str, str, str]]) -> tuple[np.ndarray, list[world.Segment]]:
    rng = np.random.default_rng(0)
    scenes = [world.sample_scene(rng, segments=1, first=combination) for combination in combinations]
    return np.stack([world.render(scene, 32) for scene in scenes]), [scene.segments[0] for scene in scenes]


def test_ground_truth_is_all_right() -> None:
    videos, segments = _clips(sorted(world.held_out_combinations()))
    judged = measures._judge(videos, segments)
    assert judged == {
        "clips": 31,
        "color_accuracy": 1.0,
        "shape_accuracy": 1.0,
        "motion_accuracy": 1.0,
        "all_correct": 1.0,
    }


def test_clips_of_other_prompts_are_wrong_in_what_the_prompts_differ() -> None:
    videos, segments = _clips([("red", "square", "moves left"), ("green", "circle", "changes color")])
    wrong_color = [dataclasses.replace(segment, color="blue") for segment in segments]
    assert measures._judge(videos, wrong_color)["color_accuracy"] == 0.0
    wrong_shape = [dataclasses.replace(segment, shape="cross") for segment in segments]
    assert measures._judge(videos, wrong_shape)["shape_accuracy"] == 0.0
    wrong_target = "purple" if segments[1].target_color != "purple" else "yellow"
    wrong_motion = [
        dataclasses.replace(segments[0], motion="moves right"),
        dataclasses.replace(segments[1], target_color=wrong_target),
    ]
    judged = measures._judge(videos, wrong_motion)
    assert judged["motion_accuracy"] == judged["all_correct"] == 0.0
    assert judged["color_accuracy"] == judged["shape_accuracy"] == 1.0


def test_a_color_that_drifts_away_is_wrong() -> None:
    """A square that moves left, and becomes yellow meanwhile."""
    scene = world.sample_scene(np.random.default_rng(0), segments=1, first=("red", "square", "moves left"))
    yellow = dataclasses.replace(
        scene,
        poses=tuple(dataclasses.replace(pose, rgb=tuple(map(float, world.COLORS["yellow"]))) for pose in scene.poses),
    )
    drifted = np.concatenate([world.render(scene, 32)[:6], world.render(yellow, 32)[6:]])
    judged = measures._judge(drifted[None], list(scene.segments))
    assert judged["color_accuracy"] == judged["all_correct"] == 0.0
    assert judged["shape_accuracy"] == 1.0


def test_true_stories_follow_their_prompts_and_keep_who_they_are_about() -> None:
    rng = np.random.default_rng(1)
    scenes = [world.sample_scene(rng, segments=4) for _ in range(20)]
    videos = np.stack([world.render(scene, 32) for scene in scenes])
    plans = [scene.segments for scene in scenes]
    assert measures._judge_stories(videos, [FRAMES] * 4, plans) == {"prompt_accuracy": 1.0, "identity_kept": 1.0}
    others = [
        [dataclasses.replace(segment, shape="square" if segment.shape != "square" else "circle") for segment in plan]
        for plan in plans
    ]
    judged = measures._judge_stories(videos, [FRAMES] * 4, others)
    assert judged["prompt_accuracy"] == 0.75  # a first window is to show its shape, too
    assert judged["identity_kept"] < 0.5
    shuffled = measures._judge_stories(videos, [FRAMES] * 4, [plan[1:] + plan[:1] for plan in plans])
    assert shuffled["prompt_accuracy"] < 0.5


def test_every_combination_is_asked_for_with_a_target_where_colors_change() -> None:
    segments = measures._segments(world.video_combinations(), seed=3)
    for segment in segments:
        assert (segment.target_color is not None) == (segment.motion == "changes color")
        assert segment.target_color != segment.color


@pytest.mark.parametrize("count", [1, 31, 62, 70])
def test_batches_are_of_one_size_and_hold_everything_in_order(count: int) -> None:
    batches = measures._full_batches(range(count))
    assert {len(batch) for batch in batches} == {min(31, count)}
    assert [item for batch in batches for item in batch][:count] == list(range(count))
