"""Pairs of float32 numbers keep what one of them loses, also where XLA compiles the sum."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phenaki_jax.evaluation.pairs import Pair


def test_small_numbers_beside_a_large_one_are_kept() -> None:
    """In float32, 2^24 + 1 is 2^24."""

    def add_one(sums: Pair, _: None) -> tuple[Pair, None]:
        return sums.add(jnp.ones(2)), None

    start = Pair.zeros((2,)).add(jnp.array([2.0**24, -(2.0**40)]))
    sums = jax.jit(lambda start: jax.lax.scan(add_one, start, None, length=1000)[0])(start)
    np.testing.assert_array_equal(sums.to_float64(), [2.0**24 + 1000, -(2.0**40) + 1000])


@pytest.mark.parametrize("compiled", [True, False])
def test_sums_are_those_of_float64(compiled: bool) -> None:
    """Within 2^-47 of the sum of sizes, of numbers that cancel almost wholly."""
    rng = np.random.default_rng(0)
    values = (rng.standard_normal(100) * 10.0 ** rng.integers(-6, 7, 100)).astype(np.float32)
    values = np.concatenate([values, -values[:99]])
    merge = jax.jit(Pair.add) if compiled else Pair.add
    sums = Pair.zeros()
    for value in values:
        sums = merge(sums, jnp.asarray(value))
    assert abs(sums.to_float64() - np.sum(values, dtype=np.float64)) <= 2.0**-47 * np.abs(values).sum(dtype=np.float64)


def test_parts_add_up_in_any_order() -> None:
    values = np.random.default_rng(1).standard_normal((3, 4)).astype(np.float32)
    one, two, three = (Pair.zeros((4,)).add(jnp.asarray(row)) for row in values)
    expected = values.sum(axis=0, dtype=np.float64)
    for sums in (
        one.merge(two).merge(three),
        one.merge(three.merge(two)),
        Pair.zeros().merge(one).merge(two).merge(three),
    ):
        np.testing.assert_allclose(sums.to_float64(), expected, rtol=1e-14)
