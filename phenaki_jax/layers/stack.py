"""A stack of pre-norm transformer layers, scanned, used by tokenizer, masked transformer and text encoder alike."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from phenaki_jax.errors import UserError, check_at_least, check_types
from phenaki_jax.layers.attention import Attended, KeyValueProjection, KeyValues, MultiHeadAttention
from phenaki_jax.layers.kernels import keeps_attention
from phenaki_jax.layers.layout import ROWS, Axes, constrain
from phenaki_jax.layers.linear import linear
from phenaki_jax.layers.module import parameter

_policies = jax.checkpoint_policies
REMAT_POLICIES: dict[str, Any] = {
    "full": _policies.nothing_saveable,
    "save_attention": keeps_attention,
    "save_products": _policies.save_from_both_policies(_policies.checkpoint_dots, keeps_attention),
    "save_products_without_batch": _policies.checkpoint_dots_with_no_batch_dims,
}

# A loop keeps deep stacks quick to compile, but copies what the backward pass needs into one array for all layers and
# out again: a quarter of a small model's step on CPU.
_MOST_UNROLLED_LAYERS = 4


@dataclasses.dataclass(frozen=True)
class StackConfig:
    """Sizes of a stack of transformer layers.

    Attributes:
      layers: number of layers.
      width: features of a token.
      heads: attention heads; they divide the width.
      mlp_width: hidden features of the MLP.
      cross_attention: whether each layer also attends to a context.
      qk_norm: whether queries and keys are normed in each head, which keeps attention from saturating in bfloat16
        (W.A.L.T, arXiv 2312.06662).
      dropout: probability of dropping a branch's output feature while training.
      remat: "none", or one of `REMAT_POLICIES`: what the backward pass computes again instead of keeping.
      unroll: whether the layers follow each other in the program instead of being a loop, which takes longer to compile
        and spares copies between what a layer keeps and what all keep: on a GPU a quarter of a step.

    Raises:
      UserError: sizes that do not fit each other.
    """

    layers: int
    width: int
    heads: int
    mlp_width: int
    cross_attention: bool = False
    qk_norm: bool = False
    dropout: float = 0.0
    remat: str = "none"
    unroll: bool = False

    def __post_init__(self) -> None:
        check_types(self)
        check_at_least(self, 1, "layers", "width", "heads", "mlp_width")
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise UserError(
                f"width {self.width} over {self.heads} heads gives each {self.width / self.heads:.4g} features, "
                "expected an even whole number: change width or heads"
            )
        if not 0 <= self.dropout < 1:
            raise UserError(f"dropout {self.dropout} must be at least 0 and below 1")
        if self.remat != "none" and self.remat not in REMAT_POLICIES:
            raise UserError(f"remat {self.remat!r} is unknown; known are none, {', '.join(REMAT_POLICIES)}")

    @property
    def head_width(self) -> int:
        """Features of one head."""
        return self.width // self.heads


class Mlp(nn.Module):
    """Two linear layers with a GELU between them, without biases."""

    config: StackConfig
    dtype: DTypeLike
    axes: Axes = ROWS

    @nn.compact
    def __call__(self, inputs: Float[Array, "batch length embed"]) -> Float[Array, "batch length embed"]:
        """Applies the same MLP to every token."""
        config = self.config
        into = parameter(
            self,
            "into",
            nn.initializers.lecun_normal(),
            ("embed", "mlp"),
            (config.width, config.mlp_width),
        )
        out = parameter(
            self,
            "out",
            nn.initializers.variance_scaling(1 / (2 * config.layers), "fan_in", "normal", in_axis=1, out_axis=0),
            ("embed", "mlp"),
            (config.width, config.mlp_width),
        )
        hidden = jax.nn.gelu(linear(inputs, into))
        hidden = constrain(hidden, self.axes.rows, self.axes.queries, "mlp")
        # Held as its transpose: the gradient of a tall kernel takes XLA on CPU twice as long as that of a wide one.
        return linear(hidden, out.T)


def normalize(name: str, dtype: DTypeLike) -> nn.RMSNorm:
    """The norm in front of every branch: root mean square, in float32, with a scale."""
    return nn.RMSNorm(
        dtype=dtype,
        scale_init=nn.with_logical_partitioning(nn.initializers.ones, ("embed",)),
        name=name,
    )


class Layer(nn.Module):
    """Self-attention, cross-attention where configured, and an MLP, each behind a norm and added to its input."""

    config: StackConfig
    dtype: DTypeLike
    deterministic: bool
    axes: Axes = ROWS

    @nn.compact
    def __call__(
        self,
        tokens: Float[Array, "batch length embed"],
        angles: Float[Array, "#batch positions pairs"] | None,
        mask: Attended | None,
        context: KeyValues | None,
        context_mask: Attended | None,
        past: KeyValues | None,
    ) -> tuple[Float[Array, "batch length embed"], KeyValues | None]:
        """Returns the new tokens, and what `MultiHeadAttention` keeps of them."""
        config = self.config
        drop = nn.Dropout(config.dropout, deterministic=self.deterministic)
        attention = {
            "heads": config.heads,
            "head_width": config.head_width,
            "output_scale": (2 * config.layers) ** -0.5,
            "qk_norm": config.qk_norm,
            "dtype": self.dtype,
            "axes": self.axes,
        }
        normed = normalize("attention_norm", self.dtype)(tokens)
        attended, kept = MultiHeadAttention(**attention, name="attention")(normed, mask=mask, angles=angles, past=past)
        tokens += drop(attended)
        if config.cross_attention:
            normed = normalize("cross_attention_norm", self.dtype)(tokens)
            cross = MultiHeadAttention(**attention, name="cross_attention")
            tokens += drop(cross(normed, context, mask=context_mask)[0])
        normed = normalize("mlp_norm", self.dtype)(tokens)
        tokens += drop(Mlp(config, self.dtype, self.axes, name="mlp")(normed))
        return constrain(tokens, *self.axes[:2], "embed"), kept


class ContextKeyValues(nn.Module):
    """Keys and values of a context for the cross-attention of every layer of a stack."""

    config: StackConfig
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, context: Float[Array, "batch context context_embed"]) -> KeyValues:
        """What `Stack` takes as `context`, with a first axis for the layer."""
        config = self.config
        layers = nn.scan(
            KeyValueProjection,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=nn.broadcast,
            length=config.layers,
            unroll=_unrolled(config),
            metadata_params={nn.PARTITION_NAME: "layers"},
        )(config.heads, config.head_width, config.qk_norm, self.dtype, name="layers")
        _, key_values = layers(None, context.astype(self.dtype))
        return key_values


def _unrolled(config: StackConfig) -> int:
    is_shallow = config.layers <= _MOST_UNROLLED_LAYERS and config.remat == "none"
    return config.layers if config.unroll or is_shallow else 1


class Stack(nn.Module):
    """`config.layers` layers in a scan, their parameters stacked, then a norm."""

    config: StackConfig
    dtype: DTypeLike = jnp.float32
    axes: Axes = ROWS

    @nn.compact
    def __call__(
        self,
        tokens: Float[Array, "batch length embed"],
        *,
        angles: Float[Array, "#batch positions pairs"] | None = None,
        mask: Attended | None = None,
        context: KeyValues | None = None,
        context_mask: Attended | None = None,
        past: KeyValues | None = None,
        deterministic: bool = True,
    ) -> tuple[Float[Array, "batch length embed"], KeyValues | None]:
        """Runs all layers.

        Args:
          tokens: the sequence.
          angles: rotary angles of the positions, those of `past` first, see `layers.positions.rotary_angles`.
          mask: which tokens each token attends to, those of `past` first.
          context: what the cross-attention reads, where configured, of `ContextKeyValues`.
          context_mask: which of the context each token attends to.
          past: keys and values of the tokens before the sequence, of every layer.
          deterministic: False while training with dropout; then a "dropout" rng is needed.

        Returns:
          The sequence, and what is `past` to the tokens after it; None without `past`.
        """
        layer, unroll = Layer, _unrolled(self.config)
        if self.config.remat != "none":
            # Within a loop XLA cannot merge what is computed again with what was computed first; unrolled it would.
            layer = nn.remat(layer, policy=REMAT_POLICIES[self.config.remat], prevent_cse=unroll > 1)
        layers = nn.scan(
            layer,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=(nn.broadcast, nn.broadcast, 0, nn.broadcast, 0),
            length=self.config.layers,
            unroll=unroll,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )(self.config, self.dtype, deterministic, self.axes, name="layers")
        tokens = constrain(tokens, *self.axes[:2], "embed")
        tokens, kept = layers(tokens.astype(self.dtype), angles, mask, context, context_mask, past)
        return normalize("final_norm", self.dtype)(tokens), kept
