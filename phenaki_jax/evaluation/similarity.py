"""How well frames fit a text, by CLIP's embeddings of both: CLIPSIM (arXiv 2104.14806, section 4.2)."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from phenaki_jax.evaluation.masks import mean_over_frames


def clip_similarity(
    frames: Float[Array, "batch frames width"],
    texts: Float[Array, "batch width"],
    frame_mask: Bool[Array, "batch frames"],
) -> Float[Array, " batch"]:
    """The cosine of the angle between a text and each frame, averaged over a clip's valid frames.

    An image is a clip of one frame. Published figures are this mean, or 100 times it; CLIPScore (arXiv 2104.08718) is
    2.5 times it where it is positive.

    Args:
      frames: CLIP's embeddings, after its projection; of any length.
      texts: the same of the texts, one for each clip.
      frame_mask: which frames are valid.

    Returns:
      Between -1 and 1.
    """
    frames, texts = _normalize(frames), _normalize(texts)
    return mean_over_frames(jnp.sum(frames * texts[:, None], axis=-1), frame_mask)


def _normalize(embeddings: Float[Array, "*batch width"]) -> Float[Array, "*batch width"]:
    embeddings = embeddings.astype(jnp.float32)
    return embeddings / jnp.maximum(jnp.linalg.norm(embeddings, axis=-1, keepdims=True), 1e-12)
