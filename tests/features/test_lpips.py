"""LPIPS is the lpips package's, by hand where features are few, and its gradient is finite everywhere."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from phenaki_jax.features import testing
from phenaki_jax.features.lpips import lpips
from phenaki_jax.features.lpips_weights import head_params
from phenaki_jax.features.random_weights import random_lpips

MEAN, DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
SHAPE = (3, 16, 16, 3)


@jax.jit
def distances_and_gradient(params: Any, first: Array, second: Array) -> tuple[Array, Array]:
    """Of the second images."""
    distances, pull_back = jax.vjp(lambda images: lpips(params, first, images), second)
    return distances, pull_back(jnp.ones_like(distances))[0]


def constant_images(colour: np.ndarray) -> Array:
    """Images of one colour, given in [0, 1]."""
    return jnp.broadcast_to(jnp.asarray(2 * colour - 1, jnp.float32), SHAPE)


@pytest.fixture(scope="module")
def params(vgg16: dict[str, Any]) -> dict[str, Any]:
    return {"vgg16": vgg16, "heads": head_params(testing.random_heads())}


def test_distances_and_gradients_are_torchs(params: dict[str, Any], is_torchs: Callable[..., None]) -> None:
    shape = testing.FIXTURE_IMAGES[0]

    def network(params: Any, images: Array) -> dict[str, Array]:
        return {"distance": lpips(params["lpips"], params["first"], images)}

    params = {"lpips": params, "first": testing.random_pixels(shape, testing.OTHER_PIXELS)}
    found = testing.evaluate(network, params, testing.random_pixels(shape), gradient=True)
    is_torchs("lpips.npz", "32x32", found)


@pytest.mark.parametrize(("red", "green"), [(1.0, 1.0), (0.25, 0.5)])
def test_colours_are_as_far_apart_as_the_heads_say(params: dict[str, Any], red: float, green: float) -> None:
    """The first block hands colours on and the others are blind; red and green differ by 1 in two features."""
    network = jax.tree.map(jnp.zeros_like, params["vgg16"])
    for name in ("conv1_1", "conv1_2"):
        kernel = network[name]["kernel"]
        network[name]["kernel"] = kernel.at[1, 1].set(jnp.eye(*kernel.shape[2:]))
    heads = params["heads"] | {"relu1_2": jnp.zeros(64).at[:2].set(jnp.array([red, green]))}
    first, second = (constant_images(MEAN + DEVIATION * one) for one in np.eye(3)[:2])
    distances, _ = distances_and_gradient({"vgg16": network, "heads": heads}, first, second)
    np.testing.assert_allclose(distances, [red + green] * 3, rtol=1e-4)


def test_equal_images_are_at_distance_0_without_a_slope(params: dict[str, Any]) -> None:
    images = testing.random_pixels(SHAPE)
    distances, gradient = distances_and_gradient(params, images, images)
    np.testing.assert_allclose(distances, [0, 0, 0], atol=1e-12)
    np.testing.assert_allclose(gradient, np.zeros_like(images), atol=1e-7)


@pytest.mark.parametrize("feature", [0.0, 1e-20, 1e-15, 1e-5])
def test_images_almost_without_features_have_a_gradient(params: dict[str, Any], feature: float) -> None:
    """A root has no slope at 0, which the norm of a feature of 1e-20 is in float32; here one in the last block."""
    bias = jnp.full(512, -1e6).at[7].set(feature)
    last = {"kernel": jnp.zeros_like(params["vgg16"]["conv5_3"]["kernel"]), "bias": bias}
    distances, gradient = distances_and_gradient(
        {"vgg16": params["vgg16"] | {"conv5_3": last}, "heads": params["heads"]}, *testing.random_pixels((2, *SHAPE))
    )
    assert (distances > 0).all()
    assert np.isfinite(gradient).all()
    assert (gradient != 0).any()


def test_random_weights_tell_images_apart() -> None:
    """The more noise, the farther."""
    images, noise = testing.random_pixels(SHAPE), testing.random_pixels(SHAPE, 8)
    noisy = images + np.array([0, 0.1, 0.5], np.float32)[:, None, None, None] * noise
    distances, _ = distances_and_gradient(random_lpips(7), images, noisy)
    assert distances[0] < 1e-12
    assert 0.01 < distances[1] < distances[2]


def test_distances_are_float32_where_features_are_not(params: dict[str, Any]) -> None:
    first, second = testing.random_pixels((2, *SHAPE))
    half = jax.jit(lpips, static_argnums=3)(params, first, second, jnp.bfloat16)
    assert half.dtype == jnp.float32
    np.testing.assert_allclose(half, distances_and_gradient(params, first, second)[0], rtol=0.05)
