"""Our masked transformer, trained as `phenaki train` trains it on precomputed data, and sampled from."""

from __future__ import annotations

import importlib.metadata
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from against import process
from against.sizes import TransformerSizes
from phenaki_jax import __version__
from phenaki_jax.inference import Phenaki
from phenaki_jax.inference.decoding import SamplingConfig
from phenaki_jax.inference.parameters import init_params
from phenaki_jax.inference.story import WindowPrompt
from phenaki_jax.inference.window import PhenakiConfig
from phenaki_jax.layers.positions import grid_positions
from phenaki_jax.text.encoder import TextEncoderConfig
from phenaki_jax.tokenizer.config import CViViTConfig, QuantizerConfig
from phenaki_jax.training import state as state_lib
from phenaki_jax.training.compiled import CompiledStep
from phenaki_jax.training.optimizers import OptimizerConfig
from phenaki_jax.training.sharding import MeshConfig
from phenaki_jax.training.transformer_learner import TransformerLearner
from phenaki_jax.transformer.config import TransformerConfig


class _Learner(TransformerLearner):
    """Over tokens and embeddings that are given, of which no network is read."""

    kept_frozen = ()
    averaged = ("transformer",)

    def frozen_spec(self) -> Any:
        return {}

    def load_frozen(self, spec: Any) -> Any:
        return dict(spec)


class PhenakiJax:
    """Our side: learner, optimizer, jitted step with a donated state; and windows drawn from prompts."""

    def __init__(self, sizes: TransformerSizes, steps: int = 18, seed: int = 0) -> None:
        """Makes the models.

        Args:
          sizes: of them.
          steps: rounds of a sample.
          seed: of the initialisation.
        """
        tokenizer = sizes.tokenizer
        self._sampling = SamplingConfig(steps=steps, guidance=2.0)
        self._model = PhenakiConfig(
            tokenizer=CViViTConfig(
                frames=tokenizer.frames,
                frame_size=tokenizer.frame_size,
                patch=tokenizer.patch,
                temporal_patch=tokenizer.temporal_patch,
                width=tokenizer.width,
                heads=tokenizer.heads,
                mlp_width=tokenizer.mlp_width,
                spatial_layers=tokenizer.layers,
                temporal_layers=tokenizer.layers,
                quantizer=QuantizerConfig("cosine_vq", codes=tokenizer.codes, code_width=tokenizer.code_width),
            ),
            # Embeds a prompt once, in the first sample, which is not counted.
            text=TextEncoderConfig(length=sizes.text_length, width=sizes.text_width, layers=1),
            transformer=TransformerConfig(
                codebook_size=tokenizer.codes,
                text_width=sizes.text_width,
                layers=sizes.layers,
                width=tokenizer.width,
                heads=tokenizer.heads,
                mlp_width=tokenizer.mlp_width,
            ),
        )
        self._seed, self._layout = seed, MeshConfig().make()
        self._state: Any = None
        self._drawing: Phenaki | None = None

    def parameters(self) -> int:
        """How many numbers are trained."""
        shapes = jax.eval_shape(lambda: init_params(self._model, jax.random.key(0)))["transformer"]
        return sum(each.size for each in jax.tree.leaves(shapes))

    def timed_steps(self, tokens: np.ndarray, texts: np.ndarray, count: int) -> dict[str, Any]:
        """Training steps on tokens [batch, times, rows, columns]; see `process.timed_steps`."""
        if self._state is None:
            self._begin()
        batch, length = len(tokens), tokens[0].size
        positions = np.asarray(grid_positions(*tokens.shape[1:]))
        given = {
            "video_tokens": tokens.reshape(batch, length).astype(np.int32),
            "token_positions": np.broadcast_to(positions, (batch, length, 3)),
            "segment_ids": np.ones((batch, length), np.int32),
            "known": np.zeros((batch, length), bool),
            "filled": np.ones((batch, 1), bool),
            "text_embeddings": texts,
            "text_segment_ids": np.ones(texts.shape[:2], np.int32),
        }

        def step() -> None:
            with self._layout.applied():
                placed = jax.device_put(given, self._layout.batch)
                self._state, metrics = self._step(self._state, placed)
                jax.block_until_ready((self._state, metrics))
            float(metrics.loss.compute())

        return process.timed_steps(step, count)

    def timed_samples(self, texts: np.ndarray, count: int) -> dict[str, Any]:
        """Samples for as many prompts; see `process.timed_steps`."""
        if self._drawing is None:
            params = nn.unbox(jax.jit(lambda: init_params(self._model, jax.random.key(self._seed)))())
            self._drawing = Phenaki(self._model, params)
        side, prompts = self._model.tokenizer.frame_size, [WindowPrompt("a text")] * len(texts)
        nothing, drawing = np.zeros((len(texts), 0, side, side, 3), np.uint8), self._drawing
        rngs = jax.random.split(jax.random.key(self._seed), len(texts))
        return process.timed_steps(lambda: drawing.draw_windows(prompts, nothing, rngs, self._sampling), count)

    def versions(self) -> dict[str, str]:
        """Of what computes."""
        return {"phenaki_jax": __version__} | {
            name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax", "optax")
        }

    def _begin(self) -> None:
        learner, config = _Learner(self._model, ""), state_lib.StepConfig()
        boxed = jax.eval_shape(learner.init_params, jax.random.key(0))
        transform = learner.transform(OptimizerConfig(), boxed)
        spec = state_lib.state_spec(learner, transform, self._layout, config)
        self._state = state_lib.initial_state(learner, transform, self._seed, spec)
        self._step = CompiledStep(learner, transform, config, spec, self._layout)
