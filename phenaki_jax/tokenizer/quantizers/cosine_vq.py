"""Vector quantization with l2-normalised codes (Phenaki, appendix), by gradient or by moving averages."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from phenaki_jax.layers.module import parameter
from phenaki_jax.tokenizer.quantizers.moving_averages import codebook_statistics
from phenaki_jax.tokenizer.quantizers.quantizer import (
    Quantized,
    Quantizer,
    l2_normalize,
    mean_over_valid,
    straight_through,
)

# So many codes are compared in one product, which is fastest; more go by blocks of this many.
CODES_AT_ONCE = 8192


class CosineVQ(Quantizer):
    """Each token takes the code of the smallest angle.

    The codebook is a parameter of either kind. That of cosine_vq_ema has no gradient: `update_codebook` makes it anew
    from `Quantized.statistics` after each step. Of cosine_vq, whose codes the optimizer moves, it restarts those that
    are hardly used.
    """

    def setup(self) -> None:
        """Makes the projections and the codebook."""
        super().setup()
        shape = (self.config.codes, self.config.code_width)
        self.codebook = parameter(self, "codebook", nn.initializers.normal(1.0), ("codes", "code"), shape)

    def __call__(self, features: Float[Array, "*batch width"], valid: Bool[Array, "*batch"] | None = None) -> Quantized:
        """Replaces each token's features by the nearest code.

        What `update_codebook` needs comes with an rng named "restart" alone, another for each part of a batch; see
        `codebook_statistics`.
        """
        projected = l2_normalize(self.into_code(features.astype(jnp.float32)))
        indices = self.indices(projected)
        codes = self.codes(indices)
        fixed_codes, fixed_projected = jax.lax.stop_gradient((codes, projected))
        terms = {"commitment": mean_over_valid(jnp.sum((projected - fixed_codes) ** 2, axis=-1), valid)}
        loss, statistics = self.config.commitment * terms["commitment"], {}
        if self.config.kind == "cosine_vq":
            terms["codebook"] = mean_over_valid(jnp.sum((fixed_projected - codes) ** 2, axis=-1), valid)
            loss += terms["codebook"]
        if self.has_rng("restart"):
            rng = self.make_rng("restart")
            statistics = codebook_statistics(self.config, fixed_projected, indices, valid, rng)
        return Quantized(self.out_of_code(straight_through(projected, codes)), indices, loss, terms, statistics)

    def codes(self, indices: Int[Array, "*batch"]) -> Float[Array, "*batch dimensions"]:
        """The codes of indices, of length 1."""
        codebook = self.codebook if self.config.kind == "cosine_vq" else jax.lax.stop_gradient(self.codebook)
        return l2_normalize(codebook[indices])

    def indices(self, codes: Float[Array, "*batch dimensions"]) -> Int[Array, "*batch"]:
        """The indices of the codes nearest to these, of equally near ones the first."""
        return nearest_code(codes, l2_normalize(self.codebook))


def nearest_code(
    vectors: Float[Array, "*batch dimensions"],
    codebook: Float[Array, "codes dimensions"],
    at_once: int = CODES_AT_ONCE,
) -> Int[Array, "*batch"]:
    """The index of the code with the greatest inner product with each vector, of equal ones the first.

    No gradient passes. Codebooks of more than `at_once` codes go by blocks of that many, so that no array has more than
    that for each vector.
    """
    vectors, codebook = jax.lax.stop_gradient((vectors, codebook))

    def compare(codes: Array) -> tuple[Array, Array]:
        # In full float32 also where products are rounded by default: neighbours in a large codebook are close.
        similarity = jnp.matmul(vectors, codes.T, precision=jax.lax.Precision.HIGHEST)
        best = jnp.max(similarity, axis=-1)
        # An argmax takes ten times as long as the product under XLA on CPU; a minimum over positions does not.
        position = jnp.arange(codes.shape[0], dtype=jnp.int32)
        there = jnp.where(similarity == best[..., None], position, codes.shape[0] - 1)
        return best, jnp.min(there, axis=-1)

    if codebook.shape[0] <= at_once:
        return compare(codebook)[1]

    def take_block(block: Array, best: tuple[Array, Array]) -> tuple[Array, Array]:
        # The last block overlaps the one before it, where nothing can be better than it was.
        start = jnp.minimum(block * at_once, codebook.shape[0] - at_once)
        similarity, index = compare(jax.lax.dynamic_slice_in_dim(codebook, start, at_once))
        better = similarity > best[0]
        return jnp.where(better, similarity, best[0]), jnp.where(better, start + index, best[1])

    nothing = jnp.full(vectors.shape[:-1], -jnp.inf), jnp.zeros(vectors.shape[:-1], jnp.int32)
    return jax.lax.fori_loop(0, -(-codebook.shape[0] // at_once), take_block, nothing)[1]
