"""Code indices as numbers of several digits, for heads that predict one digit each, and their range."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from phenaki_jax.errors import UserError
from phenaki_jax.layers.arrays import check_shape
from phenaki_jax.tokenizer.config import QuantizerConfig


def check_indices(config: QuantizerConfig, indices: np.ndarray | jax.Array) -> None:
    """Refuses indices that are in no codebook of this config; none at all, and traced ones, are accepted.

    Raises:
      UserError: names the type or range found and the one expected.
    """
    if not np.issubdtype(indices.dtype, np.integer):
        raise UserError(f"found code indices of type {indices.dtype}, expected whole numbers such as int32")
    size = config.codebook_size
    if not indices.size or isinstance(indices, jax.core.Tracer):
        return
    # On the host: within a traced function, what is computed of an array that is known is traced too.
    values = np.asarray(indices)
    low, high = int(values.min()), int(values.max())
    if not 0 <= low <= high < size:
        raise UserError(
            f"found code indices from {low} to {high}, expected 0 to {size - 1}: they are of another tokenizer; "
            "decode them with the model that encoded them"
        )


def check_tokens(config: QuantizerConfig, tokens: np.ndarray | jax.Array) -> None:
    """Refuses what is no batch of videos in tokens [batch, times, rows, columns] of this config.

    Raises:
      UserError: names the shape, type or range found and the one expected.
    """
    check_shape("tokens", tokens, ("batch", "times", "rows", "columns"))
    check_indices(config, tokens)


def split_index(config: QuantizerConfig, indices: Int[Array, "*batch"]) -> Int[Array, "*batch factors"]:
    """The digit of each index for each of `config.factors`, of which the first changes fastest."""
    return (indices[..., None] // _bases(config)) % jnp.asarray(config.factors, jnp.int32)


def join_index(config: QuantizerConfig, digits: Int[Array, "*batch factors"]) -> Int[Array, "*batch"]:
    """The indices of digits; inverts `split_index`."""
    return jnp.sum(digits * _bases(config), axis=-1)


def _bases(config: QuantizerConfig) -> Int[Array, " factors"]:
    return jnp.asarray(np.cumprod([1, *config.factors[:-1]]), jnp.int32)
