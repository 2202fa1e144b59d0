"""The Fréchet distance: values worked out by hand for normal distributions along axes."""

import numpy as np
import pytest

from phenaki_jax.errors import UserError
from phenaki_jax.evaluation.frechet import (
    FeatureStatistics,
    InfluenceFunction,
    frechet_distance,
    frechet_influences,
    frechet_of_moments,
)

# Means (0, 0), covariance of the unbiased kind diag(2, 8).
CROSS = np.array([[-np.sqrt(3), 0], [np.sqrt(3), 0], [0, -np.sqrt(12)], [0, np.sqrt(12)]])


def test_equal_sets_are_at_distance_zero() -> None:
    assert frechet_distance(CROSS, CROSS) == pytest.approx(0, abs=1e-9)


def test_a_shift_counts_by_its_square() -> None:
    assert frechet_distance(CROSS, CROSS + np.array([3.0, 4.0])) == pytest.approx(25)


def test_a_stretch_counts_by_the_difference_of_deviations() -> None:
    """Deviations sqrt(2), sqrt(8) become sqrt(2), 2 sqrt(8): (2 sqrt(8) - sqrt(8))^2 = 8."""
    assert frechet_distance(CROSS, CROSS * np.array([1.0, 2.0])) == pytest.approx(8)


def test_a_turn_counts_though_all_deviations_stay() -> None:
    """Covariances diag(2, 8) and diag(8, 2): 10 + 10 - 2 (4 + 4)."""
    assert frechet_distance(CROSS, CROSS[:, ::-1]) == pytest.approx(4)


def test_sets_of_fewer_rows_than_features_have_a_distance() -> None:
    """Deviation sqrt(2) along an axis; 2 sqrt(2) there, 3 away, is 2 + 9, sqrt(2) along another axis is 2 + 2."""
    first = np.array([[-1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    assert frechet_distance(first, 2 * first + np.array([0.0, 0.0, 3.0])) == pytest.approx(11)
    assert frechet_distance(first, first[:, ::-1]) == pytest.approx(4)


def test_statistics_are_all_that_a_distance_needs() -> None:
    """Means at distance 5; deviations 1, 2 and 3, 1."""
    first = FeatureStatistics(100, np.zeros(2), np.diag([1.0, 4.0]))
    second = FeatureStatistics(7, np.array([3.0, 4.0]), np.diag([9.0, 1.0]))
    assert frechet_of_moments(first, second) == pytest.approx(25 + 4 + 1)
    with pytest.raises(UserError, match="found rows of 2 and 3 features"):
        frechet_of_moments(first, FeatureStatistics(7, np.zeros(3), np.eye(3)))


def weighted(features: np.ndarray, weights: np.ndarray) -> FeatureStatistics:
    """Statistics of rows that count by weights."""
    mean = np.average(features, axis=0, weights=weights)
    centred = (features - mean) * np.sqrt(weights / weights.sum())[:, None]
    count = len(features)
    return FeatureStatistics(count, mean, centred.T @ centred * count / (count - 1))


@pytest.mark.parametrize(("rows", "others", "width"), [(30, 20, 3), (10, 15, 40)], ids=["many", "few"])
def test_the_influence_of_a_row_is_the_slope_as_it_counts_more(rows: int, others: int, width: int) -> None:
    """Also where rows are fewer than features."""
    rng = np.random.default_rng(0)
    sets = [rng.standard_normal((rows, width)), rng.standard_normal((others, width)) * 2 + 0.5]
    found = frechet_influences(*map(FeatureStatistics.of, sets))
    assert found.distance == pytest.approx(frechet_distance(*sets))
    for place, influence in enumerate((found.first.of(sets[0]), found.second.of(sets[1]))):
        slopes = []
        for row in range(4):
            ends = []
            for step in (1e-4, -1e-4):
                weights = [np.full(len(each), 1 / len(each)) for each in sets]
                weights[place][row] += step
                ends.append(frechet_of_moments(*map(weighted, sets, weights)))
            slopes.append((ends[0] - ends[1]) / 2e-4)
        np.testing.assert_allclose(influence[:4], slopes, rtol=1e-4, atol=1e-4)
        assert influence.mean() == pytest.approx(0, abs=1e-6)


def test_influences_on_a_mean_of_distances_are_the_mean_of_influences() -> None:
    rng = np.random.default_rng(1)
    first, *others = (rng.standard_normal((30, 3)) * scale for scale in (1, 2, 3))
    functions = [frechet_influences(FeatureStatistics.of(first), FeatureStatistics.of(each)).first for each in others]
    np.testing.assert_allclose(
        InfluenceFunction.mean_of(functions).of(first), np.mean([each.of(first) for each in functions], axis=0)
    )


def test_statistics_of_many_rows_are_those_of_all() -> None:
    """More than are taken at once."""
    rows = np.random.default_rng(2).standard_normal((10_001, 4)).astype(np.float32) + 100
    found = FeatureStatistics.of(rows)
    np.testing.assert_allclose(found.mean, rows.astype(np.float64).mean(axis=0))
    np.testing.assert_allclose(found.covariance, np.cov(rows.astype(np.float64), rowvar=False), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (CROSS[:1], CROSS, "found sets of 1 and 4 features, expected at least 2 in each"),
        (CROSS, CROSS[:, :1], "found rows of 2 and 1 features, expected the same"),
        (np.where(CROSS > 3, np.nan, CROSS), CROSS, "found NaN or infinity in 1 of 4 rows of features"),
        (CROSS, np.where(CROSS != 0, np.inf, CROSS), "found NaN or infinity in 4 of 4 rows of features"),
    ],
)
def test_sets_without_a_distance_are_refused(first: np.ndarray, second: np.ndarray, message: str) -> None:
    with pytest.raises(UserError, match=message):
        frechet_distance(first, second)
