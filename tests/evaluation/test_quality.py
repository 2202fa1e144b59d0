"""PSNR and SSIM are scikit-image's; measures are means over the valid frames of a clip."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from phenaki_jax.errors import UserError
from phenaki_jax.evaluation.metrics import psnr
from phenaki_jax.evaluation.quality import frames_lpips, frames_psnr, frames_ssim
from phenaki_jax.evaluation.testing import example_clips
from phenaki_jax.layers.pixels import to_float

# By benchmarks/metric_oracles.py --write-fixtures.
SCIKIT_IMAGE = json.loads((pathlib.Path(__file__).parent / "fixtures" / "scikit_image.json").read_text())
MEASURES = {"psnr": jax.jit(frames_psnr), "ssim": jax.jit(frames_ssim)}


@pytest.mark.parametrize("name", list(example_clips()))
def test_measures_are_scikit_images(name: str) -> None:
    """Of every frame; of uint8 videos over their range, by windows of a normal distribution."""
    first, second = (to_float(jnp.asarray(clip))[:, None] for clip in example_clips()[name])
    mask = jnp.ones((len(first), 1), bool)
    for measure, compute in MEASURES.items():
        np.testing.assert_allclose(compute(first, second, mask), SCIKIT_IMAGE[name][measure], atol=1e-5, rtol=0)


def test_each_frame_counts_alike_in_decibels() -> None:
    """Frames of 20 and 40 dB are 30 dB; their mean error is 22.97 dB. The third frame is none."""
    video = jnp.zeros((1, 3, 4, 4, 3))
    other = video.at[:, 0].add(0.2).at[:, 1].add(0.02).at[:, 2].set(jnp.nan)
    mask = jnp.array([[True, True, False]])
    np.testing.assert_allclose(frames_psnr(video, other, mask), [30.0], rtol=1e-5)
    np.testing.assert_allclose(psnr(video, other.at[:, 2].set(0), mask), [10 * np.log10(2 / 0.0101)], rtol=1e-5)


def test_constant_frames_are_as_similar_as_their_means() -> None:
    """0.2 and 0.8 in [0, 1]: (2 * .16 + .0001) / (.04 + .64 + .0001)."""
    video, other = jnp.full((1, 2, 12, 11, 3), -0.6), jnp.full((1, 2, 12, 11, 3), 0.6)
    mask, ssim = jnp.ones((1, 2), bool), MEASURES["ssim"]
    np.testing.assert_allclose(ssim(video, other, mask), [0.3201 / 0.6801], rtol=1e-5)
    np.testing.assert_allclose(ssim(video, video, mask), [1.0], rtol=1e-6)
    np.testing.assert_allclose(ssim(video, other.at[:, 1].set(-0.6), mask), [(0.3201 / 0.6801 + 1) / 2], rtol=1e-5)


def test_pixels_that_no_screen_shows_are_clipped() -> None:
    white, mask = jnp.ones((1, 2, 12, 11, 3)), jnp.ones((1, 2), bool)
    assert float(MEASURES["psnr"](white, 3 * white, mask)[0]) == pytest.approx(100.0)
    assert float(MEASURES["ssim"](white, 3 * white, mask)[0]) == pytest.approx(1.0)


def test_a_distance_of_images_is_taken_of_each_frame() -> None:
    def distance(first: Array, second: Array) -> Array:
        return jnp.mean(jnp.abs(first - second), axis=(1, 2, 3))

    video = jnp.zeros((2, 3, 4, 4, 3))
    other = video + jnp.array([[0.1, 0.3, 5.0], [0.5, 0.7, 0.9]])[:, :, None, None, None]
    mask = jnp.array([[True, True, False], [True, True, True]])
    found = jax.jit(frames_lpips, static_argnums=0)(distance, video, other, mask)
    np.testing.assert_allclose(found, [0.2, 0.7], rtol=1e-5)


def test_frames_smaller_than_a_window_are_told() -> None:
    small = jnp.zeros((1, 1, 10, 32, 3))
    with pytest.raises(
        UserError, match="found frames of 10 x 32 pixels, expected at least 11 along each side for SSIM"
    ):
        frames_ssim(small, small, jnp.ones((1, 1), bool))
