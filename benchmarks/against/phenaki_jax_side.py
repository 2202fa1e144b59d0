"""Our C-ViViT, trained as `phenaki_jax/training/loop.py` trains it."""

from __future__ import annotations

import importlib.metadata
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from against import process
from against.sizes import Sizes
from phenaki_jax import __version__
from phenaki_jax.layers import pixels
from phenaki_jax.layers.module import apply
from phenaki_jax.tokenizer.config import CViViTConfig, QuantizerConfig
from phenaki_jax.training import state as state_lib
from phenaki_jax.training.compiled import CompiledStep
from phenaki_jax.training.optimizers import OptimizerConfig
from phenaki_jax.training.sharding import MeshConfig
from phenaki_jax.training.tokenizer_learner import TokenizerLearner


class PhenakiJax:
    """Our side: learner, optimizer, jitted step with a donated state.

    Attributes:
      judged: what reconstructs.
    """

    judged = ("parameters",)

    def __init__(
        self,
        sizes: Sizes,
        optimizer: dict[str, Any] | None = None,
        tied_stems: bool = False,
        levels: tuple[int, ...] = (),
        seed: int = 0,
    ) -> None:
        """Makes the initial state.

        Args:
          sizes: of the model.
          optimizer: fields of `OptimizerConfig` that differ from its defaults.
          tied_stems: see `CViViTConfig`.
          levels: of an fsq quantizer, whose product is `sizes.codes`; () for the paper's cosine VQ.
          seed: of the initialisation.
        """
        self._model = CViViTConfig(
            frames=sizes.frames,
            frame_size=sizes.frame_size,
            patch=sizes.patch,
            temporal_patch=sizes.temporal_patch,
            width=sizes.width,
            heads=sizes.heads,
            mlp_width=sizes.mlp_width,
            spatial_layers=sizes.layers,
            temporal_layers=sizes.layers,
            quantizer=QuantizerConfig("fsq", levels=levels)
            if levels
            else QuantizerConfig("cosine_vq", codes=sizes.codes, code_width=sizes.code_width),
            tied_stems=tied_stems,
        )
        self._learner = TokenizerLearner(self._model)
        self._step_config = state_lib.StepConfig()
        self._layout = MeshConfig().make()
        self._seed = seed
        self.begin(optimizer)

    def begin(self, optimizer: dict[str, Any] | None = None) -> None:
        """Begins anew from step 0."""
        learner = self._learner
        boxed = jax.eval_shape(learner.init_params, jax.random.key(0))
        transform = learner.transform(OptimizerConfig(**(optimizer or {})), boxed)
        spec = state_lib.state_spec(learner, transform, self._layout, self._step_config)
        self._state = state_lib.initial_state(learner, transform, self._seed, spec)
        self._step = CompiledStep(learner, transform, self._step_config, spec, self._layout)
        self._reconstruct = jax.jit(self._reconstructed, compiler_options=self._layout.compiler_options)

    def compile(self, videos: UInt8[np.ndarray, "batch frames height width 3"]) -> None:
        """Compiles the step for batches of this shape, so that the first one takes no longer than the others."""
        self._step.compile(self._state, self._batch(videos))

    def parameters(self) -> int:
        """How many numbers are trained, the codebook among them."""
        return sum(each.size for each in jax.tree.leaves(self._state.params))

    def step(self, videos: UInt8[np.ndarray, "batch frames height width 3"]) -> float:
        """One training step, waited for; its loss."""
        with self._layout.applied():
            self._state, metrics = self._step(self._state, self._batch(videos))
            jax.block_until_ready((self._state, metrics))
        return float(metrics.loss.compute())

    def timed_steps(self, videos: UInt8[np.ndarray, "batch frames height width 3"], count: int) -> dict[str, Any]:
        """See `process.timed_steps`."""
        return process.timed_steps(lambda: self.step(videos), count)

    def reconstruct(
        self, videos: UInt8[np.ndarray, "batch frames height width 3"], judged: str = "parameters"
    ) -> UInt8[np.ndarray, "batch frames height width 3"]:
        """Videos through the tokens."""
        assert judged in self.judged
        return np.asarray(self._reconstruct(self._state.params["tokenizer"], videos))

    def peak_memory_mib(self) -> float:
        """See `process`."""
        return process.peak_memory_mib()

    def forget_peak(self) -> None:
        """See `process`."""
        process.forget_peak()

    def versions(self) -> dict[str, str]:
        """Of what computes."""
        return {"phenaki_jax": __version__} | {
            name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax", "optax")
        }

    def _batch(self, videos: np.ndarray) -> Any:
        batch = {"video": videos, "frame_mask": np.ones(videos.shape[:2], bool)}
        return jax.device_put(batch, self._layout.batch)

    def _reconstructed(self, params: Any, videos: jax.Array) -> jax.Array:
        reconstruction, *_ = apply(self._learner.module, params, pixels.to_float(videos))
        return pixels.to_uint8(reconstruction)


class JaxProducts:
    """How fast XLA multiplies large matrices."""

    def best_gflop_per_s(self, side: int) -> float:
        """The fastest of ten products of square float32 matrices of this side."""
        left = right = jnp.ones((side, side), jnp.float32)
        product = jax.jit(jnp.matmul)
        product(left, right).block_until_ready()
        best = float("inf")
        for _ in range(10):
            start = time.perf_counter()
            product(left, right).block_until_ready()
            best = min(best, time.perf_counter() - start)
        return 2 * side**3 / best / 1e9
