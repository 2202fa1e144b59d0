"""VGG16, configuration D (arXiv 1409.1556, table 1), as far as its last convolution, in torchvision's layout.

The three fully connected layers, 124 of its 138 million parameters, are left out: nothing here asks for what they say.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from phenaki_jax.errors import UserError
from phenaki_jax.features.convolution import Convolution, max_pool
from phenaki_jax.layers.pixels import check_float

# Channels and number of convolutions of each block.
BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
ACTIVATIONS = tuple(f"relu{block}_{depth}" for block, (_, depth) in enumerate(BLOCKS, start=1))
# Four poolings by 2 come before the last block.
SMALLEST_SIZE = 16

# ImageNet's mean and standard deviation for colours in [0, 1], turned into those for colours in [-1, 1].
_MEAN = 2 * np.array([0.485, 0.456, 0.406], np.float32) - 1
_DEVIATION = 2 * np.array([0.229, 0.224, 0.225], np.float32)


class VGG16(nn.Module):
    """The convolutions of VGG16.

    Attributes:
      dtype: type of the computation; parameters are float32.
    """

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, images: Float[Array, "batch height width 3"]) -> dict[str, Array]:
        """What the last ReLU of each block gives, before its pooling.

        Args:
          images: RGB in [-1, 1]; ImageNet's mean and deviation, which LPIPS uses too, are applied here, in float32.

        Returns:
          By name, `ACTIVATIONS`: [batch, height / 2^i, width / 2^i, channels], i from 0 to 4, rounded down.

        Raises:
          UserError: the images are no floats, or have less than 16 pixels along a side.
        """
        check_float("images", images, bounded=False)
        height, width = images.shape[1:3]
        if min(height, width) < SMALLEST_SIZE:
            raise UserError(
                f"found images of {height} x {width} pixels for VGG16, expected at least {SMALLEST_SIZE} x "
                f"{SMALLEST_SIZE}: leave out what needs it, or use larger images"
            )
        hidden = ((images.astype(jnp.float32) - _MEAN) / _DEVIATION).astype(self.dtype)
        activations = {}
        for block, (features, depth) in enumerate(BLOCKS, start=1):
            if block > 1:
                # Torch drops an odd last row or column.
                even = hidden[:, : hidden.shape[1] // 2 * 2, : hidden.shape[2] // 2 * 2]
                hidden = max_pool(even, (2, 2), (2, 2))
            for layer in range(1, depth + 1):
                convolution = Convolution(features, (3, 3), dtype=self.dtype, name=f"conv{block}_{layer}")
                hidden = jax.nn.relu(convolution(hidden))
            activations[f"relu{block}_{depth}"] = hidden
        return activations
