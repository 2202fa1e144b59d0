"""The bidirectional masked transformer over video tokens, with cross-attention to text (Phenaki, section 2.2)."""

from __future__ import annotations

import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from phenaki_jax.layers import positions as positions_lib
from phenaki_jax.layers.attention import KeyValues, Segments
from phenaki_jax.layers.layout import constrain
from phenaki_jax.layers.linear import linear
from phenaki_jax.layers.module import parameter
from phenaki_jax.layers.stack import ContextKeyValues, Stack
from phenaki_jax.transformer.config import TransformerConfig
from phenaki_jax.transformer.factors import split_codes

Logits = tuple[Float[Array, "*batch _"], ...]


class Text(NamedTuple):
    """The texts of a batch; where several examples share a row, their texts follow each other in it.

    Attributes:
      embeddings: of a text encoder.
      segment_ids: which example of its row a text token belongs to; 0 is padding.
      dropped: where the learned null text stands for the text (classifier-free guidance); alike within a text.
    """

    embeddings: Float[Array, "batch text_length text_width"]
    segment_ids: Int[Array, "batch text_length"]
    dropped: Bool[Array, "batch text_length"]


class ReadText(NamedTuple):
    """What every layer's cross-attention needs of texts, so that many rounds of sampling read them once.

    Attributes:
      key_values: a first axis for the layer, then [batch, text_length, heads, kv].
      segment_ids: as in `Text`, but 0 also for what the null text leaves empty.
    """

    key_values: KeyValues
    segment_ids: Int[Array, "batch text_length"]


class Predictions(NamedTuple):
    """What is said of every token.

    Attributes:
      logits: over the codes; where the config has `code_factors`, over each of them. () where it predicts no codes.
      scores: logits of a token being the video's own and not drawn (token critic); None where it predicts none.
    """

    logits: Logits
    scores: Float[Array, "batch length"] | None


class MaskedTransformer(nn.Module):
    """Predicts the codes of masked video tokens from those that are known and from text."""

    config: TransformerConfig
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        config, width = self.config, self.config.width
        normal, kernel = nn.initializers.normal(1.0), nn.initializers.lecun_normal()
        rows = sum(config.factors)
        self.embedding = parameter(self, "embedding", normal, ("vocab", "embed"), (rows, width))
        self.mask_embedding = parameter(self, "mask_embedding", normal, ("embed",), (width,))
        self.stack = Stack(config.stack, self.dtype)
        if config.text_width:
            self.null_text = parameter(self, "null_text", normal, ("text_embed",), (config.text_width,))
            self.context = ContextKeyValues(config.stack, self.dtype)
        digits = sum(config.code_levels)
        if digits:
            self.digit_embedding = parameter(self, "digit_embedding", normal, ("digits", "embed"), (digits, width))
        if config.predicts_codes:
            self.head = parameter(self, "head", kernel, ("embed", "codes"), (width, rows))
            if digits:
                self.digit_head = parameter(self, "digit_head", kernel, ("embed", "digits"), (width, digits))
        if config.predicts_scores:
            self.score_head = parameter(self, "score_head", kernel, ("embed", "scores"), (width, 1))

    def __call__(
        self,
        video_tokens: Int[Array, "batch length"],
        token_positions: Int[Array, "#batch length 3"],
        segment_ids: Int[Array, "batch length"] | None = None,
        text: Text | None = None,
        *,
        deterministic: bool = True,
    ) -> Predictions:
        """What the config says that is predicted, for every token; see `features` for the arguments."""
        features = self.features(video_tokens, token_positions, segment_ids, text, deterministic=deterministic)
        logits = self.logits(features) if self.config.predicts_codes else ()
        return Predictions(logits, self.scores(features) if self.config.predicts_scores else None)

    def read(self, text: Text) -> ReadText:
        """Keys and values of all layers for texts."""
        first = text.segment_ids != jnp.pad(text.segment_ids, ((0, 0), (1, 0)))[:, :-1]
        null = self.null_text.astype(self.dtype)
        embeddings = jnp.where(text.dropped[..., None], null, text.embeddings.astype(self.dtype))
        segment_ids = jnp.where(text.dropped & ~first, 0, text.segment_ids)
        return ReadText(self.context(embeddings), segment_ids)

    def features(
        self,
        video_tokens: Int[Array, "batch length"],
        token_positions: Int[Array, "#batch length 3"],
        segment_ids: Int[Array, "batch length"] | None = None,
        text: Text | ReadText | None = None,
        *,
        deterministic: bool = True,
    ) -> Float[Array, "batch length embed"]:
        """What the heads read.

        Args:
          video_tokens: codes, and `config.mask_token` where they are to be predicted.
          token_positions: (time, row, column) of each token.
          segment_ids: which example of its row a token belongs to, whose tokens and text it attends to and no others; 0
            is padding, which nothing attends to. None for rows of one whole example.
          text: a batch's, or what `read` gives; None for a model without text.
          deterministic: False while training with dropout.
        """
        config = self.config
        if isinstance(text, Text):
            text = self.read(text)
        masked = video_tokens == config.mask_token
        digits = split_codes(jnp.where(masked, 0, video_tokens), config.factors, offset=True)
        tokens = sum(self._table()[digit] for digit in digits)
        tokens = jnp.where(masked[..., None], self.mask_embedding.astype(self.dtype), tokens)
        tokens += positions_lib.sinusoidal_embedding(token_positions, config.width).astype(self.dtype)
        tokens = constrain(tokens, "batch", "length", "embed")
        mask = None if segment_ids is None else Segments(segment_ids, segment_ids)
        context_mask = None
        if text is not None:
            own = jnp.ones((1, 1), jnp.int32) if segment_ids is None else segment_ids
            context_mask = Segments(own, text.segment_ids)
        features, _ = self.stack(
            tokens,
            angles=positions_lib.rotary_angles(token_positions, config.stack.head_width),
            mask=mask,
            context=None if text is None else text.key_values,
            context_mask=context_mask,
            deterministic=deterministic,
        )
        return features

    def logits(self, features: Float[Array, "*batch embed"]) -> Logits:
        """Logits over the codes, or over each factor of them, in float32."""
        head = self.head
        if self.config.code_levels:
            head = head + self.digit_head @ _code_digits(self.config.code_levels).T
        joint = linear(features.astype(jnp.float32), head)
        if joint.ndim == 3:
            joint = constrain(joint, "batch", "length", "codes")
        ends = [sum(self.config.factors[:count]) for count in range(1, len(self.config.factors))]
        return tuple(jnp.split(joint, ends, axis=-1))

    def scores(self, features: Float[Array, "*batch embed"]) -> Float[Array, "*batch"]:
        """Logits of a token being the video's own, in float32."""
        return linear(features.astype(jnp.float32), self.score_head)[..., 0]

    def _table(self) -> Float[Array, "vocab embed"]:
        table = self.embedding
        if self.config.code_levels:
            table = table + _code_digits(self.config.code_levels) @ self.digit_embedding
        return table.astype(self.dtype)


def _code_digits(levels: tuple[int, ...]) -> Float[Array, "codes digits"]:
    """Which level of which dimension each code of a finite scalar quantizer has, as ones in a table."""
    digits = split_codes(jnp.arange(math.prod(levels)), levels)
    return jnp.concatenate([jax.nn.one_hot(digit, level) for digit, level in zip(digits, levels, strict=True)], axis=1)
