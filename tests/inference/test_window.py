"""A model is put together only of parts that fit: what does not is refused with both sizes."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from phenaki_jax.errors import UserError
from phenaki_jax.inference.decoding import SamplingConfig
from phenaki_jax.inference.testing import random_params, tiny_config
from phenaki_jax.inference.window import (
    PhenakiConfig,
    _covering_tokens,
    draw_tokens,
    encode_text,
    generate_window,
    single_texts,
)
from phenaki_jax.layers import pixels
from phenaki_jax.layers.module import apply
from phenaki_jax.tokenizer.config import QuantizerConfig
from phenaki_jax.tokenizer.cvivit import CViViT


def _with_parts(**parts: dict) -> PhenakiConfig:
    """The tiny model with other settings of "tokenizer", "text" or "transformer"."""
    config = tiny_config()
    changed = {part: dataclasses.replace(getattr(config, part), **settings) for part, settings in parts.items()}
    return dataclasses.replace(config, **changed)


def test_another_codebook_size_than_the_tokenizers_is_refused() -> None:
    with pytest.raises(UserError, match=r"transformer's codebook_size is 32 but the tokenizer has 16 codes"):
        _with_parts(transformer={"codebook_size": 32})
    with pytest.raises(UserError, match=r"transformer's codebook_size is 16 but the tokenizer has 20 codes"):
        _with_parts(tokenizer={"quantizer": QuantizerConfig(kind="fsq", levels=(4, 5))})


@pytest.mark.parametrize(
    ("quantizer", "found"),
    [
        (QuantizerConfig(kind="fsq", levels=(4, 4)), r"levels \(4, 4\)"),
        (QuantizerConfig(kind="fsq", levels=(8, 2)), r"levels \(8, 2\)"),
        (QuantizerConfig(kind="cosine_vq", codes=16, levels=(2, 8)), "kind cosine_vq"),
    ],
    ids=["others", "another order", "none"],
)
def test_other_code_levels_than_the_quantizers_are_refused(quantizer: QuantizerConfig, found: str) -> None:
    """All have 16 codes, as has (2, 8)."""
    with pytest.raises(UserError, match=rf"code_levels are \(2, 8\) but the tokenizer's quantizer has {found};"):
        _with_parts(tokenizer={"quantizer": quantizer}, transformer={"code_levels": (2, 8)})


@pytest.mark.parametrize("code_levels", [(2, 8), ()], ids=["shared", "none"])
def test_the_quantizers_own_levels_or_none_are_taken(code_levels: tuple[int, ...]) -> None:
    quantizer = QuantizerConfig(kind="fsq", levels=(2, 8))
    config = _with_parts(tokenizer={"quantizer": quantizer}, transformer={"code_levels": code_levels})
    assert config.transformer.code_levels == code_levels


@pytest.mark.parametrize(
    ("parts", "text", "transformer"),
    [({"text": {"width": 32}}, 32, 16), ({"transformer": {"text_width": 24}}, 16, 24)],
    ids=["text", "transformer"],
)
def test_another_text_width_than_the_text_encoders_is_refused(parts: dict, text: int, transformer: int) -> None:
    with pytest.raises(UserError, match=rf"width is {text} but the transformer reads {transformer}; set .*text_width"):
        _with_parts(**parts)


def test_tokens_that_cover_a_pixel() -> None:
    """Patches of 8 pixels; frames 1 and 2 share a time step, as do 3 and 4."""
    which = np.zeros((1, 5, 32, 32), bool)
    which[0, 0, 0, 31] = which[0, 4, 15, 16] = True
    found = np.argwhere(_covering_tokens(tiny_config().tokenizer, jnp.asarray(which)))
    assert found.tolist() == [[0, 0, 0, 3], [0, 2, 1, 2]]


def test_factors_that_are_not_the_quantizers_are_refused() -> None:
    quantizer = QuantizerConfig(kind="lfq", bits=18)
    tokenizer, codes = {"quantizer": quantizer}, {"codebook_size": 2**18}
    assert _with_parts(tokenizer=tokenizer, transformer={**codes, "code_factors": (512, 512)})
    with pytest.raises(UserError, match=r"code_factors are \(256, 1024\) but .* \(512, 512\)"):
        _with_parts(tokenizer=tokenizer, transformer={**codes, "code_factors": (256, 1024)})


def test_new_frames_have_the_colour_that_tokens_lose_of_given_ones() -> None:
    """In the mean over given frames, what is shown and what is decoded are of one colour."""
    config = tiny_config()
    params = jax.tree.map(jnp.asarray, random_params(config))
    text = jnp.full((2, 24), 7, jnp.int32), jnp.arange(24)[None] < jnp.array([[3], [24]])
    texts = single_texts(jax.jit(encode_text, static_argnums=0)(config, params["text"], *text), text[1])
    prefix = jax.random.randint(jax.random.key(0), (2, 3, 32, 32, 3), 60, 200).astype(jnp.uint8)
    sampling, rngs = SamplingConfig(steps=2), jax.random.split(jax.random.key(1), 2)
    found = jax.jit(generate_window, static_argnums=(0, 1))(config, sampling, params, texts, prefix, rngs)
    tokenize = jax.jit(functools.partial(apply, CViViT(config.tokenizer)), static_argnames="method")
    given = tokenize(params["tokenizer"], pixels.to_float(prefix), method="encode")
    known_tokens = jnp.zeros((2, *config.token_shape), jnp.int32).at[:, :2].set(given)
    known = jnp.zeros(known_tokens.shape, bool).at[:, :2].set(True)
    draw = jax.jit(draw_tokens, static_argnums=(0, 1))
    tokens = draw(config, sampling, params, texts, known_tokens, known, rngs)
    video = tokenize(params["tokenizer"], tokens, method="decode")
    moved = pixels.to_float(found[:, 3:]) - video[:, 3:]
    wanted = jnp.mean(pixels.to_float(prefix) - video[:, :3], axis=(1, 2, 3))
    inside = jnp.abs(pixels.to_float(found[:, 3:])) < 1
    for row in range(2):
        for color in range(3):
            shifts = moved[row, ..., color][inside[row, ..., color]]
            np.testing.assert_allclose(shifts, wanted[row, color], atol=1.1 / 255)
    assert float(jnp.abs(wanted).max()) > 4 / 255


@pytest.mark.parametrize("sampler", ["confidence", pytest.param("halton", marks=pytest.mark.slow)])
def test_the_same_keys_give_the_same_videos_on_any_number_of_devices(sampler: str) -> None:
    config = tiny_config()
    params = jax.tree.map(jnp.asarray, random_params(config))
    tokens, mask = jnp.full((4, 24), 7), jnp.arange(24)[None] < jnp.array([[3], [24], [9], [1]])
    prefix = jax.random.randint(jax.random.key(0), (4, 3, 32, 32, 3), 60, 200).astype(jnp.uint8)
    rngs, sampling = jax.random.split(jax.random.key(1), 4), SamplingConfig(steps=3, sampler=sampler)

    @jax.jit
    def draw(params: dict, tokens: jax.Array, mask: jax.Array, prefix: jax.Array, rngs: jax.Array) -> jax.Array:
        texts = single_texts(encode_text(config, params["text"], tokens, mask), mask)
        return generate_window(config, sampling, params, texts, prefix, rngs)

    found = {}
    for count in (1, 2, 4):
        mesh = Mesh(np.array(jax.devices()[:count]), ("data",))
        rows, whole = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("data",), ()))
        given = jax.device_put((tokens, mask, prefix, rngs), rows)
        video = draw(jax.device_put(params, whole), *given)
        assert len({shard.device for shard in video.addressable_shards}) == count
        found[count] = np.asarray(video)
    np.testing.assert_array_equal(found[1], found[2])
    np.testing.assert_array_equal(found[1], found[4])
