"""Protocols of one's own data: all test clips of a task, in the sizes of a model."""

import dataclasses
import pathlib

import pytest

from phenaki_jax.errors import UserError
from phenaki_jax.evaluation.measures import MEASURES
from phenaki_jax.evaluation.own_data import OWN_MEASURES, check_own, left_out_of_short, own_protocol
from phenaki_jax.inference.phenaki import Phenaki

TASK = "moving_shapes_video_text"


@pytest.mark.parametrize(("kind", "given"), [("reconstruction", 0), ("prediction", 3), ("text_to_video", 0)])
def test_a_protocol_has_the_models_windows_of_all_test_clips(
    model: Phenaki, data_dir: pathlib.Path, kind: str, given: int
) -> None:
    found = own_protocol(kind, TASK, model, data_dir, {})
    assert (found.name, found.kind, found.task, found.split) == (f"{TASK}_{kind}", kind, TASK, "test")
    assert (found.frames, found.size, found.given) == (5, 32, given)
    assert (found.examples, found.videos, found.real_clips) == (6, 6, 6)
    assert set(found.measures) <= set(MEASURES)


def test_other_counts_are_taken(model: Phenaki, data_dir: pathlib.Path) -> None:
    counts = {"examples": 4, "samples": 3, "folds": None, "real": 5}
    found = own_protocol("text_to_video", TASK, model, data_dir, counts)
    assert (found.examples, found.videos, found.real_clips) == (4, 12, 5)


def test_a_model_that_is_given_nothing_predicts_nothing(model: Phenaki, data_dir: pathlib.Path) -> None:
    alone = Phenaki(model.config, model.params, dataclasses.replace(model.metadata, prefix_frames=0))
    with pytest.raises(UserError, match=r"nothing goes on from \(prefix_frames 0\), expected one that is given frames"):
        own_protocol("prediction", TASK, alone, data_dir, {})


def test_windows_too_short_for_i3d_have_the_other_measures() -> None:
    """It reads 9 frames and more."""
    measures = OWN_MEASURES["reconstruction"]
    assert left_out_of_short(measures, 9) == {}
    short = left_out_of_short(measures, 7)
    assert list(short) == ["fvd", "kvd", "fvd_infinity"]
    assert set(short.values()) == {"needs at least 9 frames, and found 7"}


@pytest.mark.parametrize("kind", OWN_MEASURES)
def test_a_kind_needs_a_task(kind: str) -> None:
    check_own(kind, TASK)
    with pytest.raises(UserError, match=f"found protocol {kind} without --task, expected the task of your dataset"):
        check_own(kind, None)


def test_a_misspelt_kind_is_told() -> None:
    told = "found protocol 'reconstuction', did you mean reconstruction. expected one of reconstruction, prediction, te"
    with pytest.raises(UserError, match=told):
        check_own("reconstuction", TASK)


def test_a_published_protocol_has_its_own_task() -> None:
    check_own("bair", None)
    with pytest.raises(UserError, match=r"found --task with protocol bair, .*expected one of reconstruction, predict"):
        check_own("bair", TASK)
