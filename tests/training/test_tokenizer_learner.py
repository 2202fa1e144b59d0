"""The tokenizer's learner: padding has no effect, and a few steps lower the loss."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from phenaki_jax.inference.testing import random_params
from phenaki_jax.training.tokenizer_learner import TokenizerLearner


@pytest.fixture(scope="module")
def params(tokenizer_learner: TokenizerLearner) -> dict:
    return random_params(tokenizer_learner.model)["tokenizer"]


@pytest.fixture(scope="module")
def learn(tokenizer_learner: TokenizerLearner) -> Callable[[dict, dict], tuple]:
    """((loss, outputs), gradient) of parameters and a batch."""
    compiled = jax.jit(jax.value_and_grad(tokenizer_learner.loss, has_aux=True))
    return lambda params, batch: compiled(params, {}, batch, jax.random.key(0))


@pytest.fixture(scope="module")
def batch() -> dict[str, jax.Array]:
    """A clip of all 7 frames, one of 5 and an image, with noise behind them."""
    return {
        "video": jax.random.randint(jax.random.key(0), (3, 7, 32, 32, 3), 0, 256).astype(jnp.uint8),
        "frame_mask": jnp.arange(7)[None] < jnp.array([7, 5, 1])[:, None],
    }


def test_padding_changes_neither_loss_nor_outputs_nor_gradient(learn: Callable, params: dict, batch: dict) -> None:
    valid = batch["frame_mask"][:, :, None, None, None]
    other = {**batch, "video": jnp.where(valid, batch["video"], 255).astype(jnp.uint8)}
    assert np.any(other["video"] != batch["video"])
    jax.tree.map(np.testing.assert_array_equal, learn(params, other), learn(params, batch))


def test_codes_are_counted_in_valid_time_steps(learn: Callable, params: dict, batch: dict) -> None:
    """7, 5 and 1 frames are 4, 3 and 1 time steps of 4 x 4 tokens."""
    (_, outputs), _ = learn(params, batch)
    assert float(outputs["code_counts"].sum()) == (4 + 3 + 1) * 16


def test_ten_steps_lower_the_loss_of_a_batch(learn: Callable, params: dict, batch: dict) -> None:
    """Its clips are each of one colour."""
    colours = jnp.array([[255, 0, 0], [0, 0, 255], [255, 255, 255]], jnp.uint8)
    plain = {**batch, "video": jnp.broadcast_to(colours[:, None, None, None], batch["video"].shape)}
    optimizer = optax.adam(1e-2)
    state = optimizer.init(params)
    losses, psnrs = [], []
    for _ in range(11):
        (loss, outputs), gradient = learn(params, plain)
        updates, state = optimizer.update(gradient, state)
        params = optax.apply_updates(params, updates)
        total, clips = outputs["psnr"]
        losses.append(float(loss))
        psnrs.append(float(total / clips))
    assert losses[-1] < losses[0] / 2
    assert psnrs[-1] > psnrs[0] + 4
