"""Intervals are as wide as a measure scatters from set to set."""

import numpy as np
import pytest

from phenaki_jax.errors import UserError
from phenaki_jax.evaluation.bootstrap import bootstrap, frechet_interval
from phenaki_jax.evaluation.frechet import frechet_distance


def test_the_interval_of_a_mean_is_that_of_its_standard_error() -> None:
    values = np.random.default_rng(0).standard_normal(400) + 5
    found = bootstrap(lambda drawn: float(drawn.mean()), values, seed=1, replicates=4000)
    error = values.std() / 20
    assert found.low == pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error)
    assert found.high == pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error)
    narrow = bootstrap(lambda drawn: float(drawn.mean()), values, seed=1, replicates=4000, level=0.5)
    assert found.low < narrow.low < narrow.high < found.high


def test_intervals_are_seeded() -> None:
    values = np.arange(10.0)
    first, same, other = (bootstrap(np.mean, values, seed=seed, replicates=50) for seed in (1, 1, 2))
    assert first == same
    assert (first.low, first.high) != (other.low, other.high)


def test_the_interval_of_a_frechet_distance_is_what_other_sets_would_give() -> None:
    """Of 200 pairs of sets from the same two distributions."""
    rng = np.random.default_rng(2)

    def draw() -> tuple[np.ndarray, np.ndarray]:
        return rng.standard_normal((300, 3)), rng.standard_normal((200, 3)) * [1, 2, 1] + [0.5, 0, 0]

    distances = [frechet_distance(*draw()) for _ in range(200)]
    first, second = draw()
    found = frechet_interval(first, second, seed=0)
    assert found.low < frechet_distance(first, second) < found.high
    assert (found.high - found.low) / (2 * 1.96) == pytest.approx(np.std(distances), rel=0.25)


def test_what_gives_no_interval_is_told() -> None:
    with pytest.raises(UserError, match="found an empty set of samples"):
        bootstrap(np.mean, np.zeros(0), seed=0)
    with pytest.raises(UserError, match="found replicates 0, expected at least 1"):
        bootstrap(np.mean, np.zeros(3), seed=0, replicates=0)
    with pytest.raises(UserError, match=r"found level 95.0, expected a share"):
        bootstrap(np.mean, np.zeros(3), seed=0, level=95.0)
