"""Intervals are as wide as a measure scatters from set to set."""

import numpy as np
import pytest

from phenaki_jax.errors import UserError
from phenaki_jax.evaluation.bootstrap import bootstrap, frechet_interval, mean_interval
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


@pytest.mark.parametrize("same", [True, False], ids=["of the same clips", "of other clips"])
def test_what_comes_of_a_clip_is_drawn_with_it(*, same: bool) -> None:
    """Of four real windows and two videos of each clip: as wide as plain replicates that draw clips."""
    rng = np.random.default_rng(3)
    content, other = rng.standard_normal((2, 100, 3))
    real = content[:, None] + 0.2 * rng.standard_normal((100, 4, 3))
    made = 1.5 * (content if same else other)[:, None] + 0.3 * rng.standard_normal((100, 2, 3)) + 0.5
    plain = []
    for _ in range(600):
        first, second = rng.integers(100, size=(2, 100))
        drawn = real[first], made[first if same else second]
        plain.append(frechet_distance(*(each.reshape(-1, 3) for each in drawn)))
    sets = real.reshape(-1, 3), made.reshape(-1, 3)
    clips = np.arange(100).repeat(4), np.arange(100).repeat(2) + (0 if same else 100)
    found = frechet_interval(*sets, seed=0, clips=clips)
    low, high = np.quantile(plain, [0.025, 0.975])
    assert found.high - found.low == pytest.approx(high - low, rel=0.1)
    # What rows by themselves would say: too little by far, or, of pairs, too much.
    alone = frechet_interval(*sets, seed=0)
    ratio = (alone.high - alone.low) / (high - low)
    assert ratio > 1.5 if same else ratio < 0.7


def test_pairs_that_move_together_leave_their_distance_where_it_is() -> None:
    """Videos a step beside their clips: sets drawn apart would scatter, pairs do not."""
    real = np.random.default_rng(4).standard_normal((200, 3))
    clips = np.arange(200)
    paired = frechet_interval(real, real + 1, seed=0, clips=(clips, clips))
    assert (paired.low, paired.high) == pytest.approx((3, 3))
    apart = frechet_interval(real, real + 1, seed=0)
    assert apart.high - apart.low > 0.5


def test_means_are_of_clips_that_are_drawn_with_all_their_samples() -> None:
    """Ten samples of each clip that say the same are no more than one."""
    values = np.random.default_rng(5).standard_normal(50)
    one = mean_interval(values, np.arange(50), seed=0)
    ten = mean_interval(values.repeat(10), np.arange(50).repeat(10), seed=0)
    assert (ten.low, ten.high) == pytest.approx((one.low, one.high))
    shuffled = np.random.default_rng(6).permutation(500)
    again = mean_interval(values.repeat(10)[shuffled], np.arange(50).repeat(10)[shuffled], seed=0)
    assert (again.low, again.high) == pytest.approx((one.low, one.high))


def test_what_gives_no_interval_is_told() -> None:
    with pytest.raises(UserError, match="found an empty set of samples"):
        bootstrap(np.mean, np.zeros(0), seed=0)
    with pytest.raises(UserError, match="found replicates 0, expected at least 1"):
        bootstrap(np.mean, np.zeros(3), seed=0, replicates=0)
    with pytest.raises(UserError, match=r"found level 95.0, expected a share"):
        bootstrap(np.mean, np.zeros(3), seed=0, level=95.0)
