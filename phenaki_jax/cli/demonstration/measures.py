"""What a demo's model can do, read from the pixels it makes; all seeds are fixed here beforehand."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

from phenaki_jax.cli.demonstration.memory import held_gib
from phenaki_jax.cli.demonstration.settings import DemoSettings
from phenaki_jax.data.moving_shapes import world
from phenaki_jax.data.moving_shapes.reader import read_clip
from phenaki_jax.inference.phenaki import Phenaki
from phenaki_jax.inference.story import Scene, Story, tell_stories

GENERATION_SEED = 1001
TRANSFER_SEED = 2002
STORY_SEED = 3003
LONG_STORY_SEED = 4004
CLIPS_AT_ONCE = 31
SCENES_OF_A_STORY = 4

Figures = dict[str, int | float]
Videos = UInt8[np.ndarray, "clips frames height width 3"]


def generation(model: Phenaki, settings: DemoSettings) -> tuple[Figures, Videos]:
    """Clips from prompts of held-out combinations: how often colour, shape and motion are the prompt's."""
    combinations = sorted(world.held_out_combinations()) * settings.clips_per_combination
    segments = _segments(combinations, GENERATION_SEED)
    videos = _draw(model, segments, GENERATION_SEED)
    return _judge(videos, segments), videos


def transfer(model: Phenaki, settings: DemoSettings) -> tuple[Figures, Videos]:
    """Clips of colours that only images show."""
    combinations = [
        (color, shape, motion)
        for color in world.IMAGE_ONLY_COLORS
        for shape in world.VIDEO_SHAPES
        for motion in world.MOTIONS
        if world.can_move(shape, motion)
    ] * settings.clips_per_transfer
    segments = _segments(combinations, TRANSFER_SEED)
    videos = _draw(model, segments, TRANSFER_SEED)
    return _judge(videos, segments), videos


def stories(model: Phenaki, settings: DemoSettings) -> tuple[Figures, Videos]:
    """Stories of four prompts, a window each: how often one does what its prompt says, and keeps what that keeps."""
    rng = np.random.default_rng(STORY_SEED)
    firsts = sorted(world.held_out_combinations())
    plans = [
        world.sample_scene(rng, segments=SCENES_OF_A_STORY, first=firsts[index % len(firsts)]).segments
        for index in range(settings.stories)
    ]
    told = [_story(plan, rng, STORY_SEED + index) for index, plan in enumerate(plans)]
    batches = [list(tell_stories(model, batch)) for batch in _full_batches(told)]
    videos = np.concatenate([np.concatenate(windows, axis=1) for windows in batches])[: len(told)]
    return _judge_stories(videos, [window.shape[1] for window in batches[0]], plans), videos


def long_story(model: Phenaki, settings: DemoSettings) -> Figures:
    """A story of many windows: whether the last take as long as the first, and memory stays what it was."""
    prompts = ["a blue square moves right", "a blue square moves left"]
    half = settings.long_story_windows // len(prompts)
    story = Story(tuple(Scene(prompts[index % 2]) for index in range(2 * half)), seed=LONG_STORY_SEED)
    share = max(1, 2 * half // 10)
    windows, anew = model.tell(story), model.tell(story)
    # The first two windows are compiled, one without and one with frames before it.
    for _ in range(2):
        next(windows)
        next(anew)
    seconds, memory, first, last = [], [], [], []
    for number in range(2, 2 * half):
        seconds.append(_seconds_of_next(windows))
        memory.append(held_gib())
        if number >= 2 * half - share:
            # The story's first windows once more, each beside one of the last: other programs disturb both alike.
            last.append(seconds[-1])
            first.append(_seconds_of_next(anew))
    return {
        "windows": 2 * half,
        "seconds_per_window": float(np.median(seconds)),
        "time_last_over_first": float(np.median(last) / np.median(first)),
        "memory_growth_gib": float(np.median(memory[-share:]) - np.median(memory[:share])),
    }


def _seconds_of_next(windows: Iterator[Any]) -> float:
    began = time.perf_counter()
    next(windows)
    return time.perf_counter() - began


def _segments(combinations: Sequence[tuple[str, str, str]], seed: int) -> list[world.Segment]:
    rng = np.random.default_rng(seed)
    return [
        world.Segment(
            *combination,
            str(rng.choice([color for color in world.VIDEO_COLORS if color != combination[0]]))
            if combination[2] == "changes color"
            else None,
        )
        for combination in combinations
    ]


def _draw(model: Phenaki, segments: Sequence[world.Segment], seed: int) -> Videos:
    rng = np.random.default_rng(seed + 1)
    prompts = [str(rng.choice(world.captions(segment))) for segment in segments]
    batches = _full_batches(prompts)
    drawn = [model.generate(batch, seed=seed + index * len(batch)) for index, batch in enumerate(batches)]
    return np.concatenate(drawn)[: len(prompts)]


def _full_batches(items: Sequence[Any]) -> list[list[Any]]:
    """Batches of one size, so that each program is compiled once; the last is filled up with first items."""
    size = min(CLIPS_AT_ONCE, len(items))
    padded = [*items, *items[: -len(items) % size]]
    return [padded[start : start + size] for start in range(0, len(padded), size)]


def _judge(videos: Videos, segments: Sequence[world.Segment]) -> Figures:
    table = np.array([_right(video, segment) for video, segment in zip(videos, segments, strict=True)])
    color, shape, motion = table.mean(axis=0)
    return {
        "clips": len(segments),
        "color_accuracy": float(color),
        "shape_accuracy": float(shape),
        "motion_accuracy": float(motion),
        "all_correct": float(table.all(axis=1).mean()),
    }


def _right(video: UInt8[np.ndarray, "frames height width 3"], segment: world.Segment) -> tuple[bool, bool, bool]:
    """Whether a clip has the colour, from its first frame to its last, the shape and the motion of a segment."""
    reading = read_clip(video)
    changes = segment.target_color is not None
    reached = reading.final_color == segment.final_color
    return (
        reading.color == segment.color and (changes or reached),
        reading.shape == segment.shape,
        reading.motion == segment.motion and (reached or not changes),
    )


def _judge_stories(videos: Videos, window_frames: Sequence[int], plans: Sequence[Sequence[world.Segment]]) -> Figures:
    """Judges stories whose windows have so many frames and show one segment of their plan each.

    A window is read from the last frame before it on. A first window does what its prompt says with the colour, shape
    and motion told. Later ones do with the motion, and whether they keep shape and colour is judged by itself.
    """
    ends = np.cumsum(window_frames)
    followed, kept = [], []
    for video, plan in zip(videos, plans, strict=True):
        for number, (end, frames, segment) in enumerate(zip(ends, window_frames, plan, strict=True)):
            window = video[max(0, end - frames - 1) : end]
            color, shape, motion = _right(window, segment)
            if number == 0:
                followed.append(color and shape and motion)
                continue
            followed.append(motion)
            kept.append(shape)
            if segment.target_color is None:
                kept.append(color)
    return {"prompt_accuracy": float(np.mean(followed)), "identity_kept": float(np.mean(kept))}


def _story(plan: Sequence[world.Segment], rng: np.random.Generator, seed: int) -> Story:
    scenes: list[Any] = [Scene(str(rng.choice(world.captions(segment))), windows=1) for segment in plan]
    return Story(tuple(scenes), seed=seed)
