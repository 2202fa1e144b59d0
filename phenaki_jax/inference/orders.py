"""Orders in which the tokens of a window become known, that do not depend on what they are."""

from __future__ import annotations

import functools

import numpy as np
from jaxtyping import Int32

_BASES = (5, 2, 3)


@functools.cache
def halton_order(times: int, rows: int, columns: int) -> Int32[np.ndarray, " length"]:
    """All tokens of a window, those that are known soonest first, spread over it as evenly as can be at any moment.

    A low-discrepancy sequence visits the window; a token's turn is its first visit. That of rows and columns is
    Halton's in bases 2 and 3, as for images (arXiv 2503.17076); time has base 5.

    Returns:
      Indices into the tokens, time slowest and column fastest.
    """
    shape = np.array([times, rows, columns])
    order: dict[int, None] = {}
    begin, count = 1, int(np.prod(shape))
    while len(order) < np.prod(shape):
        points = np.stack([_van_der_corput(np.arange(begin, begin + count), base) for base in _BASES], axis=1)
        cells = (points * shape).astype(np.int64)
        order.update(dict.fromkeys(np.ravel_multi_index(tuple(cells.T), tuple(shape)).tolist()))
        begin += count
    return np.fromiter(order, np.int32)


def _van_der_corput(indices: np.ndarray, base: int) -> np.ndarray:
    """The digits of each index in a base, mirrored at the point."""
    values, scale = np.zeros(indices.shape), 1.0
    while indices.any():
        scale /= base
        values += scale * (indices % base)
        indices = indices // base
    return values
