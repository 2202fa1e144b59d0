"""FLOPs that are counted in a program are those of the formula for a masked transformer."""

import dataclasses

import jax
import jax.numpy as jnp

from phenaki_jax.inference.testing import random_params, tiny_config
from phenaki_jax.layers.module import apply
from phenaki_jax.tokenizer.adversarial import AdversarialConfig
from phenaki_jax.training.pods.flops import count_flops, with_remat
from phenaki_jax.training.tokenizer_learner import TokenizerLearner
from phenaki_jax.transformer.config import TransformerConfig
from phenaki_jax.transformer.model import MaskedTransformer, Text

ROWS, LENGTH, TEXT_LENGTH = 2, 48, 24
SIZES = dataclasses.replace(tiny_config().transformer, layers=3)


def _formula(config: TransformerConfig) -> int:
    """Of a forward pass: two for each token and number in a kernel, four for each feature and pair of tokens."""
    width = config.width
    kernels = 3 * width * width + width * width  # query, key, value; out
    kernels += 2 * width * width  # cross-attention's query and out
    kernels += 2 * width * config.mlp_width
    per_token = config.layers * (2 * kernels + 4 * LENGTH * width + 4 * TEXT_LENGTH * width)
    per_token += 2 * width * config.codebook_size
    per_text_token = config.layers * 2 * config.text_width * 2 * width
    return ROWS * (LENGTH * per_token + TEXT_LENGTH * per_text_token)


def _counted(config: TransformerConfig) -> tuple[float, float]:
    """Of a forward pass, and of that and the backward pass."""
    params = random_params(dataclasses.replace(tiny_config(), transformer=config))["transformer"]

    def logits(params: dict) -> jax.Array:
        ids = jnp.ones((ROWS, TEXT_LENGTH), jnp.int32)
        text = Text(jnp.zeros((ROWS, TEXT_LENGTH, config.text_width)), ids, ids == 0)
        tokens = jnp.zeros((ROWS, LENGTH), jnp.int32)
        places = jnp.zeros((1, LENGTH, 3), jnp.int32)
        return jnp.sum(apply(MaskedTransformer(config), params, tokens, places, None, text).logits[0])

    return count_flops(jax.make_jaxpr(logits)(params).jaxpr), count_flops(
        jax.make_jaxpr(jax.grad(logits))(params).jaxpr
    )


def test_products_of_a_forward_pass_are_those_of_the_formula() -> None:
    forward, both = _counted(SIZES)
    assert forward == _formula(SIZES)
    # Backwards twice as many, but for the gradient of texts, which nothing asks for.
    assert 2.9 * forward < both <= 3 * forward


def test_what_is_computed_again_is_asked_for_only_without_remat() -> None:
    again = with_remat(SIZES, "full")
    assert again.remat == "full"
    assert _counted(again)[1] > _counted(with_remat(again, "none"))[1] == _counted(SIZES)[1]


def test_a_policy_reaches_every_network_of_a_learner() -> None:
    learner = with_remat(TokenizerLearner(tiny_config().tokenizer, adversarial=AdversarialConfig()), "full")
    assert learner.model.remat == "full"
    assert learner.adversarial is not None
    assert learner.adversarial.discriminator.remat is True
