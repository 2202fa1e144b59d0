"""How near a video is to the one it should be, frame by frame: PSNR, SSIM and LPIPS of each clip.

Measures of a clip are means over its valid frames. Pixels are in [-1, 1] as in models; others are clipped to it.
Published figures are of videos in uint8: bring reconstructions to it and back (`layers.pixels`) to compare with them.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from phenaki_jax.errors import UserError
from phenaki_jax.evaluation.masks import mean_over_frames

# Wang, Bovik, Sheikh and Simoncelli, IEEE Transactions on Image Processing 13(4), 2004, section III.
_DEVIATION = 1.5
_RADIUS = 5
_STABLE_MEANS, _STABLE_CONTRASTS = 0.01**2, 0.03**2
# The PSNR of equal frames is 100 dB.
_SMALLEST_ERROR = 1e-10

_Video = Float[Array, "batch frames height width 3"]


def frames_psnr(video: _Video, other: _Video, frame_mask: Bool[Array, "batch frames"]) -> Float[Array, " batch"]:
    """Peak signal-to-noise ratio in dB of each frame, averaged over a clip's valid frames.

    `metrics.psnr` is that of the error averaged over frames instead, which is never higher.
    """
    error = jnp.mean(jnp.square(_to_unit(video) - _to_unit(other)), axis=(2, 3, 4))
    return mean_over_frames(-10.0 * jnp.log10(jnp.maximum(error, _SMALLEST_ERROR)), frame_mask)


def frames_ssim(video: _Video, other: _Video, frame_mask: Bool[Array, "batch frames"]) -> Float[Array, " batch"]:
    """Structural similarity of each frame, averaged over a clip's valid frames; 1 for equal ones.

    The variant of the original paper: windows of 11 x 11 weighted by a normal distribution of deviation 1.5, variances
    of the weighted window itself, K 0.01 and 0.03, over windows that lie within the frame; of each colour by itself,
    and averaged.

    Raises:
      UserError: frames are smaller than a window.
    """
    if min(video.shape[2:4]) < 2 * _RADIUS + 1:
        raise UserError(
            f"found frames of {video.shape[2]} x {video.shape[3]} pixels, expected at least {2 * _RADIUS + 1} along "
            "each side for SSIM"
        )
    first, second = _to_unit(video), _to_unit(other)
    nothing = jnp.zeros_like(first)
    window = _Window(first, second, nothing, nothing, nothing)
    for axis in (2, 3):
        window = _widen(window, axis)
    means = window.first**2 + window.second**2
    similarity = (2 * window.first * window.second + _STABLE_MEANS) / (means + _STABLE_MEANS)
    similarity *= (2 * window.covariance + _STABLE_CONTRASTS) / (
        window.first_variance + window.second_variance + _STABLE_CONTRASTS
    )
    return mean_over_frames(jnp.mean(similarity, axis=(2, 3, 4)), frame_mask)


def frames_lpips(
    distance: Callable[[Array, Array], Array], video: _Video, other: _Video, frame_mask: Bool[Array, "batch frames"]
) -> Float[Array, " batch"]:
    """A distance of images, as LPIPS, of each frame, averaged over a clip's valid frames.

    Args:
      distance: of pairs of images [batch, height, width, 3] in [-1, 1]; `features.lpips.lpips` with its parameters. It
        is given one frame of every clip at a time.
      video: the clips.
      other: what they should be.
      frame_mask: which frames are valid.
    """

    def of_frame(frames: tuple[Array, Array]) -> Array:
        return distance(*(jnp.clip(each, -1.0, 1.0) for each in frames))

    distances = jax.lax.map(of_frame, (jnp.moveaxis(video, 1, 0), jnp.moveaxis(other, 1, 0)))
    return mean_over_frames(jnp.moveaxis(distances, 0, 1), frame_mask)


class _Window(NamedTuple):
    """Means, variances and the covariance of two images within windows."""

    first: Array
    second: Array
    first_variance: Array
    second_variance: Array
    covariance: Array


def _widen(window: _Window, axis: int) -> _Window:
    """Takes windows along one more axis together, by the law of total covariance.

    No square of a mean is taken from a mean of squares, which in float32 would leave nothing of small variances.
    """
    length = window.first.shape[axis] - 2 * _RADIUS
    parts = [
        _Window(*(jax.lax.slice_in_dim(values, start, start + length, axis=axis) for values in window))
        for start in range(2 * _RADIUS + 1)
    ]
    first, second = _weighted(part.first for part in parts), _weighted(part.second for part in parts)
    return _Window(
        first,
        second,
        _weighted(part.first_variance + (part.first - first) ** 2 for part in parts),
        _weighted(part.second_variance + (part.second - second) ** 2 for part in parts),
        _weighted(part.covariance + (part.first - first) * (part.second - second) for part in parts),
    )


def _weighted(parts: Iterable[Array]) -> Array:
    """The mean of a window's places, by a normal distribution."""
    weights = np.exp(-0.5 * (np.arange(-_RADIUS, _RADIUS + 1) / _DEVIATION) ** 2)
    weights /= weights.sum()
    return functools.reduce(operator.add, (float(weight) * part for weight, part in zip(weights, parts, strict=True)))


def _to_unit(pixels: Float[Array, "..."]) -> Float[Array, "..."]:
    """[-1, 1] to [0, 1], in which the constants of measures are."""
    return (jnp.clip(pixels.astype(jnp.float32), -1.0, 1.0) + 1.0) / 2
