"""Videos of any length, tokenized and drawn chunk by chunk in memory that does not grow."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Int, UInt8

from phenaki_jax.errors import UserError, kind_of
from phenaki_jax.inference.compiled import fetched
from phenaki_jax.layers import pixels
from phenaki_jax.layers.module import apply
from phenaki_jax.tokenizer.config import CViViTConfig
from phenaki_jax.tokenizer.cvivit import CViViT, Past
from phenaki_jax.tokenizer.quantizers import check_tokens


def check_chunks(chunks: object) -> None:
    """Refuses what holds no chunks of a stream, before any is taken.

    Raises:
      UserError: an array, which is one chunk, or what cannot be gone through.
    """
    if isinstance(chunks, np.ndarray | jax.Array):
        raise UserError(
            f"chunks: found an array of shape {list(chunks.shape)}, expected several in order; give one as [chunk]"
        )
    if not isinstance(chunks, Iterable):
        raise UserError(f"chunks: found {kind_of(chunks)}, expected a list or a generator of arrays")


class _Stream:
    """What has been seen of a stream.

    Args:
      config: of the tokenizer.
      params: of the tokenizer.
    """

    def __init__(self, config: CViViTConfig, params: Any) -> None:
        self._config, self._params = config, params
        self._past: Past | None = None
        self._shape: tuple[int, ...] = ()

    def _go_on(self, run: Callable[..., tuple[Array, Past]], sides: str, chunk: np.ndarray) -> np.ndarray:
        """What `run` makes of the next chunk, whose second axis is time; the shape without it stays the same."""
        shape = (chunk.shape[0], *chunk.shape[2:4])
        if self._shape and shape != self._shape:
            raise UserError(
                f"found a chunk of [batch, {sides}] = {list(shape)}, expected {list(self._shape)} as in the chunks "
                "before; begin a new stream for another video"
            )
        made, self._past = run(self._config, self._params, chunk, self._past)
        self._shape = shape
        return fetched(made)


class StreamEncoder(_Stream):
    """Tokens of videos that come chunk by chunk, as encoding them whole gives them.

    Attributes:
      frames: how many were encoded so far.
    """

    def __init__(self, config: CViViTConfig, params: Any) -> None:
        super().__init__(config, params)
        self.frames = 0

    def encode(
        self, video: UInt8[np.ndarray, "batch frames height width 3"], first_frame: int | None = None
    ) -> Int[np.ndarray, "batch times rows columns"]:
        """Tokens of the next frames: of 1 + k * temporal_patch in the first chunk, of k * temporal_patch in others.

        Args:
          video: the chunk.
          first_frame: which frame of the stream the chunk begins with, to have it checked.

        Raises:
          UserError: what is no batch of videos in uint8, a number of frames that fills no whole tokens, or a chunk that
            does not go on from the one before: another size, another number of videos, another frame than the next.
        """
        pixels.check_video("chunk", video)
        self._check_length(video.shape[1])
        _check_next("frame", first_frame, self.frames)
        tokens = self._go_on(_encode_chunk, "height, width", video)
        self.frames += video.shape[1]
        return tokens

    def _check_length(self, frames: int) -> None:
        try:
            self._config.later_times(frames) if self.frames else self._config.times(frames)
        except UserError as error:
            place = (
                f"the stream is at frame {self.frames}, and an image begins a new one"
                if self.frames
                else f"this is the first chunk, and later ones are of k * {self._config.temporal_patch} frames"
            )
            raise UserError(f"{error}; {place}") from error


class StreamDecoder(_Stream):
    """Frames of tokens that come chunk by chunk, as decoding them whole gives them.

    Attributes:
      steps: how many time steps were decoded so far.
    """

    def __init__(self, config: CViViTConfig, params: Any) -> None:
        super().__init__(config, params)
        self.steps = 0

    def decode(
        self, tokens: Int[np.ndarray, "batch times rows columns"], first_step: int | None = None
    ) -> UInt8[np.ndarray, "batch frames height width 3"]:
        """Frames of the next time steps.

        Args:
          tokens: the chunk.
          first_step: which time step of the stream the chunk begins with, to have it checked.

        Raises:
          UserError: the tokens have another number of axes, there are none, one is not in the codebook, or they do not
            go on from those before: another grid, another number of videos, another time step than the next.
        """
        check_tokens(self._config.quantizer, tokens)
        _check_next("time step", first_step, self.steps)
        frames = self._go_on(_decode_chunk, "rows, columns", tokens)
        self.steps += tokens.shape[1]
        return frames


def _check_next(what: str, found: int | None, expected: int) -> None:
    if found not in (None, expected):
        raise UserError(
            f"found a chunk that begins with {what} {found}, expected {what} {expected}, the next of the stream; give "
            "the chunks in order, or begin a new stream"
        )


@functools.partial(jax.jit, static_argnums=0)
def _encode_chunk(
    config: CViViTConfig, params: Any, video: UInt8[Array, "..."], past: Past | None
) -> tuple[Int[Array, "..."], Past]:
    chunk: Any = apply(CViViT(config), params, pixels.to_float(video), past, method="encode_chunk")
    return chunk


@functools.partial(jax.jit, static_argnums=0)
def _decode_chunk(
    config: CViViTConfig, params: Any, tokens: Int[Array, "..."], past: Past | None
) -> tuple[UInt8[Array, "..."], Past]:
    chunk: Any = apply(CViViT(config), params, tokens, past, method="decode_chunk")
    return pixels.to_uint8(chunk[0]), chunk[1]
