"""The training step as the devices run it."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import sys
from typing import Any

import jax
import optax

from phenaki_jax.training.learner import Batch, Learner
from phenaki_jax.training.sharding import Layout
from phenaki_jax.training.state import StepConfig, TrainState, train_step


class CompiledStep:
    """`state.train_step`, compiled before its first run for every size of batch; a state that it is given is used up.

    Compiled ahead, so that what compiling leaves behind in memory is gone before a step needs its own.

    Args:
      learner: what is trained.
      transform: the optimizer.
      config: how batches become new parameters.
      spec: of the state, whose shardings new states have too.
      layout: of the devices.
    """

    def __init__(
        self,
        learner: Learner,
        transform: optax.GradientTransformation,
        config: StepConfig,
        spec: TrainState,
        layout: Layout,
    ) -> None:
        self._layout = layout
        self._jitted = jax.jit(
            functools.partial(train_step, learner, transform, config),
            donate_argnums=0,
            out_shardings=(jax.tree.map(lambda leaf: leaf.sharding, spec), None),
            compiler_options=layout.compiler_options,
        )
        self._compiled: dict[Any, Any] = {}

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, Any]:
        """The new state, and a `clu.metrics.Collection` of what was seen before it."""
        self.compile(state, batch)
        return self._compiled[_size(batch)](state, batch)

    def compile(self, state: TrainState, batch: Batch) -> None:
        """Compiles for batches of this size, which takes minutes for large models; once only."""
        size = _size(batch)
        if size not in self._compiled:
            with self._layout.applied():
                self._compiled[size] = self._jitted.lower(state, batch).compile()
            _give_back_freed_memory()


def _size(batch: Batch) -> Any:
    leaves, structure = jax.tree.flatten(batch)
    return structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves)


def _give_back_freed_memory() -> None:
    """Returns to the system what malloc keeps of memory that was freed, on Linux with glibc; elsewhere does nothing.

    Compiling a step leaves some hundreds of MB behind, on top of which the steps' own memory would come.
    """
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError, OSError):
            ctypes.CDLL(None).malloc_trim(0)
