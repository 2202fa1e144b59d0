"""What a C-ViViT is trained to do besides looking right to networks (Phenaki, equation 1)."""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from phenaki_jax.errors import UserError, check_types


@dataclasses.dataclass(frozen=True)
class ObjectiveConfig:
    """Weights of the terms.

    Attributes:
      l2: of the mean squared error, pixels in [-1, 1].
      l1: of the mean absolute error.
      quantizer: of what the quantizer asks for (commitment, codebook, entropy).

    Raises:
      UserError: a weight that is no number of at least 0.
    """

    l2: float = 1.0
    l1: float = 0.0
    quantizer: float = 1.0

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("l2", "l1", "quantizer"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"the objective's weight {name} {getattr(self, name)} must be a number of at least 0")


class PixelErrors(NamedTuple):
    """Errors of a reconstruction over valid pixels: `squares` and `absolutes` are sums for each frame index.

    Attributes:
      squares: sum of the mean squared errors of the frames at each index.
      absolutes: sum of their mean absolute errors.
      frames: how many valid frames there are at each index.
    """

    squares: Float[Array, " frames"]
    absolutes: Float[Array, " frames"]
    frames: Float[Array, " frames"]

    def loss(self, config: ObjectiveConfig) -> Float[Array, ""]:
        """The weighted means over all valid frames."""
        total = config.l2 * jnp.sum(self.squares) + config.l1 * jnp.sum(self.absolutes)
        return total / jnp.sum(self.frames)


def pixel_errors(
    video: Float[Array, "batch frames height width 3"],
    reconstruction: Float[Array, "batch frames height width 3"],
    frame_mask: Bool[Array, "batch frames"],
) -> PixelErrors:
    """Compares a reconstruction with the video, in frames that are valid."""
    error = jnp.where(frame_mask[:, :, None, None, None], reconstruction - video, 0.0)
    squares = jnp.sum(jnp.mean(error**2, axis=(2, 3, 4)), axis=0)
    absolutes = jnp.sum(jnp.mean(jnp.abs(error), axis=(2, 3, 4)), axis=0)
    return PixelErrors(squares, absolutes, jnp.sum(frame_mask, axis=0, dtype=jnp.float32))
