"""A learner in the form that t5x asks of a model: pure functions, which need no t5x."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import flax.core
import flax.linen as nn
import flax.serialization
import jax
import jax.numpy as jnp
from flax.linen.partitioning import AxisMetadata
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float, Int, PRNGKeyArray

from phenaki_jax.data import feed
from phenaki_jax.errors import UserError
from phenaki_jax.evaluation.metrics import Ratio
from phenaki_jax.training.learner import Batch, Given, Learner
from phenaki_jax.training.optimizers import OptimizerConfig
from phenaki_jax.training.sharding import RULES
from phenaki_jax.training.state import Stream, rng_of

AXES = ("data", "model")
"""What t5x calls the axes of its mesh."""


def check_learner(learner: Learner, optimizer: OptimizerConfig) -> None:
    """Refuses a learner with several optimizers, as t5x has one, and precomputed data, which is in no mixture's name.

    Raises:
      UserError: names what was found.
    """
    if len(found := learner.optimizer_kinds(optimizer)) > 1:
        raise UserError(
            f"found optimizers for {' and '.join(found)}, expected one, all that t5x has: leave the discriminator out, "
            "or train with phenaki train"
        )
    if learner.precomputed:
        raise UserError(
            f"found precomputed data in {learner.precomputed}, expected mixtures of frames and texts: leave "
            "precomputed empty, or train with phenaki train"
        )


def feature_converter(learner: Learner, *, pack: bool = False, use_custom_packing_ops: bool = False) -> Any:
    """The seqio converter of a learner's batches, called as t5x does.

    Raises:
      UserError: packing is asked for.
    """
    if pack or use_custom_packing_ops:
        raise UserError("found pack=True, expected pack=False: under t5x neither videos nor images are packed")
    texts: dict[str, Any] = {"text_length": learner.text_length, "vocabulary": learner.vocabulary}
    options = texts if learner.converter == "transformer" else {}
    return feed.feature_converter(learner.converter, temporal_patch=learner.temporal_patch, **options)


def initial_variables(learner: Learner, seed: int) -> dict[str, Any]:
    """What a training begins with: collections, and for each its logical axes under `<collection>_axes`.

    "params" are trained, "frozen" are not, "statistics" run along; of the last two there may be none. Frozen parameters
    are read where they were trained when this is computed, and not where only shapes are asked for.
    """
    # Else unboxing would lay arrays out by the rules of a mesh that t5x has made.
    with nn.logical_axis_rules(()):
        params = learner.init_params(rng_of(seed, Stream.INITIALISATION))
        frozen = learner.frozen_spec()
        variables = {"params": nn.unbox(params), "params_axes": logical_axes(params)}
        if frozen:
            variables |= {"frozen": _read_frozen(learner, nn.unbox(frozen)), "frozen_axes": logical_axes(frozen)}
    if statistics := flax.serialization.to_state_dict(learner.initial_statistics()):
        variables |= {"statistics": statistics, "statistics_axes": logical_axes(statistics)}
    return variables


def _read_frozen(learner: Learner, spec: Any) -> Any:
    """By a callback, since the functions that t5x initialises with are traced, often for nothing but shapes."""
    place = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    placed = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), spec)
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), spec)
    return jax.pure_callback(lambda: jax.device_get(learner.load_frozen(placed)), shapes)


def logical_axes(boxed: Any) -> dict[str, Any]:
    """The names of the axes of each parameter, under `<parameter>_axes`; None for those without a name."""

    def names(leaf: Any) -> tuple[str | None, ...]:
        return leaf.names if isinstance(leaf, nn.LogicallyPartitioned) else (None,) * len(leaf.shape)

    flat = {(*path, f"{name}_axes"): AxisMetadata(names(leaf)) for (*path, name), leaf in flatten_dict(boxed).items()}
    tree: dict[str, Any] = unflatten_dict(flat)
    return tree


def axis_rules(rules: str = "data_parallel") -> list[tuple[str, str]]:
    """The rules of this name, of parameters and activations alike, for a mesh that has the axes data and model alone.

    Raises:
      UserError: there are no such rules.
    """
    if rules not in RULES:
        raise UserError(f"sharding rules {rules!r} are unknown; known are {', '.join(RULES)}")
    axes: dict[str, str] = {}
    # One table for both, of which the first that fits counts: a batch takes its axis before anything else.
    for name, where in (*RULES[rules].activations, *RULES[rules].parameters):
        axes.setdefault(name, next(axis for axis in AXES if where and axis in where))
    return list(axes.items())


def taught_loss(
    learner: Learner, params: Any, batch: Batch, rng: PRNGKeyArray, mutables: Any
) -> tuple[Float[Array, ""], tuple[dict[str, Any], Any]]:
    """The loss of a training batch, whose gradient is what the learner teaches.

    Returns:
      The loss; its metrics by name, and what running statistics are brought forward with.
    """

    @jax.custom_vjp
    def loss(params: Any, batch: Batch, rng: PRNGKeyArray, mutables: Any) -> Any:
        return learn(params, batch, rng, mutables)[0]

    def learn(params: Any, batch: Batch, rng: PRNGKeyArray, mutables: Any) -> tuple[Any, Any]:
        given = given_of(learner, mutables, 0, rng)
        learned = learner.learn(params, batch, given)
        outputs = {**learned.outputs, **learner.gradient_outputs(learned.gradients, given)}
        return (_mean(outputs["loss"]), outputs, learned.observed), learned.gradients

    def pull(gradients: Any, cotangents: Any) -> tuple[Any, None, None, None]:
        return jax.tree.map(lambda gradient: cotangents[0] * gradient, gradients), None, None, None

    loss.defvjp(learn, pull)
    value, outputs, observed = loss(flax.core.unfreeze(params), batch, _as_key(rng), flax.core.unfreeze(mutables))
    return value, (metrics_of(learner, outputs), observed)


def judged(
    learner: Learner, seed: int, params: Any, batch: Batch, mutables: Any
) -> tuple[Float[Array, ""], dict[str, Any]]:
    """The loss of a batch that is not trained on, and its metrics by name."""
    rng = rng_of(seed, Stream.EVALUATION)
    outputs = learner.evaluate(flax.core.unfreeze(params), _frozen(mutables), batch, rng)
    return _mean(outputs["loss"]), metrics_of(learner, outputs)


def scores(learner: Learner, seed: int, params: Any, batch: Batch, mutables: Any) -> Float[Array, " batch"]:
    """Minus the loss of each example by itself; in nats for each masked token, of a transformer."""

    def score(row: Batch, rng: PRNGKeyArray) -> Float[Array, ""]:
        return -_mean(learner.evaluate(flax.core.unfreeze(params), _frozen(mutables), row, rng)["loss"])

    return _by_row(score, batch, rng_of(seed, Stream.EVALUATION))


def pictures(
    learner: Learner, params: Any, batch: Batch, rng: PRNGKeyArray, mutables: Any
) -> Int[Array, "batch frames height width 3"]:
    """What the learner shows of each example by itself, one video after the other in time, pixels from 0 to 255."""

    def show(row: Batch, rng: PRNGKeyArray) -> Array:
        shown = learner.images(flax.core.unfreeze(params), _frozen(mutables), row, rng)
        return jnp.concatenate([video.reshape(-1, *video.shape[2:]) for video in shown.values()])

    return _by_row(show, batch, _as_key(rng)).astype(jnp.int32)


def given_of(learner: Learner, mutables: Any, step: Any, rng: PRNGKeyArray) -> Given:
    """What a step finds besides parameters and batch, from the collections that are not trained."""
    template = jax.eval_shape(learner.initial_statistics)
    statistics = flax.serialization.from_state_dict(template, flax.core.unfreeze(mutables).get("statistics", {}))
    return Given(_frozen(mutables), statistics, jnp.asarray(step, jnp.int32), rng)


def metrics_of(learner: Learner, outputs: dict[str, Any]) -> dict[str, Any]:
    """The metrics that outputs give, by name; of vectors one for each entry, as t5x writes scalars alone."""
    kind: Any = learner.metrics()
    collection = kind.single_from_model_output(**outputs)
    found: dict[str, Any] = {}
    for name in kind.__annotations__:
        metric = getattr(collection, name)
        if isinstance(metric, Ratio) and name not in outputs:
            continue
        entries = jax.eval_shape(metric.compute).shape
        parts = [jax.tree.map(operator.itemgetter(index), metric) for index in range(*entries)] if entries else []
        found |= {f"{name}_{index:02}": part for index, part in enumerate(parts)} or {name: metric}
    return found


def _frozen(mutables: Any) -> Any:
    return flax.core.unfreeze(mutables).get("frozen", {})


def _by_row(function: Callable[[Batch, PRNGKeyArray], Array], batch: Batch, rng: PRNGKeyArray) -> Array:
    """A function of a batch of one, for each example of a batch."""
    rows = len(next(iter(batch.values())))
    return jax.vmap(lambda row, key: function(jax.tree.map(lambda leaf: leaf[None], row), key))(
        batch, jax.random.split(rng, rows)
    )


def _mean(sums: tuple[Array, Array]) -> Float[Array, ""]:
    total, weight = sums
    return total / jnp.maximum(weight, 1)


def _as_key(rng: Array) -> PRNGKeyArray:
    """A key of either kind that JAX has: t5x hands out the old one."""
    return rng if jnp.issubdtype(rng.dtype, jax.dtypes.prng_key) else jax.random.wrap_key_data(rng)
