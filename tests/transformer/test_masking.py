"""Masks: only candidates are hidden, at least one, and as many as the schedule says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phenaki_jax.errors import UserError
from phenaki_jax.transformer.masking import SCHEDULES, check_schedule, masked_share, random_mask


@pytest.mark.parametrize(
    ("schedule", "halfway"),
    [
        ("cosine", np.sqrt(0.5)),
        ("linear", 0.5),
        ("square", 0.75),
        ("cubic", 0.875),
        ("square_root", 1 - np.sqrt(0.5)),
        ("arccos", 2 / 3),
    ],
)
def test_schedules_fall_from_all_to_none(schedule: str, halfway: float) -> None:
    share = masked_share(schedule, jnp.array([0.0, 0.5, 1.0, 1.1]))
    np.testing.assert_allclose(share, [1.0, halfway, 0.0, 0.0], atol=1e-6)
    assert (np.diff(masked_share(schedule, jnp.linspace(0, 1, 50))) < 0).all()
    assert schedule in SCHEDULES


def test_an_unknown_schedule_is_refused() -> None:
    with pytest.raises(UserError, match="mask schedule 'sine' is unknown; known are cosine, linear"):
        check_schedule("sine")


def test_padding_and_prefixes_are_never_masked() -> None:
    candidates = jax.random.bernoulli(jax.random.key(0), 0.4, (64, 50))
    for seed in range(20):
        mask, _ = random_mask(jax.random.key(seed), candidates)
        assert not np.any(np.asarray(mask) & ~np.asarray(candidates))


def test_the_number_of_masked_tokens_follows_the_share() -> None:
    candidates = jnp.arange(40)[None] < jnp.array([40, 16, 1, 7])[:, None]
    for seed in range(20):
        mask, share = random_mask(jax.random.key(seed), candidates)
        expected = np.maximum(np.ceil(np.asarray(share)[:, 0] * np.array([40, 16, 1, 7])), 1)
        np.testing.assert_array_equal(np.asarray(mask).sum(axis=1), expected)


def test_examples_that_share_a_row_have_a_share_each() -> None:
    segments = jnp.array([[1] * 4 + [2] * 10 + [3] * 6, [1] * 20, [2] * 5 + [0] * 15])
    candidates = (segments > 0).at[0, 4:9].set(False)
    counts = np.array([[4, 5, 6], [20, 0, 0], [0, 5, 0]])
    hidden = []
    for seed in range(20):
        mask, share = random_mask(jax.random.key(seed), candidates, segments, segments=3)
        assert not np.any(np.asarray(mask) & ~np.asarray(candidates))
        found = [[np.sum(np.asarray(mask)[row] & (segments[row] == each)) for each in (1, 2, 3)] for row in range(3)]
        expected = np.where(counts, np.maximum(np.ceil(np.asarray(share) * counts), 1), 0)
        np.testing.assert_array_equal(found, expected)
        hidden.append(np.asarray(mask)[0])
    rates = np.mean(hidden, axis=0)
    assert rates[:4].min() > 0.2
    assert rates[9:].min() > 0.2


def test_the_mean_share_is_that_of_the_cosine() -> None:
    shares = [random_mask(jax.random.key(seed), jnp.ones((16, 8), bool))[1] for seed in range(50)]
    assert abs(float(np.mean(shares)) - 2 / np.pi) < 0.01


def test_every_position_is_masked_equally_often() -> None:
    masks = [random_mask(jax.random.key(seed), jnp.ones((32, 10), bool))[0] for seed in range(100)]
    rates = np.concatenate(masks).mean(axis=0)
    assert np.ptp(rates) < 0.06


def test_tubes_are_hidden_at_all_times_or_none_and_as_many_tokens_as_ever() -> None:
    places, times = 16, 6
    candidates = jnp.arange(places * times)[None] >= jnp.array([0] * 32 + [3 * places] * 32)[:, None]
    agreeing = {}
    for tube_share in (0.0, 0.5, 1.0):
        mask, share = random_mask(jax.random.key(1), candidates, places=places, tube_share=tube_share)
        assert not np.any(np.asarray(mask) & ~np.asarray(candidates))
        expected = np.maximum(np.ceil(np.asarray(share)[:, 0] * np.asarray(candidates).sum(axis=1)), 1)
        np.testing.assert_array_equal(np.asarray(mask).sum(axis=1), expected)
        later = np.asarray(mask).reshape(-1, times, places)[:, 3:]
        agreeing[tube_share] = np.mean(np.all(later == later[:, :1], axis=1))
    assert agreeing[0.0] < 0.7
    assert agreeing[1.0] > 0.8
    assert agreeing[0.0] < agreeing[0.5] < agreeing[1.0]
