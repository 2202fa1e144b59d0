"""One window of video from text: tokenizer, text encoder and masked transformer put together."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt8

from phenaki_jax.errors import UserError, check_types
from phenaki_jax.inference.decoding import SamplingConfig, decode_tokens
from phenaki_jax.layers import pixels
from phenaki_jax.layers.module import apply
from phenaki_jax.layers.positions import grid_positions
from phenaki_jax.text.encoder import TextEncoder, TextEncoderConfig
from phenaki_jax.tokenizer.config import CViViTConfig
from phenaki_jax.tokenizer.cvivit import CViViT
from phenaki_jax.transformer.config import TransformerConfig
from phenaki_jax.transformer.model import MaskedTransformer


@dataclasses.dataclass(frozen=True)
class PhenakiConfig:
    """The three models that make video from text, checked against each other.

    Attributes:
      tokenizer: sizes of the C-ViViT.
      text: sizes of the text encoder.
      transformer: sizes of the masked transformer.
    """

    tokenizer: CViViTConfig
    text: TextEncoderConfig
    transformer: TransformerConfig

    def __post_init__(self) -> None:
        check_types(self)
        self.transformer.check_codebook(self.tokenizer.quantizer.codebook_size)
        quantizer, levels = self.tokenizer.quantizer, self.transformer.code_levels
        if levels and (quantizer.kind != "fsq" or tuple(levels) != tuple(quantizer.levels)):
            found = f"levels {tuple(quantizer.levels)}" if quantizer.kind == "fsq" else f"kind {quantizer.kind}"
            raise UserError(
                f"the transformer's code_levels are {tuple(levels)} but the tokenizer's quantizer has {found}; "
                "make them equal, or leave code_levels empty"
            )
        if self.text.width != self.transformer.text_width:
            raise UserError(
                f"the text encoder's width is {self.text.width} but the transformer reads "
                f"{self.transformer.text_width}; "
                "set TransformerConfig.text_width to the text encoder's width"
            )

    @property
    def token_shape(self) -> tuple[int, int, int]:
        """(times, rows, columns) of one window."""
        return (self.tokenizer.times(self.tokenizer.frames), *self.tokenizer.grid())

    def known_tokens(self, prefix_frames: Int[Array, " batch"]) -> Bool[Array, "batch length"]:
        """Which tokens of a window are those of its first frames, for 0 or 1 + k * temporal_patch of them."""
        times, rows, columns = self.token_shape
        patch = self.tokenizer.temporal_patch
        known_times = jnp.where(prefix_frames > 0, (prefix_frames - 1) // patch + 1, 0)
        time = jnp.arange(times * rows * columns) // (rows * columns)
        return time[None, :] < known_times[:, None]


def all_logits(
    config: PhenakiConfig,
    params: Any,
    video_tokens: Int[Array, "batch length"],
    token_mask: Bool[Array, "batch length"],
    text_embeddings: Float[Array, "batch text_length text_width"],
    text_mask: Bool[Array, "batch text_length"],
    drop_text: Bool[Array, " batch"],
    dtype: DTypeLike = jnp.float32,
    **options: Any,
) -> Float[Array, "batch length codes"]:
    """Logits of the masked transformer for windows of `config.token_shape`."""
    positions = grid_positions(*config.token_shape)[None]
    model = MaskedTransformer(config.transformer, dtype)
    return apply(model, params, video_tokens, positions, token_mask, text_embeddings, text_mask, drop_text, **options)


def generate_window(
    config: PhenakiConfig,
    sampling: SamplingConfig,
    params: Any,
    text_tokens: Int[Array, "batch text_length"],
    text_mask: Bool[Array, "batch text_length"],
    prefix: UInt8[Array, "batch prefix_frames height width 3"],
    rng: PRNGKeyArray,
) -> UInt8[Array, "batch frames height width 3"]:
    """Draws one window of video that begins with given frames (none, or 1 + k * temporal_patch).

    Args:
      config: the models.
      sampling: how tokens are drawn.
      params: of "tokenizer", "text" and "transformer".
      text_tokens: prompts.
      text_mask: False for padding.
      prefix: the frames it begins with; they are encoded anew (Phenaki, section 2.3).
      rng: randomness.

    Returns:
      All frames of the window, the given ones as they came.
    """
    times, rows, columns = config.token_shape
    batch, given = text_tokens.shape[0], prefix.shape[1]
    tokenizer = CViViT(config.tokenizer)
    known_tokens = jnp.zeros((batch, times, rows, columns), jnp.int32)
    if given:
        encoded = apply(tokenizer, params["tokenizer"], pixels.to_float(prefix), method="encode")
        known_tokens = known_tokens.at[:, : encoded.shape[1]].set(encoded)
    known = jnp.broadcast_to(config.known_tokens(jnp.asarray([given])), (batch, times * rows * columns))
    embeddings = apply(TextEncoder(config.text), params["text"], text_tokens, text_mask)
    # Conditional and unconditional halves run as one batch.
    twice = lambda array: jnp.concatenate([array, array])  # noqa: E731
    drop_text = jnp.arange(2 * batch) >= batch
    token_mask = jnp.ones((2 * batch, known.shape[1]), bool)

    def logits_of(tokens: Array) -> tuple[Array, Array]:
        logits = all_logits(
            config, params["transformer"], twice(tokens), token_mask, twice(embeddings), twice(text_mask), drop_text
        )
        return logits[:batch], logits[batch:]

    flat = known_tokens.reshape(batch, -1)
    tokens = decode_tokens(logits_of, sampling, rng, flat, known, config.transformer.mask_token)
    video = apply(tokenizer, params["tokenizer"], tokens.reshape(batch, times, rows, columns), method="decode")
    return jnp.concatenate([prefix, pixels.to_uint8(video[:, given:])], axis=1)
