"""The Inception score: values that are plain from the classes."""

import jax
import numpy as np
import pytest

from phenaki_jax.errors import UserError
from phenaki_jax.evaluation.inception_score import InceptionScore, inception_score

SURE = 100 * np.eye(4, dtype=np.float32)


def streamed(logits: np.ndarray, splits: int, batch: int = 5) -> tuple[float, float]:
    """Mean and deviation from batches in another order, the last filled up with what is no number."""
    metric = InceptionScore.from_outputs(splits=splits, samples=len(logits))
    step = jax.jit(metric.from_model_output)
    filled = np.concatenate([logits, np.full((-len(logits) % batch, logits.shape[1]), np.nan, np.float32)])
    index = np.arange(len(filled))
    found = metric.empty()
    for at in reversed(range(0, len(filled), batch)):
        part = slice(at, at + batch)
        found = found.merge(step(logits=filled[part], index=index[part], mask=index[part] < len(logits)))
    assert found.compute() == found.scores().mean
    return found.scores()


@pytest.mark.parametrize("score", [inception_score, streamed])
def test_a_score_is_how_many_classes_there_are(score) -> None:
    """Of samples that are sure and even; 1 of those that are all alike, or unsure."""
    assert score(np.tile(SURE, (3, 1)), 1)[0] == pytest.approx(4)
    assert score(np.tile(SURE[:1], (12, 1)), 1)[0] == pytest.approx(1)
    assert score(np.zeros((12, 4), np.float32), 1)[0] == pytest.approx(1)


@pytest.mark.parametrize("score", [inception_score, streamed])
def test_splits_are_parts_one_after_the_other(score) -> None:
    """Seven samples in two parts: three of one class, then two each of two classes."""
    logits = SURE[[0, 0, 0, 1, 1, 2, 2]]
    np.testing.assert_allclose(score(logits, 2), [1.5, 0.5])
    entropy = -sum(share * np.log(share) for share in (3 / 7, 2 / 7, 2 / 7))
    np.testing.assert_allclose(score(logits, 1), [np.exp(entropy), 0], atol=1e-12)


def test_a_stream_scores_as_all_logits_at_once() -> None:
    logits = 3 * np.random.default_rng(0).standard_normal((103, 20)).astype(np.float32)
    np.testing.assert_allclose(streamed(logits, 10, batch=16), inception_score(logits), rtol=1e-6)


def test_what_has_no_score_is_told() -> None:
    with pytest.raises(UserError, match="found 10 splits of 4 samples"):
        inception_score(SURE)
    with pytest.raises(UserError, match="found NaN or infinity in 4 of 4 rows"):
        inception_score(SURE * np.nan, 1)
    with pytest.raises(UserError, match="found 0 samples for 10 splits, expected how many samples there are in all"):
        InceptionScore.from_outputs(splits=10)
    with pytest.raises(UserError, match="found no logits"):
        InceptionScore.from_outputs().empty().compute()
    with pytest.raises(UserError, match="found NaN or infinity in logits"):
        InceptionScore.from_outputs().from_model_output(logits=SURE * np.nan).compute()
