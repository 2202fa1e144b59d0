"""Parallel decoding: everything is filled in, what is given stays, guidance is as defined."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phenaki_jax.errors import UserError
from phenaki_jax.inference.decoding import SamplingConfig, decode_tokens

CODES, LENGTH, MASK = 6, 10, 6


def _constant(logits: jax.Array, unconditional: jax.Array | None = None) -> object:
    other = logits if unconditional is None else unconditional
    shape = (2, LENGTH, CODES)
    return lambda tokens: (jnp.broadcast_to(logits, shape), jnp.broadcast_to(other, shape))


@pytest.mark.parametrize("steps", [1, 3, 12, 40])
def test_every_token_is_filled_in_and_given_ones_stay(steps: int) -> None:
    known = jnp.arange(LENGTH)[None] < jnp.array([[0], [4]])
    given = jnp.full((2, LENGTH), 5)
    config = SamplingConfig(steps=steps)
    tokens = decode_tokens(_constant(jnp.zeros(CODES)), config, jax.random.key(0), given, known, MASK)
    assert tokens.max() < CODES
    assert tokens.min() >= 0
    assert (np.asarray(tokens)[1, :4] == 5).all()
    assert len(np.unique(tokens)) > 2


def test_guidance_moves_away_from_the_unconditional() -> None:
    conditional = jnp.array([1.0, 0.9, 0.0, 0.0, 0.0, 0.0])
    unconditional = jnp.array([1.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    nothing = jnp.zeros((2, LENGTH), bool)
    config = SamplingConfig(steps=4, guidance=100.0, temperature=0.0)
    logits_of = _constant(conditional, unconditional)
    tokens = decode_tokens(logits_of, config, jax.random.key(0), jnp.zeros((2, LENGTH), jnp.int32), nothing, MASK)
    assert (np.asarray(tokens) == 1).all()


def test_the_most_confident_tokens_are_kept_first() -> None:
    seen = []
    sure = jnp.zeros((2, LENGTH, CODES)).at[:, 3, 2].set(20.0)

    def logits_of(tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
        jax.debug.callback(lambda tokens: seen.append(np.asarray(tokens)), tokens, ordered=True)
        return sure, sure

    nothing = jnp.zeros((2, LENGTH), bool)
    config = SamplingConfig(steps=8, guidance=0.0, temperature=0.0)
    decode_tokens(logits_of, config, jax.random.key(0), jnp.zeros((2, LENGTH), jnp.int32), nothing, MASK)
    jax.effects_barrier()
    assert (seen[0] == MASK).all()
    assert (seen[1][:, 3] == 2).all()
    assert [(tokens[0] == MASK).sum() for tokens in seen] == [10, 9, 8, 7, 6, 5, 3, 1]


def test_the_same_key_gives_the_same_tokens() -> None:
    nothing = jnp.zeros((2, LENGTH), bool)
    start = jnp.zeros((2, LENGTH), jnp.int32)
    draw = lambda seed: decode_tokens(  # noqa: E731
        _constant(jnp.zeros(CODES)), SamplingConfig(steps=5), jax.random.key(seed), start, nothing, MASK
    )
    np.testing.assert_array_equal(draw(1), draw(1))
    assert np.any(draw(1) != draw(2))


def test_settings_without_sense_are_refused() -> None:
    with pytest.raises(UserError, match="found steps 0, expected at least 1"):
        SamplingConfig(steps=0)
