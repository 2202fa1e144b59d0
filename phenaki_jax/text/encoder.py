"""A small text encoder over bytes, trained with the masked transformer where no frozen T5 is at hand."""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from phenaki_jax.errors import check_at_least, check_types
from phenaki_jax.layers import positions as positions_lib
from phenaki_jax.layers.layout import constrain
from phenaki_jax.layers.module import parameter
from phenaki_jax.layers.stack import Stack, StackConfig
from phenaki_jax.text.byte_tokenizer import VOCABULARY_SIZE


@dataclasses.dataclass(frozen=True)
class TextEncoderConfig:
    """Sizes of the byte-level text encoder.

    Attributes:
      vocabulary_size: number of token ids.
      length: the longest text, in tokens.
      layers: transformer layers.
      width: features of a token, and of the embeddings that come out.
      heads: attention heads.
      mlp_width: hidden features of the MLP.
      window: bytes that the convolution in front of the layers sees, so that words are met before attention.
    """

    vocabulary_size: int = VOCABULARY_SIZE
    length: int = 64
    layers: int = 2
    width: int = 128
    heads: int = 4
    mlp_width: int = 512
    window: int = 5

    def __post_init__(self) -> None:
        check_types(self)
        check_at_least(self, 1, *(field.name for field in dataclasses.fields(self)))

    @property
    def stack(self) -> StackConfig:
        """The transformer stack in these sizes."""
        return StackConfig(self.layers, self.width, self.heads, self.mlp_width)


class TextEncoder(nn.Module):
    """Token ids to embeddings: the interface that a frozen T5 encoder fills too."""

    config: TextEncoderConfig
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, text_tokens: Int[Array, "batch text_length"], text_mask: Bool[Array, "batch text_length"]
    ) -> Float[Array, "batch text_length text_width"]:
        """Embeds a batch of texts; what stands under a False mask changes nothing."""
        config = self.config
        embedding = parameter(
            self,
            "embedding",
            nn.initializers.normal(1.0),
            ("vocab", "embed"),
            (config.vocabulary_size, config.width),
        )
        tokens = embedding.astype(self.dtype)[text_tokens] * text_mask[..., None].astype(self.dtype)
        # Whole texts: XLA gets a convolution wrong whose features and positions are both divided (jaxlib 0.10).
        tokens = constrain(tokens, "batch", None, "embed")
        neighbours = nn.Conv(
            config.width,
            (config.window,),
            dtype=self.dtype,
            kernel_init=nn.with_logical_partitioning(nn.initializers.lecun_normal(), ("window", "embed", "text_embed")),
            bias_init=nn.with_logical_partitioning(nn.initializers.zeros, ("text_embed",)),
            name="neighbours",
        )(tokens)
        neighbours = constrain(neighbours, "batch", None, "embed")
        positions = jnp.arange(text_tokens.shape[1])[None, :, None]
        angles = positions_lib.rotary_angles(positions, config.stack.head_width)
        encoded, _ = Stack(config.stack, self.dtype, name="stack")(
            tokens + neighbours, angles=angles, mask=text_mask[:, None, None, :]
        )
        return encoded
