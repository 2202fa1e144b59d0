"""Stories without end, by a model of moving_shapes: time, memory, and whether colours drift at the joins of windows.

    make bench BENCH=long_story ARGS="--demo demo"

A story of 200 windows: time of the last ten over the first ten, which are drawn again beside the last, so that other
programs disturb both alike, and peak memory over that after ten. Then stories of 50 windows in which nothing is said to
change, a shape that turns where it stands: at each join the mean colour of the window's first new frame is compared
with that of the frame before it.
"""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from against import command, demos
from tqdm import tqdm

from phenaki_jax import __version__
from phenaki_jax.data.moving_shapes import world
from phenaki_jax.inference.phenaki import Phenaki
from phenaki_jax.inference.story import Scene, Story, tell_stories

_WINDOWS, _ENDS = 200, 10
_JOINED_WINDOWS, _STORIES_OF_EACH = 50, 4
_SEED = 5005
_AIMS = {
    "ratio": "<= 1.05",
    "peak_memory_ratio": "<= 1.05",
    "join_error_growth": "<= 1.1",
}


def measure(demo: Path) -> dict[str, Any]:
    """All figures; `ratio` is that of the times.

    Args:
      demo: folder of a finished demo.

    Raises:
      UserError: the demo is not finished.
    """
    demos.settings_of(demo)
    model = Phenaki.load(demo / "model")
    times = _times(model)
    return {
        "ratio_of": f"seconds of the last {_ENDS} of {_WINDOWS} windows over those of the first {_ENDS}",
        "unit": "ratio",
        "aims": _AIMS,
        **times,
        **_joins(model),
    }


def _times(model: Phenaki) -> dict[str, float]:
    prompts = ["a blue square moves right", "a blue square moves left"]
    story = Story(tuple(Scene(prompts[index % 2]) for index in range(_WINDOWS)), seed=_SEED)
    windows, anew = model.tell(story), model.tell(story)
    # A window without frames before it and one with some are two programs.
    for _ in range(2):
        next(windows)
        next(anew)
    first, last, peaks = [], [], {}
    for number in tqdm(range(2, _WINDOWS), unit="window"):
        seconds = _seconds_of_next(windows)
        if number >= _WINDOWS - _ENDS:
            last.append(seconds)
            first.append(_seconds_of_next(anew))
        peaks[number + 1] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "ratio": statistics.median(last) / statistics.median(first),
        "seconds_per_window": statistics.median(last),
        "peak_memory_ratio": peaks[_WINDOWS] / peaks[_ENDS],
        "peak_memory_gib": peaks[_WINDOWS] / 2**20,
    }


def _seconds_of_next(windows: Iterator[Any]) -> float:
    began = time.perf_counter()
    next(windows)
    return time.perf_counter() - began


def _joins(model: Phenaki) -> dict[str, float]:
    """Mean colour errors at joins, in levels of 0 to 255, over stories of every colour and shape that can turn."""
    scenes = [
        (color, shape) for color in world.VIDEO_COLORS for shape in world.VIDEO_SHAPES if world.can_move(shape, "turns")
    ] * _STORIES_OF_EACH
    stories = [
        Story((Scene(f"a {color} {shape} turns", windows=_JOINED_WINDOWS),), seed=_SEED + index)
        for index, (color, shape) in enumerate(scenes)
    ]
    errors, drift, begun, before = [], [], None, None
    for frames in tqdm(tell_stories(model, stories), total=_JOINED_WINDOWS, unit="window"):
        means = frames.astype(np.float64).mean(axis=(2, 3))
        begun = means.mean(axis=1) if begun is None else begun
        if before is not None:
            errors.append(np.abs(means[:, 0] - before).mean())
        before = means[:, -1]
        drift.append(np.abs(means.mean(axis=1) - begun).mean())
    return {
        "join_error_first": float(errors[0]),
        "join_error_last_ten": float(np.mean(errors[-10:])),
        "join_error_growth": float(np.mean(errors[-10:]) / errors[0]),
        "color_drift_of_50_windows": float(drift[-1]),
        "stories": len(stories),
    }


if __name__ == "__main__":
    versions = {"phenaki_jax": __version__, "jax": jax.__version__}
    folder = command.demo_asked(__doc__)
    sys.exit(command.tell("long_story", lambda: {**measure(folder), "versions": versions}))
