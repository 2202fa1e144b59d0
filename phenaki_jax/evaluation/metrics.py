"""Measures as `clu.metrics`, which add up over batches, devices and hosts."""

from __future__ import annotations

from typing import Any

import flax.struct
import jax.numpy as jnp
from clu import metrics
from jaxtyping import Array, Bool, Float, Int


@flax.struct.dataclass
class Ratio(metrics.Metric):
    """A weighted mean that is fed sums, so that parts of unequal weight add up right; NaN while nothing was counted.

    Of scalars, or of vectors with a mean for each entry.
    """

    total: Float[Array, "*entries"]
    weight: Float[Array, "*entries"]

    @classmethod
    def empty(cls) -> "Ratio":
        """Nothing counted."""
        return cls(total=jnp.zeros(()), weight=jnp.zeros(()))

    @classmethod
    def from_output(cls, name: str) -> type["Ratio"]:
        """A metric that reads `(total, weight)` from the output of this name; without it nothing is counted."""

        @flax.struct.dataclass
        class FromOutput(cls):  # type: ignore[misc, valid-type]
            @classmethod
            def from_model_output(cls, **outputs: Any) -> "Ratio":
                total, weight = outputs.get(name, (0.0, 0.0))
                return cls(total=jnp.asarray(total, jnp.float32), weight=jnp.asarray(weight, jnp.float32))

        return FromOutput

    def merge(self, other: "Ratio") -> "Ratio":
        """Adds what another has counted."""
        return type(self)(total=self.total + other.total, weight=self.weight + other.weight)

    def compute(self) -> Float[Array, "*entries"]:
        """The mean, or that of each entry."""
        return jnp.where(self.weight > 0, self.total / jnp.maximum(self.weight, 1e-9), jnp.nan)


@flax.struct.dataclass
class Count(metrics.Metric):
    """How often something was so, fed by the output `name` []."""

    total: Float[Array, ""]

    @classmethod
    def from_output(cls, name: str) -> type["Count"]:
        """A metric that reads the output of this name, 1 where it was so; without it nothing is counted."""

        @flax.struct.dataclass
        class FromOutput(cls):  # type: ignore[misc, valid-type]
            @classmethod
            def from_model_output(cls, **outputs: Any) -> "Count":
                return cls(total=jnp.asarray(outputs.get(name, 0.0), jnp.float32))

        return FromOutput

    def merge(self, other: "Count") -> "Count":
        """Adds what another has counted."""
        return type(self)(total=self.total + other.total)

    def compute(self) -> Float[Array, ""]:
        """The number."""
        return self.total


@flax.struct.dataclass
class CodeCounts(metrics.Metric):
    """How often each code was used, fed by the output `code_counts` [codes]."""

    counts: Float[Array, " codes"]

    @classmethod
    def from_model_output(cls, *, code_counts: Array, **_: Any) -> "CodeCounts":
        """Counts of one batch."""
        return cls(counts=code_counts)

    def merge(self, other: "CodeCounts") -> "CodeCounts":
        """Adds what another has counted."""
        return type(self)(counts=self.counts + other.counts)

    def compute(self) -> Float[Array, ""]:
        """Share of the codebook used at least once."""
        return jnp.mean((self.counts > 0).astype(jnp.float32))


@flax.struct.dataclass
class CodePerplexity(CodeCounts):
    """Exponential of the entropy of the codes used: how many codes carry the load."""

    def compute(self) -> Float[Array, ""]:
        """The perplexity, in codes."""
        share = self.counts / jnp.maximum(jnp.sum(self.counts), 1.0)
        return jnp.exp(-jnp.sum(jnp.where(share > 0, share * jnp.log(jnp.maximum(share, 1e-30)), 0.0)))


def count_codes(
    tokens: Int[Array, "batch times rows columns"], valid: Bool[Array, "batch times"], codebook_size: int
) -> Float[Array, " {codebook_size}"]:
    """How often each code occurs among the tokens of valid time steps."""
    weights = jnp.broadcast_to(valid[:, :, None, None], tokens.shape).astype(jnp.float32)
    return jnp.zeros(codebook_size).at[tokens.reshape(-1)].add(weights.reshape(-1))


def psnr(
    video: Float[Array, "batch frames height width 3"],
    reconstruction: Float[Array, "batch frames height width 3"],
    frame_mask: Bool[Array, "batch frames"],
) -> Float[Array, " batch"]:
    """Peak signal-to-noise ratio of each clip in dB, over its valid frames; pixels in [-1, 1], clipped to it."""
    error = (jnp.clip(reconstruction, -1.0, 1.0) - video) / 2
    per_frame = jnp.mean(error**2, axis=(2, 3, 4))
    mean = jnp.sum(per_frame * frame_mask, axis=1) / jnp.maximum(jnp.sum(frame_mask, axis=1), 1)
    return -10.0 * jnp.log10(jnp.maximum(mean, 1e-10))
