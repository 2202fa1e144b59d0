"""The bidirectional masked transformer over video tokens, with cross-attention to text (Phenaki, section 2.2)."""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from phenaki_jax.layers import positions as positions_lib
from phenaki_jax.layers.linear import linear
from phenaki_jax.layers.module import parameter
from phenaki_jax.layers.stack import Stack
from phenaki_jax.transformer.config import TransformerConfig


class MaskedTransformer(nn.Module):
    """Predicts the codes of masked video tokens from those that are known and from text."""

    config: TransformerConfig
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        video_tokens: Int[Array, "batch length"],
        token_positions: Int[Array, "#batch length 3"],
        token_mask: Bool[Array, "batch length"],
        text_embeddings: Float[Array, "batch text_length text_width"],
        text_mask: Bool[Array, "batch text_length"],
        drop_text: Bool[Array, " batch"],
        *,
        deterministic: bool = True,
    ) -> Float[Array, "batch length codes"]:
        """Logits over the codebook for every position.

        Args:
          video_tokens: codes, and `config.mask_token` where they are to be predicted.
          token_positions: (time, row, column) of each token.
          token_mask: False for padding, which nothing attends to.
          text_embeddings: of a text encoder.
          text_mask: False for padding.
          drop_text: where True the text is replaced by the learned null text (classifier-free guidance).
          deterministic: False while training with dropout.
        """
        config = self.config
        null_text = parameter(
            self,
            "null_text",
            nn.initializers.normal(1.0),
            ("text_embed",),
            (config.text_width,),
        )
        dropped = drop_text[:, None]
        first = jnp.arange(text_mask.shape[1])[None, :] == 0
        context = jnp.where(dropped[..., None], null_text.astype(self.dtype), text_embeddings.astype(self.dtype))
        context_mask = jnp.where(dropped, first, text_mask)

        embedding = parameter(
            self,
            "embedding",
            nn.initializers.normal(1.0),
            ("vocab", "embed"),
            (config.codebook_size + 1, config.width),
        )
        digits = _code_digits(config.code_levels)
        if digits is not None:
            digit_embedding = parameter(
                self,
                "digit_embedding",
                nn.initializers.normal(1.0),
                ("digits", "embed"),
                (digits.shape[1], config.width),
            )
            embedding = embedding.at[: config.codebook_size].add(digits @ digit_embedding)
        tokens = embedding.astype(self.dtype)[video_tokens]
        tokens += positions_lib.sinusoidal_embedding(token_positions, config.width).astype(self.dtype)
        tokens = nn.with_logical_constraint(tokens, ("batch", "length", "embed"))
        tokens, _ = Stack(config.stack, self.dtype, name="stack")(
            tokens,
            angles=positions_lib.rotary_angles(token_positions, config.stack.head_width),
            mask=token_mask[:, None, None, :],
            context=context,
            context_mask=context_mask[:, None, None, :],
            deterministic=deterministic,
        )
        head = parameter(
            self,
            "head",
            nn.initializers.lecun_normal(),
            ("embed", "codes"),
            (config.width, config.codebook_size),
        )
        if digits is not None:
            digit_head = parameter(
                self,
                "digit_head",
                nn.initializers.lecun_normal(),
                ("embed", "digits"),
                (config.width, digits.shape[1]),
            )
            head += digit_head @ digits.T
        return linear(tokens.astype(jnp.float32), head)


def _code_digits(levels: tuple[int, ...]) -> Float[Array, "codes digits"] | None:
    """Which level of which dimension each code of a finite scalar quantizer has, as ones in a table."""
    if not levels:
        return None
    codes, columns = jnp.arange(math.prod(levels)), []
    for level in levels:
        columns.append(jax.nn.one_hot(codes % level, level))
        codes //= level
    return jnp.concatenate(columns, axis=1)
