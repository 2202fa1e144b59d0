"""What every array that comes from outside is checked for, as far as its shape tells."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np

from phenaki_jax.errors import UserError, kind_of


def check_shape(name: str, array: object, axes: Sequence[str | int]) -> None:
    """Refuses what is no array with these axes, or has nothing along one of them.

    Args:
      name: of the array in the caller's program.
      array: what was given.
      axes: the name of each axis that may have any length, the length of each other one.

    Raises:
      UserError: says what was found and what is expected.
    """
    wanted = f"[{', '.join(map(str, axes))}]"
    if not isinstance(array, np.ndarray | jax.Array):
        raise UserError(f"{name}: found {kind_of(array)}, expected a NumPy or JAX array {wanted}")
    shape = list(array.shape)
    fits = [isinstance(axis, str) or axis == length for axis, length in zip(axes, shape, strict=False)]
    if len(shape) != len(axes) or not all(fits):
        advice = {1: f"; give a single one as {name}[None]", -1: f"; give one at a time, as {name}[0]"}
        raise UserError(f"{name}: found shape {shape}, expected {wanted}{advice.get(len(axes) - len(shape), '')}")
    if 0 in shape:
        raise UserError(
            f"{name}: found an empty {axes[shape.index(0)]} axis in shape {shape}, expected {wanted} of at least 1 each"
        )
