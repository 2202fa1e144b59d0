"""The transformer's learner: text is dropped at its rate, padding has no effect, prefixes are given and not guessed."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from phenaki_jax.errors import UserError
from phenaki_jax.inference.testing import random_params
from phenaki_jax.training import transformer_learner as transformer_learner_lib
from phenaki_jax.training.transformer_learner import TransformerLearner

BATCH = 8


@pytest.fixture(scope="module")
def batch() -> dict[str, jax.Array]:
    frames = jnp.array([7] * 6 + [1] * 2)
    text_lengths = jnp.array([4, 6, 5, 24, 9, 1, 3, 2])
    return {
        "video": jax.random.randint(jax.random.key(0), (BATCH, 7, 32, 32, 3), 0, 256).astype(jnp.uint8),
        "frame_mask": jnp.arange(7)[None] < frames[:, None],
        "prefix_frames": jnp.array([0, 0, 3, 3, 1, 0, 0, 0]),
        "text_tokens": jax.random.randint(jax.random.key(1), (BATCH, 24), 3, 200),
        "text_mask": jnp.arange(24)[None] < text_lengths[:, None],
    }


@pytest.fixture(scope="module")
def params(transformer_learner: TransformerLearner) -> dict:
    return random_params(transformer_learner.model)


def _outputs(learner: TransformerLearner, params: dict, batch: dict, seed: int = 0) -> dict:
    trained = {name: params[name] for name in ("text", "transformer")}
    frozen = {"tokenizer": params["tokenizer"]}
    return _compiled_loss(learner)(trained, frozen, batch, jax.random.key(seed))[1]


@functools.cache
def _compiled_loss(learner: TransformerLearner) -> Callable[..., tuple[jax.Array, dict]]:
    return jax.jit(learner.loss)


def test_padding_changes_nothing(transformer_learner: TransformerLearner, params: dict, batch: dict) -> None:
    before = _outputs(transformer_learner, params, batch)
    other = dict(batch)
    other["video"] = jnp.where(batch["frame_mask"][:, :, None, None, None], batch["video"], 255).astype(jnp.uint8)
    other["text_tokens"] = jnp.where(batch["text_mask"], batch["text_tokens"], 77)
    assert np.any(other["video"] != batch["video"])
    after = _outputs(transformer_learner, params, other)
    jax.tree.map(np.testing.assert_array_equal, after, before)


def test_null_text_enters_the_batch_at_its_rate(
    transformer_learner: TransformerLearner, params: dict, batch: dict
) -> None:
    rates = [_outputs(transformer_learner, params, batch, seed)["null_text_rate"] for seed in range(40)]
    rate = sum(float(dropped) for dropped, _ in rates) / sum(float(count) for _, count in rates)
    assert abs(rate - transformer_learner.null_text_rate) < 0.09


@pytest.mark.parametrize(("rows", "told"), [(0, 0), (2, 1)])
def test_captions_that_are_cut_are_told(
    transformer_learner: TransformerLearner, params: dict, batch: dict, rows: int, told: int
) -> None:
    mask = batch["text_mask"].at[:, -1].set(False).at[:rows].set(True)
    full, texts = _outputs(transformer_learner, params, batch | {"text_mask": mask})["full_text_rate"]
    assert (float(full), float(texts)) == (rows, len(mask))
    lines = transformer_learner.advice({"full_text_rate": float(full) / float(texts)})
    assert len(lines) == told
    assert all(f"captions has {mask.shape[1]} tokens or more" in line for line in lines)


def test_the_null_text_is_trained(transformer_learner: TransformerLearner, params: dict, batch: dict) -> None:
    trained = {name: params[name] for name in ("text", "transformer")}
    frozen = {"tokenizer": params["tokenizer"]}
    gradient = jax.jit(jax.grad(transformer_learner.loss, has_aux=True))(trained, frozen, batch, jax.random.key(0))[0]
    assert np.abs(gradient["transformer"]["null_text"]).sum() > 0
    assert np.abs(gradient["text"]["embedding"]).sum() > 0


def test_given_frames_are_not_guessed(transformer_learner: TransformerLearner, params: dict, batch: dict) -> None:
    known = transformer_learner.model.known_tokens(batch["prefix_frames"])
    assert known.sum(axis=1).tolist() == [0, 0, 32, 32, 16, 0, 0, 0]
    # All frames but the last two given: no more than the 16 tokens of those are ever hidden, and at times most.
    prefixed = {**batch, "prefix_frames": jnp.full(BATCH, 5), "frame_mask": jnp.ones((BATCH, 7), bool)}
    hidden = [float(_outputs(transformer_learner, params, prefixed, seed)["loss"][1]) for seed in range(10)]
    assert max(hidden) <= 16 * BATCH
    assert max(hidden) > 8 * BATCH


def test_parts_of_the_loss_add_up(transformer_learner: TransformerLearner, params: dict, batch: dict) -> None:
    outputs = _outputs(transformer_learner, params, batch)
    quarters = ("0_25", "25_50", "50_75", "75_100")
    for parts in (
        ("not_prefixed", "image", "prefixed", "null_text"),
        ("video", "image", "null_text"),
        (*(f"masked_{quarter}" for quarter in quarters), *(f"null_text_masked_{quarter}" for quarter in quarters)),
    ):
        for what in ("loss", "accuracy"):
            for index in (0, 1):
                total = sum(float(outputs[f"{what}_{name}"][index]) for name in parts)
                np.testing.assert_allclose(total, float(outputs[what][index]), rtol=1e-5)


@pytest.mark.parametrize("setting", ["null_text_rate", "tube_share"])
def test_a_rate_without_sense_is_refused(transformer_learner: TransformerLearner, setting: str) -> None:
    with pytest.raises(UserError, match=rf"{setting} 1\.5"):
        dataclasses.replace(transformer_learner, **{setting: 1.5})


def test_clips_can_be_masked_in_tubes(transformer_learner: TransformerLearner, params: dict, batch: dict) -> None:
    in_tubes = _outputs(dataclasses.replace(transformer_learner, tube_share=1.0), params, batch)
    apart = _outputs(transformer_learner, params, batch)
    assert float(in_tubes["loss"][1]) == float(apart["loss"][1])  # as many tokens
    assert float(in_tubes["loss"][0]) != float(apart["loss"][0])  # other ones


def test_noise_is_on_given_tokens_alone(transformer_learner: TransformerLearner, params: dict, batch: dict) -> None:
    noisy = dataclasses.replace(transformer_learner, prefix_noise=1.0)
    plain, found = (_outputs(learner, params, batch) for learner in (transformer_learner, noisy))
    assert float(found["loss_prefixed"][0]) != float(plain["loss_prefixed"][0])
    for name in ("loss_not_prefixed", "loss_image"):
        assert [*map(float, found[name])] == [*map(float, plain[name])]
    assert float(found["loss_prefixed"][1]) == float(plain["loss_prefixed"][1])


CRITICS = {
    "its own": {"transformer": {"predicts": "codes_and_scores"}},
    "another": {"critic": {"predicts": "scores", "layers": 1}},
}


def _with_critic(learner: TransformerLearner, critic: str) -> TransformerLearner:
    changes = {
        name: dataclasses.replace(learner.model.transformer, **change) for name, change in CRITICS[critic].items()
    }
    return dataclasses.replace(learner, model=dataclasses.replace(learner.model, **changes))


def _gradients(learner: TransformerLearner, batch: dict) -> tuple[dict, dict]:
    params = random_params(learner.model)
    frozen = {"tokenizer": params.pop("tokenizer")}
    return jax.jit(jax.grad(learner.loss, has_aux=True))(params, frozen, batch, jax.random.key(0))


@pytest.mark.parametrize("critic", CRITICS)
def test_a_critic_is_trained_on_what_is_drawn(
    transformer_learner: TransformerLearner, batch: dict, critic: str
) -> None:
    learner = _with_critic(transformer_learner, critic)
    gradients, outputs = _gradients(learner, batch)
    network = gradients[learner.averaged[-1]]
    assert np.abs(network["score_head"]).sum() > 0
    assert np.abs(network["stack"]["layers"]["attention"]["out"]).sum() > 0
    # It judges all tokens that could have been masked: no padding, and nothing that was given.
    known = learner.model.known_tokens(batch["prefix_frames"])
    valid = np.repeat(learner.model.tokenizer.time_mask(batch["frame_mask"]), 16, axis=1)
    assert float(outputs["critic_loss"][1]) == (valid & ~np.asarray(known)).sum()
    assert 0 < float(outputs["critic_accuracy"][0]) < float(outputs["critic_accuracy"][1])


def test_a_critic_of_its_own_leaves_the_transformer_alone(transformer_learner: TransformerLearner, batch: dict) -> None:
    with_one, _ = _gradients(_with_critic(transformer_learner, "another"), batch)
    off = dataclasses.replace(_with_critic(transformer_learner, "another"), critic_weight=0.0)
    without, _ = _gradients(off, batch)
    jax.tree.map(np.testing.assert_array_equal, with_one["transformer"], without["transformer"])
    assert np.abs(without["critic"]["score_head"]).sum() == 0


@pytest.mark.parametrize("critic", [pytest.param("none", marks=pytest.mark.slow), "another"])
def test_a_loss_taken_in_parts_is_that_of_all_tokens(
    transformer_learner: TransformerLearner, batch: dict, critic: str
) -> None:
    learner = transformer_learner if critic == "none" else _with_critic(transformer_learner, critic)
    learner = dataclasses.replace(learner, critic_weight=0.0, label_smoothing=0.1, z_loss=1e-4)
    whole, in_parts = (_gradients(dataclasses.replace(learner, loss_parts=parts), batch) for parts in (1, 4))
    assert in_parts[1]["loss"][1] > 0
    (gradients, outputs), (expected, expected_outputs) = in_parts, whole
    np.testing.assert_allclose(outputs["loss"], expected_outputs["loss"], rtol=1e-6)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6), gradients, expected)


@pytest.mark.parametrize(
    ("critic", "message"),
    [
        ({"predicts": "codes"}, "found a critic that predicts 'codes'"),
        ({"predicts": "scores", "text_width": 8}, "the critic's text_width is 8 but the transformer's is 16"),
    ],
)
def test_a_critic_that_does_not_fit_is_refused(
    transformer_learner: TransformerLearner, critic: dict, message: str
) -> None:
    model = transformer_learner.model
    with pytest.raises(UserError, match=message):
        dataclasses.replace(model, critic=dataclasses.replace(model.transformer, **critic))


def test_a_model_without_text_is_trained_on_videos_alone(transformer_learner: TransformerLearner, batch: dict) -> None:
    model = transformer_learner.model
    without = dataclasses.replace(
        model, text=None, transformer=dataclasses.replace(model.transformer, text_width=0, dropout=0.1)
    )
    learner = dataclasses.replace(transformer_learner, model=without)
    gradients, outputs = _gradients(learner, batch)
    assert gradients.keys() == {"transformer"}
    assert np.isfinite(float(outputs["loss"][0]))
    other = {**batch, "text_tokens": batch["text_tokens"] + 1}
    jax.tree.map(np.testing.assert_array_equal, gradients, _gradients(learner, other)[0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"label_smoothing": 1.0}, "label_smoothing 1.0 must be at least 0 and below 1"),
        ({"prefix_noise": 1.5}, "prefix_noise 1.5 must be a share of the given tokens"),
        ({"z_loss": -1.0}, "the weight z_loss -1.0"),
        ({"critic_weight": float("inf")}, "the weight critic_weight inf"),
        ({"loss_parts": 0}, "found loss_parts 0, expected at least 1"),
        ({"loss_parts": 7}, "found loss_parts 7, expected a divisor of the 64 tokens of a row, as 4"),
        ({"schedule": "sine"}, "mask schedule 'sine' is unknown"),
    ],
)
def test_settings_without_sense_are_refused(
    transformer_learner: TransformerLearner, settings: dict, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        dataclasses.replace(transformer_learner, **settings)


def test_loss_and_gradients_of_packed_images_are_those_of_images_alone(
    transformer_learner: TransformerLearner, params: dict, batch: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four images in one row, and two videos, against six rows; what is masked depends on a token's place alone."""

    def every_other_place(
        rng: jax.Array, candidates: jax.Array, segment_ids: jax.Array, *, segments: int, **_: object
    ) -> tuple[jax.Array, jax.Array]:
        places = jnp.arange(candidates.shape[1]) % 16
        return candidates & (places % 3 == 0), jnp.full((len(candidates), segments), 0.4)

    monkeypatch.setattr(transformer_learner_lib, "random_mask", every_other_place)
    learner = dataclasses.replace(transformer_learner, null_text_rate=0.0)
    video, mask = batch["video"][:6], jnp.array([7] * 2 + [1] * 4)[:, None] > jnp.arange(7)
    texts = {name: batch[name][:6] for name in ("text_tokens", "text_mask")}
    alone = {"video": video, "frame_mask": mask, "prefix_frames": jnp.array([0, 3, 0, 0, 0, 0]), **texts}
    nothing = jnp.zeros((3, *video.shape[2:]), jnp.uint8)

    def in_rows(array: jax.Array) -> jax.Array:
        videos = jnp.stack([array[:2], *[jnp.zeros_like(array[:2])] * 3], axis=1)
        return jnp.concatenate([videos, array[2:][None]])

    packed = {
        "video": jnp.concatenate([video[:2], jnp.concatenate([video[2:, 0], nothing])[None]]),
        "frame_mask": mask[:3],
        "prefix_frames": jnp.array([0, 3, 0]),
        "packed_images": jnp.array([0, 0, 4]),
        **{name: in_rows(array) for name, array in texts.items()},
    }
    trained, frozen = {name: params[name] for name in ("text", "transformer")}, {"tokenizer": params["tokenizer"]}
    learn = jax.jit(jax.grad(learner.loss, has_aux=True))
    (gradients, outputs), (packed_gradients, packed_outputs) = (
        learn(trained, frozen, each, jax.random.key(0)) for each in (alone, packed)
    )
    for name in ("loss", "loss_video", "loss_image", "accuracy", "loss_prefixed", "null_text_rate"):
        np.testing.assert_allclose(outputs[name], packed_outputs[name], rtol=1e-5)
    assert float(outputs["loss_image"][1]) > 0
    difference = optax.tree.norm(optax.tree.sub(gradients, packed_gradients))
    assert difference <= 1e-5 * optax.tree.norm(gradients)
    assert float(packed_outputs["padding"][0]) < float(outputs["padding"][0])


def test_a_tokenizer_that_is_not_the_checkpoints_is_told(
    transformer_learner: TransformerLearner, tmp_path: Path
) -> None:
    """A training that goes on does so with the one that it began with."""
    frozen = transformer_learner.load_frozen(transformer_learner.frozen_spec())
    assert transformer_learner.note_on_frozen(frozen) == ""
    other = jax.tree.map(lambda array: array + 1, frozen)
    kept = "goes on with the tokenizer that it began with, "
    named = transformer_learner.tokenizer_workdir
    assert transformer_learner.note_on_frozen(other).startswith(f"{kept}and not with the one that is now in {named}:")
    gone = dataclasses.replace(transformer_learner, tokenizer_workdir=str(tmp_path / "gone"))
    assert gone.note_on_frozen(frozen).startswith(f"{kept}as none that fits is in {tmp_path / 'gone'}: found no check")
