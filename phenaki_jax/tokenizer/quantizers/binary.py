"""Quantizers whose codes are all signs of few numbers: lookup-free and binary spherical, with entropy losses."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from phenaki_jax.tokenizer.quantizers.quantizer import (
    Quantized,
    Quantizer,
    l2_normalize,
    mean_over_valid,
    straight_through,
)


class BinaryQuantizer(Quantizer):
    """Each dimension of a code is -1 or 1 (lfq, arXiv 2310.05737), or that over sqrt(bits) (bsq, arXiv 2406.07548).

    In an index the first dimension is the highest bit. No array has an entry for each token and code: the entropy of a
    token is the sum of those of its bits, which are independent, and the average of tokens is a product of matrices.
    """

    def __call__(self, features: Float[Array, "*batch width"], valid: Bool[Array, "*batch"] | None = None) -> Quantized:
        """Replaces each token's features by the signs of their projection, which bsq first brings to length 1.

        The commitment term is the squared distance over the squared length of a code: the mean over bits of lfq.
        """
        config = self.config
        projected = self.into_code(features.astype(jnp.float32))
        if config.kind == "bsq":
            projected = l2_normalize(projected)
        indices = self.indices(projected)
        codes = self.codes(indices)
        distance = jnp.sum((projected - codes) ** 2, axis=-1) / (config.bits * self._value() ** 2)
        # A code's squared distance has 4 * value * projected more where a bit is off than where it is on.
        logits = projected * (4 * self._value() / config.entropy_temperature)
        terms = {
            "commitment": mean_over_valid(distance, valid),
            "token_entropy": mean_over_valid(jnp.sum(bit_entropy(logits), axis=-1), valid),
            "code_entropy": code_entropy(logits, valid, config.entropy_group),
        }
        loss = config.commitment * terms["commitment"] + config.entropy * (
            terms["token_entropy"] - config.diversity * terms["code_entropy"]
        )
        return Quantized(self.out_of_code(straight_through(projected, codes)), indices, loss, terms, {})

    def codes(self, indices: Int[Array, "*batch"]) -> Float[Array, "*batch dimensions"]:
        """The signs of indices."""
        return jnp.where(indices[..., None] & self._places() != 0, self._value(), -self._value())

    def indices(self, codes: Float[Array, "*batch dimensions"]) -> Int[Array, "*batch"]:
        """The indices of signs; 0 counts as negative."""
        return jnp.sum(jnp.where(codes > 0, self._places(), 0), axis=-1)

    def _places(self) -> Int[Array, " dimensions"]:
        return jnp.asarray(1 << np.arange(self.config.bits)[::-1], jnp.int32)

    def _value(self) -> float:
        return 1.0 if self.config.kind == "lfq" else self.config.bits**-0.5


def bit_entropy(logits: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """The entropy in nats of bits that are on with these log-odds; exact also where it is almost 0."""
    magnitude = jnp.abs(logits)
    return jax.nn.softplus(-magnitude) + magnitude * jax.nn.sigmoid(-magnitude)


def code_entropy(
    logits: Float[Array, "*batch bits"], valid: Bool[Array, "*batch"] | None, group: int
) -> Float[Array, ""]:
    """The entropy in nats of the average of tokens' distributions over codes, whose bits have these log-odds.

    It is exact where `group` is at least the number of bits. Else it is the sum of the entropies over groups of so many
    bits each, the last of what is left, as if the groups were independent, which is never less (BSQ-ViT, arXiv
    2406.07548).
    """
    bits = logits.shape[-1]
    flat = logits.reshape(-1, bits)
    weights = jnp.ones(flat.shape[0]) if valid is None else valid.reshape(-1).astype(jnp.float32)
    if valid is not None:
        flat = jnp.where(valid.reshape(-1, 1), flat, 0.0)
    weights /= jnp.maximum(jnp.sum(weights), 1.0)
    entropy = jnp.zeros(())
    for start in range(0, bits, group):
        part = flat[:, start : start + group]
        middle = part.shape[1] // 2
        higher, lower = _distribution(part[:, :middle]), _distribution(part[:, middle:])
        # Halves of a group are independent within a token, so that the mean of their outer products is one product.
        average = jnp.matmul((higher * weights[:, None]).T, lower, precision=jax.lax.Precision.HIGHEST)
        entropy -= jnp.sum(average * jnp.log(jnp.maximum(average, 1e-30)))
    return entropy


def _distribution(logits: Float[Array, "tokens bits"]) -> Float[Array, "tokens combinations"]:
    """The probability of each combination of bits, of which there are 2 ** bits."""
    shares = jnp.ones((logits.shape[0], 1))
    for bit in range(logits.shape[1]):
        values = jnp.stack([jax.nn.sigmoid(-logits[:, bit]), jax.nn.sigmoid(logits[:, bit])], axis=-1)
        shares = (shares[:, :, None] * values[:, None, :]).reshape(logits.shape[0], -1)
    return shares
