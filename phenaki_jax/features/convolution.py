"""What the frozen networks are made of: convolutions with a bias, and maxima, over images and clips alike."""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from phenaki_jax.layers.module import parameter

_AXES = ("time", "height", "width")
# Channels last on both sides, which is how TPUs and tensor cores want them.
_LAYOUTS = {2: ("NHWC", "HWIO", "NHWC"), 3: ("NDHWC", "DHWIO", "NDHWC")}


class Convolution(nn.Module):
    """A convolution and its bias, padded with zeros so that ceil(size / stride) positions come out.

    Where the padding is odd, there is more of it behind, as TensorFlow has it; torch's VGG has 1 on each side, which
    for its windows of 3 is the same.

    Attributes:
      features: channels of the output.
      window: its size along (height, width) or (time, height, width).
      strides: steps along the same axes; 1 where empty.
      dtype: type of the computation; parameters are float32.
      padded: whether there is padding; without it, only windows that lie within the input count.
    """

    features: int
    window: tuple[int, ...]
    strides: tuple[int, ...] = ()
    dtype: DTypeLike = jnp.float32
    padded: bool = True

    @nn.compact
    def __call__(self, inputs: Float[Array, "batch *positions channels"]) -> Float[Array, "batch *outputs features"]:
        """Convolves, in `dtype`."""
        axes = (*_AXES[-len(self.window) :], "channels", "features")
        shape = (*self.window, inputs.shape[-1], self.features)
        kernel = parameter(self, "kernel", nn.initializers.he_normal(), axes, shape).astype(self.dtype)
        bias = parameter(self, "bias", nn.initializers.zeros, ("features",), (self.features,)).astype(self.dtype)
        inputs, strides = inputs.astype(self.dtype), self.strides or (1,) * len(self.window)
        sizes = zip(inputs.shape[1:-1], self.window, strides, strict=True)
        padding = [_padding(*each) if self.padded else (0, 0) for each in sizes]
        if max(strides) > 1:
            inputs, kernel = _in_blocks(inputs, kernel, strides, padding)
            padding = [(0, 0)] * len(strides)
        layout = _LAYOUTS[len(self.window)]
        ones = (1,) * len(strides)
        return jax.lax.conv_general_dilated(inputs, kernel, ones, padding, dimension_numbers=layout) + bias


def max_pool(
    inputs: Float[Array, "batch *positions channels"],
    window: tuple[int, ...],
    strides: tuple[int, ...],
    padded: bool = True,
) -> Float[Array, "batch *outputs channels"]:
    """The maximum over windows of values that are not negative, as after a ReLU, padded or not as in `Convolution`.

    Axis by axis, as a maximum of slices: the gradient of `jax.lax.reduce_window` takes 20 to 30 times as long on CPU.
    Where several values are the largest, they share the gradient; torch gives all of it to one of them.
    """
    # So that the backward pass keeps the inputs alone.
    return jax.checkpoint(functools.partial(_maxima, window=window, strides=strides, padded=padded))(inputs)


def _maxima(inputs: Array, window: tuple[int, ...], strides: tuple[int, ...], padded: bool) -> Array:
    for axis, (size, stride) in enumerate(zip(window, strides, strict=True), start=1):
        if padded:
            margins = [(0, 0)] * inputs.ndim
            margins[axis] = _padding(inputs.shape[axis], size, stride)
            inputs = jnp.pad(inputs, margins)
        last = inputs.shape[axis] - size + 1
        slices = [jax.lax.slice_in_dim(inputs, start, start + last, stride, axis) for start in range(size)]
        inputs = functools.reduce(jnp.maximum, slices)
    return inputs


def _padding(size: int, window: int, stride: int) -> tuple[int, int]:
    """Zeros in front and behind for ceil(size / stride) windows."""
    outputs = -(-size // stride)
    padding = max((outputs - 1) * stride + window - size, 0)
    return padding // 2, padding - padding // 2


def _in_blocks(
    inputs: Array, kernel: Array, strides: tuple[int, ...], padding: list[tuple[int, int]]
) -> tuple[Array, Array]:
    """Turns a strided convolution into one of stride 1 over blocks of `strides` positions, whose colours are channels.

    Three channels leave the lanes of TPUs and tensor cores idle and 24 do not; and the gradient of a strided
    convolution, one of an input with zeros in between, takes 100 times as long under XLA on CPU.
    """
    rows = list(zip(inputs.shape[1:-1], kernel.shape[:-2], strides, padding, strict=True))
    margins = []
    for size, window, stride, (front, back) in rows:
        steps = (front + size + back - window) // stride
        # As many blocks as the last window reaches into; no window sees what lies behind them.
        margins.append((front, (steps - -window // stride) * stride - size - front, 0))
    kernel = jnp.pad(kernel, [*((0, -window % stride) for _, window, stride, _ in rows), (0, 0), (0, 0)])
    inputs = jax.lax.pad(inputs, jnp.zeros((), inputs.dtype), [(0, 0, 0), *margins, (0, 0, 0)])
    return _blocks(inputs, 1, strides), _blocks(kernel, 0, strides)


def _blocks(array: Array, first: int, strides: tuple[int, ...]) -> Array:
    """Moves what lies within blocks of the axes from the first one on to the axis after them."""
    count, shape = len(strides), array.shape
    lead, trail = shape[:first], shape[first + count :]
    sizes = [part for size, stride in zip(shape[first:], strides, strict=False) for part in (size // stride, stride)]
    split = array.reshape(*lead, *sizes, *trail)
    outer, inner = [range(first + start, first + 2 * count, 2) for start in (0, 1)]
    moved = split.transpose(*range(first), *outer, *inner, *range(first + 2 * count, split.ndim))
    return moved.reshape(*moved.shape[: first + count], -1, *trail[1:])
