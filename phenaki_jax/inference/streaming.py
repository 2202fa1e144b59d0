"""Videos of any length, tokenized and drawn chunk by chunk in memory that does not grow."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Int, UInt8

from phenaki_jax.errors import UserError
from phenaki_jax.layers import pixels
from phenaki_jax.layers.module import apply
from phenaki_jax.tokenizer.config import CViViTConfig
from phenaki_jax.tokenizer.cvivit import CViViT, Past
from phenaki_jax.tokenizer.quantizers import check_indices


class StreamEncoder:
    """Tokens of videos that come chunk by chunk, as encoding them whole gives them.

    Args:
      config: of the tokenizer.
      params: of the tokenizer.
    """

    def __init__(self, config: CViViTConfig, params: Any) -> None:
        self._config, self._params = config, params
        self._past: Past | None = None
        self._shape: tuple[int, ...] = ()
        self.frames = 0
        """Frames encoded so far."""

    def encode(
        self, video: UInt8[np.ndarray, "batch frames height width 3"], first_frame: int | None = None
    ) -> Int[np.ndarray, "batch times rows columns"]:
        """Tokens of the next frames: of 1 + k * temporal_patch in the first chunk, of k * temporal_patch in others.

        Args:
          video: the chunk.
          first_frame: which frame of the stream the chunk begins with, to have it checked.

        Raises:
          UserError: pixels that are not uint8, a number of frames that fills no whole tokens, or a chunk that does not
            go on from the one before: another size, another number of videos, another frame than the next.
        """
        pixels.check_video("chunk", video)
        shape = (video.shape[0], *video.shape[2:])
        if self._shape and shape != self._shape:
            raise UserError(
                f"found a chunk of {_told(shape)}, expected {_told(self._shape)} as in the chunks before; "
                "begin a new stream for another video"
            )
        if first_frame not in (None, self.frames):
            raise UserError(
                f"found a chunk that begins with frame {first_frame}, expected frame {self.frames}, the next of the "
                "stream; give the chunks in order, or begin a new stream"
            )
        tokens, self._past = _encode_chunk(self._config, self._params, video, self._past)
        self._shape = shape
        self.frames += video.shape[1]
        return np.asarray(tokens)


class StreamDecoder:
    """Frames of tokens that come chunk by chunk, as decoding them whole gives them.

    Args:
      config: of the tokenizer.
      params: of the tokenizer.
    """

    def __init__(self, config: CViViTConfig, params: Any) -> None:
        self._config, self._params = config, params
        self._past: Past | None = None
        self._shape: tuple[int, ...] = ()

    def decode(
        self, tokens: Int[np.ndarray, "batch times rows columns"]
    ) -> UInt8[np.ndarray, "batch frames height width 3"]:
        """Frames of the next time steps.

        Raises:
          UserError: a token is not in the codebook, or the tokens are of another grid or number of videos than before.
        """
        check_indices(self._config.quantizer, tokens)
        shape = (tokens.shape[0], *tokens.shape[2:])
        if self._shape and shape != self._shape:
            raise UserError(
                f"found tokens [batch, rows, columns] = {list(shape)}, expected {list(self._shape)} as in the chunks "
                "before; begin a new stream for another video"
            )
        frames, self._past = _decode_chunk(self._config, self._params, tokens, self._past)
        self._shape = shape
        return np.asarray(frames)


def encode_stream(
    config: CViViTConfig, params: Any, chunks: Iterable[UInt8[np.ndarray, "batch _ height width 3"]]
) -> Iterator[Int[np.ndarray, "batch times rows columns"]]:
    """Tokens of each chunk of a video; see `StreamEncoder`."""
    encoder = StreamEncoder(config, params)
    for chunk in chunks:
        yield encoder.encode(chunk)


def decode_stream(
    config: CViViTConfig, params: Any, chunks: Iterable[Int[np.ndarray, "batch _ rows columns"]]
) -> Iterator[UInt8[np.ndarray, "batch frames height width 3"]]:
    """Frames of each chunk of tokens; see `StreamDecoder`."""
    decoder = StreamDecoder(config, params)
    for chunk in chunks:
        yield decoder.decode(chunk)


def _told(shape: tuple[int, ...]) -> str:
    batch, height, width, _ = shape
    return f"{batch} video{'s' if batch != 1 else ''} of {height}x{width} pixels"


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
