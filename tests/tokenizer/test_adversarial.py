"""The adversarial terms: values worked out by hand, their schedule, and that a discriminator learns by them."""

import dataclasses
import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phenaki_jax.errors import UserError
from phenaki_jax.layers.module import apply
from phenaki_jax.tokenizer.adversarial import (
    AdversarialConfig,
    LecamState,
    adaptive_weight,
    discriminator_loss,
    discriminator_terms,
    generator_loss,
    generator_weight,
    initial_lecam,
    lazy_r1_penalty,
    lecam_penalty,
    logit_statistics,
    r1_penalty,
    update_lecam,
)
from phenaki_jax.tokenizer.discriminator import Discriminator, DiscriminatorConfig, Logits

PADDING = 1000.0
WEIGHTS = jnp.array([[1.0, 1.0], [1.0, 0.0]])
# A clip of two judged frames, and one of one.
REAL = Logits(jnp.array([[2.0, 0.5], [-1.0, PADDING]]), WEIGHTS)
FAKE = Logits(jnp.array([[-3.0, 0.0], [1.5, -PADDING]]), WEIGHTS)
# Two clips of two frames of one pixel; the second clip's last frame is padding.
VIDEO = jnp.arange(12.0).reshape(2, 2, 1, 1, 3) / 12
SLOPES = jnp.array([2.0, -1.0, 0.5])


def _softplus(value: float) -> float:
    return math.log1p(math.exp(value))


def _linear(video: jax.Array, slopes: jax.Array = SLOPES) -> Logits:
    """Judges every frame by the same slopes."""
    return Logits(jnp.sum(video * slopes, axis=(2, 3, 4)), WEIGHTS)


def test_losses_are_means_over_valid_logits() -> None:
    ours = [generator_loss("hinge", FAKE), discriminator_loss("hinge", REAL, FAKE)]
    # -(-3 + 0 + 1.5) / 3; (0 + 0.5 + 2) / 3 + (0 + 1 + 2.5) / 3.
    np.testing.assert_allclose(ours, [0.5, 2.0], rtol=1e-6)
    ours = [generator_loss("non_saturating", FAKE), discriminator_loss("non_saturating", REAL, FAKE)]
    generator = (_softplus(3) + _softplus(0) + _softplus(-1.5)) / 3
    real = (_softplus(-2) + _softplus(-0.5) + _softplus(1)) / 3
    fake = (_softplus(-3) + _softplus(0) + _softplus(1.5)) / 3
    np.testing.assert_allclose(ours, [generator, real + fake], rtol=1e-6)


@pytest.mark.parametrize("kind", ["hinge", "non_saturating"])
def test_the_tokenizer_raises_fake_logits_and_the_discriminator_lowers_them(kind: str) -> None:
    values = jnp.array([[0.3, -0.2]])
    logits = lambda values: Logits(values, jnp.ones((1, 2)))  # noqa: E731
    assert (jax.grad(lambda fake: generator_loss(kind, logits(fake)))(values) < 0).all()
    loss = lambda real, fake: discriminator_loss(kind, logits(real), logits(fake))  # noqa: E731
    real, fake = jax.grad(loss, argnums=(0, 1))(values, values)
    assert (real < 0).all()
    assert (fake > 0).all()


def test_r1_of_a_linear_discriminator_is_half_the_squared_norm_of_its_slopes() -> None:
    """Each of three valid frames has the gradient (2, -1, .5), of squared norm 5.25; the padded frame has none."""
    np.testing.assert_allclose(r1_penalty(_linear, VIDEO), 5.25 / 2, rtol=1e-6)
    gradient = jax.grad(lambda slopes: r1_penalty(functools.partial(_linear, slopes=slopes), VIDEO))(SLOPES)
    np.testing.assert_allclose(gradient, SLOPES, rtol=1e-6)


def test_r1_of_a_quadratic_discriminator_of_clips_is_half_the_mean_squared_norm_of_the_clips() -> None:
    """Half of |x|^2 has the gradient x."""
    halves = lambda video: Logits(jnp.sum(video**2, axis=(1, 2, 3, 4))[:, None] / 2, jnp.ones((2, 1)))  # noqa: E731
    expected = np.mean(np.sum(np.square(VIDEO), axis=(1, 2, 3, 4))) / 2
    np.testing.assert_allclose(r1_penalty(halves, VIDEO), expected, rtol=1e-6)


def test_a_lazy_penalty_comes_every_so_many_steps_and_as_many_times_as_strong() -> None:
    lazy = jax.jit(lambda step: lazy_r1_penalty(_linear, VIDEO, step, 4))
    penalties = [lazy(jnp.int32(step)) for step in range(8)]
    np.testing.assert_allclose(penalties, [10.5, 0, 0, 0, 10.5, 0, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(lazy_r1_penalty(_linear, VIDEO, 3, 1), 5.25 / 2, rtol=1e-6)


def test_lecam_penalizes_what_lies_beyond_the_other_average() -> None:
    """Real logits 2 and .5 lie 2.5 and 1 above the fake average -.5, fake logits -3 and 0 lie 4 and 1 below 1."""
    state = LecamState(jnp.float32(1.0), jnp.float32(-0.5))
    np.testing.assert_allclose(lecam_penalty(state, REAL, FAKE), (6.25 + 1) / 3 + (16 + 1) / 3, rtol=1e-6)


def test_lecam_averages_move_by_what_the_decay_leaves() -> None:
    state = update_lecam(LecamState(jnp.float32(1.0), jnp.float32(-0.5)), REAL, FAKE, 0.75)
    # Means of the logits are .5 and -.5.
    np.testing.assert_allclose(state, [0.875, -0.5], rtol=1e-6)


def test_the_adaptive_weight_is_the_ratio_of_norms_and_has_a_most() -> None:
    nothing = jnp.zeros_like(VIDEO)
    reconstruction = nothing.at[0, 0, 0, 0, 0].set(3.0).at[1, 1, 0, 0, 2].set(4.0)
    adversarial = nothing.at[0, 1, 0, 0, 1].set(0.5)
    np.testing.assert_allclose(adaptive_weight(reconstruction, adversarial), 10.0, rtol=1e-5)
    assert adaptive_weight(reconstruction, nothing) == 1e4
    assert adaptive_weight(nothing, nothing) == 0.0
    assert not jax.grad(adaptive_weight)(reconstruction, adversarial).any()


def test_statistics_are_of_valid_logits() -> None:
    """Two of three real logits are above 0, one of three fake ones is below; means are 1.5 / 3 and -1.5 / 3."""
    np.testing.assert_allclose(logit_statistics(REAL, FAKE), [0.5, 0.5, -0.5], rtol=1e-6)


def test_the_total_is_the_weighted_sum_and_reconstructions_are_constants() -> None:
    config = AdversarialConfig(r1=4.0, lecam=0.5, lecam_decay=0.75)
    state = LecamState(jnp.float32(0.25), jnp.float32(-0.25))
    fake = 1 - VIDEO

    def total(video: jax.Array, fake: jax.Array) -> jax.Array:
        return discriminator_terms(config, _linear, video, fake, state, 0)[0].total

    terms, updated, statistics = discriminator_terms(config, _linear, VIDEO, fake, state, 0)
    real_logits, fake_logits = _linear(VIDEO), _linear(fake)
    expected = discriminator_loss("non_saturating", real_logits, fake_logits)
    np.testing.assert_allclose(terms.adversarial, expected, rtol=1e-6)
    np.testing.assert_allclose(terms.r1, 5.25 / 2, rtol=1e-6)
    np.testing.assert_allclose(terms.lecam, lecam_penalty(state, real_logits, fake_logits), rtol=1e-6)
    np.testing.assert_allclose(terms.total, terms.adversarial + 4 * terms.r1 + 0.5 * terms.lecam, rtol=1e-6)
    np.testing.assert_allclose(updated, update_lecam(state, real_logits, fake_logits, 0.75))
    np.testing.assert_allclose(statistics, logit_statistics(real_logits, fake_logits))
    real_gradient, fake_gradient = jax.grad(total, argnums=(0, 1))(VIDEO, fake)
    assert real_gradient.any()
    assert not fake_gradient.any()


def test_the_tokenizer_listens_from_its_start() -> None:
    config = AdversarialConfig(weight=0.1, discriminator_start=2, start=4)
    weights = [generator_weight(config, jnp.int32(step)) for step in range(6)]
    np.testing.assert_allclose(weights, [0, 0, 0, 0, 0.1, 0.1], rtol=1e-6)


def test_both_may_begin_at_once() -> None:
    assert generator_weight(AdversarialConfig(weight=0.5, start=3, discriminator_start=3), 3) == 0.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "wasserstein"}, "adversarial loss 'wasserstein' is unknown; known are non_saturating and hinge"),
        ({"weight": -0.1}, "adversarial weight -0.1 must be a number of at least 0"),
        ({"r1": float("nan")}, "adversarial r1 nan must be a number of at least 0"),
        ({"lecam": float("inf")}, "adversarial lecam inf must be a number of at least 0"),
        ({"lecam_decay": 1.0}, "lecam_decay 1.0 must be at least 0 and below 1"),
        ({"r1_every": 0}, "r1_every 0 must be at least 1; set r1 to 0 for no penalty"),
        ({"discriminator_start": -1}, "discriminator_start -1 must be a step, 0 or later"),
        (
            {"start": 99, "discriminator_start": 100},
            "starts at step 99, before the discriminator trains, from step 100: set AdversarialConfig.start to 100",
        ),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        AdversarialConfig(**changes)


def _clips(seed: int, kind: str, real: bool) -> jax.Array:
    """Clips of plain frames: real ones keep their grey, fake ones have stripes, or flicker where time is to be seen."""
    greys = jax.random.uniform(jax.random.key(seed), (16, 3, 1, 1, 1), minval=-1.0, maxval=1.0)
    if kind == "video":
        greys = greys[:, :1] if real else greys
    stripes = jnp.where(jnp.arange(16) % 4 < 2, 0.3, -0.3)[:, None]
    clips = jnp.broadcast_to(greys, (16, 3, 16, 16, 3))
    return clips if real or kind == "video" else clips + stripes


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("frames", {}),
        pytest.param("video", {"kind": "hinge", "lecam": 0.001, "r1_every": 4}, marks=pytest.mark.slow),
    ],
)
def test_a_tiny_discriminator_learns_to_tell_two_sets(kind: str, changes: dict[str, object]) -> None:
    discriminator = Discriminator(DiscriminatorConfig(kind, most_channels=8))
    config = dataclasses.replace(AdversarialConfig(discriminator.config, r1=0.01), **changes)
    mask = jnp.ones((16, 3), bool)
    real, fake = (jnp.stack([_clips(seed + 100 * real, kind, real) for seed in range(4)]) for real in (True, False))

    def terms(params: dict, index: jax.Array, lecam: LecamState, step: jax.Array) -> tuple[jax.Array, tuple]:
        logits_of = lambda video: apply(discriminator, params, video, mask)  # noqa: E731
        loss, lecam, statistics = discriminator_terms(config, logits_of, real[index], fake[index], lecam, step)
        return loss.total, (lecam, statistics.accuracy)

    @jax.jit
    def update(state: tuple, step: jax.Array) -> tuple:
        params, mean, square, lecam = state
        gradient, (lecam, _) = jax.grad(terms, has_aux=True)(params, step % 3, lecam, step)
        mean = jax.tree.map(lambda old, new: 0.5 * old + 0.5 * new, mean, gradient)
        square = jax.tree.map(lambda old, new: 0.9 * old + 0.1 * new**2, square, gradient)
        move = lambda value, mean, square: value - 0.01 * mean / (jnp.sqrt(square) + 1e-8)  # noqa: E731
        return jax.tree.map(move, params, mean, square), mean, square, lecam

    @jax.jit
    def accuracy(params: dict) -> jax.Array:
        return terms(params, jnp.int32(3), initial_lecam(), jnp.int32(0))[1][1]

    params = nn.unbox(jax.jit(discriminator.init)(jax.random.key(0), real[0], mask))["params"]
    zeros = jax.tree.map(jnp.zeros_like, params)
    state = (params, zeros, zeros, initial_lecam())
    for step in range(40):
        state = update(state, jnp.int32(step))
    assert accuracy(params) < 0.7
    assert accuracy(state[0]) > 0.9
