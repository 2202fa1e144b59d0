"""Parallel decoding: everything is filled in, what is given stays, guidance is as defined, rows do not meet."""

import dataclasses
import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phenaki_jax.errors import UserError
from phenaki_jax.inference.decoding import SAMPLERS, SamplingConfig, TokenModel, decode_tokens
from phenaki_jax.inference.orders import halton_order

CODES, LENGTH, MASK, ROWS = 6, 12, 6, 2
NOTHING = jnp.zeros((ROWS, LENGTH), bool)
START = jnp.zeros((ROWS, LENGTH), jnp.int32)
ORDER = jnp.asarray(halton_order(3, 2, 2))


def _model(*conditions: jax.Array, scores: Callable | None = None, seen: list | None = None) -> TokenModel:
    """A model whose features are its logits, the same for all tokens: one array for each condition."""

    def features(tokens: jax.Array) -> jax.Array:
        if seen is not None:
            jax.debug.callback(lambda tokens: seen.append(np.asarray(tokens)), tokens, ordered=True)
        return jnp.stack([jnp.broadcast_to(each, (*tokens.shape, CODES)) for each in conditions])

    return TokenModel(features, lambda features: (features,), jnp.ones((1, ROWS)), scores, (CODES,), MASK)


def _keys(seed: int) -> jax.Array:
    return jax.random.split(jax.random.key(seed), ROWS)


def _decode(
    model: TokenModel, config: SamplingConfig, seed: int = 0, given: jax.Array = START, known: jax.Array = NOTHING
) -> np.ndarray:
    return np.asarray(decode_tokens(model, config, _keys(seed), given, known, ORDER))


UNIFORM = _model(jnp.zeros(CODES), jnp.zeros(CODES), scores=lambda tokens: tokens.astype(jnp.float32))


@pytest.mark.parametrize("steps", [1, 3, 12, 40])
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_every_token_is_filled_in_and_given_ones_stay(steps: int, sampler: str, schedule: str) -> None:
    known = jnp.arange(LENGTH)[None] < jnp.array([[0], [4]])
    config = SamplingConfig(steps=steps, sampler=sampler, schedule=schedule)
    tokens = _decode(UNIFORM, config, given=jnp.full((ROWS, LENGTH), 5), known=known)
    assert tokens.max() < CODES
    assert tokens.min() >= 0
    assert (tokens[1, :4] == 5).all()
    assert len(np.unique(tokens)) > 2


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_row_does_not_depend_on_the_others(sampler: str) -> None:
    config = SamplingConfig(steps=4, sampler=sampler)
    both = _decode(UNIFORM, config)
    half = dataclasses.replace(config)
    model = UNIFORM._replace(shares=jnp.ones((1, 1)))
    alone = decode_tokens(model, half, _keys(0)[1:], START[:1], NOTHING[:1], ORDER)
    np.testing.assert_array_equal(alone[0], both[1])


def test_guidance_moves_away_from_the_last_condition() -> None:
    conditional = jnp.array([1.0, 0.9, 0.0, 0.0, 0.0, 0.0])
    unconditional = jnp.array([1.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    config = SamplingConfig(steps=4, guidance=100.0, temperature=0.0)
    assert (_decode(_model(conditional, unconditional), config) == 1).all()


def test_guidance_can_rise_with_the_rounds() -> None:
    conditional, unconditional = jnp.array([3.0, 2.0, 0, 0, 0, 0]), jnp.array([3.0, 0.0, 0, 0, 0, 0])
    # Code 1 wins where 2 (1 + s) > 3 (1 + s) - 3 s, that is s > .5: from the third of four rounds on if s rises to .8.
    config = SamplingConfig(steps=4, guidance=0.8, guidance_schedule="linear", sampler="halton", code_temperature=0.0)
    tokens = _decode(_model(conditional, unconditional), config)[0, np.asarray(ORDER)]
    assert tokens.tolist() == [0] * 4 + [1] * 8
    assert (
        _decode(_model(conditional, unconditional), dataclasses.replace(config, guidance_schedule="constant")) == 1
    ).all()


def test_two_texts_are_mixed_by_their_shares() -> None:
    first, second = jnp.array([2.0, 0.0, 0, 0, 0, 0]), jnp.array([0.0, 3.0, 0, 0, 0, 0])
    model = _model(first, second)._replace(shares=jnp.array([[0.7, 0.5], [0.3, 0.5]]))
    tokens = _decode(model, SamplingConfig(steps=2, guidance=0.0, code_temperature=0.0))
    assert (tokens[0] == 0).all()  # 1.4 against .9
    assert (tokens[1] == 1).all()  # 1.0 against 1.5


def test_the_most_confident_tokens_are_kept_first() -> None:
    seen: list[np.ndarray] = []
    sure = jnp.zeros((ROWS, LENGTH, CODES)).at[:, 3, 2].set(20.0)
    _decode(_model(sure, seen=seen), SamplingConfig(steps=8, guidance=0.0, temperature=0.0))
    jax.effects_barrier()
    assert (seen[0] == MASK).all()
    assert (seen[1][:, 3] == 2).all()
    assert [(tokens[0] == MASK).sum() for tokens in seen] == [12, 11, 10, 9, 8, 6, 4, 2]


def test_a_fixed_order_is_kept_to_and_skips_what_is_given() -> None:
    seen: list[np.ndarray] = []
    known = NOTHING.at[1, ORDER[:5]].set(True)
    _decode(_model(jnp.zeros(CODES), seen=seen), SamplingConfig(steps=4, guidance=0.0, sampler="halton"), known=known)
    jax.effects_barrier()
    order = np.asarray(ORDER)
    unknown = [[(row[order] == MASK) for row in tokens] for tokens in seen]
    assert [step[0].tolist() for step in unknown] == [[False] * done + [True] * (12 - done) for done in (0, 1, 4, 8)]
    assert [step[1].tolist() for step in unknown] == [[False] * done + [True] * (12 - done) for done in (5, 6, 8, 10)]


def test_a_random_order_is_another_for_each_row_and_seed() -> None:
    config = SamplingConfig(steps=12, guidance=0.0, sampler="random")
    orders = []
    for seed in (0, 1):
        seen: list[np.ndarray] = []
        _decode(_model(jnp.zeros(CODES), seen=seen), config, seed)
        jax.effects_barrier()
        orders.extend(np.argsort(np.sum(np.stack(seen) == MASK, axis=0), axis=1).tolist())
    assert len({tuple(order) for order in orders}) == 4


def test_a_critic_keeps_what_it_trusts_and_forgets_what_it_does_not() -> None:
    seen: list[np.ndarray] = []
    model = _model(jnp.zeros(CODES), scores=lambda tokens: tokens.astype(jnp.float32), seen=seen)
    known = NOTHING.at[:, 0].set(True)
    config = SamplingConfig(steps=30, guidance=0.0, sampler="critic", temperature=0.0)
    tokens = _decode(model, config, known=known)
    jax.effects_barrier()
    # It likes high codes: low ones are drawn anew until little time is left, but what is given stays, though it is 0.
    assert tokens[:, 1:].mean() > 4
    assert (tokens[:, 0] == 0).all()
    forgotten = [(now == MASK) & (before != MASK) for before, now in itertools.pairwise(seen)]
    assert np.any(forgotten)


def test_a_critic_that_is_not_there_is_missed() -> None:
    with pytest.raises(UserError, match="sampler 'critic' with a model that has no critic"):
        _decode(_model(jnp.zeros(CODES)), SamplingConfig(sampler="critic"))


LOGITS = jnp.log(jnp.array([0.4, 0.3, 0.15, 0.1, 0.04, 0.01]))


@pytest.mark.parametrize(
    ("settings", "codes"),
    [
        ({}, {0, 1, 2, 3, 4, 5}),
        ({"top_k": 2}, {0, 1}),
        ({"top_p": 0.69}, {0, 1}),
        ({"top_p": 0.71}, {0, 1, 2}),
        ({"top_p": 0.71, "code_temperature": 1e6}, {0, 1, 2, 3, 4}),
        ({"code_temperature": 0.0}, {0}),
    ],
)
def test_codes_are_drawn_among_the_likeliest(settings: dict, codes: set[int]) -> None:
    config = SamplingConfig(steps=2, guidance=0.0, **settings)
    drawn = np.concatenate([_decode(_model(LOGITS), config, seed).ravel() for seed in range(40)])
    assert set(drawn.tolist()) == codes


def test_codes_are_drawn_with_their_probabilities() -> None:
    config = SamplingConfig(steps=1, guidance=0.0)
    drawn = np.concatenate([_decode(_model(LOGITS), config, seed).ravel() for seed in range(100)])
    np.testing.assert_allclose(np.bincount(drawn) / drawn.size, np.exp(LOGITS), atol=0.03)


def test_factors_are_drawn_one_by_one_and_joined() -> None:
    def features(tokens: jax.Array) -> jax.Array:
        return jnp.zeros((1, *tokens.shape, 1))

    def logits(found: jax.Array) -> tuple[jax.Array, ...]:
        sure = (50.0 * jax.nn.one_hot(3, 4), 50.0 * jax.nn.one_hot(2, 5))
        return tuple(jnp.broadcast_to(part, (*found.shape[:-1], part.size)) for part in sure)

    model = TokenModel(features, logits, jnp.ones((1, ROWS)), None, (4, 5), 20)
    assert (_decode(model, SamplingConfig(steps=3, guidance=0.0)) == 3 + 4 * 2).all()


def test_the_same_key_gives_the_same_tokens() -> None:
    config = SamplingConfig(steps=5)
    np.testing.assert_array_equal(_decode(UNIFORM, config, 1), _decode(UNIFORM, config, 1))
    assert np.any(_decode(UNIFORM, config, 1) != _decode(UNIFORM, config, 2))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "found steps 0, expected at least 1"),
        ({"steps": 10**21}, "found steps 10{21}, expected at most 10000, such as 24"),
        ({"sampler": "gibbs"}, "sampler 'gibbs' is unknown; known are confidence, halton, critic, random"),
        ({"schedule": "sine"}, "mask schedule 'sine' is unknown; known are cosine, linear"),
        ({"guidance_schedule": "sine"}, "guidance_schedule 'sine' is unknown"),
        ({"guidance": -1.0}, "found guidance -1"),
        ({"temperature": float("nan")}, "found temperature nan"),
        ({"code_temperature": float("inf")}, "found code_temperature inf"),
        ({"top_k": -1}, "found top_k -1"),
        ({"top_p": 0.0}, "found top_p 0, expected above 0"),
    ],
)
def test_settings_without_sense_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        SamplingConfig(**settings)
