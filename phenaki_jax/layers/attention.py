"""Multi-head attention with the logical axis names that sharding rules speak of."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from phenaki_jax.layers import positions as positions_lib
from phenaki_jax.layers.linear import linear
from phenaki_jax.layers.module import parameter


def dot_product_attention(
    query: Float[Array, "batch queries heads kv"],
    key: Float[Array, "batch keys heads kv"],
    value: Float[Array, "batch keys heads kv"],
    mask: Bool[Array, "#batch #heads #queries keys"] | None = None,
) -> Float[Array, "batch queries heads kv"]:
    """Attention with a float32 softmax; a key whose mask is False has weight exactly 0."""
    return jax.nn.dot_product_attention(query, key, value, mask=mask)


class MultiHeadAttention(nn.Module):
    """Attention of a sequence to itself or to a context.

    Attributes:
      heads: number of heads.
      head_width: features of a head.
      output_scale: standard deviation of the output kernel, relative to 1 / sqrt(fan in).
      dtype: type of the computation; parameters are float32.
    """

    heads: int
    head_width: int
    output_scale: float = 1.0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        inputs: Float[Array, "batch queries embed"],
        context: Float[Array, "batch keys context_embed"] | None = None,
        *,
        mask: Bool[Array, "#batch #heads #queries keys"] | None = None,
        angles: Float[Array, "#batch queries pairs"] | None = None,
    ) -> Float[Array, "batch queries embed"]:
        """Attends to `context`, or to `inputs` where there is none; `angles` rotate queries and keys by position."""
        if context is None:
            query, key, value = self._project("query_key_value", inputs, 3)
        else:
            (query,) = self._project("query", inputs, 1)
            key, value = self._project("key_value", context, 2)
        if angles is not None:
            query, key = positions_lib.rotate(query, angles), positions_lib.rotate(key, angles)
        attended = dot_product_attention(query, key, value, mask)
        kernel = parameter(
            self,
            "out",
            nn.initializers.variance_scaling(self.output_scale**2, "fan_in", "normal", in_axis=(0, 1), out_axis=2),
            ("heads", "kv", "embed"),
            (self.heads, self.head_width, inputs.shape[-1]),
        )
        merged = attended.reshape(*attended.shape[:2], -1)
        return linear(merged, kernel.reshape(-1, inputs.shape[-1]))

    def _project(self, name: str, inputs: Array, count: int) -> list[Array]:
        """`count` projections to heads in one matrix product."""
        kernel = parameter(
            self,
            name,
            nn.initializers.variance_scaling(1.0, "fan_in", "normal", in_axis=0, out_axis=(2, 3), batch_axis=(1,)),
            ("embed", "qkv", "heads", "kv"),
            (inputs.shape[-1], count, self.heads, self.head_width),
        )
        projected = linear(inputs.astype(self.dtype), kernel)
        return [projected[:, :, index] for index in range(count)]
