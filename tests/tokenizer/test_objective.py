"""The pixels' terms: means worked out by hand, over valid frames alone."""

import jax.numpy as jnp
import numpy as np
import pytest

from phenaki_jax.errors import UserError
from phenaki_jax.tokenizer.objective import ObjectiveConfig, PixelErrors, pixel_errors

# A clip of three frames and an image.
FRAME_MASK = jnp.array([[True, True, True], [True, False, False]])
PADDING = 1000.0
# Of every pixel, by clip and frame.
ERRORS = jnp.array([[0.5, -0.5, 0.5], [-1.0, PADDING, PADDING]])
# (3 * 0.25 + 1) / 4 and (3 * 0.5 + 1) / 4.
L2, L1 = 0.4375, 0.625


def _errors(errors: jnp.ndarray = ERRORS) -> PixelErrors:
    video = jnp.full((2, 3, 2, 4, 3), 0.25)
    return pixel_errors(video, video + errors[:, :, None, None, None], FRAME_MASK)


def test_errors_are_summed_for_each_frame_index() -> None:
    errors = _errors()
    np.testing.assert_allclose(errors.squares, [0.25 + 1.0, 0.25, 0.25], rtol=1e-6)
    np.testing.assert_allclose(errors.absolutes, [0.5 + 1.0, 0.5, 0.5], rtol=1e-6)
    np.testing.assert_array_equal(errors.frames, [2, 1, 1])


@pytest.mark.parametrize(
    ("config", "loss"),
    [
        (ObjectiveConfig(), L2),
        (ObjectiveConfig(l2=0.0, l1=1.0), L1),
        (ObjectiveConfig(l2=2.0, l1=4.0), 3.375),
    ],
)
def test_the_loss_is_the_weighted_sum_of_means_over_valid_frames(config: ObjectiveConfig, loss: float) -> None:
    np.testing.assert_allclose(_errors().loss(config), loss, rtol=1e-6)


def test_one_wrong_value_is_divided_by_all_of_the_valid_frames() -> None:
    """Four valid frames of 2 x 4 pixels with three colours are 96 values."""
    video = jnp.zeros((2, 3, 2, 4, 3))
    reconstruction = video.at[0, 2, 1, 3, 2].set(2.0)
    loss = pixel_errors(video, reconstruction, FRAME_MASK).loss(ObjectiveConfig())
    np.testing.assert_allclose(loss, 4 / 96, rtol=1e-6)


def test_what_stands_behind_the_mask_changes_nothing() -> None:
    np.testing.assert_array_equal(_errors(jnp.where(FRAME_MASK, ERRORS, jnp.nan)), _errors())


@pytest.mark.parametrize("name", ["l2", "l1", "quantizer"])
@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_a_weight_that_is_no_number_of_at_least_0_is_refused(name: str, weight: float) -> None:
    with pytest.raises(UserError, match=f"the objective's weight {name} {weight} must be a number of at least 0"):
        ObjectiveConfig(**{name: weight})
