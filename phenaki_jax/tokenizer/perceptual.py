"""Perceptual terms of the tokenizer's loss: distances in what frozen networks see (Phenaki, equation 1).

The paper names an image-perceptual term of weight 0.1 and a video-perceptual one of weight 1.0 on I3D features, but
neither the image network nor the layers: here LPIPS on VGG16 for each frame, and I3D after the layers named in the
config.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from phenaki_jax.errors import UserError, check_types
from phenaki_jax.features import i3d, i3d_weights, lpips, lpips_weights, random_weights
from phenaki_jax.layers.module import apply

RANDOM = "random"
LAYERS = tuple(name for name in i3d.ENDPOINTS if name != i3d.LOGITS)


@dataclasses.dataclass(frozen=True)
class PerceptualConfig:
    """Weights of the terms, and where the networks' parameters are.

    A file of "random" stands for random parameters, for tests and comparisons: no file is read. The two of LPIPS are
    random together.

    Attributes:
      image: weight of the image-perceptual term; 0 leaves it out.
      video: weight of the video-perceptual term; 0 leaves it out.
      vgg16_file: VGG16 of torchvision, see `features.lpips_weights.load_lpips`.
      lpips_file: linear heads of LPIPS v0.1 for VGG16.
      i3d_file: I3D trained on Kinetics-400, see `features.i3d_weights.load_i3d`.
      video_layers: names of the I3D layers whose outputs are compared.

    Raises:
      UserError: a weight that is no number of at least 0, a file of LPIPS beside a random one, or a layer that I3D has
        not.
    """

    image: float = 0.0
    video: float = 0.0
    vgg16_file: str = "vgg16-397923af.pth"
    lpips_file: str = "lpips_vgg_v0.1.pth"
    i3d_file: str = "i3d_pretrained_400.pt"
    video_layers: tuple[str, ...] = ("Conv3d_2c_3x3", "Mixed_3c", "Mixed_4f", "Mixed_5c")

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("image", "video"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"perceptual weight {name} {getattr(self, name)} must be a number of at least 0")
        if (self.vgg16_file == RANDOM) != (self.lpips_file == RANDOM):
            raise UserError(
                f"found vgg16_file {self.vgg16_file!r} with lpips_file {self.lpips_file!r}, expected two files, or "
                f"{RANDOM!r} for both, with which none is read"
            )
        if not self.video_layers or (unknown := [name for name in self.video_layers if name not in LAYERS]):
            found = unknown[0] if self.video_layers else "none"
            raise UserError(f"found video_layers with {found!r}, expected some of {', '.join(LAYERS)}")


def load_networks(config: PerceptualConfig) -> dict[str, Any]:
    """Parameters of the networks whose weight is not 0: "lpips" and "i3d".

    Raises:
      UserError: a file is not there or not what is expected; says where it comes from and how to do without the term.
    """
    networks: dict[str, Any] = {}
    if config.image:
        networks["lpips"] = (
            random_weights.random_lpips(seed=0)
            if config.vgg16_file == RANDOM
            else lpips_weights.load_lpips(config.vgg16_file, config.lpips_file, setting="PerceptualConfig.image")
        )
    if config.video:
        networks["i3d"] = (
            random_weights.random_i3d(seed=0)
            if config.i3d_file == RANDOM
            else i3d_weights.load_i3d(config.i3d_file, setting="PerceptualConfig.video")
        )
    return networks


def network_shapes(config: PerceptualConfig) -> dict[str, Any]:
    """Shapes and types of what `load_networks` gives, without any file."""
    without_files = dataclasses.replace(config, vgg16_file=RANDOM, lpips_file=RANDOM, i3d_file=RANDOM)
    return jax.eval_shape(lambda: load_networks(without_files))


def perceptual_terms(
    config: PerceptualConfig,
    networks: dict[str, Any],
    video: Float[Array, "batch frames height width 3"],
    reconstruction: Float[Array, "batch frames height width 3"],
    frame_mask: Bool[Array, "batch frames"],
    dtype: DTypeLike = jnp.float32,
) -> dict[str, Float[Array, ""]]:
    """The unweighted terms whose weight is not 0: "image_perceptual" and "video_perceptual".

    Each is a mean over valid frames. Frames of padding are shown to the networks as grey, in both videos.
    """
    mask = frame_mask[:, :, None, None, None]
    video, reconstruction = (jnp.where(mask, pixels, 0.0) for pixels in (video, reconstruction))
    terms = {}
    if config.image:
        shown, redrawn = (pixels.reshape(-1, *pixels.shape[2:]) for pixels in (video, reconstruction))
        distances = lpips.lpips(networks["lpips"], shown, redrawn, dtype)
        weight = frame_mask.reshape(-1).astype(jnp.float32)
        terms["image_perceptual"] = jnp.sum(distances * weight) / jnp.sum(weight)
    if config.video:
        terms["video_perceptual"] = _video_distance(config, networks["i3d"], video, reconstruction, frame_mask, dtype)
    return terms


def _video_distance(
    config: PerceptualConfig, params: Any, video: Array, reconstruction: Array, frame_mask: Array, dtype: DTypeLike
) -> Float[Array, ""]:
    """Mean over layers of the squared distance of features, each position's scaled to length one as in LPIPS."""
    seen, redrawn = (apply(i3d.I3D(dtype), params, pixels, config.video_layers) for pixels in (video, reconstruction))
    total = jnp.zeros(())
    for name in config.video_layers:
        distance = jnp.sum((_unit(seen[name]) - _unit(redrawn[name])) ** 2, axis=-1)
        per_step = jnp.mean(distance, axis=(2, 3))
        # A step of a layer counts as far as the frames are valid that it stands for.
        shares = jax.image.resize(frame_mask.astype(jnp.float32), per_step.shape, "linear")
        total += jnp.sum(per_step * shares) / jnp.maximum(jnp.sum(shares), 1e-6)
    return total / len(config.video_layers)


def _unit(features: Float[Array, "*batch channels"]) -> Float[Array, "*batch channels"]:
    wide = features.astype(jnp.float32)
    return wide * jax.lax.rsqrt(jnp.sum(wide**2, axis=-1, keepdims=True) + 1e-10)
