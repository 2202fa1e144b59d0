"""The videos of a protocol, made by a model: reconstructed from tokens, or drawn from texts and first frames."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence
from typing import Protocol as Interface
from typing import runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Key, UInt8

from phenaki_jax.data.clips import Clip
from phenaki_jax.errors import UserError
from phenaki_jax.evaluation.protocols import Protocol
from phenaki_jax.inference import compiled
from phenaki_jax.inference.phenaki import Phenaki
from phenaki_jax.inference.story import WindowPrompt
from phenaki_jax.inference.window import PhenakiConfig, WindowTexts
from phenaki_jax.tokenizer.config import CViViTConfig

# Is embedded where a clip has no text, and then dropped.
_STAND_IN = "video"


@runtime_checkable
class Layout(Interface):
    """How devices share a batch, as `training.sharding.Layout` says."""

    @property
    def batch(self) -> NamedSharding:
        """Of a batch, whose first axis is divided."""

    @property
    def whole(self) -> NamedSharding:
        """Of what every device holds whole."""

    @property
    def batch_parts(self) -> int:
        """How many parts a batch is divided into."""

    def applied(self) -> contextlib.AbstractContextManager[None]:
        """Where what is compiled is compiled for these devices."""


def check_model(protocol: Protocol, model: Phenaki) -> None:
    """Refuses a model that cannot make a protocol's videos.

    Raises:
      UserError: it is a tokenizer alone where videos are drawn, reads no text where they are of text, has other frames,
        or cannot be given as many of them, or go on from them.
    """
    tokenizer, name = model.tokenizer, protocol.name
    if tokenizer.frame_size != protocol.size:
        raise UserError(
            f"found a model of frames of {tokenizer.frame_size} x {tokenizer.frame_size} pixels, expected "
            f"{protocol.size} x {protocol.size} for {name}: evaluate another model, or by another protocol"
        )
    if protocol.kind == "reconstruction":
        return
    if isinstance(model.config, CViViTConfig):
        raise UserError(
            f"found a tokenizer alone, expected a model with a transformer for {name}: evaluate it by a protocol of "
            "reconstruction, or export the training of a transformer"
        )
    if model.config.text is None and protocol.kind != "prediction":
        raise UserError(f"found a model without text, expected one that is trained on text for {name}")
    if protocol.given:
        tokenizer.times(protocol.given)
    if protocol.given >= tokenizer.frames:
        raise UserError(
            f"found windows of {tokenizer.frames} frames, expected more than the {protocol.given} given ones of {name}"
        )
    if protocol.frames > tokenizer.frames and not model.metadata.prefix_frames:
        raise UserError(
            f"found a model of windows of {tokenizer.frames} frames that nothing goes on from (prefix_frames 0), "
            f"expected windows of at least the {protocol.frames} frames of {name}, or one that does"
        )


class Drawer:
    """Makes videos in batches, which devices share.

    Args:
      model: what makes them.
      protocol: which ones, see `check_model`.
      layout: how devices share a batch.
      seed: of all randomness.
    """

    def __init__(self, model: Phenaki, protocol: Protocol, layout: Layout, seed: int) -> None:
        check_model(protocol, model)
        self._model, self._protocol, self._layout = model, protocol, layout
        self._seed = jax.random.key(seed)
        self._networks = jax.device_put(
            {name: tree for name, tree in model.params.items() if name != "text"}, layout.whole
        )

    def make(self, clips: Sequence[Clip], numbers: Sequence[int]) -> UInt8[Array, "batch frames size size 3"]:
        """A video of each clip, on the devices that share them.

        Args:
          clips: what they are made of.
          numbers: their places among all of the protocol, which with the seed decide what is drawn.
        """
        if self._protocol.kind == "reconstruction":
            return self._reconstruct(np.stack([clip.video for clip in clips]))
        given = np.stack([clip.video[: self._protocol.given] for clip in clips])
        keys = jax.vmap(functools.partial(jax.random.fold_in, self._seed))(np.asarray(numbers, np.uint32))
        return self._draw([clip.text for clip in clips], given, keys)

    def _reconstruct(self, videos: np.ndarray) -> Array:
        """Frames at the end that fill no token are filled up with the last one, and dropped again."""
        frames, patch = videos.shape[1], self._model.tokenizer.temporal_patch
        padded = np.pad(videos, [(0, 0), (0, -(frames - 1) % patch), *[(0, 0)] * 3], mode="edge")
        config, params = self._model.tokenizer, self._networks["tokenizer"]
        tokens = compiled.encode(config, params, jax.device_put(padded, self._layout.batch))
        return compiled.decode(config, params, tokens)[:, :frames]

    def _draw(self, prompts: Sequence[str], given: np.ndarray, keys: Key[Array, " batch"]) -> Array:
        """Window by window, each from the last frames of the one before; frames beyond the protocol's are dropped."""
        model, sampling = self._model, self._model.metadata.sampling
        config = model.config
        assert isinstance(config, PhenakiConfig)
        texts = None
        if config.text is not None:
            texts = self._placed_texts(self._texts(prompts))
        videos, keys = jax.device_put((given, keys), self._layout.batch)
        keep, window = self._protocol.given, 0
        while videos.shape[1] < self._protocol.frames:
            prefix = videos[:, videos.shape[1] - keep :]
            own_keys = compiled.keys_of_window(keys, jnp.uint32(window))
            drawn = compiled.draw_windows(config, sampling, self._networks, texts, prefix, own_keys)
            videos = jnp.concatenate([videos, drawn[:, keep:]], axis=1)
            keep, window = model.tokenizer.whole_part(min(videos.shape[1], model.metadata.prefix_frames)), window + 1
        return videos[:, : self._protocol.frames]

    def _texts(self, prompts: Sequence[str]) -> WindowTexts | None:
        """With the null text for those of a prediction that are empty."""
        model = self._model
        texts = model.texts(
            [WindowPrompt(prompt if prompt.strip() else _STAND_IN) for prompt in prompts], model.metadata.sampling
        )
        return None if texts is None else texts._replace(dropped=jnp.array([not prompt.strip() for prompt in prompts]))

    def _placed_texts(self, texts: WindowTexts | None) -> WindowTexts | None:
        """The second axis is that of the batch, but of what is dropped the only one."""
        if texts is None:
            return None
        batch = self._layout.batch
        places = NamedSharding(batch.mesh, PartitionSpec(None, *batch.spec))
        dropped = jax.device_put(texts.dropped, batch)
        return jax.device_put(texts._replace(dropped=None), places)._replace(dropped=dropped)
