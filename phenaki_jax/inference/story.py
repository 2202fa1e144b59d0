"""Stories: prompts that change over time, told window by window, each from the last frames of the one before."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, UInt8

from phenaki_jax.errors import UserError
from phenaki_jax.inference import compiled
from phenaki_jax.inference.decoding import SamplingConfig
from phenaki_jax.inference.model_file import ModelMetadata
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
      windows: how long, in windows of the model; 1 where neither `frames` nor `seconds` is given.
      frames: how long, in new frames; the last window is trimmed to it.
      seconds: how long, as a duration.
      blend: windows, the first ones of the scene, in which the prompt takes over from that of the scene before; 0 for a
        change at once.
    """

    prompt: str
    windows: int | None = None
    frames: int | None = None
    seconds: float | None = None
    blend: int = 0

    def __post_init__(self) -> None:
        check_prompt(self.prompt)
        lengths = {name: getattr(self, name) for name in ("windows", "frames", "seconds")}
        given = {name: length for name, length in lengths.items() if length is not None}
        if len(given) > 1:
            raise UserError(
                f"found {' and '.join(f'{name} {length}' for name, length in given.items())}, expected one of them"
            )
        for name, length in given.items():
            if not (length > 0 if name == "seconds" else length >= 1) or length > LONGEST_SCENE:
                least = "above 0" if name == "seconds" else "1"
                advice = "; a longer video is told by several scenes" if length > LONGEST_SCENE else ""
                raise UserError(f"found {name} {length}, expected {least} to {LONGEST_SCENE}{advice}")
        if not 0 <= self.blend <= LONGEST_SCENE:
            raise UserError(f"found blend {self.blend}, expected 0 windows or more, such as 2")


@dataclasses.dataclass(frozen=True)
class Story:
    """Scenes that follow each other.

    Attributes:
      scenes: at least one.
      negative_prompt: what guidance moves away from in place of the null text; empty for that.
      seed: of all randomness; the same story with the same seed and model is the same video.
      steps: see `SamplingConfig`; None for what the model was exported with, as in all that follow.
      sampler: see `SamplingConfig`.
      schedule: see `SamplingConfig`.
      guidance: see `SamplingConfig`.
      guidance_schedule: see `SamplingConfig`.
      temperature: see `SamplingConfig`.
      code_temperature: see `SamplingConfig`.
      top_k: see `SamplingConfig`.
      top_p: see `SamplingConfig`.
    """

    scenes: tuple[Scene, ...]
    negative_prompt: str = ""
    seed: int = 0
    steps: int | None = None
    sampler: str | None = None
    schedule: str | None = None
    guidance: float | None = None
    guidance_schedule: str | None = None
    temperature: float | None = None
    code_temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        if not self.scenes:
            raise UserError("found no scenes, expected at least one with a prompt")
        if self.scenes[0].blend:
            raise UserError(f"found blend {self.scenes[0].blend} in the first scene, expected a scene before it")
        if not 0 <= self.seed < 2**32:
            raise UserError(f"found seed {self.seed}, expected 0 to {2**32 - 1}")
        self.sampling(SamplingConfig())

    @property
    def prompts(self) -> list[str]:
        """All texts that it needs."""
        return [scene.prompt for scene in self.scenes] + [self.negative_prompt] * bool(self.negative_prompt)

    def sampling(self, default: SamplingConfig) -> SamplingConfig:
        """How tokens are drawn: as the story says, and as `default` says where it says nothing."""
        return dataclasses.replace(default, **asked_sampling(self))


def asked_sampling(settings: object) -> dict[str, Any]:
    """Those attributes of `settings` that are fields of `SamplingConfig`, without the ones that are None."""
    asked = {field.name: getattr(settings, field.name, None) for field in dataclasses.fields(SamplingConfig)}
    return {name: value for name, value in asked.items() if value is not None}


class PlannedWindow(NamedTuple):
    """One window of a story.

    Attributes:
      scene: index of its scene.
      given: frames that it begins with, 0 or 1 + k * temporal_patch.
      new: frames that it adds.
      share: how far the scene's prompt has taken over from that of the scene before, above 0 and up to 1.
    """

    scene: int
    given: int
    new: int
    share: float


class WindowPrompt(NamedTuple):
    """What a window shows.

    Attributes:
      text: of the prompt.
      before: the prompt that it takes over from, where `share` is below 1.
      share: how far it has.
      negative: what guidance moves away from; empty for the null text.
    """

    text: str
    before: str = ""
    share: float = 1.0
    negative: str = ""


@runtime_checkable
class WindowModel(Protocol):
    """What a story needs of a model."""

    tokenizer: CViViTConfig
    metadata: ModelMetadata

    def check_prompts(self, prompts: Sequence[str]) -> None:
        """Refuses with a UserError what cannot be drawn, before anything is."""

    def draw_windows(
        self,
        prompts: Sequence[WindowPrompt],
        prefix: UInt8[np.ndarray, "batch given height width 3"],
        rngs: Key[Array, " batch"],
        sampling: SamplingConfig,
    ) -> UInt8[np.ndarray, "batch frames height width 3"]:
        """One window for each prompt, each with a key of its own; the given frames are its first."""


def plan_windows(
    story: Story, tokenizer: CViViTConfig, metadata: ModelMetadata, start_frames: int = 0
) -> list[PlannedWindow]:
    """Which windows tell a story.

    Args:
      story: what is told.
      tokenizer: its frames are a window's.
      metadata: says how many frames a window is given of what was shown before (fewer where fewer were shown), and how
        many make a second.
      start_frames: frames shown before the story begins.

    Raises:
      UserError: a scene's seconds are more frames than a scene may have.
    """
    windows, shown, seconds = [], start_frames, 0.0
    for index, scene in enumerate(story.scenes):
        frames = scene.frames
        if scene.seconds is not None:
            # From the beginning, so that rounding does not add up.
            begin, seconds = seconds, seconds + scene.seconds
            frames = max(1, round(seconds * metadata.fps) - round(begin * metadata.fps))
            if frames > LONGEST_SCENE:
                raise UserError(
                    f"found seconds {scene.seconds:g}, which are {frames} frames at {metadata.fps:g} per second, "
                    f"expected at most {LONGEST_SCENE}; a longer video is told by several scenes"
                )
        drawn, told = 0, 0
        while told < frames if frames is not None else drawn < (scene.windows or 1):
            given = tokenizer.whole_part(min(shown, metadata.prefix_frames))
            new = tokenizer.frames - given
            if frames is not None:
                new = min(new, frames - told)
            windows.append(PlannedWindow(index, given, new, min(1.0, (drawn + 1) / (scene.blend + 1))))
            drawn, told, shown = drawn + 1, told + new, shown + new
    return windows


def tell_stories(
    model: WindowModel,
    stories: Sequence[Story],
    start: UInt8[np.ndarray, "stories start_frames height width 3"] | None = None,
) -> Iterator[UInt8[np.ndarray, "stories new_frames height width 3"]]:
    """Draws several stories at once, window by window; each is as if it were told alone, but for rounding.

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
    lengths = {
        tuple((scene.windows, scene.frames, scene.seconds, scene.blend) for scene in story.scenes) for story in stories
    }
    samplings = {story.sampling(model.metadata.sampling) for story in stories}
    if len(lengths) != 1 or len(samplings) != 1:
        raise UserError(
            "found no stories, or stories that differ in more than prompts and seed, expected one structure of "
            "lengths and sampling; tell the others one after the other"
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
    model.check_prompts([prompt for story in stories for prompt in story.prompts])
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
    for index, window in enumerate(plan_windows(stories[0], model.tokenizer, model.metadata, start.shape[1])):
        prompts = [_prompt(story, window) for story in stories]
        prefix = _last(shown, window.given)
        rngs = compiled.keys_of_window(seeds, jnp.uint32(index))
        drawn = model.draw_windows(prompts, prefix, rngs, sampling)
        new = drawn[:, window.given : window.given + window.new]
        shown = _last(np.concatenate([shown, new], axis=1), keep)
        yield new


def _prompt(story: Story, window: PlannedWindow) -> WindowPrompt:
    before = story.scenes[window.scene - 1].prompt if window.share < 1 else ""
    return WindowPrompt(story.scenes[window.scene].prompt, before, window.share, story.negative_prompt)


def _last(videos: np.ndarray, frames: int) -> np.ndarray:
    """A copy, so that all that came before can be forgotten."""
    return videos[:, max(0, videos.shape[1] - frames) :].copy()
