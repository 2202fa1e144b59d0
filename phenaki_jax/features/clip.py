"""CLIP with a vision transformer (arXiv 2103.00020, section 2.4): images and texts as vectors of one space."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt8

from phenaki_jax.errors import UserError, check_at_least, check_types
from phenaki_jax.features import resizing
from phenaki_jax.layers.module import apply, parameter
from phenaki_jax.layers.pixels import check_uint8

# Of the images that it was trained on, for colours in [0, 1].
_MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
_DEVIATION = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)
_NORM_EPSILON = 1e-5


@dataclasses.dataclass(frozen=True)
class TowerConfig:
    """Sizes of a transformer, the images' or the texts'.

    Attributes:
      layers: its layers.
      width: features of a token; the MLP has four times as many.
      heads: attention heads.

    Raises:
      UserError: sizes that cannot be, or heads that do not divide the width.
    """

    layers: int
    width: int
    heads: int

    def __post_init__(self) -> None:
        check_types(self)
        check_at_least(self, 1, "layers", "width", "heads")
        if self.width % self.heads:
            raise UserError(f"found {self.heads} heads for a width of {self.width}, expected a divisor of it")


@dataclasses.dataclass(frozen=True)
class ClipConfig:
    """Sizes of a CLIP; the defaults are those of ViT-B/32.

    Attributes:
      vision: the images' transformer.
      text: the texts' transformer.
      image_size: pixels along a side of what the vision transformer sees.
      patch_size: pixels along a side of a token of it.
      vocabulary_size: rows of the texts' embedding; the last is the end of a text.
      text_length: the longest text, in tokens, its start and end included.
      width: features of the vectors that come out.

    Raises:
      UserError: sizes that cannot be, or patches that do not divide the image.
    """

    vision: TowerConfig = TowerConfig(layers=12, width=768, heads=12)
    text: TowerConfig = TowerConfig(layers=12, width=512, heads=8)
    image_size: int = 224
    patch_size: int = 32
    vocabulary_size: int = 49408
    text_length: int = 77
    width: int = 512

    def __post_init__(self) -> None:
        check_types(self)
        check_at_least(self, 1, "image_size", "patch_size", "width")
        check_at_least(self, 2, "vocabulary_size", "text_length")
        if self.image_size % self.patch_size:
            raise UserError(
                f"found patch_size {self.patch_size} for image_size {self.image_size}, expected a divisor of it"
            )

    @classmethod
    def named(cls, name: str, **changes: Any) -> ClipConfig:
        """The config of a released model, a name in `SIZES`, with these fields changed.

        Raises:
          UserError: an unknown name.
        """
        if name not in SIZES:
            raise UserError(f"found CLIP {name!r}, expected one of {', '.join(SIZES)}")
        return cls(**{**SIZES[name], **changes})


SIZES: dict[str, dict[str, Any]] = {
    "clip-vit-base-patch32": {},
    "clip-vit-base-patch16": {"patch_size": 16},
    "clip-vit-large-patch14": {
        "vision": TowerConfig(layers=24, width=1024, heads=16),
        "text": TowerConfig(layers=12, width=768, heads=12),
        "patch_size": 14,
        "width": 768,
    },
}
"""What the released models differ in, by the names that they are published under."""


class VisionTower(nn.Module):
    """Images to vectors."""

    config: ClipConfig

    @nn.compact
    def __call__(self, images: Float[Array, "batch size size 3"]) -> Float[Array, "batch features"]:
        """Embeds images as `preprocess` gives them."""
        config, tower = self.config, self.config.vision
        patch = (config.patch_size, config.patch_size)
        patches = nn.Conv(tower.width, patch, patch, "VALID", use_bias=False, name="patches")(images)
        first = parameter(self, "class_embedding", nn.initializers.normal(0.02), ("embed",), (tower.width,))
        tokens = patches.reshape(len(images), -1, tower.width)
        tokens = jnp.concatenate([jnp.broadcast_to(first, (len(images), 1, tower.width)), tokens], axis=1)
        hidden = _norm("norm_before")(tokens + _positions(self, tokens.shape[1], tower.width))
        return _embedded(_stack(tower)(hidden, None)[0][:, 0], config.width)


class TextTower(nn.Module):
    """Texts to vectors."""

    config: ClipConfig

    @nn.compact
    def __call__(self, tokens: Int[Array, "batch text_length"]) -> Float[Array, "batch features"]:
        """Embeds texts by what stands at their end, which has seen all before it; what comes after changes nothing."""
        config, tower = self.config, self.config.text
        hidden = nn.Embed(config.vocabulary_size, tower.width, name="tokens")(tokens)
        hidden += _positions(self, config.text_length, tower.width)[: tokens.shape[1]]
        hidden = _stack(tower)(hidden, nn.make_causal_mask(tokens, dtype=jnp.bool_))[0]
        ends = jnp.argmax(tokens == config.vocabulary_size - 1, axis=1)
        return _embedded(jnp.take_along_axis(hidden, ends[:, None, None], axis=1)[:, 0], config.width)


class _Layer(nn.Module):
    """Self-attention and an MLP, each behind a norm and added to its input."""

    config: TowerConfig

    @nn.compact
    def __call__(
        self, tokens: Float[Array, "batch length embed"], mask: Bool[Array, "batch 1 length length"] | None
    ) -> tuple[Float[Array, "batch length embed"], None]:
        """Returns the new tokens, and nothing for each layer."""
        width = self.config.width
        normed = _norm("attention_norm")(tokens)
        tokens += nn.MultiHeadDotProductAttention(self.config.heads, name="attention")(normed, mask=mask)
        hidden = nn.Dense(4 * width, name="mlp_into")(_norm("mlp_norm")(tokens))
        # What CLIP calls quick GELU.
        tokens += nn.Dense(width, name="mlp_out")(hidden * jax.nn.sigmoid(1.702 * hidden))
        return tokens, None


def clip_shapes(config: ClipConfig) -> dict[str, Any]:
    """Shapes of a CLIP's parameters: of "vision" and "text", and of "logit_scale", whose exponential scales cosines."""
    side = config.image_size
    images, tokens = jnp.zeros((1, side, side, 3)), jnp.zeros((1, config.text_length), jnp.int32)
    rng = jax.random.key(0)

    def init() -> dict[str, Any]:
        vision, text = VisionTower(config).init(rng, images), TextTower(config).init(rng, tokens)
        return {"vision": vision["params"], "text": text["params"], "logit_scale": jnp.zeros(())}

    shapes: dict[str, Any] = nn.unbox(jax.eval_shape(init))
    return shapes


def preprocess(images: UInt8[Array, "batch height width 3"], size: int) -> Float[Array, "batch {size} {size} 3"]:
    """The middle square of images whose shorter side is brought to this size, in deviations from the mean colour.

    Args:
      images: RGB of any size.
      size: of the result, `ClipConfig.image_size`.

    Raises:
      UserError: the images are not uint8.
    """
    check_uint8("images", images)
    sides = images.shape[1:3]
    height, width = (size * side // min(sides) for side in sides)
    resized = resizing.like_pillow(images, height, width)
    # As torchvision rounds: half a pixel goes to the even side.
    top, left = (round((side - size) / 2) for side in (height, width))
    return (resized[:, top : top + size, left : left + size] / 255.0 - _MEAN) / _DEVIATION


def embed_images(
    config: ClipConfig, params: Mapping[str, Any], images: UInt8[Array, "batch height width 3"]
) -> Float[Array, "batch features"]:
    """Vectors of images, of any length, in float32 with products that no device rounds.

    Args:
      config: the model's sizes.
      params: as `clip_weights.load_clip` gives them.
      images: RGB of any size; see `preprocess`.

    Raises:
      UserError: the images are not uint8.
    """
    with jax.default_matmul_precision("highest"):
        return apply(VisionTower(config), params["vision"], preprocess(images, config.image_size))


def embed_texts(
    config: ClipConfig, params: Mapping[str, Any], tokens: Int[Array, "batch text_length"]
) -> Float[Array, "batch features"]:
    """Vectors of texts, of any length, in float32 with products that no device rounds.

    The cosine of an image's and a text's vector is their CLIP similarity; the model itself scales it by
    exp(params["logit_scale"]), which is 100 in the released ones.

    Args:
      config: the model's sizes.
      params: as `clip_weights.load_clip` gives them.
      tokens: as `ClipTokenizer.encode_batch` gives them, at most `config.text_length` of a text.

    Raises:
      UserError: there are more tokens.
    """
    if tokens.shape[1] > config.text_length:
        raise UserError(f"found texts of {tokens.shape[1]} tokens, expected at most {config.text_length}: cut them")
    with jax.default_matmul_precision("highest"):
        return apply(TextTower(config), params["text"], tokens)


def _norm(name: str) -> nn.LayerNorm:
    return nn.LayerNorm(_NORM_EPSILON, use_fast_variance=False, name=name)


def _positions(module: nn.Module, length: int, width: int) -> Float[Array, "length width"]:
    return parameter(module, "positions", nn.initializers.normal(0.02), ("length", "embed"), (length, width))


def _stack(config: TowerConfig) -> nn.Module:
    """All layers of a tower, whose parameters have the layer as their first axis."""
    stack: nn.Module = nn.scan(
        _Layer,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        in_axes=nn.broadcast,
        length=config.layers,
        metadata_params={nn.PARTITION_NAME: "layers"},
    )(config, name="layers")
    return stack


def _embedded(token: Float[Array, "batch embed"], width: int) -> Float[Array, "batch features"]:
    """A tower's last norm and projection."""
    return nn.Dense(width, use_bias=False, name="projection")(_norm("norm_after")(token))
