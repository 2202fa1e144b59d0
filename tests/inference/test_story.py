"""Stories have the lengths that they say, go on from what was shown, and remember no more than they need."""

import dataclasses
import pathlib
import textwrap

import jax
import numpy as np
import pytest

from phenaki_jax.errors import UserError
from phenaki_jax.inference.decoding import SamplingConfig
from phenaki_jax.inference.model_file import ModelMetadata
from phenaki_jax.inference.phenaki import Phenaki
from phenaki_jax.inference.story import (
    PlannedWindow,
    Scene,
    Story,
    WindowPrompt,
    plan_windows,
    tell_stories,
    tell_story,
)
from phenaki_jax.inference.story_file import read_story
from phenaki_jax.inference.testing import tiny_config, tiny_metadata
from phenaki_jax.tokenizer.config import CViViTConfig


class CountingModel:
    """Numbers its frames from 1 on, keeps given ones, and remembers what it was given."""

    def __init__(self) -> None:
        self.tokenizer = tiny_config().tokenizer
        self.metadata = tiny_metadata()
        self.given: list[np.ndarray] = []
        self.prompts: list[list[WindowPrompt]] = []
        self.samplings: set[SamplingConfig] = set()

    def check_prompts(self, prompts: list[str]) -> None:
        """All are fine."""

    def draw_windows(
        self, prompts: list[WindowPrompt], prefix: np.ndarray, rngs: jax.Array, sampling: SamplingConfig
    ) -> np.ndarray:
        """The given frames and the next numbers."""
        self.given.append(prefix)
        self.prompts.append(prompts)
        self.samplings.add(sampling)
        last = prefix[0, -1, 0, 0, 0] if prefix.shape[1] else 0
        new = np.arange(1, 6 - prefix.shape[1], dtype=np.uint8) + last
        shape = (len(prompts), len(new), 32, 32, 3)
        return np.concatenate([prefix, np.broadcast_to(new[None, :, None, None, None], shape)], axis=1)


def write(folder: pathlib.Path, text: str) -> pathlib.Path:
    """A story file."""
    file = folder / "story.yaml"
    file.write_text(textwrap.dedent(text))
    return file


def test_a_story_is_read_as_it_was_written(tmp_path: pathlib.Path) -> None:
    text = """
        seed: 1
        guidance: 2
        scenes:
          - prompt: a red circle moves right
            frames: 11
          - prompt: the red circle grows
            windows: 2
          - prompt: the red circle turns
    """
    assert read_story(write(tmp_path, text)) == Story(
        scenes=(
            Scene("a red circle moves right", frames=11),
            Scene("the red circle grows", windows=2),
            Scene("the red circle turns"),
        ),
        seed=1,
        guidance=2.0,
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "story.yaml: found no story in it, expected scenes"),
        ("# scenes: []", "story.yaml: found no story in it, expected scenes"),
        ("seed: 1", "found no scenes"),
        ("scenes: []", "found no scenes"),
        ("scenes: a circle", "story.yaml, scenes: found 'a circle', expected a list"),
        ("{scenes: [{prompt: a, wndows: 1}]}", "scenes, item 1: found the unknown key 'wndows'.*windows"),
        ("{scenes: [{prompt: a}], sed: 1}", "unknown key 'sed'"),
        ("{scenes: [{prompt: a}, {prompt: ' '}]}", "scenes, item 2: found an empty prompt"),
        ("{scenes: [{prompt: yes}]}", "item 1, prompt: found True, expected text; put it in quotes"),
        ("{scenes: [{prompt: 2020-13-45}]}", "story.yaml: month must be in 1..12; put prompts that look like dates"),
        ("{scenes: [{windows: 1}]}", "item 1: found no prompt"),
        ("{scenes: [{prompt: a, windows: 0}]}", "windows 0, expected 1 to 1000000"),
        ("{scenes: [{prompt: a, frames: -5}]}", "frames -5, expected 1 to 1000000"),
        ("{scenes: [{prompt: a, frames: 8000000000}]}", "frames 8000000000, expected 1 to 1000000"),
        ("{scenes: [{prompt: a, frames: 2.5}]}", "frames: found 2.5, expected a whole number"),
        ("{scenes: [{prompt: a, frames: 5, windows: 1}]}", "expected one of them"),
        ("{scenes: [{prompt: a, seconds: 0}]}", "found seconds 0.0, expected above 0 to 1000000"),
        ("{scenes: [{prompt: a, seconds: 2, windows: 1}]}", "found windows 1 and seconds 2.0, expected one of them"),
        ("{scenes: [{prompt: a}, {prompt: b, blend: -1}]}", "found blend -1, expected 0 windows or more"),
        ("{scenes: [{prompt: a, blend: 2}]}", "found blend 2 in the first scene, expected a scene before it"),
        ("{scenes: [{prompt: a}], seed: -1}", "seed -1"),
        ("{scenes: [{prompt: a}], sampler: gibbs}", "sampler 'gibbs' is unknown; known are confidence"),
        ("{scenes: [{prompt: a}], steps: 0}", "steps"),
        ("scenes: [", "story.yaml, line "),
        (
            "scenes: [{prompt: a}]\nseed: 1\nscenes: [{prompt: b}]",
            "line 3: found the key 'scenes' a second time, after",
        ),
        ("scenes:\n- prompt: a\n  prompt: b", "line 3: found the key 'prompt' a second time, after line 2; expected"),
        ("{scenes: [{prompt: a}], seed: 1, seed: 1}", "line 1: found the key 'seed' a second time, after line 1"),
        ("{scenes: [{prompt: a, seconds: 1e9}]}", "item 1: found seconds 1000000000.0, expected above 0 to 1000000"),
        ("{scenes: [{prompt: 1e9}]}", "prompt: found 1000000000.0, expected text; put it in quotes"),
        ("scenes: " + 2000 * "[", "story.yaml: found lists in lists in lists; expected YAML as"),
    ],
)
def test_a_wrong_story_is_refused_with_its_place(tmp_path: pathlib.Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        read_story(write(tmp_path, text))
    assert "story.yaml" in str(error.value)


def test_a_story_that_is_not_there_is_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match="found no file, expected a file with a story"):
        read_story(tmp_path / "none.yaml")
    with pytest.raises(UserError, match="found a folder, expected a file with a story"):
        read_story(tmp_path)


@pytest.mark.parametrize("written", ["1e1", "1.0e1", "10", "+1E+1", "100.e-1"])
def test_a_number_is_read_however_it_is_written(tmp_path: pathlib.Path, written: str) -> None:
    (scene,) = read_story(write(tmp_path, f"{{scenes: [{{prompt: a, seconds: {written}}}]}}")).scenes
    assert scene.seconds == 10


def test_keys_may_be_alike_in_different_scenes(tmp_path: pathlib.Path) -> None:
    text = "scenes:\n- &first {prompt: a, windows: 2}\n- {<<: *first, prompt: b}"
    assert read_story(write(tmp_path, text)).scenes == (Scene("a", windows=2), Scene("b", windows=2))


def test_windows_are_planned_as_by_hand() -> None:
    """Windows of 11 frames, 5 of them given, add 6; a scene's last window is trimmed to its frames."""
    story = Story((Scene("a", frames=11), Scene("b", frames=7), Scene("c", windows=2), Scene("d")))
    assert plan_windows(story, CViViTConfig(frames=11), ModelMetadata(prefix_frames=5)) == [
        PlannedWindow(0, given=0, new=11, share=1.0),
        PlannedWindow(1, given=5, new=6, share=1.0),
        PlannedWindow(1, given=5, new=1, share=1.0),
        PlannedWindow(2, given=5, new=6, share=1.0),
        PlannedWindow(2, given=5, new=6, share=1.0),
        PlannedWindow(3, given=5, new=6, share=1.0),
    ]


def test_prompts_change_at_their_seconds() -> None:
    """At 8 frames per second, changes at 1.3 and 2.6 s are at frames 10 and 21, not at two times 10."""
    story = Story(tuple(Scene(prompt, seconds=1.3) for prompt in "abc"))
    windows = plan_windows(story, CViViTConfig(frames=11), ModelMetadata(prefix_frames=5, fps=8.0))
    assert [sum(window.new for window in windows if window.scene == scene) for scene in range(3)] == [10, 11, 10]


def test_seconds_that_are_too_many_frames_are_refused() -> None:
    story = Story((Scene("a", seconds=1e6),))
    with pytest.raises(UserError, match=r"found seconds 1e\+06, which are 8000000 frames at 8 per second, expected at"):
        plan_windows(story, CViViTConfig(frames=11), ModelMetadata(prefix_frames=5, fps=8.0))


def test_a_prompt_takes_over_window_by_window() -> None:
    story = Story((Scene("a", windows=2), Scene("b", windows=5, blend=3), Scene("c", blend=1)))
    windows = plan_windows(story, CViViTConfig(frames=11), ModelMetadata(prefix_frames=5))
    assert [window.share for window in windows] == [1, 1, 0.25, 0.5, 0.75, 1, 1, 0.5]
    model = CountingModel()
    list(tell_story(model, Story((Scene("a"), Scene("b", windows=2, blend=1)), negative_prompt="blur")))
    assert [prompts[0] for prompts in model.prompts] == [
        WindowPrompt("a", "", 1.0, "blur"),
        WindowPrompt("b", "a", 0.5, "blur"),
        WindowPrompt("b", "", 1.0, "blur"),
    ]


@pytest.mark.parametrize(("start_frames", "given"), [(0, 0), (1, 1), (2, 1), (4, 3), (5, 5), (90, 5)])
def test_a_window_is_given_no_more_than_was_shown(start_frames: int, given: int) -> None:
    metadata = ModelMetadata(prefix_frames=5)
    (window,) = plan_windows(Story((Scene("a"),)), CViViTConfig(frames=11), metadata, start_frames)
    assert window == PlannedWindow(0, given, 11 - given, 1.0)


def test_a_story_goes_on_from_the_last_frames_shown() -> None:
    """Frames are numbered through, also where a window was trimmed."""
    model = CountingModel()
    story = Story((Scene("a", frames=6), Scene("b", windows=2)))
    told = np.concatenate(list(tell_story(model, story)))
    np.testing.assert_array_equal(told[:, 0, 0, 0], np.arange(1, 11))
    assert [[prompt.text for prompt in prompts] for prompts in model.prompts] == [["a"], ["a"], ["b"], ["b"]]
    assert [prefix[0, :, 0, 0, 0].tolist() for prefix in model.given] == [[], [3, 4, 5], [4, 5, 6], [6, 7, 8]]


def test_a_story_goes_on_from_a_start_and_tells_only_what_is_new() -> None:
    start = np.full((4, 32, 32, 3), 7, np.uint8)
    told = list(tell_story(CountingModel(), Story((Scene("a"),)), start))
    assert [frames[:, 0, 0, 0].tolist() for frames in told] == [[8, 9]]


def test_an_endless_story_remembers_a_window_at_most() -> None:
    """What is kept between windows is as large after 60 as after 2: the 3 given frames, and no view of more."""
    model = CountingModel()
    for _ in tell_story(model, Story((Scene("a", windows=60),))):
        model.given[:-1] = []
        kept = model.given[-1]
        while isinstance(kept, np.ndarray):
            assert kept.nbytes <= 3 * 32 * 32 * 3
            kept = kept.base


def test_stories_told_together_are_those_told_alone(model: Phenaki) -> None:
    stories = [
        Story((Scene("a red circle", windows=2), Scene("it grows", frames=1)), seed=1),
        Story((Scene("a blue square", windows=2), Scene("it turns", frames=1)), seed=9),
    ]
    together = np.concatenate(list(tell_stories(model, stories)), axis=1)
    assert together.shape == (2, 8, 32, 32, 3)
    for video, story in zip(together, stories, strict=True):
        alone = np.concatenate(list(model.tell(story)))
        # A sum over a larger batch may be rounded otherwise.
        np.testing.assert_allclose(video.astype(int), alone.astype(int), atol=1)


def test_stories_of_different_lengths_are_refused() -> None:
    stories = [Story((Scene("a"),)), Story((Scene("a", windows=2),))]
    with pytest.raises(UserError, match="one structure"):
        tell_stories(CountingModel(), stories)


def test_a_story_says_how_it_is_drawn_where_it_does() -> None:
    counting = CountingModel()
    list(tell_story(counting, Story((Scene("a"),), guidance=1.0)))
    assert counting.samplings == {dataclasses.replace(tiny_metadata().sampling, guidance=1.0)}


def test_a_prompt_that_cannot_be_drawn_is_refused_before_the_first_window(model: Phenaki) -> None:
    with pytest.raises(UserError, match="at most 24"):
        tell_story(model, Story((Scene("a circle"), Scene("a circle that moves on and on"))))
