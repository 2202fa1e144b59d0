"""The one matrix product that every layer is made of."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from phenaki_jax.layers.layout import platform


def linear(
    inputs: Float[Array, "*batch features"], kernel: Float[Array, "features *outputs"]
) -> Float[Array, "*batch *outputs"]:
    """Multiplies the last axis of the inputs with the first of the kernel, in the inputs' type.

    On CPU both are flattened to matrices first: the kernel's gradient is then a plain product, where one that sums over
    several axes at once makes an MLP's backward pass three times slower under XLA. On TPU flattening would be a copy.
    """
    if platform() == "tpu":
        return jnp.tensordot(inputs, kernel.astype(inputs.dtype), axes=1)
    flat = inputs.reshape(-1, inputs.shape[-1]) @ kernel.astype(inputs.dtype).reshape(kernel.shape[0], -1)
    return flat.reshape(*inputs.shape[:-1], *kernel.shape[1:])
