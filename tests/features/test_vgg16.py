"""VGG16 sees what torchvision's sees, of images in [-1, 1]."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phenaki_jax.errors import UserError
from phenaki_jax.features import testing
from phenaki_jax.features.vgg16 import ACTIVATIONS, VGG16
from phenaki_jax.layers.module import apply

# Of ImageNet, for colours in [0, 1].
MEAN, DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


activations = jax.jit(VGG16().apply)


@pytest.mark.parametrize("shape", testing.FIXTURE_IMAGES, ids=str)
def test_activations_and_gradients_are_torchs(
    vgg16: dict[str, Any], is_torchs: Callable[..., None], shape: tuple[int, ...]
) -> None:
    found = testing.evaluate(
        lambda params, images: apply(VGG16(), params, images), vgg16, testing.random_pixels(shape), gradient=True
    )
    assert set(found) == {*ACTIVATIONS, "gradient"}
    is_torchs("vgg16.npz", f"{shape[1]}x{shape[2]}", found)


def test_colours_are_counted_in_deviations_from_the_mean(vgg16: dict[str, Any]) -> None:
    kernels = [jnp.zeros((3, 3, channels, 64)).at[1, 1].set(jnp.eye(channels, 64)) for channels in (3, 64)]
    layers = {f"conv1_{layer}": {"kernel": kernel, "bias": jnp.zeros(64)} for layer, kernel in enumerate(kernels, 1)}
    colour = MEAN + DEVIATION * [1, 2, -1]
    images = jnp.broadcast_to(jnp.asarray(2 * colour - 1, jnp.float32), (1, 16, 16, 3))
    seen = activations({"params": vgg16 | layers}, images)["relu1_2"]
    np.testing.assert_allclose(seen[0, 7, 9, :4], [1, 2, 0, 0], atol=1e-5)


def test_half_precision_is_close(vgg16: dict[str, Any]) -> None:
    pixels = testing.random_pixels((1, 16, 16, 3))
    whole = activations({"params": vgg16}, pixels)
    half = jax.jit(VGG16(jnp.bfloat16).apply)({"params": vgg16}, pixels)
    for name in ACTIVATIONS:
        assert half[name].dtype == jnp.bfloat16
        assert testing.relative_error(np.asarray(half[name], np.float32), np.asarray(whole[name])) < 0.05


@pytest.mark.usefixtures("unchecked")
def test_images_in_bytes_are_refused(vgg16: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="images: found uint8, expected floats"):
        apply(VGG16(), vgg16, jnp.zeros((1, 16, 16, 3), jnp.uint8))


def test_images_too_small_are_refused(vgg16: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="found images of 16 x 15 pixels for VGG16, expected at least 16 x 16"):
        apply(VGG16(), vgg16, jnp.zeros((1, 16, 15, 3)))
