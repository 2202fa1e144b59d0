"""Inception sees what torch-fidelity's sees of images of any size, and refuses what it was not made for."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phenaki_jax.errors import UserError
from phenaki_jax.features import testing
from phenaki_jax.features.inception import Inception, inception_features
from phenaki_jax.features.random_weights import random_inception
from phenaki_jax.layers.module import apply


@pytest.fixture(scope="module")
def inception() -> dict[str, Any]:
    return jax.tree.map(jnp.asarray, random_inception(testing.WEIGHTS))


def test_features_and_logits_are_torchs(inception: dict[str, Any], is_torchs: Callable[..., None]) -> None:
    images = testing.random_bytes(testing.FIXTURE_BYTES)
    found = testing.evaluate(inception_features, inception, images, gradient=False)
    assert {name: values.shape for name, values in found.items()} == {"pool3": (2, 2048), "logits": (2, 1008)}
    is_torchs("inception.npz", "all", found)


def test_the_way_of_resizing_is_chosen(inception: dict[str, Any]) -> None:
    """All products in it are of whole float32, whatever the device would make of them."""
    images = jnp.zeros((1, 32, 32, 3), jnp.uint8)
    for resize, method in (("tensorflow1", "gather"), ("clean", "dot_general")):
        program = str(
            jax.make_jaxpr(lambda images, resize=resize: inception_features(inception, images, resize))(images)
        )
        before_network = program[: program.index("conv_general_dilated")]
        assert method in before_network
        assert program.count("conv_general_dilated[") == 94
        assert program.count("precision=None") == 0


def test_an_unknown_way_of_resizing_is_refused(inception: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="found resize 'bicubic' for Inception, expected one of tensorflow1, clean"):
        inception_features(inception, jnp.zeros((1, 32, 32, 3), jnp.uint8), "bicubic")


@pytest.mark.usefixtures("unchecked")
def test_images_of_floats_are_refused(inception: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"images: found float32 in 0\.\.0, expected uint8"):
        inception_features(inception, jnp.zeros((1, 32, 32, 3)))


def test_images_too_small_are_refused(inception: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="found images of 75 x 74 pixels for Inception, expected at least 75 x 75"):
        apply(Inception(), inception, jnp.zeros((1, 75, 74, 3)))


def test_the_smallest_images_have_features(inception: dict[str, Any]) -> None:
    found = jax.eval_shape(lambda images: apply(Inception(), inception, images), np.zeros((1, 75, 75, 3), np.float32))
    assert found["pool3"].shape == (1, 2048)
