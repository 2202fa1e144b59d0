"""Convolutions in blocks and maxima of slices are what jax.lax's own strided ones are, gradients included."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phenaki_jax.features.convolution import Convolution, max_pool
from phenaki_jax.layers.module import apply

# Sizes, windows and strides along time, height and width: odd and even, larger and smaller than one another.
CASES = [((5, 8, 7), (7, 7, 7), (2, 2, 2)), ((1, 6, 9), (3, 2, 4), (2, 3, 1)), ((4, 3, 2), (1, 3, 3), (1, 2, 5))]


CASES_WITHOUT_PADDING = [((9, 8, 7), (7, 1, 3), (2, 4, 1)), ((5, 7, 8), (3, 3, 3), (2, 2, 2))]
ALL_CASES = [*((*case, True) for case in CASES), *((*case, False) for case in CASES_WITHOUT_PADDING)]


@pytest.mark.parametrize(("size", "window", "strides", "padded"), ALL_CASES)
def test_strides_skip_positions(
    size: tuple[int, ...], window: tuple[int, ...], strides: tuple[int, ...], padded: bool
) -> None:
    rng = np.random.default_rng(0)
    inputs = jnp.asarray(rng.standard_normal((2, *size, 3), np.float32))
    kernel = jnp.asarray(rng.standard_normal((*window, 3, 4), np.float32))
    bias = jnp.asarray(rng.standard_normal(4, np.float32))
    found = apply(Convolution(4, window, strides, padded=padded), {"kernel": kernel, "bias": bias}, inputs)
    layout, padding = ("NDHWC", "DHWIO", "NDHWC"), "SAME" if padded else "VALID"
    expected = jax.lax.conv_general_dilated(inputs, kernel, strides, padding, dimension_numbers=layout) + bias
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("size", "window", "strides", "padded"), ALL_CASES)
def test_the_maximum_is_that_of_the_window(
    size: tuple[int, ...], window: tuple[int, ...], strides: tuple[int, ...], padded: bool
) -> None:
    inputs = jnp.asarray(np.random.default_rng(0).random((2, *size, 3), np.float32))
    padding = "SAME" if padded else "VALID"
    expected = jax.lax.reduce_window(inputs, 0.0, jax.lax.max, (1, *window, 1), (1, *strides, 1), padding)
    np.testing.assert_array_equal(max_pool(inputs, window, strides, padded), expected)


def test_the_maximum_alone_has_a_gradient() -> None:
    inputs = jnp.array([3.0, 1.0, 4.0, 1.5, 5.0, 9.0, 2.0]).reshape(1, 7, 1, 1, 1)
    gradient = jax.grad(lambda inputs: jnp.sum(max_pool(inputs, (3, 1, 1), (2, 1, 1))))(inputs)
    # One zero in front and one behind: the windows are (0 3 1), (1 4 1.5), (1.5 5 9), (9 2 0).
    np.testing.assert_array_equal(gradient.reshape(-1), [1, 0, 1, 0, 0, 2, 0])


def test_equal_maxima_share_the_gradient() -> None:
    gradient = jax.grad(lambda inputs: jnp.sum(max_pool(inputs, (2, 1, 1), (2, 1, 1))))(jnp.ones((1, 4, 1, 1, 1)))
    np.testing.assert_array_equal(gradient.reshape(-1), [0.5, 0.5, 0.5, 0.5])


def test_half_precision_stays_half() -> None:
    inputs = jnp.ones((1, 4, 4, 3))
    params = {"kernel": jnp.ones((3, 3, 3, 2)), "bias": jnp.ones(2)}
    found = apply(Convolution(2, (3, 3), dtype=jnp.bfloat16), params, inputs)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_array_equal(found[0, :2, :2, 0].astype(jnp.float32), [[13, 19], [19, 28]])
