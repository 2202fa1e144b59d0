"""One window of video from text: tokenizer, text encoder and masked transformer put together."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, Key, UInt8

from phenaki_jax.errors import UserError, check_types
from phenaki_jax.inference.decoding import SamplingConfig, TokenModel, decode_tokens
from phenaki_jax.inference.orders import halton_order
from phenaki_jax.layers import pixels
from phenaki_jax.layers.module import apply
from phenaki_jax.layers.positions import grid_positions
from phenaki_jax.text.encoder import TextEncoder, TextEncoderConfig
from phenaki_jax.text.t5 import T5Config, T5Encoder
from phenaki_jax.tokenizer.config import CViViTConfig
from phenaki_jax.tokenizer.cvivit import CViViT
from phenaki_jax.transformer.config import TransformerConfig
from phenaki_jax.transformer.model import Logits, MaskedTransformer, Text


@dataclasses.dataclass(frozen=True)
class PhenakiConfig:
    """The three models that make video from text, checked against each other.

    Attributes:
      tokenizer: sizes of the C-ViViT.
      text: sizes of the text encoder, one that is trained with the transformer or a frozen T5; None for a model that
        draws without text, such as the prediction model.
      transformer: sizes of the masked transformer.
      critic: sizes of a token critic of its own; None for none, or for a transformer that is its own critic.
    """

    tokenizer: CViViTConfig
    text: TextEncoderConfig | T5Config | None
    transformer: TransformerConfig
    critic: TransformerConfig | None = None

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
        factors = self.transformer.code_factors
        if factors and tuple(factors) != quantizer.factors:
            raise UserError(
                f"the transformer's code_factors are {tuple(factors)} but those of the tokenizer's quantizer are "
                f"{quantizer.factors}; make them equal, or leave code_factors empty"
            )
        if not self.transformer.predicts_codes:
            raise UserError(
                f"the transformer's predicts is {self.transformer.predicts!r}, expected 'codes' or 'codes_and_scores': "
                "a network for scores alone is PhenakiConfig.critic"
            )
        if self.critic is not None:
            self._check_critic(self.critic)
        width = 0 if self.text is None else self.text.width
        if width != self.transformer.text_width:
            raise UserError(
                f"the text encoder's width is {width} but the transformer reads {self.transformer.text_width}; "
                "set TransformerConfig.text_width to the text encoder's width, or to 0 where there is none"
            )

    def _check_critic(self, critic: TransformerConfig) -> None:
        if critic.predicts != "scores" or self.transformer.predicts_scores:
            raise UserError(
                f"found a critic that predicts {critic.predicts!r} and a transformer that predicts "
                f"{self.transformer.predicts!r}, expected 'scores' and 'codes': one critic, and nothing but a critic"
            )
        for name in ("codebook_size", "code_factors", "text_width"):
            found, wanted = getattr(critic, name), getattr(self.transformer, name)
            if found != wanted:
                raise UserError(f"the critic's {name} is {found} but the transformer's is {wanted}; make them equal")

    @property
    def text_length(self) -> int:
        """The longest text, in tokens; 0 without text."""
        return 0 if self.text is None else self.text.length

    @property
    def token_shape(self) -> tuple[int, int, int]:
        """(times, rows, columns) of one window."""
        return (self.tokenizer.times(self.tokenizer.frames), *self.tokenizer.grid())

    @property
    def has_frozen_text(self) -> bool:
        """Whether the text encoder is a released one that is not trained."""
        return isinstance(self.text, T5Config)

    def known_tokens(self, prefix_frames: Int[Array, " batch"]) -> Bool[Array, "batch length"]:
        """Which tokens of a window are those of its first frames, for 0 or 1 + k * temporal_patch of them."""
        times, rows, columns = self.token_shape
        patch = self.tokenizer.temporal_patch
        known_times = jnp.where(prefix_frames > 0, (prefix_frames - 1) // patch + 1, 0)
        time = jnp.arange(times * rows * columns) // (rows * columns)
        return time[None, :] < known_times[:, None]


class WindowTexts(NamedTuple):
    """What a window is to show.

    Attributes:
      embeddings: of one text, or of several that are mixed, for each row.
      mask: False for padding.
      shares: of each text; they add up to 1 in each row. A window half way from one prompt to the next has both.
      negative_embeddings: of a text that guidance moves away from; None for the null text.
      negative_mask: False for padding.
      dropped: rows that have no text, for which the null text stands; None where all have one.
    """

    embeddings: Float[Array, "texts batch text_length text_width"]
    mask: Bool[Array, "texts batch text_length"]
    shares: Float[Array, "texts batch"]
    negative_embeddings: Float[Array, "batch text_length text_width"] | None = None
    negative_mask: Bool[Array, "batch text_length"] | None = None
    dropped: Bool[Array, " batch"] | None = None


def single_texts(
    embeddings: Float[Array, "batch text_length text_width"], mask: Bool[Array, "batch text_length"]
) -> WindowTexts:
    """One text for each row, and the null text to move away from."""
    return WindowTexts(embeddings[None], mask[None], jnp.ones((1, mask.shape[0])))


def encode_text(
    config: PhenakiConfig,
    params: Any,
    text_tokens: Int[Array, "batch text_length"],
    text_mask: Bool[Array, "batch text_length"],
    dtype: DTypeLike = jnp.float32,
) -> Float[Array, "batch text_length text_width"]:
    """Embeddings of texts by the text encoder of a model; `params` are its own.

    Those of a frozen T5 are rounded to bfloat16, as they are stored where they are precomputed.

    Raises:
      ValueError: the model has no text encoder.
    """
    if config.text is None:
        raise ValueError("a model without a text encoder embeds no texts")
    encoder = text_module(config.text, dtype)
    embeddings: Any = apply(encoder, params, text_tokens, text_mask)
    return embeddings.astype(jnp.bfloat16) if isinstance(encoder, T5Encoder) else embeddings


def text_module(config: TextEncoderConfig | T5Config, dtype: DTypeLike = jnp.float32) -> TextEncoder | T5Encoder:
    """The text encoder in these sizes."""
    return T5Encoder(config, dtype) if isinstance(config, T5Config) else TextEncoder(config, dtype)


def draw_tokens(
    config: PhenakiConfig,
    sampling: SamplingConfig,
    params: Any,
    texts: WindowTexts | None,
    known_tokens: Int[Array, "batch times rows columns"],
    known: Bool[Array, "batch times rows columns"],
    rngs: Key[Array, " batch"],
    dtype: DTypeLike = jnp.float32,
    guidance: Float[Array, ""] | None = None,
) -> Int[Array, "batch times rows columns"]:
    """Draws all tokens of windows that are not known.

    Args:
      config: the models.
      sampling: how tokens are drawn.
      params: of "transformer" and, where there is one, "critic".
      texts: what the windows show; None for a model without text, whose logits nothing guides.
      known_tokens: tokens that are given, anything elsewhere.
      known: where they are given.
      rngs: a key for each row, which depends on no other row.
      dtype: type of the computation.
      guidance: its scale, where a program is given it when it runs; None for that of `sampling`.

    Raises:
      UserError: the sampler needs a critic that the model has not.
    """
    shape, batch = known.shape[1:], known.shape[0]
    positions = grid_positions(*shape)[None]
    guided = texts is not None and (guidance is not None or sampling.guidance > 0)
    conditions = 1 if texts is None else len(texts.mask) + guided
    transformer = MaskedTransformer(config.transformer, dtype)
    read = None
    if texts is not None:
        read = apply(transformer, params["transformer"], _conditions(texts, guided=guided), method="read")

    def features(tokens: Array) -> Array:
        each = jnp.repeat(tokens, conditions, axis=0)
        found = apply(transformer, params["transformer"], each, positions, None, read, method="features")
        return jnp.moveaxis(found.reshape(batch, conditions, *found.shape[1:]), 1, 0)

    def logits(found: Array) -> Logits:
        return apply(transformer, params["transformer"], found, method="logits")

    model = TokenModel(
        features,
        logits,
        jnp.ones((1, batch)) if texts is None else texts.shares,
        _scores(config, params, texts, positions, dtype),
        config.transformer.factors,
        config.transformer.mask_token,
        guidance,
    )
    flat = (known_tokens.reshape(batch, -1), known.reshape(batch, -1))
    order = jnp.asarray(halton_order(*shape))
    return decode_tokens(model, sampling, rngs, *flat, order).reshape(known.shape)


def _conditions(texts: WindowTexts, *, guided: bool) -> Text:
    """The texts of a row one below the other, then what guidance moves it away from; then those of the next row.

    So all that a row needs lies on one device, where rows are divided over several.
    """
    embeddings, mask = texts[:2]
    dropped = jnp.zeros(mask.shape, bool)
    if texts.dropped is not None:
        dropped = jnp.broadcast_to(texts.dropped[:, None], mask.shape)
    if guided:
        away, away_mask = texts.negative_embeddings, texts.negative_mask
        null = away is None or away_mask is None
        embeddings = jnp.concatenate([embeddings, (texts.embeddings[0] if away is None else away)[None]])
        mask = jnp.concatenate([mask, (texts.mask[0] if away_mask is None else away_mask)[None]])
        dropped = jnp.concatenate([dropped, jnp.full(mask[:1].shape, null)])
    below = lambda array: jnp.moveaxis(array, 1, 0).reshape(-1, *array.shape[2:])  # noqa: E731
    return Text(below(embeddings), below(mask).astype(jnp.int32), below(dropped))


def _scores(
    config: PhenakiConfig, params: Any, texts: WindowTexts | None, positions: Array, dtype: DTypeLike
) -> Callable[[Array], Array] | None:
    """The critic's scores of tokens given the text that has the largest share; None without a critic."""
    sizes, name = (config.transformer, "transformer") if config.critic is None else (config.critic, "critic")
    if not sizes.predicts_scores:
        return None
    critic, network = MaskedTransformer(sizes, dtype), params[name]
    read = None
    if texts is not None:
        largest = jnp.argmax(texts.shares, axis=0)
        pick = jax.vmap(lambda array, index: array[index], in_axes=(1, 0))
        text = single_texts(pick(texts.embeddings, largest), pick(texts.mask, largest))._replace(dropped=texts.dropped)
        read = apply(critic, network, _conditions(text, guided=False), method="read")

    def scores(tokens: Array) -> Array:
        found = apply(critic, network, tokens, positions, None, read, method="features")
        return apply(critic, network, found, method="scores")

    return scores


def redraw_window(
    config: PhenakiConfig,
    sampling: SamplingConfig,
    params: Any,
    texts: WindowTexts | None,
    video: UInt8[Array, "batch frames height width 3"],
    redrawn: Bool[Array, "batch frames height width"],
    rngs: Key[Array, " batch"],
    dtype: DTypeLike = jnp.float32,
) -> UInt8[Array, "batch frames height width 3"]:
    """Draws a part of windows anew (in-painting), the rest being given.

    Args:
      config: the models.
      sampling: how tokens are drawn.
      params: as for `generate_window`.
      texts: what the windows are to show.
      video: whole windows.
      redrawn: pixels to draw anew; tokens that cover any of them are.
      rngs: a key for each row, which depends on no other row.
      dtype: type of the transformer's computation.

    Returns:
      The windows, with the pixels that are not drawn anew as they came.
    """
    tokenizer = CViViT(config.tokenizer)
    tokens = apply(tokenizer, params["tokenizer"], pixels.to_float(video), method="encode")
    known = ~_covering_tokens(config.tokenizer, redrawn)
    tokens = draw_tokens(config, sampling, params, texts, tokens, known, rngs, dtype)
    drawn = pixels.to_uint8(apply(tokenizer, params["tokenizer"], tokens, method="decode"))
    return jnp.where(redrawn[..., None], drawn, video)


def _covering_tokens(
    config: CViViTConfig, which: Bool[Array, "batch frames height width"]
) -> Bool[Array, "batch times rows columns"]:
    """Tokens that cover any of these pixels."""
    batch, _, height, width = which.shape
    grid = (height // config.patch, config.patch, width // config.patch, config.patch)
    patches = jnp.any(which.reshape(batch, -1, *grid), axis=(3, 5))
    later = patches[:, 1:].reshape(batch, -1, config.temporal_patch, *patches.shape[2:])
    return jnp.concatenate([patches[:, :1], jnp.any(later, axis=2)], axis=1)


def generate_window(
    config: PhenakiConfig,
    sampling: SamplingConfig,
    params: Any,
    texts: WindowTexts | None,
    prefix: UInt8[Array, "batch prefix_frames height width 3"],
    rngs: Key[Array, " batch"],
    dtype: DTypeLike = jnp.float32,
    guidance: Float[Array, ""] | None = None,
) -> UInt8[Array, "batch frames height width 3"]:
    """Draws one window of video that begins with given frames (none, or 1 + k * temporal_patch).

    Args:
      config: the models.
      sampling: how tokens are drawn.
      params: of "tokenizer", "transformer" and, where there is one, "critic".
      texts: what the windows show; None for a model without text.
      prefix: the frames it begins with; they are encoded anew (Phenaki, section 2.3).
      rngs: a key for each row, which depends on no other row.
      dtype: type of the transformer's computation.
      guidance: see `draw_tokens`.

    Returns:
      All frames of the window, the given ones as they came, the new ones moved in colour by as much as the given ones
      lie, in their mean, beside what is decoded of their tokens.
    """
    batch, given = prefix.shape[:2]
    tokenizer = CViViT(config.tokenizer)
    known_tokens = jnp.zeros((batch, *config.token_shape), jnp.int32)
    known = jnp.zeros(known_tokens.shape, bool)
    if given:
        encoded = apply(tokenizer, params["tokenizer"], pixels.to_float(prefix), method="encode")
        known_tokens = known_tokens.at[:, : encoded.shape[1]].set(encoded)
        known = known.at[:, : encoded.shape[1]].set(True)
    tokens = draw_tokens(config, sampling, params, texts, known_tokens, known, rngs, dtype, guidance)
    video = apply(tokenizer, params["tokenizer"], tokens, method="decode")
    if not given:
        return pixels.to_uint8(video)
    # What tokens lose of the given frames' colour they lose of the new ones' too: without this, a join shows.
    video += jnp.mean(pixels.to_float(prefix) - video[:, :given], axis=(1, 2, 3), keepdims=True)
    return jax.lax.dynamic_update_slice(pixels.to_uint8(video), prefix, (0, 0, 0, 0, 0))
