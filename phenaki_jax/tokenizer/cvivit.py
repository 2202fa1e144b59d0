"""C-ViViT: video to discrete tokens and back, causal in time (Phenaki, section 2.1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import flax.struct
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from phenaki_jax.errors import UserError
from phenaki_jax.layers import patches as patches_lib
from phenaki_jax.layers import positions as positions_lib
from phenaki_jax.layers.arrays import check_shape
from phenaki_jax.layers.attention import KeyValues
from phenaki_jax.layers.layout import OVER_TIME
from phenaki_jax.layers.linear import linear
from phenaki_jax.layers.module import parameter
from phenaki_jax.layers.pixels import VIDEOS, check_float
from phenaki_jax.layers.stack import Stack
from phenaki_jax.tokenizer.config import CViViTConfig
from phenaki_jax.tokenizer.quantizers import Quantized, check_tokens, make_quantizer

STEMS = ("first_stem", "later_stem", "first_head", "later_head")
"""The layers that frames go in and out by."""

# Where positions in time stop counting: float32 still tells them apart well, and attention sees distances only.
_LAST_POSITION = 1 << 14


@flax.struct.dataclass
class Past:
    """What the later frames of a stream need of those before them; or, by `jax.eval_shape`, the shapes of that.

    Attributes:
      side: "encoder" or "decoder", whose it is.
      steps: time steps before, int32 [].
      key_values: `KeyValues` of the last `temporal_window - 1` steps at every site, in every temporal layer, as
        [layers, batch, rows, columns, steps, heads, features].
    """

    side: str = flax.struct.field(pytree_node=False)
    steps: Any
    key_values: Any


def stem_gradients(config: CViViTConfig, gradients: Mapping[str, Any]) -> dict[str, Array]:
    """What the first and the later frames teach their stems and heads, out of gradients of a `CViViT`'s parameters.

    The first frame's parameters are a part of the later frames' layers (see `CViViT`): their gradient has what later
    frames teach them too, which is taken off here. With `tied_stems` it cannot be told apart and is left in: no first
    frame's layer starves then, and what is told of later frames is what only changes within a patch teach.

    Returns:
      By name, "first_stem", "later_stem", "first_head" and "later_head", of the parameters' shapes.
    """
    found = {name: gradients[name] for name in STEMS}
    if not config.tied_stems:
        spans = config.temporal_patch
        found["first_stem"] -= sum(jnp.split(found["later_stem"], spans)) / spans
        found["first_head"] -= sum(jnp.split(found["later_head"], spans, axis=1))
    return found


class CViViT(nn.Module):
    """Encoder, quantizer and decoder of videos of any 1 + k * temporal_patch frames; an image is one frame.

    First and later frames have linear layers of their own. Those of later frames are held as a difference from those of
    the first frame spread over time, so that the first frame's layers get every token's gradient (inflated filters,
    arXiv 2103.15691, section 3.4). With `tied_stems` that difference sees changes within a patch only: a patch at rest
    then has one code wherever in a clip it is seen, and what images teach reaches videos.

    Nothing that belongs to a time step ever depends on a later one: patches hold no later frame, spatial attention
    stays within its step, and temporal attention looks back only.
    """

    config: CViViTConfig
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        """Makes the stems, the four stacks, the quantizer and the two heads."""
        config = self.config
        pixels = config.patch**2 * 3
        spanned = pixels * config.temporal_patch
        self.first_stem = self._kernel("first_stem", ("pixels", "embed"), (pixels, config.width), 1.0)
        self.later_stem = self._kernel("later_stem", ("pixels", "embed"), (spanned, config.width), 0.1)
        self.spatial_encoder = Stack(config.stack(config.spatial_layers), self.dtype)
        self.temporal_encoder = Stack(config.stack(config.temporal_layers), self.dtype, OVER_TIME)
        self.quantizer = make_quantizer(config.quantizer, config.width)
        self.temporal_decoder = Stack(config.stack(config.temporal_layers), self.dtype, OVER_TIME)
        self.spatial_decoder = Stack(config.stack(config.spatial_layers), self.dtype)
        self.first_head = self._kernel("first_head", ("embed", "pixels"), (config.width, pixels), 1.0)
        self.later_head = self._kernel("later_head", ("embed", "pixels"), (config.width, spanned), 0.1)

    def __call__(
        self, video: Float[Array, "batch frames height width 3"], time_mask: Bool[Array, "batch times"] | None = None
    ) -> tuple[Float[Array, "batch frames height width 3"], Quantized]:
        """Reconstructs a video in [-1, 1] through its tokens; time steps outside the mask teach no quantizer.

        Raises:
          UserError: see `quantize`.
        """
        quantized = self.quantize(video, time_mask)
        return self.draw(quantized.features), quantized

    def encode(self, video: Float[Array, "batch frames height width 3"]) -> Int[Array, "batch times rows columns"]:
        """Tokens of a video in [-1, 1]; those of a prefix are the prefix of those of the whole.

        Raises:
          UserError: see `quantize`.
        """
        return self.quantize(video).indices

    def decode(self, tokens: Int[Array, "batch times rows columns"]) -> Float[Array, "batch frames height width 3"]:
        """Pixels of tokens, near [-1, 1] but not clipped to it.

        Raises:
          UserError: what are no tokens of this codebook; of traced ones only shape and type are known.
        """
        check_tokens(self.config.quantizer, tokens)
        return self.draw(self.quantizer.lookup(tokens))

    def encode_chunk(
        self, video: Float[Array, "batch frames height width 3"], past: Past | None
    ) -> tuple[Int[Array, "batch times rows columns"], Past]:
        """Tokens of the next frames of a stream, as `encode` gives them for all frames at once.

        Args:
          video: 1 + k * temporal_patch frames where the stream begins, else a multiple of temporal_patch.
          past: what the chunk before returned; None where the stream begins.

        Raises:
          UserError: what is no video of floats in [-1, 1], a number of frames or a frame shape that the patches do not
            cover, or a past of the decoder, of another number of videos or of another grid.
        """
        features, after = self._features(video, past, streams=True)
        return self.quantizer(features).indices, after

    def decode_chunk(
        self, tokens: Int[Array, "batch times rows columns"], past: Past | None
    ) -> tuple[Float[Array, "batch frames height width 3"], Past]:
        """Pixels of the next tokens of a stream, as `decode` gives them for all tokens at once.

        Args:
          tokens: of one or more time steps.
          past: what the chunk before returned; None where the stream begins.

        Raises:
          UserError: what are no tokens of this codebook, or a past of the encoder, of another number of videos or of
            another grid.
        """
        check_tokens(self.config.quantizer, tokens)
        return self._pixels(self.quantizer.lookup(tokens), past, streams=True)

    def quantize(
        self, video: Float[Array, "batch frames height width 3"], time_mask: Bool[Array, "batch times"] | None = None
    ) -> Quantized:
        """Encodes and quantizes: features and tokens as [batch, times, rows, columns, ...].

        Raises:
          UserError: what is no video of floats in [-1, 1] (of traced ones type and shape alone are known), a number of
            frames or a frame shape that the patches do not cover, or a mask of another shape than the time steps.
        """
        features, _ = self._features(video)
        if time_mask is not None:
            check_shape("time_mask", time_mask, features.shape[:2])
        valid = None if time_mask is None else jnp.broadcast_to(time_mask[:, :, None, None], features.shape[:-1])
        return self.quantizer(features, valid)

    def draw(
        self, features: Float[Array, "batch times rows columns embed"]
    ) -> Float[Array, "batch frames height width 3"]:
        """Pixels of quantized features."""
        return self._pixels(features)[0]

    def _features(self, video: Array, past: Past | None = None, *, streams: bool = False) -> tuple[Array, Any]:
        config, begins = self.config, past is None
        check_shape("video", video, VIDEOS)
        check_float("video", video)
        _, frames, height, width, _ = video.shape
        config.times(frames) if begins else config.later_times(frames)
        config.check_frame_shape(height, width)
        video = video.astype(self.dtype)
        spans = config.temporal_patch
        first_stem = self.first_stem
        later_stem = jnp.tile(first_stem / spans, (spans, 1)) + self._differences(self.later_stem, axis=0)
        first, later = (video[:, :1], video[:, 1:]) if begins else (video[:, :0], video)
        tokens = jnp.concatenate(
            [
                linear(patches_lib.to_patches(first, 1, config.patch), first_stem),
                linear(patches_lib.to_patches(later, spans, config.patch), later_stem),
            ],
            axis=1,
        )
        before = self._past("encoder", past, tokens.shape) if streams else None
        return self._over_time(self.temporal_encoder, self._over_space(self.spatial_encoder, tokens), before)

    def _pixels(self, features: Array, past: Past | None = None, *, streams: bool = False) -> tuple[Array, Any]:
        config, begins = self.config, past is None
        before = self._past("decoder", past, features.shape) if streams else None
        tokens, after = self._over_time(self.temporal_decoder, features.astype(self.dtype), before)
        tokens = self._over_space(self.spatial_decoder, tokens)
        spans = config.temporal_patch
        first_head = self.first_head
        later_head = jnp.tile(first_head, (1, spans)) + self._differences(self.later_head, axis=1)
        first, later = (tokens[:, :1], tokens[:, 1:]) if begins else (tokens[:, :0], tokens)
        frames = [
            patches_lib.from_patches(linear(first, first_head), 1, config.patch),
            patches_lib.from_patches(linear(later, later_head), spans, config.patch),
        ]
        return jnp.concatenate(frames, axis=1).astype(jnp.float32), after

    def _differences(self, kernel: Array, axis: int) -> Array:
        """A kernel of later frames less its mean over a patch's frames, where the first frame's serves for that."""
        if not self.config.tied_stems:
            return kernel
        shape = kernel.shape
        per_frame = jnp.stack(jnp.split(kernel, self.config.temporal_patch, axis))
        return (per_frame - jnp.mean(per_frame, axis=0)).swapaxes(0, axis).reshape(shape)

    def _kernel(self, name: str, axes: tuple[str, str], shape: tuple[int, int], scale: float) -> Array:
        init = nn.initializers.variance_scaling(scale**2, "fan_in", "normal")
        return parameter(self, name, init, axes, shape)

    def _over_space(self, stack: Stack, tokens: Array) -> Array:
        """All-to-all attention among the sites of each time step."""
        batch, times, rows, columns, width = tokens.shape
        sites = positions_lib.grid_positions(1, rows, columns)[None, :, 1:]
        flat = tokens.reshape(batch * times, rows * columns, width)
        angles = None
        if "rotary" in self.config.positions:
            angles = positions_lib.rotary_angles(sites, self.config.head_width)
        if "sinusoidal" in self.config.positions:
            flat += positions_lib.sinusoidal_embedding(sites, width).astype(self.dtype)
        return stack(flat, angles=angles)[0].reshape(tokens.shape)

    def _over_time(self, stack: Stack, tokens: Array, past: Past | None) -> tuple[Array, Any]:
        """Causal attention among the time steps of each site, `temporal_window` of them, those of the past first."""
        batch, times, rows, columns, width = tokens.shape
        before = 0 if past is None else self.config.temporal_window - 1
        now = jnp.zeros((), jnp.int32) if past is None else jnp.minimum(past.steps, _LAST_POSITION)
        steps = now + jnp.arange(-before, times)
        angles = positions_lib.rotary_angles(steps[None, :, None], self.config.head_width)
        distance = steps[before:, None] - steps
        mask = (distance >= 0) & (distance < self.config.temporal_window) & (steps >= 0)
        flat = tokens.reshape(batch, times, rows * columns, width).swapaxes(1, 2).reshape(-1, times, width)
        at_sites = None if past is None else KeyValues(*(_joined_sites(each) for each in past.key_values))
        flat, kept = stack(flat, angles=angles, mask=mask[None, None], past=at_sites)
        tokens = flat.reshape(batch, rows * columns, times, width).swapaxes(1, 2).reshape(tokens.shape)
        if past is None or kept is None:
            return tokens, None
        shape = past.key_values.keys.shape
        return tokens, Past(past.side, past.steps + times, KeyValues(*(each.reshape(shape) for each in kept)))

    def _past(self, side: str, past: Past | None, shape: tuple[int, ...]) -> Past:
        """What there is before a chunk of tokens of this shape: the past that is given, checked, or none."""
        config, (batch, _, rows, columns, _) = self.config, shape
        kept = (config.temporal_window - 1, config.heads, config.head_width)
        if past is None:
            nothing = jnp.zeros((config.temporal_layers, batch, rows, columns, *kept), self.dtype)
            return Past(side, jnp.zeros((), jnp.int32), KeyValues(nothing, nothing))
        if past.side != side:
            raise UserError(f"found a past of the {past.side}, expected what the {side} returned for the chunk before")
        found = list(past.key_values.keys.shape[1:4])
        if found != [batch, rows, columns]:
            raise UserError(
                f"found a past of [batch, rows, columns] = {found}, expected {[batch, rows, columns]} as in the chunk; "
                "begin a new stream for another video"
            )
        return past


def _joined_sites(
    kept: Float[Array, "layers batch rows columns past heads kv"],
) -> Float[Array, "layers batch*rows*columns past heads kv"]:
    layers, batch, rows, columns, *rest = kept.shape
    return kept.reshape(layers, batch * rows * columns, *rest)
