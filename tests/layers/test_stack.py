"""However a stack is run - unrolled, in a loop, computing again in its backward pass - it is the same function."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phenaki_jax.errors import UserError
from phenaki_jax.layers import stack as stack_module
from phenaki_jax.layers.stack import REMAT_POLICIES, Stack, StackConfig

CONFIG = StackConfig(layers=3, width=8, heads=2, mlp_width=16)
TOKENS = jax.random.normal(jax.random.key(0), (2, 5, 8))


def _value_and_gradient(config: StackConfig, params: dict) -> tuple[jax.Array, dict]:
    return jax.value_and_grad(lambda params: jnp.sum(Stack(config).apply(params, TOKENS)[0] ** 3))(params)


@pytest.fixture(scope="module")
def params() -> dict:
    return nn.unbox(Stack(CONFIG).init(jax.random.key(1), TOKENS))


def test_a_loop_over_layers_is_the_unrolled_stack(params: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    unrolled = _value_and_gradient(CONFIG, params)
    monkeypatch.setattr(stack_module, "_MOST_UNROLLED_LAYERS", 0)
    looped = _value_and_gradient(CONFIG, params)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4), looped, unrolled)


@pytest.mark.parametrize("policy", REMAT_POLICIES)
def test_computing_again_changes_no_gradient(policy: str, params: dict) -> None:
    kept = _value_and_gradient(CONFIG, params)
    again = _value_and_gradient(dataclasses.replace(CONFIG, remat=policy), params)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4), again, kept)


def test_dropout_drops_only_while_training(params: dict) -> None:
    stack = Stack(dataclasses.replace(CONFIG, dropout=0.5))
    still, _ = stack.apply(params, TOKENS)
    np.testing.assert_array_equal(still, Stack(CONFIG).apply(params, TOKENS)[0])
    dropped = [
        stack.apply(params, TOKENS, deterministic=False, rngs={"dropout": jax.random.key(key)})[0] for key in (1, 2)
    ]
    assert np.any(np.asarray(dropped[0]) != np.asarray(still))
    assert np.any(np.asarray(dropped[0]) != np.asarray(dropped[1]))


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(UserError, match=r"width 8 over 3 heads gives each 2\.667 features, expected an even"):
        dataclasses.replace(CONFIG, heads=3)


@pytest.mark.parametrize("dropout", [-0.1, 1.0])
def test_a_dropout_that_is_no_probability_is_refused(dropout: float) -> None:
    with pytest.raises(UserError, match=f"dropout {dropout} must be at least 0 and below 1"):
        dataclasses.replace(CONFIG, dropout=dropout)
