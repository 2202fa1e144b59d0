"""Multi-head attention with the logical axis names that sharding rules speak of."""

from __future__ import annotations

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from phenaki_jax.layers import kernels
from phenaki_jax.layers import positions as positions_lib
from phenaki_jax.layers.layout import ROWS, Axes, constrain, platform
from phenaki_jax.layers.linear import linear
from phenaki_jax.layers.module import parameter

# Of shorter sequences the products of jax.nn are as fast.
_LONG_ON_CPU = 256
_MOST_ROWS_APART = 16


class KeyValues(NamedTuple):
    """Keys, not yet rotated by position, and values of tokens that went before, oldest first.

    In a stack of layers both have a first axis for the layer.
    """

    keys: Float[Array, "*layers batch past heads kv"]
    values: Float[Array, "*layers batch past heads kv"]


class Segments(NamedTuple):
    """Who attends to whom, where rows hold several examples: those of one segment to each other, nobody to padding.

    Attributes:
      queries: the segment of what attends, from 1; 0 is padding.
      keys: the segment of what is attended to.
    """

    queries: Int[Array, "#batch #queries"]
    keys: Int[Array, "#batch keys"]

    @property
    def mask(self) -> Bool[Array, "#batch 1 #queries keys"]:
        """The same as a mask."""
        return ((self.queries[:, :, None] == self.keys[:, None, :]) & (self.keys > 0)[:, None, :])[:, None]


Attended = Bool[Array, "#batch #heads #queries keys"] | Segments
"""Which keys each query attends to."""


def dot_product_attention(
    query: Float[Array, "batch queries heads kv"],
    key: Float[Array, "batch keys heads kv"],
    value: Float[Array, "batch keys heads kv"],
    mask: Attended | None = None,
    *,
    bias: Float[Array, "#batch #heads queries keys"] | None = None,
    scale: float | None = None,
    axes: Axes = ROWS,
) -> Float[Array, "batch queries heads kv"]:
    """Attention with a float32 softmax; a key whose mask is False has weight exactly 0.

    On TPU and GPU by kernels that never hold all logits, where they have one for these shapes; the rows of padding,
    which nothing reads, may then come out as something else.

    Args:
      query: what attends.
      key: what is attended to.
      value: what is taken of it.
      mask: which keys each query attends to.
      bias: added to the logits.
      scale: of the logits before that; 1 / sqrt(kv) where None.
      axes: logical names of the arrays' axes.
    """
    kind, scale = platform(), query.shape[-1] ** -0.5 if scale is None else scale
    segments = mask if isinstance(mask, Segments) else None
    if kind == "tpu" and bias is None and (mask is None or segments) and kernels.takes_splash(query, key):
        ids = _segment_ids(query, key, segments)
        return kernels.splash_attention(query, key, value, *ids, scale=scale, axes=axes)
    seen = mask.mask if isinstance(mask, Segments) else mask
    if kind == "gpu" and bias is None and kernels.takes_cudnn(query, key, masked=seen is not None):
        return kernels.cudnn_attention(query, key, value, seen, scale=scale)
    if kind == "cpu" and max(query.shape[1], key.shape[1]) >= _LONG_ON_CPU:
        return _attention_heads_first(query, key, value, seen, bias, scale)
    return jax.nn.dot_product_attention(query, key, value, bias, seen, scale=scale)


def _segment_ids(query: Array, key: Array, segments: Segments | None) -> list[Int[Array, "batch length"]]:
    """The segments of all queries and of all keys; one where there are none."""
    shapes = [(len(query), array.shape[1]) for array in (query, key)]
    ids = segments or (jnp.ones((1, 1), jnp.int32),) * 2
    return [jnp.broadcast_to(each, shape) for each, shape in zip(ids, shapes, strict=True)]


def _attention_heads_first(
    query: Array, key: Array, value: Array, mask: Array | None, bias: Array | None, scale: float
) -> Array:
    """The same by products that have heads before positions, which XLA on CPU computes in less than half the time.

    Few rows come one after the other, so that the logits of each stay in the cache.
    """
    query, key, value = (array.swapaxes(1, 2) for array in (query, key, value))
    if len(query) > _MOST_ROWS_APART:
        return _weighed(query, key, value, mask, bias, scale).swapaxes(1, 2)
    rows = [
        _weighed(query[row], key[row], value[row], _row(mask, row), _row(bias, row), scale) for row in range(len(query))
    ]
    return jnp.stack(rows).swapaxes(1, 2)


def _row(array: Array | None, row: int) -> Array | None:
    """A row of what may be one for all."""
    return None if array is None else array[min(row, len(array) - 1)]


def _weighed(query: Array, key: Array, value: Array, mask: Array | None, bias: Array | None, scale: float) -> Array:
    logits = scale * jnp.matmul(query, key.swapaxes(-1, -2), preferred_element_type=jnp.float32)
    if bias is not None:
        logits += bias
    if mask is not None:
        logits = jnp.where(mask, logits, -0.7 * float(jnp.finfo(jnp.float32).max))
    return jnp.matmul(jax.nn.softmax(logits).astype(value.dtype), value)


class MultiHeadAttention(nn.Module):
    """Attention of a sequence to itself or to a context.

    Attributes:
      heads: number of heads.
      head_width: features of a head.
      output_scale: standard deviation of the output kernel, relative to 1 / sqrt(fan in).
      qk_norm: whether queries and keys are scaled to a root mean square of 1 first.
      dtype: type of the computation; parameters are float32.
      axes: logical names of the sequences' axes.
    """

    heads: int
    head_width: int
    output_scale: float = 1.0
    qk_norm: bool = False
    dtype: DTypeLike = jnp.float32
    axes: Axes = ROWS

    @nn.compact
    def __call__(
        self,
        inputs: Float[Array, "batch queries embed"],
        context: KeyValues | None = None,
        *,
        mask: Attended | None = None,
        angles: Float[Array, "#batch positions pairs"] | None = None,
        past: KeyValues | None = None,
    ) -> tuple[Float[Array, "batch queries embed"], KeyValues | None]:
        """Attends to `context`, or to `past` and `inputs` where there is none.

        Args:
          inputs: what attends.
          context: what is attended to, see `KeyValueProjection`; None for the inputs themselves.
          mask: which keys each query attends to.
          angles: rotate queries and keys by position; one for each token of `past` and of `inputs`.
          past: keys and values of the tokens before the inputs.

        Returns:
          The outputs, and as many keys and values as in `past`, now up to the last of the inputs; None without `past`.
        """
        if context is None:
            query, key, value = project(self, "query_key_value", inputs, 3)
            key = self._normed("key_norm", key)
        else:
            (query,) = project(self, "query", inputs, 1)
            key, value = context
        query = self._normed("query_norm", query)
        kept = None
        if past is not None:
            key, value = (jnp.concatenate(pair, axis=1) for pair in zip(past, (key, value), strict=True))
            kept = KeyValues(key[:, inputs.shape[1] :], value[:, inputs.shape[1] :])
        if angles is not None:
            query = positions_lib.rotate(query, angles[:, -query.shape[1] :])
            key = positions_lib.rotate(key, angles)
        rows, queries, keys = self.axes
        query = constrain(query, rows, queries, "heads", None)
        key, value = (constrain(array, rows, keys, "heads", None) for array in (key, value))
        attended = dot_product_attention(query, key, value, mask, axes=self.axes)
        attended = constrain(attended, rows, queries, "heads", None)
        kernel = parameter(
            self,
            "out",
            nn.initializers.variance_scaling(self.output_scale**2, "fan_in", "normal", in_axis=(0, 1), out_axis=2),
            ("heads", "kv", "embed"),
            (self.heads, self.head_width, inputs.shape[-1]),
        )
        merged = attended.reshape(*attended.shape[:2], -1)
        return linear(merged, kernel.reshape(-1, inputs.shape[-1])), kept

    def _normed(self, name: str, features: Array) -> Array:
        return head_norm(name, self.dtype)(features) if self.qk_norm else features


class KeyValueProjection(nn.Module):
    """Keys and values of a context for one layer, called as a scan calls it; attributes as of `MultiHeadAttention`."""

    heads: int
    head_width: int
    qk_norm: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, carry: None, context: Float[Array, "batch keys context_embed"]) -> tuple[None, KeyValues]:
        """Nothing, and what `MultiHeadAttention` attends to."""
        key, value = project(self, "key_value", context, 2)
        return carry, KeyValues(head_norm("key_norm", self.dtype)(key) if self.qk_norm else key, value)


def head_norm(name: str, dtype: DTypeLike) -> nn.RMSNorm:
    """The norm of a head's queries or keys: root mean square, in float32, with a scale (arXiv 2302.05442)."""
    scale = nn.with_logical_partitioning(nn.initializers.ones, ("kv",))
    return nn.RMSNorm(dtype=dtype, scale_init=scale, name=name)


def project(
    module: MultiHeadAttention | KeyValueProjection, name: str, inputs: Array, count: int
) -> list[Float[Array, "batch length heads kv"]]:
    """`count` projections of inputs to a module's heads in one matrix product, by a parameter of this name."""
    kernel = parameter(
        module,
        name,
        nn.initializers.variance_scaling(1.0, "fan_in", "normal", in_axis=0, out_axis=(2, 3), batch_axis=(1,)),
        ("embed", "qkv", "heads", "kv"),
        (inputs.shape[-1], count, module.heads, module.head_width),
    )
    inputs = inputs.astype(module.dtype)
    if platform() == "tpu":
        # Each its own product, which is written as the kernels of attention read it.
        return [linear(inputs, kernel[:, index]) for index in range(count)]
    projected = linear(inputs, kernel)
    # Split, whose gradient is one concatenation; that of taking each by its index pads and adds up.
    return [jnp.squeeze(part, 2) for part in jnp.split(projected, count, axis=2)]
