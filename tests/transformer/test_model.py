"""The masked transformer: padding, dropped text and other rows of the batch change nothing that they should not."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phenaki_jax.errors import UserError
from phenaki_jax.layers.positions import grid_positions
from phenaki_jax.transformer.config import TransformerConfig
from phenaki_jax.transformer.model import MaskedTransformer

CONFIG = TransformerConfig(codebook_size=20, text_width=12, layers=2, width=16, heads=2, mlp_width=32)
BATCH, LENGTH, TEXT = 2, 8, 5
POSITIONS = grid_positions(2, 2, 2)[None]


@pytest.fixture(scope="module")
def inputs() -> dict[str, jax.Array]:
    tokens = jax.random.randint(jax.random.key(0), (BATCH, LENGTH), 0, CONFIG.codebook_size + 1)
    return {
        "video_tokens": tokens,
        "token_positions": POSITIONS,
        "token_mask": jnp.array([[True] * 8, [True] * 4 + [False] * 4]),
        "text_embeddings": jax.random.normal(jax.random.key(1), (BATCH, TEXT, CONFIG.text_width)),
        "text_mask": jnp.array([[True] * 5, [True] * 2 + [False] * 3]),
        "drop_text": jnp.array([False, False]),
    }


@pytest.fixture(scope="module")
def params(inputs: dict[str, jax.Array]) -> dict:
    return nn.unbox(MaskedTransformer(CONFIG).init(jax.random.key(2), **inputs))


def _logits(params: dict, inputs: dict[str, jax.Array], **changes: jax.Array) -> np.ndarray:
    return np.asarray(MaskedTransformer(CONFIG).apply(params, **{**inputs, **changes}))


def test_what_is_padded_changes_nothing(params: dict, inputs: dict[str, jax.Array]) -> None:
    before = _logits(params, inputs)
    tokens = inputs["video_tokens"].at[1, 4:].set(3)
    texts = inputs["text_embeddings"].at[1, 2:].set(9.0)
    after = _logits(params, inputs, video_tokens=tokens, text_embeddings=texts)
    np.testing.assert_array_equal(after[0], before[0])
    np.testing.assert_array_equal(after[1, :4], before[1, :4])


def test_other_rows_of_the_batch_change_nothing(params: dict, inputs: dict[str, jax.Array]) -> None:
    before = _logits(params, inputs)
    tokens = inputs["video_tokens"].at[0].set(1)
    after = _logits(params, inputs, video_tokens=tokens)
    np.testing.assert_array_equal(after[1], before[1])
    assert np.any(after[0] != before[0])


def test_text_matters_until_it_is_dropped(params: dict, inputs: dict[str, jax.Array]) -> None:
    other = inputs["text_embeddings"] + 1.0
    assert np.any(_logits(params, inputs) != _logits(params, inputs, text_embeddings=other))
    dropped = {"drop_text": jnp.array([True, True])}
    without = _logits(params, inputs, **dropped)
    np.testing.assert_array_equal(without, _logits(params, inputs, text_embeddings=other, **dropped))
    assert np.any(without != _logits(params, inputs))


def test_attention_is_bidirectional(params: dict, inputs: dict[str, jax.Array]) -> None:
    before = _logits(params, inputs)
    after = _logits(params, inputs, video_tokens=inputs["video_tokens"].at[0, 7].add(-1))
    assert np.any(after[0, 0] != before[0, 0])


def test_code_levels_share_what_codes_have_in_common(inputs: dict[str, jax.Array]) -> None:
    config = dataclasses.replace(CONFIG, code_levels=(4, 5))
    params = nn.unbox(MaskedTransformer(config).init(jax.random.key(2), **inputs))
    # Code 6 is level 2 of the first dimension and level 1 of the second; a head that reads these two alone.
    head, digit_head = (jnp.zeros_like(params["params"][name]) for name in ("head", "digit_head"))
    digit_head = digit_head.at[0, jnp.array([2, 4 + 1])].set(1.0)
    only = {"params": {**params["params"], "digit_head": digit_head, "head": head}}
    logits = np.abs(np.asarray(MaskedTransformer(config).apply(only, **inputs))[0, 0])
    assert np.argmax(logits) == 6
    np.testing.assert_allclose(logits[[2, 10, 14, 18, 4, 5, 7]], logits[6] / 2, rtol=1e-5)
    np.testing.assert_array_equal(logits[[0, 1, 3, 8, 9, 11]], 0)


def test_code_levels_that_are_another_codebook_are_refused() -> None:
    with pytest.raises(UserError, match="do not multiply to codebook_size 20"):
        dataclasses.replace(CONFIG, code_levels=(4, 4))


def test_a_codebook_that_disagrees_is_refused() -> None:
    with pytest.raises(UserError, match="codebook_size is 20 but the tokenizer has 5000 codes"):
        CONFIG.check_codebook(5000)
