"""I3D sees what pytorch-i3d sees, as far as it is asked, and refuses videos that logits are not defined for."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phenaki_jax.errors import UserError
from phenaki_jax.features import testing
from phenaki_jax.features.i3d import ENDPOINTS, I3D, LOGITS, fvd_features
from phenaki_jax.layers.module import apply


def test_first_layers_and_their_gradient_are_torchs(i3d: dict[str, Any], is_torchs: Callable[..., None]) -> None:
    found = testing.evaluate(
        lambda params, video: apply(I3D(), params, video, testing.FIXTURE_ENDPOINTS),
        i3d,
        testing.random_pixels(testing.FIXTURE_VIDEO),
        gradient=True,
    )
    is_torchs("i3d.npz", "first_layers", found)


def test_all_layers_and_logits_are_torchs(i3d: dict[str, Any], is_torchs: Callable[..., None]) -> None:
    found = testing.evaluate(
        lambda params, video: apply(I3D(), params, video, ENDPOINTS),
        i3d,
        testing.random_pixels(testing.FIXTURE_VIDEO_OF_LOGITS),
        gradient=False,
    )
    assert found[LOGITS].shape == (1, 400)
    is_torchs("i3d.npz", "all", found)


def test_videos_of_bytes_are_resized_for_fvd(i3d: dict[str, Any]) -> None:
    """Frames become square whatever they were, -1 is black and 1 white, and products are of whole float32."""
    seen = {}

    def shown(self: I3D, video: jax.Array, endpoints: tuple[str, ...] = (LOGITS,)) -> dict[str, jax.Array]:
        seen["video"], seen["endpoints"] = video, endpoints
        seen["precision"] = jax.config.jax_default_matmul_precision
        return {LOGITS: jnp.zeros((len(video), 400))}

    video = jnp.zeros((2, 9, 30, 60, 3), jnp.uint8).at[:, :, :, 30:].set(255)
    for resize in ("torch", "tensorflow1"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(I3D, "__call__", shown)
            assert fvd_features(i3d, video, resize).shape == (2, 400)
        assert (seen["endpoints"], seen["precision"]) == ((LOGITS,), "highest")
        assert seen["video"].shape == (2, 9, 224, 224, 3)
        np.testing.assert_allclose(seen["video"][1, 8, 100, [0, 223], 2], [-1, 1], atol=1e-6)


def test_an_unknown_way_of_resizing_is_refused(i3d: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="found resize 'clean' for I3D, expected one of torch, tensorflow1"):
        fvd_features(i3d, jnp.zeros((1, 9, 30, 30, 3), jnp.uint8), "clean")


def test_sizes_are_divided_by_strides_and_rounded_up(i3d: dict[str, Any]) -> None:
    """Clips of training, far smaller than the network was made for, in half precision."""
    names = ("Conv3d_1a_7x7", "Conv3d_2c_3x3", "Mixed_3c", "Mixed_4f", "Mixed_5c")

    def features(params: Any, video: jax.Array) -> dict[str, jax.Array]:
        return apply(I3D(jnp.bfloat16), params, video, names)

    found = jax.eval_shape(features, i3d, jnp.zeros((2, 11, 64, 40, 3)))
    assert {name: values.shape for name, values in found.items()} == {
        "Conv3d_1a_7x7": (2, 6, 32, 20, 64),
        "Conv3d_2c_3x3": (2, 6, 16, 10, 192),
        "Mixed_3c": (2, 6, 8, 5, 480),
        "Mixed_4f": (2, 3, 4, 3, 832),
        "Mixed_5c": (2, 2, 2, 2, 1024),
    }
    assert {values.dtype for values in found.values()} == {jnp.dtype(jnp.bfloat16)}


def test_nothing_is_computed_behind_the_last_endpoint(i3d: dict[str, Any]) -> None:

    def features(params: Any, video: jax.Array) -> dict[str, jax.Array]:
        return apply(I3D(), params, video, ("MaxPool3d_2a_3x3",))

    first = {"Conv3d_1a_7x7": i3d["Conv3d_1a_7x7"]}
    found = jax.eval_shape(features, first, jnp.zeros((1, 2, 8, 8, 3)))
    assert {name: values.shape for name, values in found.items()} == {"MaxPool3d_2a_3x3": (1, 1, 2, 2, 64)}


@pytest.mark.usefixtures("unchecked")
def test_videos_in_bytes_are_refused(i3d: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="video: found uint8, expected floats"):
        apply(I3D(), i3d, jnp.zeros((1, 9, 224, 224, 3), jnp.uint8))


def test_an_unknown_endpoint_is_refused(i3d: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"found no I3D endpoint 'Mixed_6a', expected one of Conv3d_1a_7x7, .*Logits"):
        apply(I3D(), i3d, jnp.zeros((1, 9, 224, 224, 3)), ("Mixed_6a",))


@pytest.mark.parametrize("size", [(8, 224, 224), (9, 192, 224), (9, 224, 192), (9, 225, 224), (11, 64, 64)])
def test_videos_that_logits_are_not_defined_for_are_refused(i3d: dict[str, Any], size: tuple[int, ...]) -> None:
    message = "found videos of {} frames of {} x {} pixels, expected at least 9 frames of 224 x 224".format(*size)
    with pytest.raises(UserError, match=message):
        apply(I3D(), i3d, jnp.zeros((1, *size, 3)))
