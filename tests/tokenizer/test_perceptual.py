"""The perceptual terms: one with padding worked out by hand, and settings that are refused."""

import re
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from phenaki_jax.errors import UserError
from phenaki_jax.tokenizer.perceptual import PerceptualConfig, network_shapes, perceptual_terms


def test_positions_in_time_count_as_far_as_their_frames_are_valid() -> None:
    """Of four frames the last is padding; two positions are left of them, of which the second differs by 2.

    Halving weighs frames by 3, 3 and 1, or by 1, 3 and 3: the first position counts as 1, the second as (1 + 3) / 7.
    The one tap of the layer's window that is not 0 stands at frames 0 and 2; it hands red and green on as they are.
    """
    kernel = jnp.zeros((7, 7, 7, 3, 64)).at[2, 2, 2].set(jnp.eye(3, 64))
    networks = {"i3d": {"Conv3d_1a_7x7": {"kernel": kernel, "bias": jnp.zeros(64)}}}
    config = PerceptualConfig(video=1.0, video_layers=("Conv3d_1a_7x7",))
    red, green = jnp.eye(3)[:2]
    video = jnp.broadcast_to(red, (1, 4, 2, 2, 3))
    reconstruction = video.at[:, 2:].set(green)
    mask = jnp.array([[True, True, True, False]])
    terms = perceptual_terms(config, networks, video, reconstruction, mask)
    assert set(terms) == {"video_perceptual"}
    np.testing.assert_allclose(terms["video_perceptual"], 2 * 4 / (7 + 4), rtol=1e-5)


def test_shapes_are_known_without_files() -> None:
    shapes = network_shapes(PerceptualConfig(image=0.1))
    assert set(shapes) == {"lpips"}
    assert shapes["lpips"]["heads"]["relu3_3"].shape == (256,)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": -0.1}, "perceptual weight image -0.1 must be a number of at least 0"),
        ({"video": -1.0}, "perceptual weight video -1.0 must be a number of at least 0"),
        ({"image": float("nan")}, "perceptual weight image nan must be a number of at least 0"),
        ({"video": float("nan")}, "perceptual weight video nan must be a number of at least 0"),
        ({"video": float("inf")}, "perceptual weight video inf must be a number of at least 0"),
        (
            {"vgg16_file": "random"},
            "found vgg16_file 'random' with lpips_file 'lpips_vgg_v0.1.pth', expected two files, or 'random' for both",
        ),
        (
            {"vgg16_file": "mine.pth", "lpips_file": "random"},
            "found vgg16_file 'mine.pth' with lpips_file 'random', expected two files, or 'random' for both",
        ),
        ({"video_layers": ()}, "found video_layers with 'none', expected some of Conv3d_1a_7x7, "),
        (
            {"video_layers": ("Mixed_3c", "Logits")},
            "found video_layers with 'Logits', expected some of Conv3d_1a_7x7, ",
        ),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        PerceptualConfig(**changes)
