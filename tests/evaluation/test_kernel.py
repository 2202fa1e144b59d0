"""The kernel distance: values worked out by hand, and what makes it free of the number of samples."""

import itertools

import jax
import numpy as np
import pytest

from phenaki_jax.errors import UserError
from phenaki_jax.evaluation.kernel import KernelDistance, kernel_distance, kernel_distance_of_subsets

# With one feature the kernel is (x y + 1)^3. Within the sets it is 1 and 27; across 1, 1, 8 and 27.
FIRST, SECOND = np.array([[0.0], [1.0]], np.float32), np.array([[1.0], [2.0]], np.float32)
DISTANCE = 1 + 27 - 2 * 37 / 4


@pytest.mark.parametrize("rows", [1, 2048])
def test_the_distance_is_that_of_all_pairs(rows: int) -> None:
    """However few are in memory at a time."""
    assert kernel_distance(FIRST, SECOND, rows=rows) == pytest.approx(DISTANCE)


def test_subsets_of_all_sizes_are_at_the_same_distance_on_average() -> None:
    """All pairs of rows of each set, in batches that are filled up; as wholes these sets have 5 and 4 rows."""
    rng = np.random.default_rng(0)
    first, second = rng.standard_normal((5, 3)).astype(np.float32), rng.random((4, 3)).astype(np.float32)
    metric = KernelDistance.from_outputs()
    step = jax.jit(metric.from_model_output)
    found = metric.empty()
    for some, others in itertools.product(itertools.combinations(first, 2), itertools.combinations(second, 2)):
        batches = [np.stack([*rows, np.full(3, np.nan, np.float32)]) for rows in (some, others)]
        mask = np.array([True, True, False])
        found = found.merge(step(real_features=batches[0], generated_features=batches[1], mask=mask))
    assert found.compute() == pytest.approx(kernel_distance(first, second), rel=1e-5)


def test_batches_count_by_the_smaller_half_and_at_least_two_rows() -> None:
    metric = KernelDistance.from_outputs("real", "fake")
    two = metric.from_model_output(real=FIRST, fake=SECOND)
    one = metric.from_model_output(real=FIRST, fake=SECOND, fake_mask=np.array([True, False]))
    four = metric.from_model_output(real=np.tile(FIRST, (2, 1)), fake=np.tile(SECOND, (2, 1)))
    of_four = kernel_distance(np.tile(FIRST, (2, 1)), np.tile(SECOND, (2, 1)))
    assert np.isnan(metric.empty().merge(one).compute())
    assert one.merge(two).compute() == pytest.approx(DISTANCE)
    assert one.merge(two).merge(four).compute() == pytest.approx((DISTANCE + 2 * of_four) / 3)


def test_published_subsets_are_seeded_and_around_the_distance_of_all() -> None:
    rng = np.random.default_rng(1)
    first, second = (rng.standard_normal((200, 4)) + shift for shift in (0, 1))
    found = kernel_distance_of_subsets(first, second, subsets=50, size=100, seed=3)
    assert found == kernel_distance_of_subsets(first, second, subsets=50, size=100, seed=3)
    assert found != kernel_distance_of_subsets(first, second, subsets=50, size=100, seed=4)
    assert found.deviation is not None
    assert abs(found.mean - kernel_distance(first, second)) < 4 * found.deviation / np.sqrt(50)


def test_subsets_that_are_whole_sets_have_no_deviation() -> None:
    """One of both sets is the distance; of one of them, the other one's subsets would deviate too little."""
    rng = np.random.default_rng(1)
    first, second = rng.standard_normal((20, 4)), rng.standard_normal((30, 4))
    both = kernel_distance_of_subsets(first, second, subsets=5, size=30, seed=3)
    assert both == (pytest.approx(kernel_distance(first, second)), None, 1)
    one = kernel_distance_of_subsets(first, second, subsets=5, size=20, seed=3)
    assert (one.deviation, one.subsets) == (None, 5)
    none = kernel_distance_of_subsets(first, second, subsets=5, size=19, seed=3)
    assert none.deviation is not None
    assert none.deviation > 0


def test_sets_without_a_distance_are_refused() -> None:
    for other, message in (
        (FIRST[:1], "found sets of 2 and 1 features"),
        (FIRST[:, [0, 0]], "found rows of 1 and 2 features"),
        (FIRST * np.nan, "found NaN or infinity in 2 of 2 rows"),
    ):
        with pytest.raises(UserError, match=message):
            kernel_distance(FIRST, other)
