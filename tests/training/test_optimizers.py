"""The optimizers: which parameters Muon takes, and how the learning rate goes."""

import math

import flax.linen as nn
import jax
import numpy as np
import pytest

from phenaki_jax.errors import UserError
from phenaki_jax.inference.testing import tiny_config
from phenaki_jax.training.optimizers import OptimizerConfig
from phenaki_jax.training.tokenizer_learner import TokenizerLearner


def test_the_learning_rate_warms_up_and_falls_as_a_cosine() -> None:
    config = OptimizerConfig(learning_rate=0.5, warmup_steps=10, decay_steps=110, final_share=0.1)
    rates = [float(config.schedule()(step)) for step in (0, 5, 10, 60, 110, 500)]
    np.testing.assert_allclose(rates, [0.0, 0.25, 0.5, 0.275, 0.05, 0.05], rtol=1e-5)


def test_muon_makes_every_direction_of_a_kernel_move_alike_and_leaves_the_rest_to_adam() -> None:
    learner = TokenizerLearner(tiny_config().tokenizer)
    boxed = jax.jit(learner.init_params)(jax.random.key(0))
    config = OptimizerConfig("muon", learning_rate=1.0, warmup_steps=0, decay_steps=10, clip=1e9, weight_decay=0.0)
    transform = config.make(jax.eval_shape(learner.init_params, jax.random.key(0)))
    params = nn.unbox(boxed)
    gradients = jax.tree.map(lambda leaf: jax.random.normal(jax.random.key(leaf.size), leaf.shape) ** 3, params)
    updates, _ = jax.jit(transform.update)(gradients, transform.init(params), params)
    seen = {"kernel": 0, "other": 0}
    for path, update in jax.tree_util.tree_leaves_with_path(updates):
        name = jax.tree_util.keystr(path)
        if "layers" in name and "norm" not in name:
            matrix = np.asarray(update[0])
            rows = int(np.prod(matrix.shape[:2])) if "attention" in name and name.endswith("['out']") else len(matrix)
            singular = np.linalg.svd(matrix.reshape(rows, -1), compute_uv=False)
            assert singular.max() / singular.min() < 3.0, name
            seen["kernel"] += 1
        elif "norm" in name or "kernel" in name:
            # Adam's first step is as long for every element, whatever its gradient.
            np.testing.assert_allclose(np.abs(update), np.mean(np.abs(update)), rtol=1e-2)
            assert 1.0 < np.mean(np.abs(update)) < 2.0
            seen["other"] += 1
    assert min(seen.values()) > 3


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"kind": "sgd"}, "known are adamw and muon"),
        ({"warmup_steps": 10, "decay_steps": 10}, "must be fewer than"),
        ({"decay_steps": -5}, "found decay_steps -5, which run files set to STEPS"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict, told: str) -> None:
    with pytest.raises(UserError, match=told):
        OptimizerConfig(**settings)


@pytest.mark.parametrize(
    "wrong",
    [
        {"learning_rate": 0.0},
        {"learning_rate": -1.0},
        {"learning_rate": math.inf},
        {"clip": -1.0},
        {"clip": math.nan},
        {"final_share": 1.5},
        {"b1": 1.0},
        {"b2": -0.1},
        {"weight_decay": -1e-4},
        {"warmup_steps": -1},
    ],
)
def test_a_value_out_of_its_range_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UserError, match=f"found {next(iter(wrong))}"):
        OptimizerConfig(**wrong)
