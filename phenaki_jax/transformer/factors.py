"""Codes as digits: a head for each digit does for a codebook too large for one (MAGVIT-v2, arXiv 2310.05737)."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Int


def split_codes(
    codes: Int[Array, "*batch"], factors: Sequence[int], *, offset: bool = False
) -> list[Int[Array, "*batch"]]:
    """The digit of each code for each factor, of which the first changes fastest, as the tokenizer's quantizers count.

    Args:
      codes: from 0 to below the product of the factors.
      factors: sizes.
      offset: whether to count the digits of all factors in one row, those of later ones after those of earlier ones.
    """
    digits, before = [], 0
    for factor in factors:
        digits.append(codes % factor + (before if offset else 0))
        codes = codes // factor
        before += factor
    return digits


def join_codes(digits: Sequence[Int[Array, "*batch"]], factors: Sequence[int]) -> Int[Array, "*batch"]:
    """The codes that have these digits."""
    codes = jnp.zeros_like(digits[0])
    for digit, factor in zip(reversed(digits), reversed(factors), strict=True):
        codes = codes * factor + digit
    return codes
