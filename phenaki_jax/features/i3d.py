"""I3D, Inception-v1 inflated to clips (arXiv 1705.07750, figure 3), as it was trained on RGB clips of Kinetics-400.

Each convolution is followed by a batch norm whose statistics are frozen, which makes it a scale and a shift of every
channel. They are multiplied into the kernel and the bias when weights are imported (`i3d_weights.load_i3d`), so that a
layer is a convolution, a bias and a ReLU, which compilers make one pass over memory, and nothing else is computed,
kept or differentiated in a training step.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, UInt8

from phenaki_jax.errors import UserError
from phenaki_jax.features import resizing
from phenaki_jax.features.convolution import Convolution, max_pool
from phenaki_jax.layers.module import apply
from phenaki_jax.layers.pixels import check_float, check_video

LOGITS = "Logits"
CLASSES = 400
SIZE = 224
FEWEST_FRAMES = 9
"""That have logits, which pool two times of eight strides."""
RESIZES = {"torch": resizing.like_torch, "tensorflow1": resizing.like_tensorflow1}
"""How frames get to 224 x 224: as in TATS and cd-fvd, or as the first FVD (arXiv 1812.01717) has it."""


class _Plain(NamedTuple):
    """A convolution and its ReLU."""

    features: int
    window: tuple[int, int, int]
    strides: tuple[int, int, int] = (1, 1, 1)


class _Pool(NamedTuple):
    """A maximum over windows."""

    window: tuple[int, int, int]
    strides: tuple[int, int, int]


class _Mixed(NamedTuple):
    """Channels of an Inception module: 1x1x1; 1x1x1 then 3x3x3; the same; maximum then 1x1x1."""

    b0: int
    b1a: int
    b1b: int
    b2a: int
    b2b: int
    b3b: int


_LAYERS: dict[str, _Plain | _Pool | _Mixed] = {
    "Conv3d_1a_7x7": _Plain(64, (7, 7, 7), (2, 2, 2)),
    "MaxPool3d_2a_3x3": _Pool((1, 3, 3), (1, 2, 2)),
    "Conv3d_2b_1x1": _Plain(64, (1, 1, 1)),
    "Conv3d_2c_3x3": _Plain(192, (3, 3, 3)),
    "MaxPool3d_3a_3x3": _Pool((1, 3, 3), (1, 2, 2)),
    "Mixed_3b": _Mixed(64, 96, 128, 16, 32, 32),
    "Mixed_3c": _Mixed(128, 128, 192, 32, 96, 64),
    "MaxPool3d_4a_3x3": _Pool((3, 3, 3), (2, 2, 2)),
    "Mixed_4b": _Mixed(192, 96, 208, 16, 48, 64),
    "Mixed_4c": _Mixed(160, 112, 224, 24, 64, 64),
    "Mixed_4d": _Mixed(128, 128, 256, 24, 64, 64),
    "Mixed_4e": _Mixed(112, 144, 288, 32, 64, 64),
    "Mixed_4f": _Mixed(256, 160, 320, 32, 128, 128),
    "MaxPool3d_5a_2x2": _Pool((2, 2, 2), (2, 2, 2)),
    "Mixed_5b": _Mixed(256, 160, 320, 32, 128, 128),
    "Mixed_5c": _Mixed(384, 192, 384, 48, 128, 128),
}
ENDPOINTS = (*_LAYERS, LOGITS)


class I3D(nn.Module):
    """The network.

    Attributes:
      dtype: type of the convolutions; parameters and logits are float32.
    """

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, video: Float[Array, "batch frames height width 3"], endpoints: Collection[str] = (LOGITS,)
    ) -> dict[str, Array]:
        """What the network says at some of its `ENDPOINTS`, computed as far as the last of them.

        Args:
          video: RGB in [-1, 1], of any size for all endpoints but the logits.
          endpoints: their names.

        Returns:
          By name, [batch, frames', height', width', channels] after the layer's ReLU, whose sizes are those of the
          video over its strides, rounded up; the logits are [batch, 400], averaged over time, as FVD takes them.

        Raises:
          UserError: an endpoint is unknown, or the video is no floats or of another size than logits need: at least 9
            frames of 193 to 224 pixels along each side.
        """
        if unknown := [name for name in endpoints if name not in ENDPOINTS]:
            raise UserError(f"found no I3D endpoint {unknown[0]!r}, expected one of {', '.join(ENDPOINTS)}")
        check_float("video", video, bounded=False)
        if LOGITS in endpoints:
            _check_size(*video.shape[1:4])
        hidden = video.astype(self.dtype)
        found: dict[str, Array] = {}
        for name, layer in _LAYERS.items():
            if len(found) == len(set(endpoints)):
                return found
            hidden = self._layer(name, layer, hidden)
            if name in endpoints:
                found[name] = hidden
        if LOGITS in endpoints:
            found[LOGITS] = self._logits(hidden)
        return found

    def _layer(self, name: str, layer: _Plain | _Pool | _Mixed, inputs: Array) -> Array:
        if isinstance(layer, _Pool):
            return max_pool(inputs, layer.window, layer.strides)
        if isinstance(layer, _Mixed):
            return Mixed(layer, self.dtype, name=name)(inputs)
        return jax.nn.relu(Convolution(*layer, dtype=self.dtype, name=name)(inputs))

    def _logits(self, features: Float[Array, "batch frames 7 7 1024"]) -> Float[Array, "batch classes"]:
        """The class scores of each pair of neighbouring frames, averaged; they are linear, so features are averaged."""
        frames = jnp.mean(features.astype(jnp.float32), axis=(2, 3), keepdims=True)
        pooled = jnp.mean((frames[:, 1:] + frames[:, :-1]) / 2, axis=1, keepdims=True)
        return Convolution(CLASSES, (1, 1, 1), name="logits")(pooled)[:, 0, 0, 0]


class Mixed(nn.Module):
    """An Inception module: four branches side by side, named as in the published weights."""

    sizes: _Mixed
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "batch frames height width channels"]
    ) -> Float[Array, "batch frames height width features"]:
        """The four branches' features, one after the other."""
        pooled = max_pool(inputs, (3, 3, 3), (1, 1, 1))
        branches = [
            self._convolve("b0", 1, inputs),
            self._convolve("b1b", 3, self._convolve("b1a", 1, inputs)),
            self._convolve("b2b", 3, self._convolve("b2a", 1, inputs)),
            self._convolve("b3b", 1, pooled),
        ]
        return jnp.concatenate(branches, axis=-1)

    def _convolve(self, name: str, window: int, inputs: Array) -> Array:
        convolution = Convolution(getattr(self.sizes, name), (window,) * 3, dtype=self.dtype, name=name)
        return jax.nn.relu(convolution(inputs))


def fvd_features(
    params: Mapping[str, Any], video: UInt8[Array, "batch frames height width 3"], resize: str = "torch"
) -> Float[Array, "batch classes"]:
    """The logits of `I3D` that FVD is computed of, with products of float32 that no device rounds.

    Args:
      params: as `i3d_weights.load_i3d` gives them.
      video: RGB of any size, at least 9 frames. Whatever its sides are to each other, it is made square, not cropped.
      resize: how frames get to 224 x 224, a name in `RESIZES`.

    Raises:
      UserError: the video is not uint8 or too short, or the way is unknown.
    """
    check_video("video", video)
    if resize not in RESIZES:
        raise UserError(f"found resize {resize!r} for I3D, expected one of {', '.join(RESIZES)}")
    with jax.default_matmul_precision("highest"):
        frames = RESIZES[resize](video, SIZE, SIZE) / 127.5 - 1.0
        logits: Array = apply(I3D(), params, frames)[LOGITS]
    return logits


def _check_size(frames: int, height: int, width: int) -> None:
    """Refuses videos whose last features are not the 7 x 7 of at least 2 times that the logits pool."""
    if frames < FEWEST_FRAMES or {-(-height // 32), -(-width // 32)} != {7}:
        raise UserError(
            f"found videos of {frames} frames of {height} x {width} pixels, expected at least {FEWEST_FRAMES} "
            "frames of 224 x 224 (193 to 224) for I3D's logits: resize them, or ask for another endpoint"
        )
