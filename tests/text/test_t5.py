"""The encoder is transformers' and t5x's; what is padding changes nothing; and XXL can be divided over devices."""

import functools
import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from phenaki_jax.errors import UserError
from phenaki_jax.layers.module import apply
from phenaki_jax.text import testing
from phenaki_jax.text.t5 import SIZES, T5Config, T5Encoder, relative_buckets
from phenaki_jax.training.sharding import MeshConfig

CONFIGS = {"t5": testing.TINY, "umt5": testing.TINY_UMT5}


@functools.partial(jax.jit, static_argnums=(0, 4))
def encode(config: T5Config, params: dict, tokens: jax.Array, mask: jax.Array, dtype: type = jnp.float32) -> jax.Array:
    return apply(T5Encoder(config, dtype), params, tokens, mask)


def boxed_params(config: T5Config) -> dict:
    tokens = jnp.zeros((1, 1), jnp.int32)
    return jax.eval_shape(lambda: T5Encoder(config).init(jax.random.key(0), tokens, tokens == 0)["params"])


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("oracle", ["transformers", "t5x"])
def test_embeddings_are_those_of_other_implementations(fixtures: pathlib.Path, oracle: str, name: str) -> None:
    config = CONFIGS[name]
    tokens, mask = testing.random_texts(config)
    found = np.asarray(encode(config, testing.random_t5(config), tokens, mask))
    with np.load(fixtures / f"{oracle}.npz") as outputs:
        np.testing.assert_allclose(found[mask], outputs[name][mask], rtol=0, atol=1e-5)
    assert np.std(found[mask]) > 0.5


@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_under_a_false_mask_changes_nothing(name: str) -> None:
    """To the last bit: neither padding nor another row is seen. Padding comes out as 0, a row of nothing else too."""
    config = CONFIGS[name]
    tokens, mask = testing.random_texts(config)
    mask[2] = False
    params = testing.random_t5(config)
    found = np.asarray(encode(config, params, tokens, mask))
    other = np.where(mask, tokens, config.vocabulary_size - 1 - tokens)
    np.testing.assert_array_equal(found, encode(config, params, other, mask))
    other[1:] = other[:-1]
    np.testing.assert_array_equal(found[0], encode(config, params, other, mask)[0])
    assert (found[~mask] == 0).all()
    assert np.abs(found[mask]).min(-1).max() > 0


def test_every_token_of_a_text_is_seen_by_every_other() -> None:
    config = testing.TINY
    tokens, mask = testing.random_texts(config, (40,))
    params = testing.random_t5(config)
    other = np.array(tokens)
    other[0, 39] = (tokens[0, 39] + 1) % config.vocabulary_size
    differs = encode(config, params, tokens, mask) != encode(config, params, other, mask)
    assert differs.any(-1).all()


def test_buckets_of_t5() -> None:
    """Of 32, 16 for each direction: one each for distances 0 to 7, then ranges that grow by the root of 2, to 128."""
    buckets = relative_buckets(512, 32, 128)
    backwards = {0: 0, 1: 1, 7: 7, 8: 8, 11: 8, 12: 9, 15: 9, 16: 10, 22: 10, 23: 11, 31: 11, 32: 12, 64: 14, 90: 14}
    backwards |= {91: 15, 127: 15, 128: 15, 511: 15}
    for distance, bucket in backwards.items():
        assert buckets[511, 511 - distance] == bucket
        assert buckets[0, distance] == (bucket + 16 if distance else 0)
    np.testing.assert_array_equal(buckets[100, 98:103], [2, 1, 0, 17, 18])


def test_buckets_of_other_numbers() -> None:
    """Of 8, 4 for each direction: distances 0 and 1, then 2 to 5, then from 6, as 2 * sqrt(20 / 2) = 6.3."""
    np.testing.assert_array_equal(relative_buckets(9, 8, 20)[8], [3, 3, 2, 2, 2, 2, 2, 1, 0])
    np.testing.assert_array_equal(relative_buckets(9, 8, 20)[0], [0, 5, 6, 6, 6, 6, 6, 7, 7])


def test_sizes_are_those_released() -> None:
    """Parameters of the encoder, in millions, the embedding included."""
    found = {
        name: sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(nn.unbox(boxed_params(T5Config.named(name))))) / 1e6
        for name in SIZES
    }
    expected = {"small": 35.3, "base": 109.6, "large": 341.2, "xl": 1223.5, "xxl": 4762.3}
    # The bias of each layer, and a larger vocabulary: (256384 - 32128) * 512 + 7 * 6 * 32 more for the small one.
    expected |= {"umt5_small": 150.2, "umt5_base": 281.9, "umt5_xl": 1682.8, "umt5_xxl": 5680.9}
    assert found == pytest.approx(expected, abs=0.05)
    assert T5Config() == T5Config.named("xxl")


def test_half_precision_is_near() -> None:
    config = testing.TINY
    tokens, mask = testing.random_texts(config)
    params = testing.random_t5(config)
    with jax.numpy_dtype_promotion("standard"):  # Flax's own norm mixes types
        half = encode(config, params, tokens, mask, jnp.bfloat16)
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(jnp.float32), encode(config, params, tokens, mask), rtol=0.1, atol=0.1)


def test_xxl_is_divided_over_devices() -> None:
    """The program for a 2 x 2 mesh: each device holds a quarter of every kernel, and half of the embedding."""
    config = T5Config.named("xxl")
    layout = MeshConfig(data=2, model=2, rules="fully_sharded").make()
    boxed = boxed_params(config)
    places = layout.parameters(boxed)
    assert places["layers"]["query"].spec == PartitionSpec(None, "data", "model", None)
    assert places["layers"]["attention_out"].spec == PartitionSpec(None, "model", None, "data")
    assert places["layers"]["mlp_out"].spec == PartitionSpec(None, "model", "data")
    assert places["embedding"].spec == PartitionSpec(None, "data")
    params = jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), nn.unbox(boxed), places
    )
    tokens, mask = (jax.ShapeDtypeStruct((4, 128), dtype, sharding=layout.batch) for dtype in (jnp.int32, jnp.bool))
    with layout.applied():
        compiled = encode.lower(config, params, tokens, mask).compile()
    held = compiled.memory_analysis().argument_size_in_bytes / 4
    assert held / 4762e6 == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": 0}, "found layers 0, expected at least 1"),
        ({"buckets": 30}, "found 30 buckets and longest_distance 128, expected a multiple of 4"),
        ({"longest_distance": 8}, "found 32 buckets and longest_distance 8, expected .* more than a quarter of them"),
    ],
)
def test_sizes_that_cannot_be_are_refused(change: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        T5Config(**change)


def test_an_unknown_size_is_refused() -> None:
    with pytest.raises(UserError, match=r"found T5 size 'huge', expected one of small, .* umt5_xxl"):
        T5Config.named("huge")
