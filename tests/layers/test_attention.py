"""Masked keys weigh exactly nothing; rotated positions count only by their distance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phenaki_jax.layers.attention import dot_product_attention
from phenaki_jax.layers.positions import grid_positions, rotary_angles, rotate, sinusoidal_embedding


def test_a_masked_key_has_no_weight_and_no_gradient() -> None:
    query, key, value = (jax.random.normal(jax.random.key(index), (1, 3, 2, 4)) for index in range(3))
    mask = jnp.array([True, False, True])[None, None, None, :]

    def attended(key: jax.Array, value: jax.Array) -> jax.Array:
        return dot_product_attention(query, key, value, mask)

    before = attended(key, value)
    np.testing.assert_array_equal(attended(key.at[:, 1].set(9.0), value.at[:, 1].set(1e6)), before)
    gradients = jax.grad(lambda *inputs: jnp.sum(attended(*inputs) ** 2), argnums=(0, 1))(key, value)
    for gradient in gradients:
        np.testing.assert_array_equal(gradient[:, 1], 0.0)
        assert np.all(np.any(gradient[:, [0, 2]] != 0.0, axis=(0, 2, 3)))


def test_rotated_products_depend_on_distance_alone() -> None:
    query, key = (jnp.broadcast_to(jax.random.normal(jax.random.key(index), (8,)), (1, 6, 1, 8)) for index in range(2))
    angles = rotary_angles(jnp.arange(6)[None, :, None], 8)
    products = jnp.einsum("bqhd,bkhd->qk", rotate(query, angles), rotate(key, angles))
    for distance in range(-5, 6):
        diagonal = np.diagonal(products, distance)
        np.testing.assert_allclose(diagonal, diagonal[0], rtol=1e-4)
    assert not np.allclose(products[0, 0], products[0, 1], rtol=1e-3)


def test_pairs_are_turned_like_complex_numbers() -> None:
    features = jax.random.normal(jax.random.key(0), (2, 3, 4, 6))
    angles = jax.random.uniform(jax.random.key(1), (1, 3, 3), maxval=7.0)
    first, second = np.split(np.asarray(features), 2, axis=-1)
    turned = (first + 1j * second) * np.exp(1j * np.asarray(angles))[:, :, None]
    expected = np.concatenate([turned.real, turned.imag], axis=-1)
    np.testing.assert_allclose(rotate(features, angles), expected, rtol=1e-5, atol=1e-6)


def test_every_axis_of_a_position_turns_some_pair() -> None:
    angles = rotary_angles(grid_positions(2, 2, 2), 16)
    here = angles[0]
    for neighbour in (4, 2, 1):  # one step in time, down, to the right
        assert np.any(np.asarray(angles[neighbour] != here))
    assert angles.shape == (8, 8)


def test_sinusoids_tell_all_positions_of_a_grid_apart() -> None:
    embedded = np.asarray(sinusoidal_embedding(grid_positions(6, 4, 4), 128))
    distances = np.linalg.norm(embedded[:, None] - embedded[None], axis=-1)
    assert distances[~np.eye(96, dtype=bool)].min() > 0.1


@pytest.mark.parametrize("batch", [2, 17])
@pytest.mark.parametrize(("queries", "keys"), [(300, 300), (300, 5), (5, 300)])
def test_long_sequences_are_attended_to_as_short_ones_are(batch: int, queries: int, keys: int) -> None:
    """On CPU by other products, which are compared with those of jax.nn."""
    rngs = jax.random.split(jax.random.key(0), 4)
    query, key, value = (
        jax.random.normal(rng, (batch, length, 3, 8)) for rng, length in zip(rngs, (queries, keys, keys), strict=False)
    )
    bias = jax.random.normal(rngs[3], (1, 3, queries, keys))
    mask = (jnp.arange(keys) < jnp.arange(2, batch + 2)[:, None] % 4)[:, None, None]
    for options in ({}, {"mask": mask}, {"bias": bias, "mask": mask, "scale": 1.0}, {"bias": bias}):
        wanted = jax.nn.dot_product_attention(query, key, value, **options)
        found = dot_product_attention(query, key, value, options.pop("mask", None), **options)
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
