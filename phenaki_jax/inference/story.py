"""Stories: prompts that change over time, told window by window, each from the last frames of the one before."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import yaml
from jaxtyping import Array, Key, UInt8

from phenaki_jax.errors import UserError
from phenaki_jax.inference.decoding import SamplingConfig
from phenaki_jax.inference.export import ModelMetadata
from phenaki_jax.inference.plain_data import from_plain
from phenaki_jax.layers import pixels
from phenaki_jax.text.tokenizer import check_prompt
from phenaki_jax.tokenizer.config import CViViTConfig

LONGEST_SCENE = 1_000_000
"""Windows or frames of a scene; what is beyond is a slip of the pen that would draw for weeks."""


@dataclasses.dataclass(frozen=True)
class Scene:
    """What happens for a while.

    Attributes:
      prompt: what the video shows.
      windows: how long, in windows of the model; 1 where `frames` is not given either.
      frames: how long, in new frames; the last window is trimmed to it.
    """

    prompt: str
    windows: int | None = None
    frames: int | None = None

    def __post_init__(self) -> None:
        check_prompt(self.prompt)
        if self.windows is not None and self.frames is not None:
            raise UserError(f"found windows {self.windows} and frames {self.frames}, expected one of them")
        for name, length in (("windows", self.windows), ("frames", self.frames)):
            if length is not None and not 1 <= length <= LONGEST_SCENE:
                raise UserError(
                    f"found {name} {length}, expected 1 to {LONGEST_SCENE}; a longer video is told by several scenes"
                )


@dataclasses.dataclass(frozen=True)
class Story:
    """Scenes that follow each other.

    Attributes:
      scenes: at least one.
      seed: of all randomness; the same story with the same seed and model is the same video.
      steps: see `SamplingConfig`; None for what the model was exported with, as in the next two.
      guidance: see `SamplingConfig`.
      temperature: see `SamplingConfig`.
    """

    scenes: tuple[Scene, ...]
    seed: int = 0
    steps: int | None = None
    guidance: float | None = None
    temperature: float | None = None

    def __post_init__(self) -> None:
        if not self.scenes:
            raise UserError("found no scenes, expected at least one with a prompt")
        if not 0 <= self.seed < 2**32:
            raise UserError(f"found seed {self.seed}, expected 0 to {2**32 - 1}")
        self.sampling(SamplingConfig())

    def sampling(self, default: SamplingConfig) -> SamplingConfig:
        """How tokens are drawn: as the story says, and as `default` says where it says nothing."""
        return dataclasses.replace(default, **asked_sampling(self))


def asked_sampling(settings: object) -> dict[str, Any]:
    """Those attributes of `settings` that are fields of `SamplingConfig`, without the ones that are None."""
    asked = {field.name: getattr(settings, field.name) for field in dataclasses.fields(SamplingConfig)}
    return {name: value for name, value in asked.items() if value is not None}


class PlannedWindow(NamedTuple):
    """One window of a story.

    Attributes:
      scene: index of its scene.
      given: frames that it begins with, 0 or 1 + k * temporal_patch.
      new: frames that it adds.
    """

    scene: int
    given: int
    new: int


@runtime_checkable
class WindowModel(Protocol):
    """What a story needs of a model."""

    tokenizer: CViViTConfig
    metadata: ModelMetadata

    def check_prompts(self, prompts: Sequence[str]) -> None:
        """Refuses with a UserError what cannot be drawn, before anything is."""

    def draw_windows(
        self,
        prompts: Sequence[str],
        prefix: UInt8[np.ndarray, "batch given height width 3"],
        rngs: Key[Array, " batch"],
        sampling: SamplingConfig,
    ) -> UInt8[np.ndarray, "batch frames height width 3"]:
        """One window for each prompt, each with a key of its own; the given frames are its first."""


def read_story(path: str | Path) -> Story:
    """Reads a story from YAML: the fields of `Story`, with `scenes` a list of the fields of `Scene`.

    Raises:
      UserError: names the file, the place in it, what was found and what is expected.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: found no file, expected a story in YAML; check the path")
    try:
        plain = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "found no YAML"
        raise UserError(f"{path}{line}: {problem}; expected YAML as phenaki generate --help shows it") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: found bytes that are no UTF-8 text, expected a story in YAML") from error
    except ValueError as error:  # a date that cannot be
        raise UserError(f"{path}: {error}; put prompts that look like dates or numbers in quotes") from error
    return from_plain(Story, plain, str(path))


def plan_windows(
    story: Story, tokenizer: CViViTConfig, prefix_frames: int, start_frames: int = 0
) -> list[PlannedWindow]:
    """Which windows tell a story.

    Args:
      story: what is told.
      tokenizer: its frames are a window's.
      prefix_frames: frames that a window is given of what was shown before, or fewer where fewer were shown.
      start_frames: frames shown before the story begins.
    """
    windows, shown = [], start_frames
    for index, scene in enumerate(story.scenes):
        drawn, told = 0, 0
        while told < scene.frames if scene.frames is not None else drawn < (scene.windows or 1):
            given = tokenizer.whole_part(min(shown, prefix_frames))
            new = tokenizer.frames - given
            if scene.frames is not None:
                new = min(new, scene.frames - told)
            windows.append(PlannedWindow(index, given, new))
            drawn, told, shown = drawn + 1, told + new, shown + new
    return windows


def tell_stories(
    model: WindowModel,
    stories: Sequence[Story],
    start: UInt8[np.ndarray, "stories start_frames height width 3"] | None = None,
) -> Iterator[UInt8[np.ndarray, "stories new_frames height width 3"]]:
    """Draws several stories at once, window by window; each is the same as if it were told alone.

    What was shown is forgotten but for the frames that the next window is given, so that a story may last forever.

    Args:
      model: draws windows.
      stories: their scenes have equal lengths, and they are drawn alike.
      start: frames that came before; the stories go on from the last of them.

    Returns:
      The new frames of each window; those of `start` are not among them.

    Raises:
      UserError: stories that differ in more than prompts and seed, or prompts or frames that the model does not take.
    """
    lengths = {tuple((scene.windows, scene.frames) for scene in story.scenes) for story in stories}
    samplings = {story.sampling(model.metadata.sampling) for story in stories}
    if len(lengths) != 1 or len(samplings) != 1:
        raise UserError(
            "found no stories, or stories that differ in more than prompts and seed, expected one structure of "
            "lengths, steps, guidance and temperature; tell the others one after the other"
        )
    side = model.tokenizer.frame_size
    if start is None:
        start = np.zeros((len(stories), 0, side, side, 3), np.uint8)
    pixels.check_uint8("start", start)
    if start.ndim != 5 or (start.shape[0], *start.shape[2:]) != (len(stories), side, side, 3):
        raise UserError(
            f"found start frames as {list(start.shape)}, expected [{len(stories)}, any, {side}, {side}, 3]; "
            "see phenaki_jax.inference.video_files.fit_frames"
        )
    model.check_prompts([scene.prompt for story in stories for scene in story.scenes])
    return _windows(model, stories, samplings.pop(), start)


def tell_story(
    model: WindowModel, story: Story, start: UInt8[np.ndarray, "start_frames height width 3"] | None = None
) -> Iterator[UInt8[np.ndarray, "new_frames height width 3"]]:
    """Draws one story; see `tell_stories`."""
    told = tell_stories(model, [story], None if start is None else start[None])
    return (frames[0] for frames in told)


def _windows(
    model: WindowModel, stories: Sequence[Story], sampling: SamplingConfig, start: np.ndarray
) -> Iterator[np.ndarray]:
    keep = model.metadata.prefix_frames
    shown = _last(start, keep)
    seeds = jax.vmap(jax.random.key)(np.asarray([story.seed for story in stories], np.uint32))
    for index, window in enumerate(plan_windows(stories[0], model.tokenizer, keep, start.shape[1])):
        prompts = [story.scenes[window.scene].prompt for story in stories]
        prefix = _last(shown, window.given)
        rngs = jax.vmap(jax.random.fold_in, in_axes=(0, None))(seeds, jnp.uint32(index))
        drawn = model.draw_windows(prompts, prefix, rngs, sampling)
        new = drawn[:, window.given : window.given + window.new]
        shown = _last(np.concatenate([shown, new], axis=1), keep)
        yield new


def _last(videos: np.ndarray, frames: int) -> np.ndarray:
    """A copy, so that all that came before can be forgotten."""
    return videos[:, max(0, videos.shape[1] - frames) :].copy()
