"""Codes as moving averages of the vectors that took them (VQ-VAE, arXiv 1711.00937, appendix A); none left unused."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from phenaki_jax.tokenizer.config import QuantizerConfig
from phenaki_jax.tokenizer.quantizers.quantizer import l2_normalize

# Weights from exp(-30) to exp(30): in a sum of few, the largest most often drowns the others out.
_LARGEST_LOG_WEIGHT = 30.0


class CodebookAverages(NamedTuple):
    """Moving averages over the steps; together with the codebook, all that is known of it.

    Attributes:
      counts: tokens of a step that took each code.
      sums: of these tokens' normalised vectors.
    """

    counts: Float[Array, " codes"]
    sums: Float[Array, "codes code_width"]


def initial_averages(config: QuantizerConfig) -> CodebookAverages:
    """Nothing seen: the first step's tokens count as if they were all there had ever been."""
    return CodebookAverages(jnp.zeros(config.codes), jnp.zeros((config.codes, config.code_width)))


def codebook_statistics(
    config: QuantizerConfig,
    vectors: Float[Array, "*batch code_width"],
    indices: Int[Array, "*batch"],
    valid: Bool[Array, "*batch"] | None,
    rng: PRNGKeyArray,
) -> dict[str, Array]:
    """What valid tokens tell of the codebook; under `jit`, those of all devices.

    Everything is a sum, so that statistics of parts of a batch (gradient accumulation) add up, beginning with zeros.

    Returns:
      counts [codes]: tokens that took each code.
      sums [codes, code_width]: of their vectors.
      candidates [codes, code_width]: vectors of different random tokens for codes to begin anew at, 0 where there are
        fewer tokens than codes. Each has a random weight of very different size: added up over parts that have keys of
        their own, one of them drowns the others out. Of parts with one key they are the mean directions of the parts'
        tokens instead.
    """
    vectors, indices = vectors.reshape(-1, config.code_width), indices.reshape(-1)
    tokens = indices.shape[0]
    counted = jnp.ones(tokens, bool) if valid is None else valid.reshape(-1)
    weights = counted.astype(jnp.float32)
    seen = jnp.where(counted[:, None], vectors, 0.0)
    empty = jnp.zeros((config.codes, config.code_width))
    sums = {"counts": jnp.zeros(config.codes).at[indices].add(weights), "sums": empty.at[indices].add(seen)}
    if not config.restart:
        return {**sums, "candidates": empty}
    order_rng, weight_rng = jax.random.split(rng)
    drawn = _shuffled(counted, order_rng)[: config.codes]
    size = jax.random.uniform(weight_rng, drawn.shape, minval=-_LARGEST_LOG_WEIGHT, maxval=_LARGEST_LOG_WEIGHT)
    return {**sums, "candidates": empty.at[: drawn.shape[0]].set(jnp.exp(size)[:, None] * seen[drawn])}


def update_codebook(
    config: QuantizerConfig,
    codebook: Float[Array, "codes code_width"],
    averages: CodebookAverages,
    statistics: dict[str, Array],
    rng: PRNGKeyArray,
) -> tuple[Float[Array, "codes code_width"], CodebookAverages, Bool[Array, " codes"]]:
    """The codebook and its averages after a step, and which codes began anew.

    A code of cosine_vq_ema that was taken becomes the direction of its average sum; one that was not stays. A code of
    either kind whose average count is below `config.restart` times the mean of all then begins anew as a random token
    of the batch, no two as the same, with the mean of the counts, so that it has time to be found; where tokens are too
    few, some codes wait.

    Args:
      config: of kind cosine_vq_ema or cosine_vq.
      codebook: vectors of any length: those before the step of cosine_vq_ema, which come back with length 1, and those
        after it of cosine_vq, which keep their lengths.
      averages: those after the step before.
      statistics: of the whole batch, from `Quantized`.
      rng: of this step.
    """
    counts = config.decay * averages.counts + (1 - config.decay) * statistics["counts"]
    sums = config.decay * averages.sums + (1 - config.decay) * statistics["sums"]
    if config.kind == "cosine_vq_ema":
        length = jnp.linalg.norm(sums, axis=-1, keepdims=True)
        moved = (statistics["counts"][:, None] > 0) & (length > 1e-6 * counts[:, None])
        codebook = jnp.where(moved, sums / jnp.where(moved, length, 1.0), l2_normalize(codebook))

    dead = counts < config.restart * jnp.mean(counts)
    candidates = statistics["candidates"]
    there = jnp.any(candidates != 0, axis=-1)
    rank = jnp.cumsum(dead) - 1
    restarted = (dead & (rank < jnp.sum(there)))[:, None]
    drawn = candidates[_shuffled(there, rng)[jnp.clip(rank, 0, config.codes - 1)]]
    fresh = l2_normalize(drawn / jnp.maximum(jnp.max(jnp.abs(drawn), axis=-1, keepdims=True), 1e-30))
    fresh_count = jnp.mean(counts)
    averages = CodebookAverages(
        jnp.where(restarted[:, 0], fresh_count, counts), jnp.where(restarted, fresh_count * fresh, sums)
    )
    codebook = jnp.where(restarted, fresh * jnp.linalg.norm(codebook, axis=-1, keepdims=True), codebook)
    return codebook, averages, restarted[:, 0]


def _shuffled(wanted: Bool[Array, " all"], rng: PRNGKeyArray) -> Int[Array, " all"]:
    """All positions in random order, those wanted before the others."""
    return jnp.argsort(jnp.where(wanted, jax.random.uniform(rng, wanted.shape), 2.0))
