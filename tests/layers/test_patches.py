"""Patches come back as the frames they were cut from, and pixels as the numbers they were."""

import re

import hypothesis
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest
from jax.typing import DTypeLike

from phenaki_jax.errors import UserError
from phenaki_jax.layers.patches import from_patches, to_patches
from phenaki_jax.layers.pixels import check_float, check_uint8, to_float, to_uint8

FEW = st.integers(1, 3)


# Each shape is compiled anew.
@hypothesis.settings(max_examples=15)
@hypothesis.given(times=FEW, rows=FEW, columns=FEW, temporal_patch=FEW, patch=FEW)
def test_patches_are_put_together_again(times: int, rows: int, columns: int, temporal_patch: int, patch: int) -> None:
    shape = (2, times * temporal_patch, rows * patch, columns * patch, 3)
    frames = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    patches = to_patches(jnp.asarray(frames), temporal_patch, patch)
    assert patches.shape == (2, times, rows, columns, temporal_patch * patch**2 * 3)
    np.testing.assert_array_equal(from_patches(patches, temporal_patch, patch), frames)
    first = frames[0, :temporal_patch, :patch, :patch]
    np.testing.assert_array_equal(patches[0, 0, 0, 0], first.reshape(-1))


def test_all_pixel_values_survive() -> None:
    pixels = jnp.arange(256, dtype=jnp.uint8)
    np.testing.assert_array_equal(to_uint8(to_float(pixels)), pixels)
    np.testing.assert_array_equal(to_uint8(jnp.array([-7.0, 7.0])), [0, 255])


@pytest.mark.parametrize(
    ("pixels", "found", "advice"),
    [
        (
            np.array([-1.0, 1.0], np.float32),
            "float32 in -1..1",
            "convert with phenaki_jax.layers.pixels.to_uint8(video)",
        ),
        (np.array([0.0, 1.0]), "float64 in 0..1", "convert with (255 * video).round().astype(np.uint8)"),
        (np.array([0.0, 254.6]), "float64 in 0..255", "convert with video.round().astype(np.uint8)"),
        (np.array([0, 1], np.int32), "int32 in 0..1", "convert with video.round().astype(np.uint8)"),
        (np.array([-1, 300]), "int64 in -1..300", "bring them into that range first"),
        (np.array([0.0, np.nan]), "float64 with NaN or infinite values", "mend what they come from"),
        (np.array([True]), "bool", "give whole numbers"),
        (
            jnp.array([0.0, 1.0], jnp.bfloat16),
            "bfloat16 in 0..1",
            "convert with (255 * video).round().astype(np.uint8)",
        ),
    ],
)
def test_pixels_of_another_type_are_refused_with_what_mends_them(pixels: np.ndarray, found: str, advice: str) -> None:
    expected = f"video: found {found}, expected uint8 in 0..255; {advice}"
    with pytest.raises(UserError, match=f"^{re.escape(expected)}$"):
        check_uint8("video", pixels)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_floats_as_they_are_made_of_files_are_taken(dtype: DTypeLike) -> None:
    check_float("video", to_float(jnp.arange(256, dtype=jnp.uint8), dtype))


def test_what_a_decoder_draws_may_go_beyond_where_that_is_said() -> None:
    check_float("video", jnp.array([-1.2, 1.1]), bounded=False)
    with pytest.raises(UserError, match=r"^video: found float32 in -1\.2\.\.1\.1, expected .* clip video to it$"):
        check_float("video", jnp.array([-1.2, 1.1]))
    with pytest.raises(UserError, match=r"^video: found int32, expected floats in \[-1, 1\]$"):
        check_float("video", jnp.array([-1, 1]), bounded=False)
