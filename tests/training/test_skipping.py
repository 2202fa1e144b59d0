"""Steps whose gradients are not finite."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from phenaki_jax.inference.testing import tiny_config
from phenaki_jax.training import state as state_lib
from phenaki_jax.training.learner import Learned
from phenaki_jax.training.sharding import MeshConfig
from phenaki_jax.training.state import StepConfig
from phenaki_jax.training.tokenizer_learner import TokenizerLearner


class Bursting(TokenizerLearner):
    """Has no finite gradient in its second step."""

    def learn(self, params: Any, batch: Any, given: Any) -> Learned:
        learned = super().learn(params, batch, given)
        factor = jnp.where(given.step == 1, jnp.nan, 1.0)
        return learned._replace(gradients=jax.tree.map(lambda gradient: factor * gradient, learned.gradients))


def test_a_step_that_is_not_finite_is_skipped_and_counted() -> None:
    learner, config = Bursting(tiny_config().tokenizer), StepConfig(average_decay=0.9, non_finite="skip")
    transform, layout = optax.adam(1e-3), MeshConfig().over(jax.devices()[:1])
    rng = np.random.default_rng(0)
    batch = {
        "video": rng.integers(0, 256, (2, 5, 32, 32, 3), dtype=np.uint8),
        "frame_mask": np.ones((2, 5), bool),
    }
    state = state_lib.initial_state(learner, transform, 0, state_lib.state_spec(learner, transform, layout, config))
    step = jax.jit(lambda state, batch: state_lib.train_step(learner, transform, config, state, batch))
    states, metrics = [state], []
    for _ in range(3):
        state, seen = step(states[-1], batch)
        states.append(state)
        metrics.append(seen)
    jax.tree.map(np.testing.assert_array_equal, states[2], states[1].replace(step=states[2].step))
    assert [int(each.step) for each in states] == [0, 1, 2, 3]
    moved = [jax.tree.leaves(dataclasses.asdict(each)["params"])[0] for each in (states[0], states[1], states[3])]
    assert all((one != other).any() for one, other in itertools.pairwise(moved))
    total = metrics[0].merge(metrics[1]).merge(metrics[2]).compute()
    assert total["skipped_steps"] == 1
    assert np.isfinite(total["loss"])
