"""Extrapolation finds what a bias of 1 / samples hides."""

import numpy as np
import pytest

from phenaki_jax.errors import UserError
from phenaki_jax.evaluation.extrapolation import (
    extrapolated,
    extrapolated_frechet,
    extrapolated_inception_score,
)
from phenaki_jax.evaluation.frechet import FeatureStatistics
from phenaki_jax.evaluation.inception_score import inception_score


def test_a_bias_of_one_over_samples_is_taken_off() -> None:
    found = extrapolated(lambda rows: 3 + 50 / len(rows), np.zeros((100, 1)), seed=0, points=3, smallest=20)
    assert found.value == pytest.approx(3)
    assert found.sizes == (20, 60, 100)
    np.testing.assert_allclose(found.values, [5.5, 3 + 50 / 60, 3.5])


def test_sets_are_drawn_anew_for_each_size_and_seed() -> None:
    def first_rows(seed: int) -> tuple[float, ...]:
        rows = np.arange(100.0)[:, None]
        return extrapolated(lambda drawn: float(drawn[0, 0]), rows, seed=seed, points=5, smallest=20).values

    assert len(set(first_rows(0))) > 1
    assert first_rows(0) == first_rows(0) != first_rows(1)


def test_equal_distributions_are_at_a_distance_around_0() -> None:
    """The distance of 1000 samples in 8 dimensions is .02 and falls; that of the line is within a tenth of it."""
    rng = np.random.default_rng(0)
    real = FeatureStatistics(count=10**6, mean=np.zeros(8), covariance=np.eye(8))
    found = [
        extrapolated_frechet(real, rng.standard_normal((1000, 8)), seed=seed, points=8, smallest=100)
        for seed in range(10)
    ]
    assert all(each.values[0] > each.values[-1] > 0.01 for each in found)
    assert abs(np.mean([each.value for each in found])) < 0.003


def test_the_inception_score_of_more_samples_is_higher() -> None:
    logits = np.random.default_rng(1).standard_normal((2000, 30))
    found = extrapolated_inception_score(logits[:500], seed=0, points=8, smallest=50)
    assert found.values[0] < found.value
    assert found.value == pytest.approx(inception_score(logits, 1).mean, rel=0.03)


def test_too_few_samples_are_told() -> None:
    with pytest.raises(UserError, match="found 15 sizes from 5000 to 300 samples, expected at least 2 different ones"):
        extrapolated(len, np.zeros((300, 1)), seed=0)
