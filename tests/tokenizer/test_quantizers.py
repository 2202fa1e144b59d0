"""Quantizers: codes and indices go round, gradients pass, and the values are those worked out by hand."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phenaki_jax.errors import UserError
from phenaki_jax.tokenizer.config import QuantizerConfig
from phenaki_jax.tokenizer.quantizers import FSQ, make_quantizer

CONFIGS = {
    "cosine_vq": QuantizerConfig(kind="cosine_vq", codes=32, code_width=4),
    "fsq": QuantizerConfig(kind="fsq", levels=(4, 5)),
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_looking_up_the_indices_gives_the_quantized_features(kind: str) -> None:
    quantizer = make_quantizer(CONFIGS[kind], 8)
    features = jax.random.normal(jax.random.key(0), (3, 7, 8))
    params = nn.unbox(quantizer.init(jax.random.key(1), features))
    quantized = quantizer.apply(params, features)
    looked_up = quantizer.apply(params, quantized.indices, method="lookup")
    np.testing.assert_allclose(looked_up, quantized.features, atol=1e-5)
    assert quantized.indices.min() >= 0
    assert quantized.indices.max() < CONFIGS[kind].codebook_size
    assert len(np.unique(quantized.indices)) > 3


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_gradient_passes_straight_through(kind: str) -> None:
    quantizer = make_quantizer(CONFIGS[kind], 8)
    features = jax.random.normal(jax.random.key(0), (5, 8))
    params = nn.unbox(quantizer.init(jax.random.key(1), features))
    gradient = jax.grad(lambda features: jnp.sum(quantizer.apply(params, features).features ** 2))(features)
    assert np.isfinite(gradient).all()
    assert (np.abs(gradient).sum(axis=1) > 0).all()


def test_cosine_vq_takes_the_code_of_the_smallest_angle_and_trains_its_codebook() -> None:
    quantizer = make_quantizer(CONFIGS["cosine_vq"], 4)
    features = jax.random.normal(jax.random.key(0), (50, 4))
    params = nn.unbox(quantizer.init(jax.random.key(1), features))
    into = features @ params["params"]["into_code"]["kernel"]
    codebook = params["params"]["codebook"]
    cosine = (into / jnp.linalg.norm(into, axis=1, keepdims=True)) @ (
        codebook / jnp.linalg.norm(codebook, axis=1, keepdims=True)
    ).T
    quantized = quantizer.apply(params, features)
    np.testing.assert_array_equal(quantized.indices, np.argmax(cosine, axis=1))
    best = np.max(np.asarray(cosine), axis=1)
    np.testing.assert_allclose(quantized.loss, 1.25 * (2 - 2 * best), atol=1e-5)
    gradient = jax.grad(lambda params: jnp.sum(quantizer.apply(params, features).loss))(params)
    used = np.unique(quantized.indices)
    assert (np.abs(gradient["params"]["codebook"][used]).sum(axis=1) > 0).all()


def test_fsq_reaches_every_code() -> None:
    quantizer = FSQ(CONFIGS["fsq"], 2)
    grid = jnp.stack(jnp.meshgrid(jnp.linspace(-4, 4, 60), jnp.linspace(-4, 4, 60)), axis=-1).reshape(-1, 2)
    params = nn.unbox(quantizer.init(jax.random.key(0), grid))
    params["params"]["into_code"]["kernel"] = jnp.eye(2)
    assert len(np.unique(quantizer.apply(params, grid).indices)) == 20


def test_an_unknown_quantizer_is_refused() -> None:
    with pytest.raises(UserError, match="quantizer 'lfq' is unknown"):
        QuantizerConfig(kind="lfq")
