"""Attention by kernels that never hold the logits of all pairs: splash attention on TPU, cuDNN's on GPU."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu import splash_attention as splash
from jaxtyping import Array, Bool, Float, Int

from phenaki_jax.layers.layout import Axes, spec_of

# A TPU's vectors have so many lanes, which lengths are padded to.
_LANES = 128
_LONGEST_BLOCK = 1024
# Below it the logits are small, and a kernel gains nothing.
_SHORTEST_ON_TPU = 256
_FEWEST_KEYS_ON_GPU = 256
_PADDING = -1
_KEPT = "attended"
_CUDNN = "dot_product_attention_fwd_wrapper"


def keeps_attention(primitive: Any, *_: Any, **parameters: Any) -> bool:
    """A policy of `jax.checkpoint` that keeps outputs and denominators of the kernels, which take long to compute."""
    return primitive.name == _CUDNN or parameters.get("name") == _KEPT


def takes_splash(query: Array, key: Array) -> bool:
    """Whether splash attention is worth its while, and able, for arrays of these shapes."""
    return max(query.shape[1], key.shape[1]) >= _SHORTEST_ON_TPU and query.shape[-1] % 8 == 0


def takes_cudnn(query: Array, key: Array, *, masked: bool) -> bool:
    """Whether cuDNN has a kernel for arrays of these shapes and types, and keys are enough for it to gain anything."""
    if key.shape[1] < _FEWEST_KEYS_ON_GPU or (masked and (query.shape[1] % 2 or key.shape[1] % 2)):
        return False
    return query.dtype in (jnp.bfloat16, jnp.float16) and query.shape[-1] % 8 == 0 and query.shape[-1] <= _LANES


def splash_attention(
    query: Float[Array, "batch queries heads kv"],
    key: Float[Array, "batch keys heads kv"],
    value: Float[Array, "batch keys heads kv"],
    query_segments: Int[Array, "batch queries"],
    key_segments: Int[Array, "batch keys"],
    *,
    scale: float,
    axes: Axes,
    interpret: bool = False,
) -> Float[Array, "batch queries heads kv"]:
    """Pallas' splash attention, on each device by itself: what attends is divided over them, never the keys.

    Args:
      query: what attends.
      key: what is attended to.
      value: what is taken of it.
      query_segments: which segment each query belongs to.
      key_segments: of each key; nobody attends to those of another segment.
      scale: of the logits.
      axes: logical names, by which the arrays are laid out.
      interpret: whether to run it without a TPU, for tests.
    """
    attend = functools.partial(_on_one_device, scale=scale, interpret=interpret)
    arrays = (query, key, value, query_segments, key_segments)
    own, others = (axes.rows, axes.queries, "heads", None), (axes.rows, axes.keys, "heads", None)
    specs = [
        spec_of(array.shape, names)
        for array, names in zip(arrays, (own, others, others, own[:2], others[:2]), strict=True)
    ]
    if specs[0] is None:
        return attend(*arrays)
    return jax.shard_map(attend, in_specs=tuple(specs), out_specs=specs[0], check_vma=False)(*arrays)


def _on_one_device(
    query: Array, key: Array, value: Array, query_segments: Array, key_segments: Array, *, scale: float, interpret: bool
) -> Array:
    queries = query.shape[1]
    query, query_segments = _padded(query), _padded(query_segments)
    key, value, key_segments = _padded(key), _padded(value), _padded(key_segments)
    kernel = _kernel(query.shape[2], query.shape[1], key.shape[1], interpret=interpret)
    heads_first = [array.swapaxes(1, 2) for array in (query * jnp.asarray(scale, query.dtype), key, value)]
    attended: Any = jax.vmap(kernel)(*heads_first, splash.SegmentIds(query_segments, key_segments))
    return attended.swapaxes(1, 2)[:, :queries]


def _padded(array: Array) -> Array:
    """Up to a whole number of lanes along the sequence; segment ids with one that nothing else has."""
    more = -array.shape[1] % _LANES
    widths = ((0, 0), (0, more), *((0, 0) for _ in array.shape[2:]))
    return jnp.pad(array, widths, constant_values=_PADDING if array.ndim == 2 else 0)


def _kernel(
    heads: int, queries: int, keys: int, *, interpret: bool
) -> splash.splash_attention_kernel.SplashAttentionKernel:
    block_q, block_kv = _block(queries), _block(keys)
    sizes = splash.BlockSizes(
        block_q=block_q,
        block_kv=block_kv,
        block_q_dkv=block_q,
        block_kv_dkv=block_kv,
        use_fused_bwd_kernel=True,
        q_layout=splash.QKVLayout.SEQ_MINOR,
        k_layout=splash.QKVLayout.SEQ_MINOR,
        v_layout=splash.QKVLayout.SEQ_MINOR,
    )
    mask = splash.splash_attention_mask.MultiHeadMask([splash.FullMask((queries, keys))] * heads)
    return splash.make_splash_mha_single_device(
        mask, block_sizes=sizes, residual_checkpoint_name=_KEPT, interpret=interpret
    )


def _block(length: int) -> int:
    """The longest block of whole lanes that divides a padded length."""
    lanes = length // _LANES
    return max(count for count in range(1, _LONGEST_BLOCK // _LANES + 1) if lanes % count == 0) * _LANES


def cudnn_attention(
    query: Float[Array, "batch queries heads kv"],
    key: Float[Array, "batch keys heads kv"],
    value: Float[Array, "batch keys heads kv"],
    mask: Bool[Array, "#batch #heads #queries keys"] | None,
    *,
    scale: float,
) -> Float[Array, "batch queries heads kv"]:
    """cuDNN's flash attention, through jax.nn; a mask it wants in full for every query."""
    if mask is not None:
        mask = jnp.broadcast_to(mask, (*mask.shape[:2], query.shape[1], key.shape[1]))
    return jax.nn.dot_product_attention(query, key, value, mask=mask, scale=scale, implementation="cudnn")
