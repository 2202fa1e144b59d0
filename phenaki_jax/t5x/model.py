"""A learner as a model, an optimizer and a trainer of t5x."""

from __future__ import annotations

import functools
from typing import Any

import flax.core
import flax.serialization
import jax
from jax.sharding import PartitionSpec
from t5x import models, optimizers, trainer

from phenaki_jax.errors import UserError
from phenaki_jax.t5x import learning
from phenaki_jax.training.learner import Batch, Learner
from phenaki_jax.training.optimizers import OptimizerConfig
from phenaki_jax.training.sharding import shardings_like
from phenaki_jax.training.state import Stream, rng_of

_NOTHING = flax.core.freeze({})


class LearnerModel(models.BaseModel):
    """A learner as t5x sees it: parameters are trained, what is frozen and what runs along are its "mutables".

    Frozen parameters are thereby divided over devices like others, and in checkpoints, which are complete.

    Args:
      learner: what is trained.
      optimizer: how.
      seed: of initialisation, evaluation and, with `Trainer`, of all steps; t5x's own keys are not used.

    Raises:
      UserError: a learner that t5x cannot train, see `learning.check_learner`.
    """

    def __init__(self, learner: Learner, optimizer: OptimizerConfig, seed: int = 0) -> None:
        learning.check_learner(learner, optimizer)
        self.learner, self.optimizer, self.seed = learner, optimizer, seed
        boxed = jax.eval_shape(learner.init_params, jax.random.key(0))
        super().__init__(Optimizer(learner.transform(optimizer, boxed)))
        self.FEATURE_CONVERTER_CLS = functools.partial(learning.feature_converter, learner)

    def get_initial_variables(self, rng: Any, input_shapes: Any, input_types: Any = None) -> Any:
        """See `learning.initial_variables`."""
        del rng, input_shapes, input_types
        return learning.initial_variables(self.learner, self.seed)

    def loss_fn(self, params: Any, batch: Batch, dropout_rng: Any, flax_mutables: Any = None) -> Any:
        """Loss and metrics of a training batch, and the mutables where there are some, "observed" among them."""
        mutables = flax_mutables or _NOTHING
        loss, (metrics, observed) = learning.taught_loss(self.learner, params, batch, dropout_rng, mutables)
        if not mutables:
            return loss, metrics
        return loss, (metrics, mutables.copy({"observed": observed} if observed else {}))

    def eval_fn(self, params: Any, batch: Batch, flax_mutables: Any = None) -> Any:
        """Loss and metrics of a batch that is not trained on; the same places are masked in every batch."""
        return learning.judged(self.learner, self.seed, params, batch, flax_mutables or _NOTHING)

    def predict_batch_with_aux(self, params: Any, batch: Batch, rng: Any = None, flax_mutables: Any = None) -> Any:
        """Videos, see `learning.pictures`, and nothing besides."""
        rng = rng_of(self.seed, Stream.PICTURES) if rng is None else rng
        return learning.pictures(self.learner, params, batch, rng, flax_mutables or _NOTHING), {}

    def predict_batch(self, params: Any, batch: Batch, rng: Any = None, flax_mutables: Any = None) -> Any:
        """Videos, see `learning.pictures`."""
        return self.predict_batch_with_aux(params, batch, rng, flax_mutables)[0]

    def score_batch(
        self, params: Any, batch: Batch, return_intermediates: bool = False, flax_mutables: Any = None
    ) -> Any:
        """See `learning.scores`.

        Raises:
          UserError: intermediate values are asked for, of which there are none.
        """
        if return_intermediates:
            raise UserError("found return_intermediates of score_batch, expected none of it: leave it out")
        return learning.scores(self.learner, self.seed, params, batch, flax_mutables or _NOTHING)

    def settle(self, before: Any, after: Any) -> tuple[Any, dict[str, Any]]:
        """A train state with what is left to do after the optimizer's step done, and the metrics of that.

        Args:
          before: train state before the step.
          after: as the optimizer and `loss_fn` have left it.
        """
        mutables = dict(after.flax_mutables)
        observed = flax.core.unfreeze(mutables.pop("observed", {}))
        # No part of the step has had this key.
        rng = jax.random.fold_in(rng_of(self.seed, Stream.STEPS, before.step), 1)
        given = learning.given_of(self.learner, before.flax_mutables, before.step, rng)
        old, new = (flax.core.unfreeze(state.params) for state in (before, after))
        settled = self.learner.settle(old, new, observed, given)
        if settled.statistics:
            mutables["statistics"] = flax.serialization.to_state_dict(settled.statistics)
        kinds = self.learner.metrics().__annotations__
        metrics = {name: kinds[name].from_model_output(**settled.outputs) for name in settled.outputs}
        state = after.replace_params(flax.core.freeze(settled.params))
        return state.replace_flax_mutables(flax.core.freeze(mutables)), metrics


class Optimizer(optimizers.OptaxWrapper):
    """Any optax optimizer, whose state lies on the devices as the parameters that it mirrors."""

    def init_state(self, params: Any) -> Any:
        """The state at step 0; parameters are plain dicts for optax, whose transformations may ask which are which."""
        return super().init_state(flax.core.unfreeze(params))

    def apply_gradient(self, hyper_params: Any, params: Any, state: Any, grads: Any) -> tuple[Any, Any]:
        """New parameters and state."""
        plain = (flax.core.unfreeze(params), state, flax.core.unfreeze(grads))
        new, state = super().apply_gradient(hyper_params, *plain)
        return flax.core.freeze(new), state

    def derive_logical_axes(self, optimizer: Any, param_logical_axes: Any) -> Any:
        """An optimizer with the names of axes in the place of arrays."""
        unnamed: Any = PartitionSpec()
        axes = shardings_like(optimizer.state.param_states, param_logical_axes, unnamed)
        return optimizer.replace(target=param_logical_axes, state=optimizer.state.replace(step=None, param_states=axes))


class Trainer(trainer.Trainer):
    """t5x's trainer with the keys of this package's steps, so that both draw the same, and with what settles a step.

    Args:
      model: a `LearnerModel`.
      num_microbatches: None or 1; t5x adds gradients up where those of means must be averaged.
      learning_rate_fn: not used: the optimizer has its own schedule, which is logged.
      options: as t5x passes them.

    Raises:
      UserError: microbatches are asked for.
    """

    def __init__(
        self, model: LearnerModel, num_microbatches: int | None = None, learning_rate_fn: Any = None, **options: Any
    ) -> None:
        del learning_rate_fn
        if num_microbatches not in (None, 1):
            raise UserError(
                f"found num_microbatches {num_microbatches}, expected None: t5x adds up the gradients of parts, here "
                "means; make the batch smaller, or use StepConfig.microbatches of phenaki train"
            )
        schedule = model.optimizer.schedule()
        super().__init__(model=model, num_microbatches=None, learning_rate_fn=schedule, **options)

    def _get_step_rng(self, step: Any) -> Any:
        return rng_of(self._model.seed, Stream.STEPS, step)

    @functools.cached_property
    def _partitioned_train_step(self) -> Any:
        def train_step(state: Any, batch: Batch) -> tuple[Any, dict[str, Any]]:
            new, metrics = trainer.train_with_lr(
                state,
                batch,
                learning_rate=self._learning_rate_fn(state.step),
                dropout_rng=self._get_step_rng(state.step),
                model=self._model,
                num_microbatches=None,
                weight_metrics_computer=self._weight_metrics_computer,
                data_partition_spec=self._partitioner.data_partition_spec,
            )
            settled, more = self._model.settle(state, new)
            return settled, {**metrics, **more}

        places = (self._train_state_axes, self._partitioner.data_partition_spec)
        return self._partitioner.partition(
            train_step, in_axis_resources=places, out_axis_resources=(places[0], None), donate_argnums=(0,)
        )
