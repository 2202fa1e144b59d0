"""CLIP similarity is a cosine, averaged over a clip's valid frames."""

import jax
import jax.numpy as jnp
import numpy as np

from phenaki_jax.evaluation.similarity import clip_similarity

similarity = jax.jit(clip_similarity)


def test_similarity_is_the_mean_cosine_of_valid_frames() -> None:
    """Angles of 0, 90 and 60 degrees to the text; lengths do not matter."""
    frame = jnp.array([[[3.0, 0.0], [0.0, 0.1], [0.5, np.sqrt(0.75)]]])
    texts = jnp.array([[7.0, 0.0]])
    for mask, expected in (([1, 1, 1], 0.5), ([1, 1, 0], 0.5), ([1, 0, 0], 1.0), ([0, 1, 1], 0.25)):
        found = similarity(frame, texts, jnp.array([mask], bool))
        np.testing.assert_allclose(found, [expected], atol=1e-6)
    np.testing.assert_allclose(similarity(frame[:, :1], -texts, jnp.ones((1, 1), bool)), [-1.0], rtol=1e-6)


def test_each_clip_has_its_own_text() -> None:
    frames = jnp.eye(2)[:, None]
    np.testing.assert_allclose(similarity(frames, jnp.eye(2), jnp.ones((2, 1), bool)), [1, 1])
    np.testing.assert_allclose(similarity(frames, jnp.eye(2)[::-1], jnp.ones((2, 1), bool)), [0, 0])
