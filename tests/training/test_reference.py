"""What is to be expected is what another training logged, and nothing outside of that."""

from pathlib import Path

import pytest

from phenaki_jax.errors import UserError
from phenaki_jax.training.reference import Reference
from phenaki_jax.training.transformer_learner import TransformerLearner

CURVES = """{"kind": "train", "step": 10, "loss": 4.0, "loss_video": 3.0}
{"kind": "eval", "step": 20, "loss": 9.0}
{"kind": "train", "step": 30, "loss": 2.0}
"""


@pytest.fixture
def reference(tmp_path: Path) -> Reference:
    (tmp_path / "metrics.jsonl").write_text(CURVES)
    return Reference.read(str(tmp_path))


def test_values_lie_between_those_that_were_logged(reference: Reference) -> None:
    assert reference.expected("train", 10) == {"loss": 4.0, "loss_video": 3.0}
    assert reference.expected("train", 15) == {"loss": 3.5}
    assert reference.expected("eval", 20) == {"loss": 9.0}


@pytest.mark.parametrize(("kind", "step"), [("train", 9), ("train", 31), ("eval", 19)])
def test_nothing_is_expected_where_nothing_was_logged(reference: Reference, kind: str, step: int) -> None:
    assert reference.expected(kind, step) == {}


def test_without_a_file_nothing_is_expected() -> None:
    assert Reference.read("").expected("train", 10) == {}


def test_the_demos_own_curves_are_there() -> None:
    expected = Reference.read("gin_configs/reference/demo_transformer.jsonl").expected("train", 600)
    assert 0 < expected["loss_video"] < expected["loss_null_text"]


@pytest.mark.parametrize("text", ["no JSON", "[1]", '{"kind": "train"}', '{"kind": "train", "step": 1, "loss": "low"}'])
def test_a_damaged_file_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "metrics.jsonl").write_text(text + "\n")
    with pytest.raises(UserError, match=r"metrics\.jsonl is damaged .* leave reference empty"):
        Reference.read(str(tmp_path))


def test_an_absent_file_is_told() -> None:
    with pytest.raises(UserError, match="found no reference curves at nowhere, expected a training's folder"):
        Reference.read("nowhere")


def test_metrics_stand_beside_what_is_expected(transformer_learner: TransformerLearner) -> None:
    values = {"loss": 2.5, "loss_video": 2.25, "loss_masked_0_25": 1.5, "accuracy": 0.5}
    assert transformer_learner.summary(values, {"loss": 2.0}) == [
        "loss: all 2.500 (expected 2.000), videos 2.250",
        "loss by share masked: 0-25 % 1.500",
        "accuracy: all 0.500",
    ]
