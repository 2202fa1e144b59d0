"""CLIP's vectors are those of transformers, its preprocessing is Pillow's, and what comes after an end is unseen."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from phenaki_jax.errors import UserError
from phenaki_jax.features import testing
from phenaki_jax.features.clip import SIZES, ClipConfig, TowerConfig, clip_shapes, embed_images, embed_texts, preprocess
from phenaki_jax.features.random_weights import random_clip

CONFIG = testing.FIXTURE_CLIP
MEAN, DEVIATION = np.array([0.48145466, 0.4578275, 0.40821073]), np.array([0.26862954, 0.26130258, 0.27577711])

images_embedded = jax.jit(functools.partial(embed_images, CONFIG))
texts_embedded = jax.jit(functools.partial(embed_texts, CONFIG))
preprocessed = jax.jit(preprocess, static_argnums=1)


@pytest.fixture(scope="module")
def clip() -> dict[str, Any]:
    return jax.tree.map(jnp.asarray, random_clip(CONFIG, testing.WEIGHTS))


def test_vectors_of_images_are_torchs(clip: dict[str, Any], is_torchs: Callable[..., None]) -> None:
    found = images_embedded(clip, testing.random_bytes(testing.FIXTURE_BYTES))
    is_torchs("clip.npz", "images", {"images": np.asarray(found)})


def test_vectors_of_texts_are_torchs(clip: dict[str, Any], is_torchs: Callable[..., None]) -> None:
    found = texts_embedded(clip, testing.random_clip_tokens(CONFIG, 5))
    is_torchs("clip.npz", "texts", {"texts": np.asarray(found)})


def test_what_comes_after_an_end_changes_nothing(clip: dict[str, Any]) -> None:
    """Neither what it is nor how much of it; what stands before it does."""
    start, end = CONFIG.vocabulary_size - 2, CONFIG.vocabulary_size - 1
    rest = CONFIG.text_length - 4
    texts = np.array(
        [[start, 7, 9, end, *[end] * rest], [start, 7, 9, end, *range(rest)], [start, 8, 9, *[end] * (rest + 1)]]
    )
    one, other, third = np.asarray(texts_embedded(clip, texts.astype(np.int32)))
    np.testing.assert_allclose(one, other, rtol=1e-5)
    assert np.abs(one - third).max() > 0.1
    short = texts_embedded(clip, texts[:1, :4].astype(np.int32))
    np.testing.assert_allclose(short[0], one, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(48, 32), (32, 61), (100, 57)], ids=str)
def test_the_middle_of_images_is_seen(size: tuple[int, int]) -> None:
    """The shorter side becomes 32 pixels, the longer one is cut on both sides."""
    image = testing.random_bytes((*size, 3))
    height, width = (32 * side // min(size) for side in size)
    columns = Image.fromarray(image).resize((width, size[0]), Image.Resampling.BICUBIC)
    resized = np.asarray(columns.resize((width, height), Image.Resampling.BICUBIC), np.float64)
    top, left = round((height - 32) / 2), round((width - 32) / 2)
    expected = (resized[top : top + 32, left : left + 32] / 255 - MEAN) / DEVIATION
    np.testing.assert_allclose(preprocessed(image[None], 32)[0], expected, atol=1e-5)


def test_released_models_have_as_many_parameters_as_published() -> None:
    """As transformers counts them, without position ids."""
    counts = {name: sum(leaf.size for leaf in jax.tree.leaves(clip_shapes(ClipConfig.named(name)))) for name in SIZES}
    assert counts == {
        "clip-vit-base-patch32": 151_277_313,
        "clip-vit-base-patch16": 149_620_737,
        "clip-vit-large-patch14": 427_616_513,
    }


@pytest.mark.usefixtures("unchecked")
def test_images_of_floats_are_refused(clip: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"images: found float32 in 0\.\.0, expected uint8"):
        embed_images(CONFIG, clip, jnp.zeros((1, 32, 32, 3)))


def test_texts_too_long_are_refused(clip: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="found texts of 13 tokens, expected at most 12"):
        embed_texts(CONFIG, clip, jnp.zeros((1, 13), jnp.int32))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TowerConfig(layers=0, width=8, heads=2), "found layers 0, expected at least 1"),
        (lambda: TowerConfig(layers=1, width=8, heads=3), "found 3 heads for a width of 8, expected a divisor of it"),
        (lambda: ClipConfig(patch_size=15), "found patch_size 15 for image_size 224, expected a divisor of it"),
        (lambda: ClipConfig.named("ViT-B/32"), "found CLIP 'ViT-B/32', expected one of clip-vit-base-patch32, "),
    ],
)
def test_sizes_that_cannot_be_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()
