"""The tokenizer's learner: padding has no effect, steps lower the loss, and two networks play against each other."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from phenaki_jax.errors import UserError
from phenaki_jax.inference.testing import random_params
from phenaki_jax.layers import pixels
from phenaki_jax.tokenizer.adversarial import AdversarialConfig
from phenaki_jax.tokenizer.config import QuantizerConfig
from phenaki_jax.tokenizer.discriminator import Discriminator, DiscriminatorConfig
from phenaki_jax.tokenizer.objective import ObjectiveConfig
from phenaki_jax.tokenizer.perceptual import PerceptualConfig
from phenaki_jax.training import sharding, state
from phenaki_jax.training.learner import Given, Learned
from phenaki_jax.training.optimizers import OptimizerConfig
from phenaki_jax.training.tokenizer_learner import TokenizerLearner

OPTIMIZER = OptimizerConfig(warmup_steps=0, decay_steps=100, learning_rate=1e-3)
SMALL = DiscriminatorConfig(most_channels=8)


def _params(learner: TokenizerLearner) -> dict:
    return jax.jit(lambda: nn.unbox(learner.init_params(jax.random.key(0))))()


def _given(learner: TokenizerLearner, step: int = 0, frozen: Any = None) -> Given:
    return Given(frozen or {}, learner.initial_statistics(), jnp.int32(step), jax.random.key(0))


def _learn(learner: TokenizerLearner, batch: dict, step: int = 0, frozen: Any = None) -> Learned:
    params = _params(learner)
    return jax.jit(learner.learn)(params, batch, _given(learner, step, frozen))


@pytest.fixture(scope="module")
def params(tokenizer_learner: TokenizerLearner) -> dict:
    return random_params(tokenizer_learner.model)


@pytest.fixture(scope="module")
def learn(tokenizer_learner: TokenizerLearner) -> Callable[[dict, dict], Learned]:
    """What a batch teaches at some parameters."""
    compiled = jax.jit(tokenizer_learner.learn)
    return lambda params, batch: compiled(params, batch, _given(tokenizer_learner))


@pytest.fixture(scope="module")
def batch() -> dict[str, jax.Array]:
    """A clip of all 7 frames, one of 5, one of 3 and an image, with noise behind them."""
    return {
        "video": jax.random.randint(jax.random.key(0), (4, 7, 32, 32, 3), 0, 256).astype(jnp.uint8),
        "frame_mask": jnp.arange(7)[None] < jnp.array([7, 5, 3, 1])[:, None],
    }


def _with_other_padding(batch: dict) -> dict:
    valid = batch["frame_mask"][:, :, None, None, None]
    other = {**batch, "video": jnp.where(valid, batch["video"], 255).astype(jnp.uint8)}
    assert np.any(other["video"] != batch["video"])
    return other


def test_padding_changes_nothing_that_is_learned(learn: Callable, params: dict, batch: dict) -> None:
    jax.tree.map(np.testing.assert_array_equal, learn(params, _with_other_padding(batch)), learn(params, batch))


def test_codes_are_counted_in_valid_time_steps(learn: Callable, params: dict, batch: dict) -> None:
    """7, 5, 3 and 1 frames are 4, 3, 2 and 1 time steps of 4 x 4 tokens."""
    assert float(learn(params, batch).outputs["code_counts"].sum()) == (4 + 3 + 2 + 1) * 16


def test_errors_are_told_for_each_frame_index(learn: Callable, params: dict, batch: dict) -> None:
    squares, frames = learn(params, batch).outputs["frame_error"]
    np.testing.assert_array_equal(frames, [4, 3, 3, 2, 2, 1, 1])
    assert (squares > 0).all()


def test_ten_steps_lower_the_loss_of_a_batch(learn: Callable, params: dict, batch: dict) -> None:
    """Its clips are each of one colour."""
    colours = jnp.array([[255, 0, 0], [0, 0, 255], [255, 255, 255], [0, 0, 0]], jnp.uint8)
    plain = {**batch, "video": jnp.broadcast_to(colours[:, None, None, None], batch["video"].shape)}
    optimizer = optax.adam(1e-2)
    adam = optimizer.init(params)
    losses, psnrs = [], []
    for _ in range(11):
        learned = learn(params, plain)
        updates, adam = optimizer.update(learned.gradients, adam)
        params = optax.apply_updates(params, updates)
        total, clips = learned.outputs["psnr"]
        losses.append(float(learned.outputs["loss"][0]))
        psnrs.append(float(total / clips))
    assert losses[-1] < losses[0] / 2
    assert psnrs[-1] > psnrs[0] + 4


@pytest.mark.parametrize("kind", ["frames", pytest.param("video", marks=pytest.mark.slow)])
def test_both_networks_learn_from_a_batch_and_padding_teaches_neither(
    tokenizer_learner: TokenizerLearner, batch: dict, kind: str
) -> None:
    adversarial = AdversarialConfig(dataclasses.replace(SMALL, kind=kind), lecam=0.1, adaptive=True)
    learner = dataclasses.replace(tokenizer_learner, adversarial=adversarial)
    learned = _learn(learner, batch)
    for name in ("tokenizer", "discriminator"):
        norms = jax.tree.map(lambda leaf: float(jnp.linalg.norm(leaf)), learned.gradients[name])
        assert all(np.isfinite(norm) for norm in jax.tree.leaves(norms))
        assert optax.tree.norm(learned.gradients[name]) > 0
    accuracy, weight = learned.outputs["discriminator_accuracy"]
    assert float(weight) == 7 + 5 + 3 + 1
    assert 0 <= float(accuracy / weight) <= 1
    again = _learn(learner, _with_other_padding(batch))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), again, learned)


def test_the_tokenizer_does_not_feel_the_discriminator_before_the_start(
    tokenizer_learner: TokenizerLearner, batch: dict
) -> None:
    adversarial = AdversarialConfig(SMALL, discriminator_start=2, start=5)
    learner = dataclasses.replace(tokenizer_learner, adversarial=adversarial)
    learn = jax.jit(learner.learn)
    params = _params(learner)
    learned = {step: learn(params, batch, _given(learner, step)) for step in (1, 2, 5)}
    gradients = {step: each.gradients for step, each in learned.items()}
    heads = [gradients[step]["tokenizer"]["first_head"] for step in (1, 2, 5)]
    np.testing.assert_array_equal(heads[0], heads[1])
    assert not np.allclose(heads[2], heads[0], rtol=1e-3)
    assert optax.tree.norm(gradients[1]["discriminator"]) == 0
    assert optax.tree.norm(gradients[2]["discriminator"]) > 0
    # What has not begun is not told of.
    assert [float(learned[step].outputs["logits_real"][1]) for step in (1, 2)] == [0, 7 + 5 + 3 + 1]


def test_a_discriminator_sees_frames_of_another_size_at_its_own(
    tokenizer_learner: TokenizerLearner, batch: dict
) -> None:
    learner = dataclasses.replace(tokenizer_learner, adversarial=AdversarialConfig(SMALL, r1=0.0))
    params = _params(learner)
    small = {"video": batch["video"][:2, :3, :16, :24], "frame_mask": jnp.ones((2, 3), bool)}
    logits, weight = jax.jit(learner.learn)(params, small, _given(learner)).outputs["logits_real"]
    scaled = jax.image.resize(pixels.to_float(small["video"]), (2, 3, 32, 32, 3), "linear")
    judge = jax.jit(Discriminator(SMALL).apply)
    expected = judge({"params": params["discriminator"]}, scaled, small["frame_mask"])
    np.testing.assert_allclose(logits / weight, jnp.mean(expected.values), rtol=1e-4)


@pytest.mark.slow
def test_penalties_of_some_steps_are_a_mean_of_these(tokenizer_learner: TokenizerLearner, batch: dict) -> None:
    learner = dataclasses.replace(tokenizer_learner, adversarial=AdversarialConfig(SMALL, r1_every=2))
    learn = jax.jit(learner.learn)
    params = _params(learner)
    due, none = (learn(params, batch, _given(learner, step)).outputs["discriminator_r1"] for step in (2, 3))
    every = dataclasses.replace(learner, adversarial=AdversarialConfig(SMALL))
    penalty, weight = jax.jit(every.learn)(params, batch, _given(every, 2)).outputs["discriminator_r1"]
    np.testing.assert_allclose(due[0] / due[1], penalty / weight, rtol=1e-5)
    assert [float(each) for each in none] == [0, 0]


def _spec(learner: TokenizerLearner, transform: optax.GradientTransformation) -> state.TrainState:
    """The spec of a state without averages, on all devices."""
    return state.state_spec(learner, transform, sharding.MeshConfig().make(), state.StepConfig())


def _state(learner: TokenizerLearner, config: state.StepConfig) -> tuple[Callable, state.TrainState]:
    """A compiled step, and the state to begin with."""
    transform = state.transform_of(learner, OPTIMIZER)
    spec = state.state_spec(learner, transform, sharding.MeshConfig().make(), config)
    step = jax.jit(functools.partial(state.train_step, learner, transform, config))
    return step, state.initial_state(learner, transform, 0, spec)


@pytest.mark.parametrize("lengths", [pytest.param("equal", marks=pytest.mark.slow), "different"])
def test_a_batch_in_parts_teaches_what_the_whole_does(
    tokenizer_learner: TokenizerLearner, batch: dict, lengths: str
) -> None:
    """Where lengths differ, the terms of pixels and of frames' logits do, as they are means over frames."""
    learner = dataclasses.replace(tokenizer_learner, adversarial=AdversarialConfig(SMALL, r1=0.0))
    if lengths == "equal":
        batch = {**batch, "frame_mask": jnp.ones_like(batch["frame_mask"])}
    else:
        learner = dataclasses.replace(learner, objective=ObjectiveConfig(quantizer=0.0))
    params = _params(learner)
    learn = functools.partial(state._learn, learner)
    once, parts = (jax.jit(functools.partial(learn, count))(params, batch, _given(learner)) for count in (1, 2))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-6), parts.gradients, once.gradients)
    assert float(parts.outputs["psnr"][1]) == 4
    np.testing.assert_allclose(parts.outputs["psnr"][0], once.outputs["psnr"][0], rtol=1e-5)


@pytest.mark.slow
def test_averages_of_the_tokenizer_follow_its_steps(tokenizer_learner: TokenizerLearner, batch: dict) -> None:
    """At step 0 the decay is (1 + 0) / (10 + 0) at most."""
    learner = dataclasses.replace(tokenizer_learner, adversarial=AdversarialConfig(SMALL))
    step, begun = _state(learner, state.StepConfig(average_decay=0.9))
    after, _ = step(begun, batch)
    assert set(after.average) == {"tokenizer"}
    head = [tree["tokenizer"]["first_head"] for tree in (begun.params, after.params, after.average)]
    assert np.any(head[1] != head[0])
    np.testing.assert_allclose(head[2], 0.1 * head[0] + 0.9 * head[1], rtol=1e-5, atol=1e-8)
    np.testing.assert_array_equal(after.used["tokenizer"]["first_head"], head[2])


def test_a_codebook_of_averages_moves_to_its_tokens_and_not_by_the_optimizer(
    tokenizer_learner: TokenizerLearner, batch: dict
) -> None:
    quantizer = QuantizerConfig(kind="cosine_vq_ema", codes=64, code_width=4, restart=0.0)
    learner = dataclasses.replace(
        tokenizer_learner, model=dataclasses.replace(tokenizer_learner.model, quantizer=quantizer)
    )
    step, begun = _state(learner, state.StepConfig())
    after, metrics = step(begun, batch)
    codebooks = [np.asarray(tree.params["tokenizer"]["quantizer"]["codebook"]) for tree in (begun, after)]
    codebooks = [codebook / np.linalg.norm(codebook, axis=1, keepdims=True) for codebook in codebooks]
    used = np.asarray(metrics.codebook_usage.counts) > 0
    assert 0 < used.sum() < 64
    np.testing.assert_allclose(codebooks[0][~used], codebooks[1][~used], rtol=1e-5)
    assert (np.abs(codebooks[0] - codebooks[1])[used].sum(axis=1) > 1e-3).all()
    assert float(after.statistics["tokenizer"].counts.sum()) > 0
    transform = state.transform_of(learner, OPTIMIZER)
    # As they are read from a checkpoint: named tuples as dicts.
    averages = {"counts": after.statistics["tokenizer"].counts, "sums": after.statistics["tokenizer"].sums}
    saved = {"params": after.params, "statistics": {"tokenizer": averages}, "frozen": {}}
    again = state.initial_state(learner, transform, 1, _spec(learner, transform), saved)
    jax.tree.map(np.testing.assert_array_equal, again.statistics, after.statistics)


def test_unused_codes_trained_by_gradient_begin_anew_and_used_ones_go_where_the_optimizer_says(
    tokenizer_learner: TokenizerLearner, batch: dict
) -> None:
    quantizer = QuantizerConfig(codes=64, code_width=4)
    codebooks = {}
    for restart in (0.0, 0.03):
        model = dataclasses.replace(tokenizer_learner.model, quantizer=dataclasses.replace(quantizer, restart=restart))
        step, begun = _state(dataclasses.replace(tokenizer_learner, model=model), state.StepConfig())
        after, metrics = step(begun, batch)
        codebooks[restart] = np.asarray(after.params["tokenizer"]["quantizer"]["codebook"])
    used = np.asarray(metrics.codebook_usage.counts) > 0
    assert 0 < used.sum() < 64
    np.testing.assert_allclose(codebooks[0.03][used], codebooks[0.0][used], rtol=1e-5)
    assert (np.abs(codebooks[0.03] - codebooks[0.0])[~used].sum(axis=1) > 1e-3).all()
    lengths = [np.linalg.norm(codebook, axis=1) for codebook in codebooks.values()]
    np.testing.assert_allclose(*lengths, rtol=1e-4)


@pytest.mark.parametrize("kind", ["cosine_vq", "cosine_vq_ema"])
def test_averages_begin_anew_where_codes_do(tokenizer_learner: TokenizerLearner, batch: dict, kind: str) -> None:
    """Averaged with what a code was before, a restart would be lost for a thousand steps."""
    quantizer = QuantizerConfig(kind, codes=64, code_width=4)
    learner = dataclasses.replace(
        tokenizer_learner, model=dataclasses.replace(tokenizer_learner.model, quantizer=quantizer)
    )
    step, begun = _state(learner, state.StepConfig(average_decay=0.9))
    after, metrics = step(begun.replace(step=begun.step + 1000), batch)
    codebooks = [
        np.asarray(tree["tokenizer"]["quantizer"]["codebook"]) for tree in (begun.params, after.params, after.average)
    ]
    used = np.asarray(metrics.codebook_usage.counts) > 0
    assert 0 < used.sum() < 64
    assert float(metrics.compute()["codebook_restarts"]) == 64 - used.sum()
    np.testing.assert_array_equal(codebooks[2][~used], codebooks[1][~used])
    mean = 0.9 * codebooks[0] + 0.1 * codebooks[1]
    np.testing.assert_allclose(codebooks[2][used], mean[used], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["cosine_vq", "cosine_vq_ema"])
def test_a_state_is_the_same_with_restarts_and_without(tokenizer_learner: TokenizerLearner, kind: str) -> None:
    """So a run goes on, or begins another, with either."""
    specs = []
    for restart in (0.0, 0.03):
        model = dataclasses.replace(tokenizer_learner.model, quantizer=QuantizerConfig(kind, restart=restart))
        specs.append(_spec(dataclasses.replace(tokenizer_learner, model=model), optax.identity()))
    assert specs[0] == specs[1]
    assert set(specs[0].statistics) == {"tokenizer"}


def test_perceptual_terms_of_equal_videos_are_zero_and_of_others_pull(
    tokenizer_learner: TokenizerLearner, batch: dict
) -> None:
    perceptual = PerceptualConfig(0.1, 1.0, "random", "random", "random", video_layers=("Conv3d_1a_7x7",))
    learner = dataclasses.replace(tokenizer_learner, perceptual=perceptual)
    frozen = learner.load_frozen(learner.frozen_spec())
    shapes = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), learner.frozen_spec())
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), frozen) == shapes
    video = batch["video"][:2, :3].astype(jnp.float32) / 127.5 - 1
    mask = jnp.array([[True, True, True], [True, False, False]])
    looks = jax.jit(jax.grad(learner._looks, has_aux=True))
    slope, (means, _) = looks(video, video, mask, frozen)
    for name in ("image_perceptual", "video_perceptual"):
        assert float(means[name]) == pytest.approx(0, abs=1e-6)
    slope, (means, _) = looks(-video, video, mask, frozen)
    assert all(float(means[name]) > 0 for name in ("image_perceptual", "video_perceptual"))
    assert np.isfinite(slope).all()
    np.testing.assert_array_equal(slope[1, 1:], 0.0)


def test_perceptual_networks_are_read_anew_and_no_part_of_a_checkpoint(tokenizer_learner: TokenizerLearner) -> None:
    """So a run may begin with the parameters of one that had none, or others."""
    perceptual = PerceptualConfig(image=0.1, vgg16_file="random", lpips_file="random")
    learner = dataclasses.replace(tokenizer_learner, perceptual=perceptual)
    transform = optax.identity()
    spec = _spec(learner, transform)
    assert set(spec.frozen) == {"lpips"}
    assert state.without_frozen(learner, spec).frozen == {}
    begun = {"params": random_params(learner.model), "statistics": {}, "frozen": {}}
    assert set(state.initial_state(learner, transform, 0, spec, begun).frozen) == {"lpips"}


def test_a_missing_network_says_where_it_comes_from_and_how_to_do_without(tokenizer_learner: TokenizerLearner) -> None:
    learner = dataclasses.replace(tokenizer_learner, perceptual=PerceptualConfig(video=1.0, i3d_file="nowhere.pt"))
    with pytest.raises(UserError, match=r"nowhere\.pt.*http.*PerceptualConfig\.video to 0"):
        learner.check_files()


@pytest.mark.parametrize("dtype", ["bf16", "int8", "float16"])
def test_a_type_that_nothing_is_trained_in_is_refused(tokenizer_learner: TokenizerLearner, dtype: str) -> None:
    with pytest.raises(UserError, match=f"found dtype '{dtype}', expected 'float32', or 'bfloat16'"):
        dataclasses.replace(tokenizer_learner, dtype=dtype)


def test_an_optimizer_of_a_discriminator_that_is_not_there_is_refused(tokenizer_learner: TokenizerLearner) -> None:
    with pytest.raises(UserError, match="discriminator_optimizer without a discriminator"):
        dataclasses.replace(tokenizer_learner, discriminator_optimizer=OPTIMIZER)
