"""The encoder of T5 1.1 (arXiv 1910.10683, its gated MLP arXiv 2002.05202) and of umT5 (arXiv 2304.09151), frozen."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from phenaki_jax.errors import UserError, check_at_least, check_types
from phenaki_jax.layers.attention import dot_product_attention
from phenaki_jax.layers.layout import constrain
from phenaki_jax.layers.linear import linear
from phenaki_jax.layers.module import parameter
from phenaki_jax.layers.stack import normalize


@dataclasses.dataclass(frozen=True)
class T5Config:
    """Sizes of an encoder; the defaults are those of T5 1.1 XXL.

    Attributes:
      vocabulary_size: rows of the embedding; more than the vocabulary has pieces, for sentinels and a round number.
      length: the longest text, in tokens.
      layers: transformer layers.
      width: features of a token, and of the embeddings that come out.
      heads: attention heads.
      head_width: features of a head; those of all heads need not add up to the width.
      mlp_width: hidden features of the gated MLP.
      buckets: of relative positions, half of them for each direction.
      longest_distance: positions this far apart and farther share a bucket.
      bias_per_layer: whether each layer has a bias of relative positions of its own, as in umT5.

    Raises:
      UserError: sizes that cannot be, or do not fit each other.
    """

    vocabulary_size: int = 32128
    length: int = 512
    layers: int = 24
    width: int = 4096
    heads: int = 64
    head_width: int = 64
    mlp_width: int = 10240
    buckets: int = 32
    longest_distance: int = 128
    bias_per_layer: bool = False

    def __post_init__(self) -> None:
        check_types(self)
        check_at_least(self, 1, *(field.name for field in dataclasses.fields(self) if field.name != "bias_per_layer"))
        if self.buckets % 4 or self.longest_distance <= self.buckets // 4:
            raise UserError(
                f"found {self.buckets} buckets and longest_distance {self.longest_distance}, expected a multiple of 4 "
                "buckets and a distance of more than a quarter of them"
            )

    @classmethod
    def named(cls, size: str, **changes: Any) -> T5Config:
        """The config of a released size, a name in `SIZES`, with these fields changed.

        Raises:
          UserError: an unknown size.
        """
        if size not in SIZES:
            raise UserError(f"found T5 size {size!r}, expected one of {', '.join(SIZES)}")
        return cls(**{**SIZES[size], **changes})


# t5x has them in examples/t5/t5_1_1/*.gin, those of umT5 in examples/scalable_t5/{umt5,mt5}/*.gin.
_T5 = {
    "small": {"layers": 8, "width": 512, "heads": 6, "mlp_width": 1024},
    "base": {"layers": 12, "width": 768, "heads": 12, "mlp_width": 2048},
    "large": {"layers": 24, "width": 1024, "heads": 16, "mlp_width": 2816},
    "xl": {"layers": 24, "width": 2048, "heads": 32, "mlp_width": 5120},
    "xxl": {"layers": 24, "width": 4096, "heads": 64, "mlp_width": 10240},
}
_UMT5 = {
    f"umt5_{name}": {**_T5[name], "vocabulary_size": 256384, "bias_per_layer": True}
    for name in ("small", "base", "xl", "xxl")
}
SIZES: dict[str, dict[str, Any]] = {**_T5, **_UMT5}
"""What the released encoders differ in. flan-T5 comes in the sizes of T5 1.1."""


class _Layer(nn.Module):
    """Self-attention and a gated MLP, each behind a norm and added to its input."""

    config: T5Config
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self,
        tokens: Float[Array, "batch length embed"],
        bias: Float[Array, "1 heads length length"] | None,
        mask: Bool[Array, "batch 1 1 length"],
    ) -> tuple[Float[Array, "batch length embed"], None]:
        """Returns the new tokens; the bias is the layer's own where there is none."""
        config = self.config
        if bias is None:
            bias = _position_bias(self, config, tokens.shape[1])
        shape = (config.width, config.heads, config.head_width)
        normed = normalize("attention_norm", self.dtype)(tokens)
        query, key, value = (
            linear(normed, parameter(self, name, init, ("embed", "heads", "kv"), shape))
            # No scale of the logits: the kernel of the queries begins with it.
            for name, init in (("query", _heads_init(1 / config.head_width)), ("key", _HEADS), ("value", _HEADS))
        )
        query = constrain(query, "batch", "length", "heads", None)
        key, value = (constrain(array, "batch", "keys", "heads", None) for array in (key, value))
        attended = dot_product_attention(query, key, value, mask, bias=bias, scale=1.0)
        attended = constrain(attended, "batch", "length", "heads", None)
        out = parameter(self, "attention_out", _OUT, ("heads", "kv", "embed"), (*shape[1:], config.width))
        tokens += linear(attended.reshape(*tokens.shape[:2], -1), out.reshape(-1, config.width))
        normed = normalize("mlp_norm", self.dtype)(tokens)
        gate, hidden = (
            linear(normed, parameter(self, name, _MLP, ("embed", "mlp"), (config.width, config.mlp_width)))
            for name in ("mlp_gate", "mlp_into")
        )
        hidden = constrain(jax.nn.gelu(gate) * hidden, "batch", "length", "mlp")
        tokens += linear(hidden, parameter(self, "mlp_out", _MLP, ("mlp", "embed"), (config.mlp_width, config.width)))
        return constrain(tokens, "batch", "length", "embed"), None


class T5Encoder(nn.Module):
    """Token ids to embeddings, as `TextEncoder`; no biases, and no scale of the attention's logits."""

    config: T5Config
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, text_tokens: Int[Array, "batch text_length"], text_mask: Bool[Array, "batch text_length"]
    ) -> Float[Array, "batch text_length text_width"]:
        """Embeds a batch of texts; what stands under a False mask changes nothing, and comes out as 0."""
        config = self.config
        embedding = parameter(
            self, "embedding", nn.initializers.normal(1.0), ("vocab", "embed"), (config.vocabulary_size, config.width)
        )
        bias = None if config.bias_per_layer else _position_bias(self, config, text_tokens.shape[1])
        layers = nn.scan(
            _Layer,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(nn.broadcast, nn.broadcast),
            length=config.layers,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )(config, self.dtype, name="layers")
        tokens, _ = layers(embedding[text_tokens].astype(self.dtype), bias, text_mask[:, None, None, :])
        encoded = normalize("final_norm", self.dtype)(tokens)
        return jnp.where(text_mask[..., None], encoded, jnp.zeros((), self.dtype))


def t5_shapes(config: T5Config, dtype: DTypeLike = jnp.float32) -> dict[str, Any]:
    """Shapes and types of an encoder's parameters, boxed with logical axis names.

    Args:
      config: its sizes.
      dtype: of embedding and kernels; scales of norms and position biases are always float32.
    """
    tokens = jnp.zeros((1, 1), jnp.int32)
    boxed = jax.eval_shape(lambda: T5Encoder(config).init(jax.random.key(0), tokens, tokens == 0)["params"])

    def typed(path: Any, leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        stays = any(getattr(key, "key", None) in ("scale", "position_bias") for key in path)
        return leaf if stays else jax.ShapeDtypeStruct(leaf.shape, dtype)

    shapes: dict[str, Any] = jax.tree_util.tree_map_with_path(typed, boxed)
    return shapes


def relative_buckets(length: int, buckets: int, longest_distance: int) -> Int[np.ndarray, "length length"]:
    """The bucket of each pair of positions: the first axis is what attends, the second what is attended to.

    The first half of the buckets is for what comes before or is the same, the second for what comes after. Half of each
    is for one distance each, the rest for ranges of distances that grow by the same factor up to `longest_distance`.
    """
    positions = np.arange(length)
    offset = positions[None, :] - positions[:, None]
    distance, half = np.abs(offset), buckets // 2
    exact = half // 2
    scale = (half - exact) / math.log(longest_distance / exact)
    # Where a range begins, as at distance 16, rounding must not lead to the bucket before.
    beyond = exact + np.floor(np.log(np.maximum(distance, exact) / exact) * scale + 1e-6).astype(np.int64)
    return np.where(offset > 0, half, 0) + np.where(distance < exact, distance, np.minimum(beyond, half - 1))


def _position_bias(module: nn.Module, config: T5Config, length: int) -> Float[Array, "1 heads length length"]:
    """What is added to the logits of attention, in float32."""
    bias = parameter(
        module, "position_bias", nn.initializers.normal(1.0), ("heads", "buckets"), (config.heads, config.buckets)
    )
    return bias[:, relative_buckets(length, config.buckets, config.longest_distance)][None]


def _heads_init(scale: float) -> nn.initializers.Initializer:
    return nn.initializers.variance_scaling(scale, "fan_in", "normal", in_axis=0, out_axis=(1, 2))


_HEADS = _heads_init(1.0)
_OUT = nn.initializers.variance_scaling(1.0, "fan_in", "normal", in_axis=(0, 1), out_axis=2)
_MLP = nn.initializers.lecun_normal()
