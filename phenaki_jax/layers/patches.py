"""Videos as patches and back: groups of frames cut into squares (Phenaki, section 2.1)."""

from __future__ import annotations

from jaxtyping import Array, Float


def to_patches(
    frames: Float[Array, "batch frames height width channels"], temporal_patch: int, patch: int
) -> Float[Array, "batch times rows columns features"]:
    """Cuts frames into patches of `temporal_patch` frames x `patch` x `patch` pixels, flattened in that order."""
    batch, count, height, width, channels = frames.shape
    times, rows, columns = count // temporal_patch, height // patch, width // patch
    split = frames.reshape(batch, times, temporal_patch, rows, patch, columns, patch, channels)
    return split.transpose(0, 1, 3, 5, 2, 4, 6, 7).reshape(
        batch, times, rows, columns, temporal_patch * patch**2 * channels
    )


def from_patches(
    patches: Float[Array, "batch times rows columns features"], temporal_patch: int, patch: int
) -> Float[Array, "batch frames height width channels"]:
    """Inverts `to_patches`."""
    batch, times, rows, columns, features = patches.shape
    channels = features // (temporal_patch * patch**2)
    split = patches.reshape(batch, times, rows, columns, temporal_patch, patch, patch, channels)
    merged = split.transpose(0, 1, 4, 2, 5, 3, 6, 7)
    return merged.reshape(batch, times * temporal_patch, rows * patch, columns * patch, channels)
