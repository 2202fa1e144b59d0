"""All that training changes, in one place, and how it begins."""

from __future__ import annotations

import dataclasses
import enum
import functools
from typing import Any

import flax.linen as nn
import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
from clu import metrics
from flax.struct import PyTreeNode
from jaxtyping import Array, Int, PRNGKeyArray

from phenaki_jax.errors import UserError, check_types
from phenaki_jax.evaluation.metrics import Count
from phenaki_jax.training.learner import Batch, Given, Learned, Learner, Settled
from phenaki_jax.training.optimizers import OptimizerConfig
from phenaki_jax.training.sharding import Layout, shardings_like


@dataclasses.dataclass(frozen=True)
class StepConfig:
    """How batches become new parameters.

    Attributes:
      microbatches: parts that a batch is taken in, one after the other, whose gradients add up (gradient accumulation):
        a step then needs the memory of one part. Each weighs by its valid frames, or masked tokens. Where clips of
        several lengths meet, that is the gradient of the whole batch but for what is no mean over frames: a tokenizer's
        quantizer loss, video-perceptual term, adaptive weight and discriminator of whole clips are means of the parts'
        own.
      average_decay: of the exponential moving average of the parameters that evaluation, pictures and export use
        (MAGVIT-v2: 0.999); 0 for none. In the first steps it is less, (1 + step) / (10 + step).
      non_finite: what becomes of a step whose gradients are not finite: "refuse" ends the training when that is next
        looked for, before anything is saved; "skip" leaves all as it was before the step, which is counted as the
        metric "skipped_steps".

    Raises:
      UserError: a value out of its range.
    """

    microbatches: int = 1
    average_decay: float = 0.0
    non_finite: str = "refuse"

    def __post_init__(self) -> None:
        check_types(self)
        if self.microbatches < 1:
            raise UserError(f"microbatches {self.microbatches} must be at least 1")
        if not 0 <= self.average_decay < 1:
            raise UserError(f"average_decay {self.average_decay} must be at least 0 and below 1, such as 0.999")
        if self.non_finite not in ("refuse", "skip"):
            raise UserError(f"found non_finite {self.non_finite!r}, expected 'refuse' or 'skip'")


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
      average: averages of `params` over the steps, of the names that are used after training; {} without averaging.
      statistics: running ones that no gradient trains, see `Learner.initial_statistics`.
      frozen: parameters of frozen parts (the tokenizer of the transformer), so that a checkpoint is complete.
      optimizer: state of the optimizer.
      seed: of all randomness, int32 []; see `rng_of`.
    """

    step: Any
    params: Any
    average: Any
    statistics: Any
    frozen: Any
    optimizer: Any
    seed: Any

    @property
    def used(self) -> Any:
        """The parameters that evaluation, pictures and export use."""
        return {**self.params, **self.average}


def transform_of(learner: Learner, optimizer: OptimizerConfig) -> optax.GradientTransformation:
    """The optimizer of a learner's parameters, of which nothing is computed."""
    return learner.transform(optimizer, jax.eval_shape(learner.init_params, jax.random.key(0)))


def state_spec(
    learner: Learner, transform: optax.GradientTransformation, layout: Layout, config: StepConfig
) -> TrainState:
    """Shapes, types and shardings of a state, without computing it; also what a checkpoint is restored into."""
    boxed = jax.eval_shape(learner.init_params, jax.random.key(0))
    params = nn.unbox(boxed)
    whole, shardings = layout.whole, layout.parameters(boxed)
    optimizer = jax.eval_shape(transform.init, params)

    def place(leaf: jax.ShapeDtypeStruct, where: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where)

    scalar = jax.ShapeDtypeStruct((), jnp.int32, sharding=whole)
    placed = jax.tree.map(place, params, shardings)
    return TrainState(
        step=scalar,
        params=placed,
        average={name: placed[name] for name in learner.averaged} if config.average_decay else {},
        statistics=jax.tree.map(lambda leaf: place(leaf, whole), jax.eval_shape(learner.initial_statistics)),
        frozen=frozen_spec(learner, layout),
        optimizer=jax.tree.map(place, optimizer, shardings_like(optimizer, shardings, whole)),
        seed=scalar,
    )


def without_frozen(learner: Learner, state: TrainState) -> TrainState:
    """What a checkpoint holds of a state, or of a state's spec."""
    return state.replace(frozen={name: state.frozen[name] for name in learner.kept_frozen})


def with_frozen(learner: Learner, state: TrainState, spec: TrainState) -> TrainState:
    """A state with all its frozen parameters; those it lacks come from where they were trained.

    Raises:
      UserError: see `Learner.load_frozen`.
    """
    lacking = {name: tree for name, tree in spec.frozen.items() if name not in state.frozen}
    return state.replace(frozen={**state.frozen, **learner.load_frozen(lacking)})


def frozen_spec(learner: Learner, layout: Layout) -> Any:
    """Shapes, types and shardings of the frozen parameters."""
    boxed = learner.frozen_spec()
    places = layout.parameters(boxed)
    return jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where), nn.unbox(boxed), places
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
      begun: "params" and "statistics" to begin with, in host memory, and the "frozen" ones they were trained over;
        what it lacks begins as the learner says.

    Raises:
      UserError: what is begun with was trained over other frozen parameters than the learner's.
    """
    frozen = learner.load_frozen(spec.frozen)
    kept = {name: frozen[name] for name in learner.kept_frozen}
    if begun is not None and kept and not _equal(begun["frozen"], kept):
        raise UserError(
            "the training to begin with stands on another tokenizer than this one, whose codes mean something else; "
            "name the tokenizer it was trained over, or another initial_workdir"
        )
    places = jax.tree.map(lambda leaf: leaf.sharding, (spec.params, spec.optimizer, spec.statistics))
    initialise = lambda seed: nn.unbox(learner.init_params(rng_of(seed, Stream.INITIALISATION)))  # noqa: E731
    params = jax.jit(initialise, out_shardings=places[0])(jnp.asarray(seed, jnp.int32))
    statistics = jax.jit(learner.initial_statistics, out_shardings=places[2])()
    for own, name in ((params, "params"), (statistics, "statistics")):
        for part, tree in (begun or {}).get(name, {}).items():
            # Named tuples come back from a file as dicts.
            read = flax.serialization.from_state_dict(own[part], tree)
            own[part] = jax.tree.map(lambda leaf, array: jax.device_put(array, leaf.sharding), own[part], read)
    optimizer = jax.jit(transform.init, out_shardings=places[1])(params)
    average = jax.tree.map(jnp.copy, {name: params[name] for name in spec.average})
    scalars = [jax.device_put(jnp.asarray(value, jnp.int32), spec.step.sharding) for value in (0, seed)]
    return TrainState(scalars[0], params, average, statistics, frozen, optimizer, scalars[1])


def _equal(found: Any, wanted: Any) -> bool:
    leaves = dict(jax.tree_util.tree_leaves_with_path(found))
    others = dict(jax.tree_util.tree_leaves_with_path(wanted))
    return leaves.keys() == others.keys() and all(np.array_equal(leaves[path], others[path]) for path in leaves)


def train_step(
    learner: Learner, transform: optax.GradientTransformation, config: StepConfig, state: TrainState, batch: Batch
) -> tuple[TrainState, Any]:
    """One step: the new state, and a `clu.metrics.Collection` of what was seen before it."""
    given = Given(state.frozen, state.statistics, state.step, rng_of(state.seed, Stream.STEPS, state.step))
    learned = _learn(learner, config.microbatches, state.params, batch, given)
    updates, optimizer = transform.update(learned.gradients, state.optimizer, state.params)
    updated = optax.apply_updates(state.params, updates)
    # No part of the batch has had this key.
    settling = given._replace(rng=jax.random.fold_in(given.rng, config.microbatches))
    settled = learner.settle(state.params, updated, learned.observed, settling)
    outputs = {**learned.outputs, **learner.gradient_outputs(learned.gradients, given), **settled.outputs}
    new = state.replace(
        step=state.step + 1,
        params=settled.params,
        average=_averaged(config, state, settled),
        statistics=settled.statistics,
        optimizer=optimizer,
    )
    kind: Any = learner.metrics()
    if config.non_finite == "refuse":
        return new, kind.single_from_model_output(**outputs)
    finite = jnp.isfinite(optax.tree.norm(learned.gradients))
    new = jax.tree.map(lambda now, before: jnp.where(finite, now, before), new, state.replace(step=new.step))
    seen = _with_skipped(kind).single_from_model_output(**outputs, skipped=~finite)
    # What was seen in a step that is skipped counts for nothing.
    counted = {name: getattr(seen, name) for name in kind.__annotations__}
    return new, seen.replace(**jax.tree.map(lambda sums: jnp.where(finite, sums, 0), counted))


@functools.cache
def _with_skipped(kind: type[metrics.Collection]) -> type[metrics.Collection]:
    """The collection that also counts the steps that were skipped."""
    return metrics.Collection.create(**kind.__annotations__, skipped_steps=Count.from_output("skipped"))


def _averaged(config: StepConfig, state: TrainState, settled: Settled) -> Any:
    """The averages of the state brought forward; what began anew has no past to be averaged with."""
    decay = jnp.minimum(config.average_decay, (1 + state.step) / (10 + state.step))
    masks = dict(jax.tree_util.tree_leaves_with_path(settled.anew))

    def follow(path: Any, old: Array, now: Array) -> Array:
        mean = decay * old + (1 - decay) * now
        return jnp.where(masks[path], now, mean) if path in masks else mean

    params = {name: settled.params[name] for name in state.average}
    return jax.tree_util.tree_map_with_path(follow, state.average, params)


def _learn(learner: Learner, parts: int, params: Any, batch: Batch, given: Given) -> Learned:
    """What a batch teaches, taken whole or in so many parts."""
    if parts == 1:
        return learner.learn(params, batch, given)
    # Every part has rows of every device.
    split = jax.tree.map(lambda array: array.reshape(-1, parts, *array.shape[1:]).swapaxes(0, 1), batch)

    def learn(total: Learned, part: tuple[Batch, Array]) -> tuple[Learned, None]:
        batch, index = part
        learned = learner.learn(params, batch, given._replace(rng=jax.random.fold_in(given.rng, index)))
        gradients = jax.tree.map(lambda gradient: learned.weight * gradient, learned.gradients)
        return jax.tree.map(jnp.add, total, learned._replace(gradients=gradients)), None

    first = jax.eval_shape(learner.learn, params, jax.tree.map(lambda array: array[0], split), given)
    nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), first)
    total, _ = jax.lax.scan(learn, nothing, (split, jnp.arange(parts)))
    counted = jnp.maximum(total.weight, 1.0)
    return total._replace(gradients=jax.tree.map(lambda gradient: gradient / counted, total.gradients))


def eval_step(learner: Learner, state: TrainState, batch: Batch, index: Int[Array, ""]) -> Any:
    """A `clu.metrics.Collection` for the `index`-th batch of an evaluation; the state stays as it is."""
    rng = rng_of(state.seed, Stream.EVALUATION, index)
    outputs = learner.evaluate(state.used, state.frozen, batch, rng)
    return learner.metrics().single_from_model_output(**outputs)
