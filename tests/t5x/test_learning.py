"""A learner in t5x's form gives what the learner gives; nothing here needs t5x."""

import dataclasses
import functools
from typing import Any

import flax.core
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from clu import metrics

from phenaki_jax.errors import UserError
from phenaki_jax.evaluation.metrics import CodeCounts, Ratio
from phenaki_jax.inference.testing import tiny_config
from phenaki_jax.t5x import learning
from phenaki_jax.tokenizer.adversarial import AdversarialConfig
from phenaki_jax.training.learner import Batch, Given, Learned
from phenaki_jax.training.optimizers import OptimizerConfig
from phenaki_jax.training.state import Stream, rng_of
from phenaki_jax.training.tokenizer_learner import TokenizerLearner
from phenaki_jax.training.transformer_learner import TransformerLearner


class Toy(TokenizerLearner):
    """Its gradient is that of no loss: 100, which is frozen, times the parameters, and 5, a statistic."""

    def init_params(self, rng: Any) -> Any:
        return {"tokenizer": {"slope": nn.LogicallyPartitioned(jax.random.normal(rng, (2,)), ("embed",))}}

    def initial_statistics(self) -> dict[str, Any]:
        return {"tokenizer": jnp.float32(5)}

    def frozen_spec(self) -> Any:
        return {"teacher": {"factor": jax.ShapeDtypeStruct((), jnp.float32)}}

    def load_frozen(self, spec: Any) -> Any:
        return jax.tree.map(lambda leaf: jax.device_put(np.float32(100), leaf.sharding), spec)

    def learn(self, params: Any, batch: Batch, given: Given) -> Learned:
        slope = given.frozen["teacher"]["factor"] * params["tokenizer"]["slope"] + given.statistics["tokenizer"]
        outputs = {"loss": (_sum(batch), jnp.float32(4)), "frame_error": (jnp.ones((2,)), jnp.arange(1.0, 3.0))}
        return Learned({"tokenizer": {"slope": slope}}, jnp.float32(4), outputs, {"tokenizer": jnp.float32(9)})

    def gradient_outputs(self, gradients: Any, given: Given) -> dict[str, Any]:
        return {"gradient_norm": (jnp.sum(gradients["tokenizer"]["slope"]), jnp.float32(1))}

    def evaluate(self, params: Any, frozen: Any, batch: Batch, rng: Any) -> dict[str, Any]:
        return {"loss": (frozen["teacher"]["factor"] * _sum(batch), jnp.float32(len(batch["video"])))}

    def images(self, params: Any, frozen: Any, batch: Batch, rng: Any) -> dict[str, Any]:
        return {"given": batch["video"], "turned": 255 - batch["video"]}

    def metrics(self) -> type[metrics.Collection]:
        names = ("loss", "frame_error", "gradient_norm", "unseen")
        return metrics.Collection.create(**{name: Ratio.from_output(name) for name in names})


def _sum(batch: Batch) -> Any:
    return jnp.sum(batch["video"].astype(jnp.float32))


TOY = Toy(tiny_config().tokenizer)
# Clips of two frames of a pixel, of which those of the first are 0 and those of the second 1.
BATCH = {"video": jnp.asarray([[0] * 6, [1] * 6], jnp.uint8).reshape(2, 2, 1, 1, 3)}
PARAMS = flax.core.freeze({"tokenizer": {"slope": jnp.asarray([1.0, 2.0])}})
MUTABLES = flax.core.freeze(
    {"frozen": {"teacher": {"factor": jnp.float32(100)}}, "statistics": {"tokenizer": jnp.float32(5)}}
)


def values_of(found: dict[str, Any]) -> dict[str, float]:
    return {name: float(metric.compute()) for name, metric in found.items()}


def test_names_of_axes_stand_beside_each_parameter() -> None:
    kernel = nn.LogicallyPartitioned(jnp.zeros((2, 3)), ("embed", "mlp"))
    axes = learning.logical_axes({"layer": {"kernel": kernel, "scale": jnp.zeros((3,))}})["layer"]
    assert (axes["kernel_axes"].names, axes["scale_axes"].names) == (("embed", "mlp"), (None,))


def test_a_mesh_of_two_axes_has_no_third_one() -> None:
    assert learning.axis_rules()[0] == ("batch", "data")
    rules = dict(learning.axis_rules("fully_sharded_tensor_parallel"))
    assert (rules["batch"], rules["heads"], rules["embed"]) == ("data", "model", "data")
    with pytest.raises(UserError, match="data_parallel"):
        learning.axis_rules("sideways")


def test_a_discriminator_and_precomputed_data_are_refused() -> None:
    learner = TokenizerLearner(tiny_config().tokenizer, adversarial=AdversarialConfig())
    with pytest.raises(UserError, match="tokenizer and discriminator"):
        learning.check_learner(learner, OptimizerConfig())
    learning.check_learner(dataclasses.replace(learner, adversarial=None), OptimizerConfig())
    with pytest.raises(UserError, match="found precomputed data in some/folder"):
        learning.check_learner(TransformerLearner(tiny_config(), "", precomputed="some/folder"), OptimizerConfig())


def test_packing_is_refused() -> None:
    with pytest.raises(UserError, match="pack=False"):
        learning.feature_converter(TOY, pack=True)


def test_a_training_begins_as_that_of_the_loop() -> None:
    begun = jax.jit(lambda: learning.initial_variables(TOY, 3))()
    own = nn.unbox(TOY.init_params(rng_of(3, Stream.INITIALISATION)))
    np.testing.assert_array_equal(begun["params"]["tokenizer"]["slope"], own["tokenizer"]["slope"])
    assert begun["params_axes"]["tokenizer"]["slope_axes"].names == ("embed",)
    assert (begun["frozen"]["teacher"]["factor"], begun["statistics"]["tokenizer"]) == (100, 5)


def test_frozen_parameters_are_not_read_where_shapes_are_asked_for() -> None:
    class Absent(Toy):
        def load_frozen(self, spec: Any) -> Any:
            raise UserError("found no file")

    absent = Absent(TOY.model)
    shapes = jax.eval_shape(lambda: learning.initial_variables(absent, 0))
    assert shapes["frozen"]["teacher"]["factor"].shape == ()


def test_gradient_and_loss_are_what_the_learner_teaches() -> None:
    loss = functools.partial(learning.taught_loss, TOY)
    teach = jax.jit(jax.value_and_grad(loss, has_aux=True))
    for rng in (jax.random.key(0), jax.random.PRNGKey(0)):
        (value, (found, observed)), gradients = teach(PARAMS, BATCH, rng, MUTABLES)
        assert gradients["tokenizer"]["slope"].tolist() == [105, 205]
        assert value == 1.5
        assert observed == {"tokenizer": 9}
        # Of what was not seen nothing is said, and of a vector each entry.
        assert values_of(found) == {"loss": 1.5, "frame_error_00": 1, "frame_error_01": 0.5, "gradient_norm": 310}


def test_what_is_counted_for_the_whole_stays_whole() -> None:
    class Counting(Toy):
        def metrics(self) -> type[metrics.Collection]:
            return metrics.Collection.create(codebook_usage=CodeCounts)

    assert values_of(learning.metrics_of(Counting(TOY.model), {"code_counts": jnp.asarray([4.0, 0.0])})) == {
        "codebook_usage": 0.5
    }


def test_a_batch_is_judged_as_a_whole_and_each_example_scored_by_itself() -> None:
    loss, found = learning.judged(TOY, 0, PARAMS, BATCH, MUTABLES)
    assert (loss, values_of(found)) == (300, {"loss": 300})
    assert jax.jit(functools.partial(learning.scores, TOY, 0))(PARAMS, BATCH, MUTABLES).tolist() == [0, -600]


def test_what_is_shown_of_an_example_follows_one_another() -> None:
    shown = learning.pictures(TOY, PARAMS, BATCH, jax.random.PRNGKey(0), MUTABLES)
    assert shown[..., 0, 0, 0].tolist() == [[0, 0, 255, 255], [1, 1, 254, 254]]
