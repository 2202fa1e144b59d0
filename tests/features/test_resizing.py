"""Each way of resizing is the one that it is named after: by hand where they differ, and Pillow's beside Pillow."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array
from PIL import Image

from phenaki_jax.features import resizing, testing

SIZES = [(30, 41), (64, 50), (97, 20)]


def along_width(resize: Callable[..., Array], colours: list[int], width: int) -> np.ndarray:
    """What becomes of a row of colours."""
    row = jnp.asarray(colours, jnp.uint8).reshape(1, 1, -1, 1)
    return np.asarray(resize(row, 1, width)).reshape(-1)


def test_tensorflow_looks_from_the_first_pixel_on() -> None:
    """At 0, 1/2, 1 and 3/2 of two pixels, and at 0, 3/2 of three."""
    np.testing.assert_array_equal(along_width(resizing.like_tensorflow1, [0, 200], 4), [0, 100, 200, 200])
    np.testing.assert_array_equal(along_width(resizing.like_tensorflow1, [10, 20, 60], 2), [10, 40])


def test_torch_looks_from_the_middle_of_pixels() -> None:
    """At -1/4, 1/4, 3/4 and 5/4 of two pixels; and at 1/4 + 1 and so on of five, without the others' colours."""
    np.testing.assert_allclose(along_width(resizing.like_torch, [0, 200], 4), [0, 50, 150, 200], rtol=1e-6)
    np.testing.assert_allclose(along_width(resizing.like_torch, [0, 8, 90, 100, 0, 0], 2), [8, 0], atol=1e-5)


@pytest.mark.parametrize("resize", [resizing.like_tensorflow1, resizing.like_torch, resizing.like_clean_fid])
def test_height_goes_as_width_does(resize: Callable[..., Array]) -> None:
    frames = testing.random_bytes((2, 3, 9, 7, 3))
    both = jax.jit(lambda frames: (resize(frames, 12, 5), resize(frames.swapaxes(2, 3), 5, 12)))
    upright, turned = both(frames)
    np.testing.assert_allclose(upright.swapaxes(2, 3), turned, atol=1e-3)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_images_are_pillows(size: tuple[int, int]) -> None:
    """To the last bit; width first, whatever Pillow would choose."""
    image = testing.random_bytes((60, 45, 3))
    found = jax.jit(resizing.like_pillow, static_argnums=(1, 2))(image, *size)
    columns = Image.fromarray(image).resize((size[1], 60), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(found, columns.resize(size[::-1], Image.Resampling.BICUBIC))


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_fractions_are_pillows(size: tuple[int, int]) -> None:
    """As clean-fid resizes: each colour of the image as an image of floats."""
    image = testing.random_bytes((60, 45, 3))
    channels = [Image.fromarray(image[..., channel].astype(np.float32)) for channel in range(3)]
    expected = [np.asarray(each.resize(size[::-1], Image.Resampling.BICUBIC)) for each in channels]
    found = resizing.like_clean_fid(jnp.asarray(image), *size)
    np.testing.assert_allclose(found, np.clip(np.stack(expected, axis=-1), 0, 255), atol=1e-3)


def test_colours_do_not_leave_their_range_beside_an_edge() -> None:
    """Of black and white, a quarter of a pixel from the edge: 255 times 13/64 = 51.8 and the rest of it."""
    edge = [0, 0, 255, 255]
    assert along_width(resizing.like_pillow, edge, 8).tolist() == [0, 0, 0, 52, 203, 255, 255, 255]
    fractions = along_width(resizing.like_clean_fid, edge, 8)
    np.testing.assert_allclose(fractions, [0, 0, 0, 51.797, 203.203, 255, 255, 255], atol=1e-3)
