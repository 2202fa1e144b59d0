"""The way to use a trained model: load it, make video from text, and tokenize."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Key, UInt8

from phenaki_jax.errors import UserError
from phenaki_jax.inference import compiled
from phenaki_jax.inference.decoding import SamplingConfig
from phenaki_jax.inference.export import load_exported
from phenaki_jax.inference.model_file import ModelMetadata, tokenizer_config, usual_metadata
from phenaki_jax.inference.story import Scene, Story, WindowPrompt, tell_stories, tell_story
from phenaki_jax.inference.streaming import StreamDecoder, StreamEncoder, check_chunks
from phenaki_jax.inference.window import PhenakiConfig, WindowTexts
from phenaki_jax.layers import pixels
from phenaki_jax.text.byte_tokenizer import ByteTokenizer
from phenaki_jax.text.sentencepiece_tokenizer import SentencePieceTokenizer, fingerprint_of
from phenaki_jax.text.tokenizer import Tokenizer
from phenaki_jax.tokenizer.config import CViViTConfig
from phenaki_jax.tokenizer.quantizers import check_tokens

_NEGATIVE = ("negative_embeddings", "negative_mask")
_PROMPTS_KEPT = 64


class Phenaki:
    """A model with its parameters on the default device.

        model = Phenaki.load("model")
        video = model.generate("a red circle moves right")      # uint8 [1, frames, height, width, 3]

    Args:
      config: of all three models, or of a tokenizer, which cannot draw but reconstruct.
      params: trees of arrays for "tokenizer" and, for all three models, "text" and "transformer".
      metadata: how to sample, and what else is known.
      vocabulary: file of a frozen text encoder's vocabulary; None for bytes.
      fingerprint: of the parameters; empty where nobody has computed it.
      truncate_prompts: whether prompts that are too long are cut, and not refused.

    Raises:
      UserError: the vocabulary is not the text encoder's.
    """

    def __init__(
        self,
        config: PhenakiConfig | CViViTConfig,
        params: dict[str, Any],
        metadata: ModelMetadata | None = None,
        vocabulary: str | Path | None = None,
        fingerprint: str = "",
        *,
        truncate_prompts: bool = False,
    ) -> None:
        self.config, self.fingerprint, self._truncate_prompts = config, fingerprint, truncate_prompts
        self.vocabulary_fingerprint = fingerprint_of(vocabulary or "")
        text = config.text if isinstance(config, PhenakiConfig) else None
        self._text_tokenizer: Tokenizer = (
            ByteTokenizer()
            if vocabulary is None
            else SentencePieceTokenizer(vocabulary, None if text is None else text.vocabulary_size)
        )
        self.tokenizer = tokenizer_config(config)
        self.metadata = metadata or usual_metadata(config)
        self.params = jax.device_put(params)
        self._networks = {name: tree for name, tree in self.params.items() if name != "text"}
        self._embedded: dict[str, tuple[Array, np.ndarray]] = {}

    @classmethod
    def load(cls, folder: str | Path, *, truncate_prompts: bool = False) -> Phenaki:
        """Reads an exported model.

        Args:
          folder: that of the model.
          truncate_prompts: whether prompts that are too long are cut, and not refused.

        Raises:
          UserError: see `load_exported`.
        """
        return cls(*load_exported(folder), truncate_prompts=truncate_prompts)

    def generate(
        self,
        prompts: str | Sequence[str],
        *,
        seed: int = 0,
        frames: int | None = None,
        sampling: SamplingConfig | None = None,
        start: UInt8[np.ndarray, "*stories start_frames height width 3"] | None = None,
    ) -> UInt8[np.ndarray, "prompts frames height width 3"]:
        """Draws a video for each prompt; the one at index i is that of its prompt alone with `seed + i`.

        Args:
          prompts: what the videos show, by a single prompt each.
          seed: the same gives the same videos.
          frames: their length, `start` included; None for one window.
          sampling: how tokens are drawn; None for what the model was exported with.
          start: frames they begin with, as `video_files.fit_frames` gives them, for all or for each; an image is one.

        Raises:
          UserError: a prompt is empty or too long, the start does not fit, or the model is a tokenizer alone.
        """
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        if start is not None and start.ndim == 4:
            start = np.broadcast_to(start, (len(prompts), *start.shape))
        given = 0 if start is None else start.shape[1]
        if frames is not None and frames <= given:
            raise UserError(f"found frames {frames}, expected more than the {given} that the video begins with")
        scenes = [Scene(prompt, frames=None if frames is None else frames - given) for prompt in prompts]
        asked = {} if sampling is None else dataclasses.asdict(sampling)
        stories = [Story((scene,), seed=seed + index, **asked) for index, scene in enumerate(scenes)]
        told = list(tell_stories(self, stories, start))
        return np.concatenate(told if start is None else [start, *told], axis=1)

    def tell(
        self, story: Story, start: UInt8[np.ndarray, "start_frames height width 3"] | None = None
    ) -> Iterator[UInt8[np.ndarray, "new_frames height width 3"]]:
        """Draws a story window by window; see `tell_stories`."""
        return tell_story(self, story, start)

    def draw_windows(
        self,
        prompts: Sequence[WindowPrompt],
        prefix: UInt8[np.ndarray, "batch given height width 3"],
        rngs: Key[Array, " batch"],
        sampling: SamplingConfig,
    ) -> UInt8[np.ndarray, "batch frames height width 3"]:
        """Draws one window for each prompt, from 0 or 1 + k * temporal_patch given frames.

        Raises:
          UserError: see `check_prompts`, but that a model without text wants empty ones; or the sampler needs a critic
            that the model has not.
        """
        texts = self.texts(prompts, sampling)
        return compiled.fetched(compiled.draw_windows(self.config, sampling, self._networks, texts, prefix, rngs))

    def redraw(
        self,
        prompts: str | Sequence[str],
        video: UInt8[np.ndarray, "batch frames height width 3"],
        redrawn: Bool[np.ndarray, "batch frames height width"],
        *,
        seed: int = 0,
        sampling: SamplingConfig | None = None,
    ) -> UInt8[np.ndarray, "batch frames height width 3"]:
        """Draws a part of videos anew by prompts (in-painting); all other pixels stay as they are.

        Args:
          prompts: what each video is to show.
          video: one window each.
          redrawn: pixels to draw anew; patches that hold any of them are.
          seed: the same gives the same videos; that at index i has `seed + i`.
          sampling: how tokens are drawn; None for what the model was exported with.

        Raises:
          UserError: see `check_prompts`; videos that are no windows of the model, a mask of another shape or type, or
            another number of prompts than of videos.
        """
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        pixels.check_video("video", video)
        side = self.tokenizer.frame_size
        wanted = [len(prompts), self.tokenizer.frames, side, side]
        if list(video.shape[:4]) != wanted:
            raise UserError(
                f"video: found {list(video.shape)}, expected {[*wanted, 3]}, a window of the model for each prompt"
            )
        if redrawn.dtype != bool or list(redrawn.shape) != wanted:
            raise UserError(f"redrawn: found {redrawn.dtype} {list(redrawn.shape)}, expected bool {wanted}")
        sampling = sampling or self.metadata.sampling
        self.check_prompts(prompts)
        texts = self.texts([WindowPrompt(prompt) for prompt in prompts], sampling)
        rngs = jax.vmap(jax.random.key)(np.arange(seed, seed + len(prompts), dtype=np.uint32))
        return compiled.fetched(compiled.redraw(self.config, sampling, self._networks, texts, video, redrawn, rngs))

    def check_prompts(self, prompts: Sequence[str]) -> None:
        """Refuses what cannot be drawn.

        Raises:
          UserError: a prompt is empty or too long, or the model is a tokenizer alone.
        """
        self._tokens(prompts)

    def _tokens(self, prompts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        if isinstance(self.config, CViViTConfig):
            raise UserError(
                "found a tokenizer alone, which draws nothing but reconstructs, expected a model with a transformer: "
                "export one trained on text"
            )
        if self.config.text is None:
            raise UserError(
                "found prompts and a model without text, expected one trained on text; this one draws what follows "
                "given frames: see Phenaki.draw_windows, with empty prompts"
            )
        length = self.config.text.length
        return self._text_tokenizer.encode_batch(prompts, length, truncate=self._truncate_prompts)

    def texts(self, prompts: Sequence[WindowPrompt], sampling: SamplingConfig) -> WindowTexts | None:
        """What the windows show, as embeddings; of two texts each where one of them is between two prompts.

        Args:
          prompts: of the windows.
          sampling: says whether negative prompts count.

        Raises:
          UserError: see `draw_windows`.
        """
        if isinstance(self.config, PhenakiConfig) and self.config.text is None and not any(p.text for p in prompts):
            return None
        shares = [np.array([prompt.share for prompt in prompts], np.float32)]
        texts = [[prompt.text for prompt in prompts]]
        if any(prompt.share < 1 for prompt in prompts):
            texts.append([prompt.before or prompt.text for prompt in prompts])
            shares.append(1 - shares[0])
        embeddings, mask = zip(*map(self._embed, texts), strict=True)
        found = WindowTexts(jnp.stack(embeddings), jnp.stack(mask), jnp.stack(shares))
        if sampling.guidance and any(prompt.negative for prompt in prompts):
            if not all(prompt.negative for prompt in prompts):
                raise UserError("found some prompts with a negative prompt and some without, expected all or none")
            found = found._replace(**dict(zip(_NEGATIVE, self._embed([p.negative for p in prompts]), strict=True)))
        return found

    def _embed(self, prompts: Sequence[str]) -> tuple[Array, Array]:
        """Embeddings and masks of prompts, each of which is embedded once as long as it is in use."""
        for prompt in dict.fromkeys(prompts):
            if prompt not in self._embedded:
                tokens, mask = self._tokens([prompt])
                self._embedded[prompt] = (compiled.embed(self.config, self.params["text"], tokens, mask)[0], mask[0])
        while len(self._embedded) > max(_PROMPTS_KEPT, len(set(prompts))):
            oldest = next(prompt for prompt in self._embedded if prompt not in prompts)
            del self._embedded[oldest]
        embeddings, mask = zip(*(self._embedded[prompt] for prompt in prompts), strict=True)
        return jnp.stack(embeddings), jnp.stack(mask)

    def encode(
        self, video: UInt8[np.ndarray, "batch frames height width 3"]
    ) -> Int[np.ndarray, "batch times rows columns"]:
        """Tokens of videos of any 1 + k * temporal_patch frames.

        Raises:
          UserError: what is no batch of videos in uint8, or a length or size that the patches do not cover.
        """
        pixels.check_video("video", video)
        return compiled.fetched(compiled.encode(self.tokenizer, self.params["tokenizer"], video))

    def decode(
        self, tokens: Int[np.ndarray, "batch times rows columns"]
    ) -> UInt8[np.ndarray, "batch frames height width 3"]:
        """Videos of tokens.

        Raises:
          UserError: what is no array of tokens, has another number of axes, is empty, or is not in the codebook.
        """
        check_tokens(self.tokenizer.quantizer, tokens)
        return compiled.fetched(compiled.decode(self.tokenizer, self.params["tokenizer"], tokens))

    def encode_stream(
        self, chunks: Iterable[UInt8[np.ndarray, "batch _ height width 3"]]
    ) -> Iterator[Int[np.ndarray, "batch times rows columns"]]:
        """Tokens of a video of any length, chunk by chunk, in memory that does not grow.

        Args:
          chunks: the first of 1 + k * temporal_patch frames, others of k * temporal_patch.

        Raises:
          UserError: see `streaming.check_chunks` and `streaming.StreamEncoder.encode`.
        """
        check_chunks(chunks)
        return map(StreamEncoder(self.tokenizer, self.params["tokenizer"]).encode, chunks)

    def decode_stream(
        self, chunks: Iterable[Int[np.ndarray, "batch _ rows columns"]]
    ) -> Iterator[UInt8[np.ndarray, "batch frames height width 3"]]:
        """Frames of tokens of any number of time steps, chunk by chunk, in memory that does not grow.

        Raises:
          UserError: see `streaming.check_chunks` and `streaming.StreamDecoder.decode`.
        """
        check_chunks(chunks)
        return map(StreamDecoder(self.tokenizer, self.params["tokenizer"]).decode, chunks)

    def reconstruct(
        self, video: UInt8[np.ndarray, "frames height width 3"]
    ) -> UInt8[np.ndarray, "frames height width 3"]:
        """A video of any 1 + k * temporal_patch frames as its tokens show it.

        Raises:
          UserError: what is no single video in uint8, or a length or size that the patches do not cover.
        """
        pixels.check_video("video", video, batched=False)
        return self.decode(self.encode(video[None]))[0]
