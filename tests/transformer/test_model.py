"""The masked transformer: padding, other examples, dropped text and other rows change nothing that they should not."""

import dataclasses
import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phenaki_jax.errors import UserError
from phenaki_jax.layers.positions import grid_positions
from phenaki_jax.transformer.config import TransformerConfig
from phenaki_jax.transformer.model import MaskedTransformer, Predictions, Text

CONFIG = TransformerConfig(codebook_size=20, text_width=12, layers=2, width=16, heads=2, mlp_width=32)
BATCH, LENGTH, TEXT = 2, 8, 5
POSITIONS = grid_positions(2, 2, 2)[None]
# What is configured otherwise in one way or another; properties hold for each.
VARIANTS = {
    "plain": {},
    "qk_norm": {"qk_norm": True},
    "factors": {"code_factors": (4, 5)},
    "levels": {"code_levels": (4, 5)},
    "scored": {"predicts": "codes_and_scores"},
    "deep": {"layers": 6, "remat": "full"},
}


@pytest.fixture(scope="module", params=VARIANTS)
def config(request: pytest.FixtureRequest) -> TransformerConfig:
    return dataclasses.replace(CONFIG, **VARIANTS[request.param])


@pytest.fixture(scope="module")
def inputs() -> dict:
    tokens = jax.random.randint(jax.random.key(0), (BATCH, LENGTH), 0, CONFIG.codebook_size + 1)
    return {
        "video_tokens": tokens,
        "token_positions": POSITIONS,
        "segment_ids": jnp.array([[1] * 8, [1] * 4 + [0] * 4]),
        "text": Text(
            jax.random.normal(jax.random.key(1), (BATCH, TEXT, CONFIG.text_width)),
            jnp.array([[1] * 5, [1] * 2 + [0] * 3]),
            jnp.zeros((BATCH, TEXT), bool),
        ),
    }


@functools.cache
def _params(config: TransformerConfig) -> dict:
    tokens = jnp.zeros((1, LENGTH), jnp.int32)
    text = Text(jnp.zeros((1, 1, config.text_width)), jnp.ones((1, 1), jnp.int32), jnp.zeros((1, 1), bool))
    init = MaskedTransformer(config).init(
        jax.random.key(2), tokens, POSITIONS, None, text if config.text_width else None
    )
    # Scales of norms that differ from 1, so that one left out is seen.
    return jax.tree.map(
        lambda leaf: leaf + 0.1 * jax.random.normal(jax.random.key(leaf.size), leaf.shape), nn.unbox(init)
    )


def _predict(config: TransformerConfig, inputs: dict, **changes: object) -> Predictions:
    return jax.tree.map(np.asarray, _applied(config)(_params(config), **{**inputs, **changes}))


@functools.cache
def _applied(config: TransformerConfig) -> Callable[..., Predictions]:
    return jax.jit(MaskedTransformer(config).apply)


def _joint(predictions: Predictions) -> np.ndarray:
    scores = [] if predictions.scores is None else [predictions.scores[..., None]]
    return np.concatenate([*predictions.logits, *scores], axis=-1)


def _with_text(inputs: dict, **changes: jax.Array) -> dict:
    return {"text": inputs["text"]._replace(**changes)}


def test_what_is_padded_changes_nothing(config: TransformerConfig, inputs: dict) -> None:
    before = _joint(_predict(config, inputs))
    tokens = inputs["video_tokens"].at[1, 4:].set(3)
    texts = _with_text(inputs, embeddings=inputs["text"].embeddings.at[1, 2:].set(9.0))
    after = _joint(_predict(config, inputs, video_tokens=tokens, **texts))
    np.testing.assert_array_equal(after[0], before[0])
    np.testing.assert_array_equal(after[1, :4], before[1, :4])


def test_other_rows_of_the_batch_change_nothing(config: TransformerConfig, inputs: dict) -> None:
    before = _joint(_predict(config, inputs))
    after = _joint(_predict(config, inputs, video_tokens=inputs["video_tokens"].at[0].set(1)))
    np.testing.assert_array_equal(after[1], before[1])
    assert np.any(after[0] != before[0])


def test_other_examples_of_a_row_change_nothing(config: TransformerConfig, inputs: dict) -> None:
    segments = jnp.array([[1] * 4 + [2] * 4] * 2)
    packed = {**inputs, "segment_ids": segments, **_with_text(inputs, segment_ids=jnp.array([[1, 1, 2, 2, 0]] * 2))}
    before = _joint(_predict(config, packed))
    tokens = packed["video_tokens"].at[:, :4].set(7)
    other = _with_text(packed, embeddings=packed["text"].embeddings.at[:, :2].add(1.0))
    after = _joint(_predict(config, packed, video_tokens=tokens, **other))
    np.testing.assert_array_equal(after[:, 4:], before[:, 4:])
    assert np.any(after[:, :4] != before[:, :4])


def test_examples_that_share_a_row_are_as_if_alone(config: TransformerConfig, inputs: dict) -> None:
    image = POSITIONS[:, :4]
    text = inputs["text"]._replace(segment_ids=jnp.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]))
    alone = {
        "video_tokens": inputs["video_tokens"][:, :4],
        "token_positions": image,
        "segment_ids": jnp.ones((2, 4), jnp.int32),
        "text": text._replace(dropped=jnp.array([[False], [True]]) & (text.segment_ids > 0)),
    }
    packed = {
        "video_tokens": alone["video_tokens"].reshape(1, 8),
        "token_positions": jnp.concatenate([image, image], axis=1),
        "segment_ids": jnp.array([[1] * 4 + [2] * 4]),
        "text": Text(
            text.embeddings.reshape(1, 10, -1),
            (text.segment_ids * jnp.array([[1], [2]])).reshape(1, 10),
            alone["text"].dropped.reshape(1, 10),
        ),
    }
    want, found = _joint(_predict(config, alone)), _joint(_predict(config, packed))
    np.testing.assert_allclose(found.reshape(want.shape), want, rtol=2e-5, atol=2e-5)


def test_text_matters_until_it_is_dropped(config: TransformerConfig, inputs: dict) -> None:
    other = inputs["text"].embeddings + 1.0
    plain = _joint(_predict(config, inputs))
    assert np.any(plain != _joint(_predict(config, inputs, **_with_text(inputs, embeddings=other))))
    dropped = jnp.ones((BATCH, TEXT), bool)
    without = _joint(_predict(config, inputs, **_with_text(inputs, dropped=dropped)))
    also = _joint(_predict(config, inputs, **_with_text(inputs, embeddings=other, dropped=dropped)))
    np.testing.assert_array_equal(without, also)
    assert np.any(without != plain)
    # The null text is one token, however long the text was.
    shorter = _with_text(inputs, dropped=dropped, segment_ids=jnp.array([[1, 0, 0, 0, 0], [1, 0, 0, 0, 0]]))
    np.testing.assert_array_equal(without, _joint(_predict(config, inputs, **shorter)))


def test_rows_of_one_whole_example_need_no_segments(config: TransformerConfig, inputs: dict) -> None:
    whole = _predict(config, inputs, segment_ids=jnp.ones((BATCH, LENGTH), jnp.int32))
    np.testing.assert_allclose(_joint(_predict(config, inputs, segment_ids=None)), _joint(whole), rtol=2e-5, atol=2e-5)


def test_attention_is_bidirectional(config: TransformerConfig, inputs: dict) -> None:
    before = _joint(_predict(config, inputs))
    after = _joint(_predict(config, inputs, video_tokens=inputs["video_tokens"].at[0, 7].add(-1)))
    assert np.any(after[0, 0] != before[0, 0])


def test_a_model_without_text_has_nothing_that_reads_it(inputs: dict) -> None:
    config = dataclasses.replace(CONFIG, text_width=0)
    assert _predict(config, inputs, text=None).logits[0].shape == (BATCH, LENGTH, 20)
    names = {name for path, _ in jax.tree_util.tree_leaves_with_path(_params(config)) for name in map(str, path)}
    assert not [name for name in names if "cross" in name or "null" in name or "context" in name]


def test_every_factor_of_the_codes_has_a_head_and_a_table(inputs: dict) -> None:
    config = dataclasses.replace(CONFIG, codebook_size=2**18, code_factors=(512, 512), predicts="codes_and_scores")
    params = _params(config)["params"]
    assert params["embedding"].shape == (1024, 16)
    assert params["head"].shape == (16, 1024)
    tokens = jnp.array([[0, 512, 1, config.mask_token, 2**18 - 1, 5, 6, 7]])
    predictions = _predict(config, inputs, video_tokens=jnp.tile(tokens, (2, 1)))
    assert [part.shape for part in predictions.logits] == [(2, 8, 512), (2, 8, 512)]
    assert predictions.scores is not None
    assert predictions.scores.shape == (2, 8)


def test_code_levels_share_what_codes_have_in_common(inputs: dict) -> None:
    config = dataclasses.replace(CONFIG, code_levels=(4, 5))
    params = _params(config)
    # Code 6 is level 2 of the first dimension and level 1 of the second; a head that reads these two alone.
    head, digit_head = (jnp.zeros_like(params["params"][name]) for name in ("head", "digit_head"))
    digit_head = digit_head.at[0, jnp.array([2, 4 + 1])].set(1.0)
    only = {"params": {**params["params"], "digit_head": digit_head, "head": head}}
    logits = np.abs(np.asarray(MaskedTransformer(config).apply(only, **inputs).logits[0])[0, 0])
    assert np.argmax(logits) == 6
    np.testing.assert_allclose(logits[[2, 10, 14, 18, 4, 5, 7]], logits[6] / 2, rtol=1e-5)
    np.testing.assert_array_equal(logits[[0, 1, 3, 8, 9, 11]], 0)


@pytest.mark.parametrize(
    ("sizes", "millions"),
    [
        ({}, 1849.0),
        ({"layers": 20, "width": 1536, "heads": 24, "mlp_width": 6144}, 940.0),
    ],
)
def test_the_papers_sizes_have_its_parameters(sizes: dict, millions: float) -> None:
    config = TransformerConfig(**sizes)
    text = Text(jnp.zeros((1, 1, 4096)), jnp.ones((1, 1), jnp.int32), jnp.zeros((1, 1), bool))
    tokens = jnp.zeros((1, LENGTH), jnp.int32)
    init = lambda: MaskedTransformer(config).init(jax.random.key(0), tokens, POSITIONS, None, text)  # noqa: E731
    found = sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(init))) / 1e6
    assert abs(found / millions - 1) < 0.01


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"code_levels": (4, 4)}, "code_levels .* do not multiply to codebook_size 20"),
        ({"code_factors": (4, 4)}, "code_factors .* do not multiply to codebook_size 20"),
        ({"code_factors": (4, 5), "code_levels": (4, 5)}, "expected one of them"),
        ({"predicts": "pixels"}, "predicts 'pixels' is unknown; known are codes, scores, codes_and_scores"),
        ({"text_width": -1}, "text_width -1"),
    ],
)
def test_settings_without_sense_are_refused(change: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        dataclasses.replace(CONFIG, **change)


def test_a_codebook_that_disagrees_is_refused() -> None:
    with pytest.raises(UserError, match="codebook_size is 20 but the tokenizer has 5000 codes"):
        CONFIG.check_codebook(5000)
