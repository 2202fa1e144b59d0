"""The masked loss: cross-entropy by hand, and nothing from tokens that are not masked."""

import jax.numpy as jnp
import numpy as np

from phenaki_jax.transformer.objective import masked_loss


def test_loss_of_a_case_worked_out_by_hand() -> None:
    logits = jnp.log(jnp.array([[[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]]]))
    loss = masked_loss(logits, jnp.array([[0, 1]]), jnp.array([[True, True]]))
    np.testing.assert_allclose(loss.cross_entropy, [-np.log(0.5) - np.log(0.8)], rtol=1e-6)
    np.testing.assert_array_equal(loss.correct, [2.0])
    np.testing.assert_array_equal(loss.masked, [2.0])


def test_tokens_that_are_not_masked_count_for_nothing() -> None:
    logits = jnp.array([[[3.0, -1.0], [0.0, 0.0]]])
    mask = jnp.array([[False, True]])
    loss = masked_loss(logits, jnp.array([[1, 0]]), mask)
    np.testing.assert_allclose(loss.cross_entropy, [np.log(2.0)], rtol=1e-6)
    np.testing.assert_array_equal(masked_loss(logits.at[0, 0].set(100.0), jnp.array([[0, 0]]), mask), loss)
