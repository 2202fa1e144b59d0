"""Rows of video tokens with their texts, several examples in each, as the masked transformer is trained on them."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, Shaped, UInt8

from phenaki_jax.inference.window import PhenakiConfig, encode_text
from phenaki_jax.layers import pixels
from phenaki_jax.layers.module import apply
from phenaki_jax.layers.positions import grid_positions
from phenaki_jax.tokenizer.config import CViViTConfig
from phenaki_jax.tokenizer.cvivit import CViViT
from phenaki_jax.training.learner import Batch


class Rows(NamedTuple):
    """What the transformer is trained on; several examples may share a row.

    Attributes:
      tokens: codes.
      positions: (time, row, column) of each.
      segment_ids: which example of its row each belongs to, from 1; 0 is padding.
      candidates: tokens that may be masked: no padding, nothing given.
      embeddings: of the texts; None without text, as the next.
      text_segment_ids: as `segment_ids`.
      places: tokens of one time step.
      segments: most examples of a row.
    """

    tokens: Int[Array, "batch length"]
    positions: Int[Array, "#batch length 3"]
    segment_ids: Int[Array, "batch length"]
    candidates: Bool[Array, "batch length"]
    embeddings: Float[Array, "batch text_length text_width"] | None
    text_segment_ids: Int[Array, "batch text_length"] | None
    places: int
    segments: int

    @property
    def filled(self) -> Bool[Array, "batch segments"]:
        """Which examples there are."""
        return self._any(self.segment_ids > 0)

    @property
    def moving(self) -> Bool[Array, "batch length"]:
        """Tokens of videos, and not of images."""
        return of_segment(self._any(self.positions[..., 0] > 0), self.segment_ids)

    @property
    def prefixed(self) -> Bool[Array, "batch length"]:
        """Tokens of videos whose first frames are given."""
        return of_segment(self._any(~self.candidates), self.segment_ids)

    def _any(self, which: Bool[Array, "#batch length"]) -> Bool[Array, "batch segments"]:
        own = jax.nn.one_hot(self.segment_ids - 1, self.segments, dtype=bool)
        return jnp.any(own & which[..., None], axis=1)


def of_segment(values: Shaped[Array, "batch segments"], segment_ids: Int[Array, "batch length"]) -> Array:
    """The value of the example that each token belongs to; that of the first one for padding."""
    return jnp.take_along_axis(values, jnp.maximum(segment_ids - 1, 0), axis=1)


def rows_of(model: PhenakiConfig, params: Any, batch: Batch, dtype: DTypeLike) -> Rows:
    """Tokens and embeddings of a batch, computed where they do not come with it."""
    embeddings, text_segment_ids = (None, None) if model.text is None else texts_of(model, params, batch, dtype)
    places = math.prod(model.tokenizer.grid())
    if "video_tokens" in batch:
        tokens, positions, segment_ids = (batch[name] for name in ("video_tokens", "token_positions", "segment_ids"))
        known, segments = batch["known"], batch["filled"].shape[1]
    else:
        # Frames of any size that the tokenizer takes: the model's own is that of what it draws.
        sizes = dataclasses.replace(model.tokenizer, frame_size=batch["video"].shape[2])
        config = dataclasses.replace(model, tokenizer=sizes)
        segments = batch["text_tokens"].shape[1] if "packed_images" in batch else 1
        places = math.prod(sizes.grid())
        tokens = _encode_rows(sizes, params["tokenizer"], batch["video"], batch.get("packed_images"))
        tokens = jax.lax.stop_gradient(tokens).reshape(len(tokens), -1)
        times = sizes.time_mask(batch["frame_mask"]).astype(jnp.int32)
        positions = grid_positions(*config.token_shape)[None]
        if "packed_images" in batch:
            slots = jnp.arange(times.shape[1])
            packed = batch["packed_images"][:, None]
            times = jnp.where(packed > 0, jnp.where(slots < packed, slots + 1, 0), times)
            still = jnp.concatenate([jnp.zeros_like(positions[..., :1]), positions[..., 1:]], axis=-1)
            positions = jnp.where(packed[..., None] > 0, still, positions)
        segment_ids = jnp.repeat(times, places, axis=1)
        known = config.known_tokens(batch["prefix_frames"])
    return Rows(
        tokens, positions, segment_ids, (segment_ids > 0) & ~known, embeddings, text_segment_ids, places, segments
    )


def texts_of(model: PhenakiConfig, params: Any, batch: Batch, dtype: DTypeLike) -> tuple[Array, Array]:
    """Embeddings of a row's texts one after the other, and which of its examples each token belongs to."""
    if "text_embeddings" in batch:
        return batch["text_embeddings"], batch["text_segment_ids"]
    tokens, mask = batch["text_tokens"], batch["text_mask"]
    texts, length = math.prod(tokens.shape[:-1]), tokens.shape[-1]
    flat = (tokens.reshape(texts, length), mask.reshape(texts, length))
    embeddings = encode_text(model, params["text"], *flat, dtype)
    segments = jnp.arange(texts).reshape(len(tokens), -1, 1) % (texts // len(tokens)) + 1
    segment_ids = jnp.where(mask.reshape(len(tokens), -1, length), segments, 0)
    return embeddings.reshape(len(tokens), -1, embeddings.shape[-1]), segment_ids.reshape(len(tokens), -1)


def _encode_rows(
    config: CViViTConfig, params: Any, video: UInt8[Array, "..."], packed_images: Int[Array, " batch"] | None
) -> Int[Array, "batch times rows columns"]:
    """Tokens of videos; of a row of images, which stand in its first frames, those of each image in a time step."""
    tokenizer, pixels_of = CViViT(config), pixels.to_float(video)
    tokens = apply(tokenizer, params, pixels_of, method="encode")
    if packed_images is None:
        return tokens
    images = pixels_of[:, : tokens.shape[1]].reshape(-1, 1, *video.shape[2:])
    alone = apply(tokenizer, params, images, method="encode").reshape(tokens.shape)
    return jnp.where(packed_images[:, None, None, None] > 0, alone, tokens)
