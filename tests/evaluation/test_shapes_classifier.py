"""The classifier of moving_shapes: it sees what clips show, and captions are understood."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phenaki_jax.data.moving_shapes import world
from phenaki_jax.errors import UserError
from phenaki_jax.evaluation.shapes_classifier import (
    ANSWERS,
    FEATURES,
    WEIGHTS,
    expected_answers,
    load_shapes_classifier,
    obeyed,
    shapes_answers,
)


def clips_of(count: int, size: int = 32) -> tuple[np.ndarray, list[str]]:
    """Held-out combinations, and what images alone show, with a caption each."""
    clips, captions = [], []
    firsts = sorted(world.held_out_combinations())
    for number in range(count):
        rng = np.random.default_rng((99, number))
        first = firsts[number % len(firsts)] if number % 2 else ("orange", "ring", "moves up")
        colors = tuple(world.COLORS)
        scene = world.sample_scene(rng, segments=1, first=first, colors=colors, shapes=world.SHAPES)
        clips.append(world.render(scene, size)[:11])
        captions.append(str(rng.choice(world.captions(scene.segments[0]))))
    return np.stack(clips), captions


def test_it_sees_what_captions_say() -> None:
    """Of clips of colours, shapes and combinations that no training clip shows; larger ones are averaged down."""
    look = jax.jit(shapes_answers)
    params = load_shapes_classifier()
    clips, captions = clips_of(62)
    answers = look(params, clips)
    assert answers["features"].shape == (62, FEATURES)
    right = obeyed(answers, expected_answers(captions))
    assert float(np.mean(right["all"])) > 0.9
    # Another caption is obeyed by few: the next clip's.
    other = obeyed(answers, expected_answers(captions[1:] + captions[:1]))
    assert float(np.mean(other["all"])) < 0.1
    doubled = look(params, clips.repeat(2, axis=2).repeat(2, axis=3))
    np.testing.assert_allclose(doubled["features"], answers["features"], rtol=1e-4, atol=1e-4)


def test_it_is_small() -> None:
    assert WEIGHTS.stat().st_size < 2**20


def test_captions_are_understood_in_any_wording() -> None:
    found = expected_answers(["the blue ring hops up and down", "a cross, red, turns white", "one red cross turns"])
    told = [{name: ANSWERS[name][found[name][row]] for name in ANSWERS} for row in range(3)]
    assert told == [
        {"color": "blue", "shape": "ring", "motion": "bounces", "final_color": "blue"},
        {"color": "red", "shape": "cross", "motion": "changes color", "final_color": "white"},
        {"color": "red", "shape": "cross", "motion": "turns", "final_color": "red"},
    ]
    with pytest.raises(UserError, match="found the text 'a dog barks', expected a caption of a moving_shapes clip"):
        expected_answers(["a dog barks"])


def test_clips_of_another_size_or_length_are_refused() -> None:
    params = load_shapes_classifier()
    for shape in ((1, 11, 48, 48, 3), (1, 5, 32, 32, 3)):
        with pytest.raises(UserError, match="for the classifier of moving_shapes, expected 11 frames of 32 x 32"):
            shapes_answers(params, jnp.zeros(shape, jnp.uint8))
