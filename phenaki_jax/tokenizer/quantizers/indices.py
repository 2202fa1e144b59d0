"""Code indices as numbers of several digits, for heads that predict one digit each, and their range."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from phenaki_jax.errors import UserError
from phenaki_jax.tokenizer.config import QuantizerConfig


def check_indices(config: QuantizerConfig, indices: np.ndarray) -> None:
    """Refuses indices, on the host, that are in no codebook of this config; none at all are accepted.

    Raises:
      UserError: names the type or range found and the one expected.
    """
    if not np.issubdtype(indices.dtype, np.integer):
        raise UserError(f"found code indices of type {indices.dtype}, expected whole numbers such as int32")
    size = config.codebook_size
    if indices.size and not 0 <= indices.min() <= indices.max() < size:
        raise UserError(
            f"found code indices from {indices.min()} to {indices.max()}, expected 0 to {size - 1}: "
            "they are of another tokenizer"
        )


def check_tokens(config: QuantizerConfig, tokens: np.ndarray) -> None:
    """Refuses what is no batch of videos in tokens [batch, times, rows, columns] of this config.

    Raises:
      UserError: names the shape, type or range found and the one expected.
    """
    if tokens.ndim != 4 or not tokens.size:
        raise UserError(
            f"found tokens of shape {list(tokens.shape)}, expected [batch, times, rows, columns] of at least 1 each; "
            "give tokens as encode returns them, those of one video as tokens[None]"
        )
    check_indices(config, tokens)


def split_index(config: QuantizerConfig, indices: Int[Array, "*batch"]) -> Int[Array, "*batch factors"]:
    """The digit of each index for each of `config.factors`, of which the first changes fastest."""
    return (indices[..., None] // _bases(config)) % jnp.asarray(config.factors, jnp.int32)


def join_index(config: QuantizerConfig, digits: Int[Array, "*batch factors"]) -> Int[Array, "*batch"]:
    """The indices of digits; inverts `split_index`."""
    return jnp.sum(digits * _bases(config), axis=-1)


def _bases(config: QuantizerConfig) -> Int[Array, " factors"]:
    return jnp.asarray(np.cumprod([1, *config.factors[:-1]]), jnp.int32)
