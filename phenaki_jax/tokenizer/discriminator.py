"""The discriminator of reconstructions: StyleGAN 2's residual network on frames, or the same in 3-D on clips."""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from phenaki_jax.errors import UserError, check_types
from phenaki_jax.layers.linear import linear
from phenaki_jax.layers.module import parameter

# Height and width are halved until they are no longer than this (arXiv 1912.04958).
_LAST_SIDE = 4
_LEAKY_SLOPE = 0.2
_HE_INIT = nn.initializers.variance_scaling(2 / (1 + _LEAKY_SLOPE**2), "fan_in", "normal")
_KERNEL_AXES = ("kernel_time", "kernel_height", "kernel_width")


@dataclasses.dataclass(frozen=True)
class DiscriminatorConfig:
    """Kind and width of a discriminator; its depth follows from the frames it sees.

    Attributes:
      kind: "frames" judges every frame alone, in 2-D (Phenaki, appendix: "StyleGAN with blur resampling"); "video"
        judges clips, in 3-D with time (MAGVIT, arXiv 2212.05199; blurred as in MAGVIT-v2, arXiv 2310.05737).
      channel_multiplier: widths of the layers as a multiple of StyleGAN 2's smaller ones (Phenaki: 1, which is 512
        channels at 32 pixels, 256 at 64 and 128 at 128), `most_channels` at most: above 1 it widens those above 32
        pixels alone, below 1 it narrows those at 32, then at 16, too.
      most_channels: channels at 32 pixels and below, by which all other widths scale too.
      remat: whether the backward pass computes each block again instead of keeping what is in it.

    Raises:
      UserError: an unknown kind, or widths that are not positive.
    """

    kind: str = "frames"
    channel_multiplier: float = 1.0
    most_channels: int = 512
    remat: bool = False

    def __post_init__(self) -> None:
        check_types(self)
        if self.kind not in ("frames", "video"):
            raise UserError(f"discriminator {self.kind!r} is unknown; known are frames and video")
        if not 0 < self.channel_multiplier < math.inf or self.most_channels < 1:
            raise UserError(
                f"discriminator of channel_multiplier {self.channel_multiplier} and most_channels "
                f"{self.most_channels}: expected a multiplier above 0 and at least 1 channel"
            )

    def channels_at(self, side: int) -> int:
        """Channels of the layers where frames are this many pixels wide, a power of 2."""
        return max(1, min(self.most_channels, int(32 * self.most_channels * self.channel_multiplier / side)))


class Logits(NamedTuple):
    """What a discriminator says: above 0 for what it takes for real.

    Attributes:
      values: a logit of every frame, or of every span of a clip that is left when time has been halved, in float32.
      weights: 1 for a logit of valid frames, 0 for one of padding alone.
    """

    values: Float[Array, "batch judged"]
    weights: Float[Array, "batch judged"]


class Discriminator(nn.Module):
    """Residual blocks that blur, halve and widen, then two dense layers (StyleGAN 2, arXiv 1912.04958, figure 7).

    A block convolves, blurs with [1, 3, 3, 1] in every halved direction and keeps every second value, and convolves
    again; the blurred input is added through a 1x1 kernel, and the sum divided by sqrt(2). Blurring before convolving
    at half the size, not before a strided convolution as in StyleGAN 2, is how MAGVIT's code has it: with the same
    filter and parameters it computes the blur only where it is kept (arXiv 1904.11486).

    Height and width are halved down to 3 or 4, which frames of any size reach after ceil(log2(longer side / 4))
    blocks; parameters are therefore of one frame size, whatever the number of frames. Of kind "video", every block also
    halves time while more than one time step is left. 4 blocks turn up to 16 frames into one logit, 5 up to 32; what
    is longer has a logit for each time step left, as an image has one.

    Padding is inert. Padded frames of kind "frames" have logits of weight 0. Of kind "video", padded time steps are
    zeroed before every convolution, as those around a clip are, and left out of every blur, whose other weights then
    grow to sum to 1; so a padded clip has the logits of the clip alone. The same rule at the borders of a frame keeps
    constants constant.

    Kernels begin as He has them (arXiv 1502.01852) and are used as they are. StyleGAN 2's equalized learning rate
    suits learning rates of 2e-3: AdamW moves a weight by about its learning rate whatever the gradient's size, and 1e-4
    would move weights of size 1 by a hundredth of a percent, where those of a layer with 4608 inputs, of size .02, move
    by half a percent. There is no feature of the deviation within a batch: it would tie clips of different devices to
    each other, and R1's gradient with them, against a loss of variety that reconstructions, each held to its own
    video by L2, do not suffer.
    """

    config: DiscriminatorConfig
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, video: Float[Array, "batch frames height width 3"], frame_mask: Bool[Array, "batch frames"]
    ) -> Logits:
        """Judges videos in [-1, 1], of which the frames of the mask are valid: those before any padding."""
        config = self.config
        batch, frames, height, width, colors = video.shape
        features = jnp.where(frame_mask[:, :, None, None, None], video, 0.0).astype(self.dtype)
        mask: Array | None = frame_mask
        if config.kind == "frames":
            features, mask = features.reshape(batch * frames, height, width, colors), None
        blocks = max(0, math.ceil(math.log2(max(height, width) / _LAST_SIDE)))
        sides = [_LAST_SIDE * 2**level for level in range(blocks, -1, -1)]
        features = Convolution(config.channels_at(sides[0]), "colors", name="stem")(features, mask)
        block = nn.remat(Block) if config.remat else Block
        for index, side in enumerate(sides[1:]):
            features, mask = block(config.channels_at(side), name=f"block_{index}")(features, mask)
        channels = config.channels_at(_LAST_SIDE)
        features = Convolution(channels, name="last_convolution")(features, mask)
        flat = features.reshape(*features.shape[:-3], -1)
        hidden = linear(flat, parameter(self, "hidden", _HE_INIT, ("conv_in", "conv_out"), (flat.shape[-1], channels)))
        hidden = _activate(hidden, parameter(self, "hidden_bias", nn.initializers.zeros, ("conv_out",), (channels,)))
        logit = parameter(self, "logit", nn.initializers.lecun_normal(), ("conv_in", "logit"), (channels, 1))
        bias = parameter(self, "logit_bias", nn.initializers.zeros, ("logit",), (1,))
        values = (linear(hidden.astype(jnp.float32), logit) + bias).reshape(batch, -1)
        return Logits(values, (frame_mask if mask is None else mask).astype(jnp.float32))


class Block(nn.Module):
    """A residual block of half the size and the channels given."""

    channels: int

    @nn.compact
    def __call__(
        self, features: Float[Array, "batch *sizes inputs"], mask: Bool[Array, "batch times"] | None
    ) -> tuple[Float[Array, "batch *halved channels"], Bool[Array, "batch halved_times"] | None]:
        """Returns the new features, and which of their time steps are valid."""
        inputs = features.shape[-1]
        residual = Convolution(inputs, name="first_convolution")(features, mask)
        residual, halved_mask = halve(residual, mask)
        residual = Convolution(self.channels, name="second_convolution")(residual, halved_mask)
        skip = parameter(self, "skip", nn.initializers.lecun_normal(), ("conv_in", "conv_out"), (inputs, self.channels))
        features = linear(halve(features, mask)[0], skip)
        return (features + residual) * 2**-0.5, halved_mask


class Convolution(nn.Module):
    """Convolution by 3 in every direction, bias and leaky ReLU; what is outside of a frame or clip is 0."""

    channels: int
    inputs_axis: str = "conv_in"

    @nn.compact
    def __call__(
        self, features: Float[Array, "batch *sizes inputs"], mask: Bool[Array, "batch times"] | None
    ) -> Float[Array, "batch *sizes channels"]:
        """Takes [batch, height, width, inputs], or with a mask [batch, times, height, width, inputs]."""
        directions = features.ndim - 2
        axes = (*_KERNEL_AXES[-directions:], self.inputs_axis, "conv_out")
        shape = (3,) * directions + (features.shape[-1], self.channels)
        kernel = parameter(self, "kernel", _HE_INIT, axes, shape)
        bias = parameter(self, "bias", nn.initializers.zeros, ("conv_out",), (self.channels,))
        if mask is not None:
            features = jnp.where(mask[:, :, None, None, None], features, 0.0)
        layout = "NHWC" if directions == 2 else "NDHWC"
        convolved = jax.lax.conv_general_dilated(
            features,
            kernel.astype(features.dtype),
            window_strides=(1,) * directions,
            padding="SAME",
            dimension_numbers=(layout, "HWIO" if directions == 2 else "DHWIO", layout),
        )
        return _activate(convolved, bias)


def halve(
    features: Float[Array, "batch *sizes channels"], mask: Bool[Array, "batch times"] | None
) -> tuple[Float[Array, "batch *halved channels"], Bool[Array, "batch halved_times"] | None]:
    """Blurs and halves height and width where longer than 4, and where there is a mask, time where longer than 1.

    Rounds up, and does not blur over time steps outside of the mask. Each direction is a product with a matrix: under
    XLA on CPU, second gradients of a convolution by channel are 20 times slower, and those of shifted slices 3 times.
    """
    first = features.ndim - 3
    for axis in (first, first + 1):
        if features.shape[axis] > _LAST_SIDE:
            features = _resample(features, axis, jnp.asarray(blur_matrix(features.shape[axis])))
    if mask is None or mask.shape[1] == 1:
        return features, mask
    blur = jnp.asarray(blur_matrix(mask.shape[1])) * mask[:, :, None].astype(jnp.float32)
    # No weight is less than 1/8, so this leaves every sum as it is but those of padding alone, which are 0.
    blur /= jnp.maximum(jnp.sum(blur, axis=1, keepdims=True), 1 / 8)
    pairs = jnp.pad(mask, ((0, 0), (0, mask.shape[1] % 2))).reshape(mask.shape[0], -1, 2)
    return _resample(features, 1, blur), jnp.any(pairs, axis=2)


def blur_matrix(length: int) -> np.ndarray:
    """The matrix [length, ceil(length / 2)] that blurs with [1, 3, 3, 1] and keeps every second value.

    Column i weights the values 2i - 1 to 2i + 2 of those there are, and sums to 1.
    """
    shifts = np.arange(length)[:, None] - 2 * np.arange(-(-length // 2))[None] + 1
    weights = np.where((shifts >= 0) & (shifts <= 3), np.where((shifts == 0) | (shifts == 3), 1.0, 3.0), 0.0)
    return (weights / np.sum(weights, axis=0)).astype(np.float32)


def _resample(features: Array, axis: int, matrix: Array) -> Array:
    """Multiplies an axis with a matrix, or axis 1 with a matrix for each of the batch."""
    before, after = features.shape[:axis], features.shape[axis + 1 :]
    flat = features.reshape(math.prod(before), features.shape[axis], math.prod(after))
    letters = "bif,bio->bof" if matrix.ndim == 3 else "bif,io->bof"
    return jnp.einsum(letters, flat, matrix.astype(features.dtype)).reshape(*before, matrix.shape[-1], *after)


def _activate(features: Array, bias: Array) -> Array:
    return jax.nn.leaky_relu(features + bias.astype(features.dtype), _LEAKY_SLOPE)
