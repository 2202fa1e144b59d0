"""Kernels of attention, interpreted, against plain products."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core

from phenaki_jax.layers import kernels
from phenaki_jax.layers.attention import Segments
from phenaki_jax.layers.layout import ROWS
from phenaki_jax.layers.stack import REMAT_POLICIES
from phenaki_jax.training.sharding import MeshConfig


@pytest.mark.parametrize(("queries", "keys"), [(128, 128), (200, 77)])
def test_splash_attention_is_plain_attention(queries: int, keys: int) -> None:
    rng = np.random.default_rng(0)
    query, out = (jnp.asarray(rng.standard_normal((1, queries, 2, 128)), jnp.float32) for _ in range(2))
    key, value = (jnp.asarray(rng.standard_normal((1, keys, 2, 128)), jnp.float32) for _ in range(2))
    segments = Segments(*(1 + (jnp.arange(length)[None] // 60).clip(0, 1) for length in (queries, keys)))

    def splash(*arrays: jax.Array) -> jax.Array:
        return kernels.splash_attention(*arrays, *segments, scale=0.1, axes=ROWS, interpret=True)

    def plain(*arrays: jax.Array) -> jax.Array:
        return jax.nn.dot_product_attention(*arrays, mask=segments.mask, scale=0.1)

    found, pull = jax.vjp(splash, query, key, value)
    wanted, pull_plain = jax.vjp(plain, query, key, value)
    np.testing.assert_allclose(found, wanted, atol=2e-5)
    for gradient, expected in zip(pull(out), pull_plain(out), strict=True):
        np.testing.assert_allclose(gradient, expected, atol=1e-4)


@pytest.mark.parametrize("rules", ["tensor_parallel", "sequence_parallel"])
def test_splash_attention_of_several_devices_is_that_of_one(rules: str) -> None:
    rng = np.random.default_rng(0)
    arrays = [jnp.asarray(rng.standard_normal((2, 256, 2, 128)), jnp.float32) for _ in range(3)]
    segments = Segments(*[1 + (jnp.arange(256)[None] // 100).clip(0, 1) * jnp.ones((2, 1), jnp.int32)] * 2)

    def attended(*arrays: jax.Array) -> jax.Array:
        return jnp.sum(kernels.splash_attention(*arrays, *segments, scale=0.1, axes=ROWS, interpret=True) ** 2)

    alone = jax.value_and_grad(attended, argnums=(0, 1, 2))
    expected = alone(*arrays)
    with MeshConfig(data=2, model=2, rules=rules).make().applied():
        assert "shard_map" in str(jax.make_jaxpr(attended)(*arrays))
        found = jax.jit(alone)(*arrays)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4), found, expected)


def test_what_cudnn_has_no_kernel_for_is_left_to_plain_products() -> None:
    array = lambda length, dtype=jnp.bfloat16: jnp.zeros((2, length, 2, 64), dtype)  # noqa: E731
    assert kernels.takes_cudnn(array(301), array(301), masked=False)
    assert kernels.takes_cudnn(array(302), array(256), masked=True)
    assert not kernels.takes_cudnn(array(301), array(256), masked=True)
    assert not kernels.takes_cudnn(array(302), array(128), masked=False)
    assert not kernels.takes_cudnn(array(302, jnp.float32), array(302, jnp.float32), masked=False)


def test_outputs_of_kernels_are_kept_by_their_policies() -> None:
    kernel, other = core.Primitive("dot_product_attention_fwd_wrapper"), core.Primitive("exp")
    for name in ("save_attention", "save_products"):
        assert REMAT_POLICIES[name](kernel)
        assert not REMAT_POLICIES[name](other)
