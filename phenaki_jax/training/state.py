"""All that training changes, in one place, and how it begins."""

from __future__ import annotations

import enum
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.struct import PyTreeNode
from jax.sharding import Mesh
from jaxtyping import Array, Int, PRNGKeyArray

from phenaki_jax.errors import UserError
from phenaki_jax.training import sharding
from phenaki_jax.training.learner import Batch, Learner


class Stream(enum.IntEnum):
    """What randomness is for; none of one purpose is met again in another."""

    INITIALISATION = 0
    STEPS = 1
    EVALUATION = 2
    PICTURES = 3


def rng_of(seed: Int[Array, ""] | int, stream: Stream, index: Int[Array, ""] | int = 0) -> PRNGKeyArray:
    """The key of a run's `index`-th use of randomness for one purpose."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), int(stream)), index)


class TrainState(PyTreeNode):
    """What a checkpoint holds and a step replaces; or the shapes, types and shardings of that.

    Attributes:
      step: steps taken, int32 [].
      params: what is trained.
      frozen: parameters of frozen parts (the tokenizer of the transformer), so that a checkpoint is complete.
      optimizer: state of the optimizer.
      seed: of all randomness, int32 []; see `rng_of`.
    """

    step: Any
    params: Any
    frozen: Any
    optimizer: Any
    seed: Any


def state_spec(learner: Learner, transform: optax.GradientTransformation, mesh: Mesh, rules: str) -> TrainState:
    """Shapes, types and shardings of a state, without computing it; also what a checkpoint is restored into."""
    boxed = jax.eval_shape(learner.init_params, jax.random.key(0))
    params = nn.unbox(boxed)
    whole = sharding.replicated(mesh)
    shardings = sharding.parameter_shardings(boxed, mesh, rules)
    optimizer = jax.eval_shape(transform.init, params)

    def place(leaf: jax.ShapeDtypeStruct, where: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where)

    scalar = jax.ShapeDtypeStruct((), jnp.int32, sharding=whole)
    return TrainState(
        step=scalar,
        params=jax.tree.map(place, params, shardings),
        frozen=jax.tree.map(lambda leaf: place(leaf, whole), learner.frozen_spec()),
        optimizer=jax.tree.map(place, optimizer, sharding.shardings_like(optimizer, shardings, whole)),
        seed=scalar,
    )


def initial_state(
    learner: Learner, transform: optax.GradientTransformation, seed: int, spec: TrainState, begun: Any = None
) -> TrainState:
    """The state at step 0, laid out as the spec says; reads frozen parameters from where they were trained.

    Args:
      learner: what is trained.
      transform: the optimizer.
      seed: of the initialisation and all that follows.
      spec: of the state.
      begun: "params" to begin with, in host memory, and the "frozen" ones they were trained over; where None, the
        learner's initial ones.

    Raises:
      UserError: what is begun with was trained over other frozen parameters than the learner's.
    """
    frozen = learner.load_frozen()
    if begun is not None and not _equal(begun["frozen"], frozen):
        raise UserError(
            "the training to begin with stands on another tokenizer than this one, whose codes mean something else; "
            "name the tokenizer it was trained over, or another initial_workdir"
        )
    places = jax.tree.map(lambda leaf: leaf.sharding, (spec.params, spec.optimizer))
    if begun is None:
        initialise = lambda seed: nn.unbox(learner.init_params(rng_of(seed, Stream.INITIALISATION)))  # noqa: E731
        params = jax.jit(initialise, out_shardings=places[0])(jnp.asarray(seed, jnp.int32))
    else:
        params = jax.tree.map(lambda leaf, array: jax.device_put(array, leaf.sharding), spec.params, begun["params"])
    optimizer = jax.jit(transform.init, out_shardings=places[1])(params)
    frozen = jax.tree.map(lambda leaf, array: jax.device_put(array, leaf.sharding), spec.frozen, frozen)
    scalars = [jax.device_put(jnp.asarray(value, jnp.int32), spec.step.sharding) for value in (0, seed)]
    return TrainState(scalars[0], params, frozen, optimizer, scalars[1])


def _equal(found: Any, wanted: Any) -> bool:
    leaves = dict(jax.tree_util.tree_leaves_with_path(found))
    others = dict(jax.tree_util.tree_leaves_with_path(wanted))
    return leaves.keys() == others.keys() and all(np.array_equal(leaves[path], others[path]) for path in leaves)


def train_step(
    learner: Learner, transform: optax.GradientTransformation, state: TrainState, batch: Batch
) -> tuple[TrainState, Any]:
    """One step: the new state, and a `clu.metrics.Collection` of what was seen before it."""
    rng = rng_of(state.seed, Stream.STEPS, state.step)
    gradient_of = jax.grad(learner.loss, has_aux=True)
    gradients, outputs = gradient_of(state.params, state.frozen, batch, rng)
    updates, optimizer = transform.update(gradients, state.optimizer, state.params)
    outputs["gradient_norm"] = (optax.tree.norm(gradients), jnp.ones(()))
    metrics = learner.metrics().single_from_model_output(**outputs)
    params = optax.apply_updates(state.params, updates)
    return state.replace(step=state.step + 1, params=params, optimizer=optimizer), metrics


def eval_step(learner: Learner, state: TrainState, batch: Batch, index: Int[Array, ""]) -> Any:
    """A `clu.metrics.Collection` for the `index`-th batch of an evaluation; the state stays as it is."""
    rng = rng_of(state.seed, Stream.EVALUATION, index)
    outputs = learner.evaluate(state.params, state.frozen, batch, rng)
    return learner.metrics().single_from_model_output(**outputs, gradient_norm=(jnp.zeros(()), jnp.zeros(())))
