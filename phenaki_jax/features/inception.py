"""Inception-v3 (arXiv 1512.00567) as FID and the Inception score take it: TensorFlow's graph of 2015-12-05.

It differs from torchvision's network of the same name: average pools do not count the padding, the pool of Mixed_7c is
a maximum, and there are 1008 logits. Batch norms are frozen, and multiplied into the convolutions when weights are
imported, as those of I3D.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from phenaki_jax.errors import UserError
from phenaki_jax.features import resizing
from phenaki_jax.features.convolution import Convolution, max_pool
from phenaki_jax.layers.linear import linear
from phenaki_jax.layers.module import apply, parameter
from phenaki_jax.layers.pixels import check_uint8

SIZE = 299
SMALLEST_SIZE = 75
FEATURES, CLASSES = 2048, 1008
RESIZES = {"tensorflow1": resizing.like_tensorflow1, "clean": resizing.like_clean_fid}
"""How images get to 299 x 299: as in the first FID and torch-fidelity, or as clean-fid has it."""


class _Convolution(NamedTuple):
    """A convolution and its ReLU."""

    name: str
    features: int
    window: tuple[int, int] = (1, 1)
    stride: int = 1
    padded: bool = True


class _Average(NamedTuple):
    """An average over 3 x 3 positions, of those that the image has."""


class _Maximum(NamedTuple):
    """A maximum over 3 x 3 positions; where it skips some, without padding."""

    stride: int = 1


# Convolutions side by side come out one after the other.
_Step = _Convolution | _Average | _Maximum | tuple[_Convolution, ...]
_Branches = tuple[tuple[_Step, ...], ...]


def _mixed_35(pooled: int) -> _Branches:
    """Mixed_5b, 5c and 5d, at 35 x 35 positions."""
    return (
        (_Convolution("branch1x1", 64),),
        (_Convolution("branch5x5_1", 48), _Convolution("branch5x5_2", 64, (5, 5))),
        (
            _Convolution("branch3x3dbl_1", 64),
            _Convolution("branch3x3dbl_2", 96, (3, 3)),
            _Convolution("branch3x3dbl_3", 96, (3, 3)),
        ),
        (_Average(), _Convolution("branch_pool", pooled)),
    )


def _mixed_17(narrow: int) -> _Branches:
    """Mixed_6b to 6e, at 17 x 17 positions."""
    return (
        (_Convolution("branch1x1", 192),),
        (
            _Convolution("branch7x7_1", narrow),
            _Convolution("branch7x7_2", narrow, (1, 7)),
            _Convolution("branch7x7_3", 192, (7, 1)),
        ),
        (
            _Convolution("branch7x7dbl_1", narrow),
            _Convolution("branch7x7dbl_2", narrow, (7, 1)),
            _Convolution("branch7x7dbl_3", narrow, (1, 7)),
            _Convolution("branch7x7dbl_4", narrow, (7, 1)),
            _Convolution("branch7x7dbl_5", 192, (1, 7)),
        ),
        (_Average(), _Convolution("branch_pool", 192)),
    )


def _mixed_8(pool: _Average | _Maximum) -> _Branches:
    """Mixed_7b and 7c, at 8 x 8 positions."""

    def crossed(name: str) -> tuple[_Convolution, ...]:
        return _Convolution(f"{name}a", 384, (1, 3)), _Convolution(f"{name}b", 384, (3, 1))

    return (
        (_Convolution("branch1x1", 320),),
        (_Convolution("branch3x3_1", 384), crossed("branch3x3_2")),
        (_Convolution("branch3x3dbl_1", 448), _Convolution("branch3x3dbl_2", 384, (3, 3)), crossed("branch3x3dbl_3")),
        (pool, _Convolution("branch_pool", 192)),
    )


_STEM: tuple[_Step, ...] = (
    _Convolution("Conv2d_1a_3x3", 32, (3, 3), 2, padded=False),
    _Convolution("Conv2d_2a_3x3", 32, (3, 3), padded=False),
    _Convolution("Conv2d_2b_3x3", 64, (3, 3)),
    _Maximum(2),
    _Convolution("Conv2d_3b_1x1", 80),
    _Convolution("Conv2d_4a_3x3", 192, (3, 3), padded=False),
    _Maximum(2),
)
_MIXED: dict[str, _Branches] = {
    "Mixed_5b": _mixed_35(32),
    "Mixed_5c": _mixed_35(64),
    "Mixed_5d": _mixed_35(64),
    "Mixed_6a": (
        (_Convolution("branch3x3", 384, (3, 3), 2, padded=False),),
        (
            _Convolution("branch3x3dbl_1", 64),
            _Convolution("branch3x3dbl_2", 96, (3, 3)),
            _Convolution("branch3x3dbl_3", 96, (3, 3), 2, padded=False),
        ),
        (_Maximum(2),),
    ),
    "Mixed_6b": _mixed_17(128),
    "Mixed_6c": _mixed_17(160),
    "Mixed_6d": _mixed_17(160),
    "Mixed_6e": _mixed_17(192),
    "Mixed_7a": (
        (_Convolution("branch3x3_1", 192), _Convolution("branch3x3_2", 320, (3, 3), 2, padded=False)),
        (
            _Convolution("branch7x7x3_1", 192),
            _Convolution("branch7x7x3_2", 192, (1, 7)),
            _Convolution("branch7x7x3_3", 192, (7, 1)),
            _Convolution("branch7x7x3_4", 192, (3, 3), 2, padded=False),
        ),
        (_Maximum(2),),
    ),
    "Mixed_7b": _mixed_8(_Average()),
    "Mixed_7c": _mixed_8(_Maximum()),
}


class Inception(nn.Module):
    """The network, in float32."""

    @nn.compact
    def __call__(self, images: Float[Array, "batch height width 3"]) -> dict[str, Array]:
        """What FID and the Inception score are made of.

        Args:
          images: RGB, (colour - 128) / 128, of 299 x 299 pixels as it was trained on, or of at least 75 along a side.

        Returns:
          "pool3" [batch, 2048], the last features averaged over positions, for FID and KID; "logits" [batch, 1008],
          without the bias, as the Inception score has always been computed.

        Raises:
          UserError: the images have less than 75 pixels along a side.
        """
        height, width = images.shape[1:3]
        if min(height, width) < SMALLEST_SIZE:
            raise UserError(
                f"found images of {height} x {width} pixels for Inception, expected at least {SMALLEST_SIZE} x "
                f"{SMALLEST_SIZE}: resize them to {SIZE} x {SIZE}"
            )
        hidden = images
        for step in _STEM:
            hidden = _taken(step, hidden)
        for name, branches in _MIXED.items():
            hidden = Mixed(branches, name=name)(hidden)
        pooled = jnp.mean(hidden, axis=(1, 2))
        classes = parameter(self, "fc", nn.initializers.lecun_normal(), ("channels", "features"), (FEATURES, CLASSES))
        return {"pool3": pooled, "logits": linear(pooled, classes)}


class Mixed(nn.Module):
    """An Inception module: branches side by side, named as in the published weights."""

    branches: _Branches

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch heights widths features"]:
        """The branches' features, one after the other."""
        outputs = []
        for branch in self.branches:
            hidden = inputs
            for step in branch:
                hidden = _taken(step, hidden)
            outputs.append(hidden)
        return jnp.concatenate(outputs, axis=-1)


def inception_features(
    params: Mapping[str, Any], images: UInt8[Array, "batch height width 3"], resize: str = "tensorflow1"
) -> dict[str, Array]:
    """What `Inception` says of images of any size, with products of float32 that no device rounds.

    Args:
      params: as `inception_weights.load_inception` gives them.
      images: RGB.
      resize: how they get to 299 x 299, a name in `RESIZES`; numbers of different ways are no neighbours.

    Raises:
      UserError: the images are not uint8, or the way is unknown.
    """
    check_uint8("images", images)
    if resize not in RESIZES:
        raise UserError(f"found resize {resize!r} for Inception, expected one of {', '.join(RESIZES)}")
    with jax.default_matmul_precision("highest"):
        return apply(Inception(), params, (RESIZES[resize](images, SIZE, SIZE) - 128.0) / 128.0)


def _taken(step: _Step, inputs: Array) -> Array:
    """What a step makes of its inputs, within a module that then holds its parameters."""
    if isinstance(step, _Convolution):
        name, features, window, stride, padded = step
        return jax.nn.relu(Convolution(features, window, (stride, stride), padded=padded, name=name)(inputs))
    if isinstance(step, _Average):
        return nn.avg_pool(inputs, (3, 3), (1, 1), "SAME", count_include_pad=False)
    if isinstance(step, _Maximum):
        return max_pool(inputs, (3, 3), (step.stride, step.stride), step.stride == 1)
    return jnp.concatenate([_taken(convolution, inputs) for convolution in step], axis=-1)
