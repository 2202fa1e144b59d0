"""The tokenizer's loss: means worked out by hand, over valid frames and their tokens alone."""

import jax.numpy as jnp
import numpy as np
import pytest

from phenaki_jax.tokenizer.objective import ObjectiveConfig, TokenizerLoss, tokenizer_loss
from phenaki_jax.tokenizer.quantizers import Quantized

# A clip of three frames and an image: two time steps, and one.
FRAME_MASK = jnp.array([[True, True, True], [True, False, False]])
TIME_MASK = jnp.array([[True, True], [True, False]])
PADDING = 1000.0
# Of every pixel, by clip and frame.
ERRORS = jnp.array([[0.5, -0.5, 0.5], [-1.0, PADDING, PADDING]])
# Two tokens in each time step.
TOKEN_LOSSES = jnp.array([[[[1.0, 3.0]], [[5.0, 7.0]]], [[[4.0, 4.0]], [[PADDING, PADDING]]]])
# (3 * 0.25 + 1) / 4, (3 * 0.5 + 1) / 4 and (1 + 3 + 5 + 7 + 4 + 4) / 6.
L2, L1, QUANTIZER = 0.4375, 0.625, 4.0


def _loss(config: ObjectiveConfig, errors: jnp.ndarray = ERRORS, losses: jnp.ndarray = TOKEN_LOSSES) -> TokenizerLoss:
    video = jnp.full((2, 3, 2, 4, 3), 0.25)
    quantized = Quantized(jnp.zeros((*losses.shape, 5)), jnp.zeros(losses.shape, jnp.int32), losses)
    reconstruction = video + errors[:, :, None, None, None]
    return tokenizer_loss(config, video, reconstruction, quantized, FRAME_MASK, TIME_MASK)


def test_terms_are_means_over_valid_pixels_and_tokens() -> None:
    loss = _loss(ObjectiveConfig())
    np.testing.assert_allclose([loss.l2, loss.l1, loss.quantizer], [L2, L1, QUANTIZER], rtol=1e-6)


@pytest.mark.parametrize(
    ("config", "total"),
    [
        (ObjectiveConfig(), L2 + QUANTIZER),
        (ObjectiveConfig(l2=0.0, l1=1.0, quantizer=0.0), L1),
        (ObjectiveConfig(l2=2.0, l1=4.0, quantizer=0.5), 5.375),
    ],
)
def test_the_total_is_the_weighted_sum_of_the_terms(config: ObjectiveConfig, total: float) -> None:
    np.testing.assert_allclose(_loss(config).total, total, rtol=1e-6)


def test_one_wrong_value_is_divided_by_all_of_the_valid_frames() -> None:
    """Four valid frames of 2 x 4 pixels with three colours are 96 values."""
    video = jnp.zeros((2, 3, 2, 4, 3))
    quantized = Quantized(jnp.zeros((2, 2, 1, 2, 5)), jnp.zeros((2, 2, 1, 2), jnp.int32), jnp.zeros((2, 2, 1, 2)))
    reconstruction = video.at[0, 2, 1, 3, 2].set(2.0)
    loss = tokenizer_loss(ObjectiveConfig(), video, reconstruction, quantized, FRAME_MASK, TIME_MASK)
    np.testing.assert_allclose([loss.l2, loss.l1, loss.quantizer], [4 / 96, 2 / 96, 0.0], rtol=1e-6)


def test_what_stands_behind_the_masks_changes_nothing() -> None:
    config = ObjectiveConfig(l2=1.0, l1=1.0, quantizer=1.0)
    errors = jnp.where(FRAME_MASK, ERRORS, -3.0)
    losses = jnp.where(TIME_MASK[:, :, None, None], TOKEN_LOSSES, 0.0)
    np.testing.assert_array_equal(_loss(config, errors, losses), _loss(config))
