"""C-ViViT: video to discrete tokens and back, causal in time (Phenaki, section 2.1)."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from phenaki_jax.layers import patches as patches_lib
from phenaki_jax.layers import positions as positions_lib
from phenaki_jax.layers.linear import linear
from phenaki_jax.layers.module import parameter
from phenaki_jax.layers.stack import Stack
from phenaki_jax.tokenizer.config import CViViTConfig
from phenaki_jax.tokenizer.quantizers import Quantized, make_quantizer


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
        self.temporal_encoder = Stack(config.stack(config.temporal_layers), self.dtype)
        self.quantizer = make_quantizer(config.quantizer, config.width)
        self.temporal_decoder = Stack(config.stack(config.temporal_layers), self.dtype)
        self.spatial_decoder = Stack(config.stack(config.spatial_layers), self.dtype)
        self.first_head = self._kernel("first_head", ("embed", "pixels"), (config.width, pixels), 1.0)
        self.later_head = self._kernel("later_head", ("embed", "pixels"), (config.width, spanned), 0.1)

    def __call__(
        self, video: Float[Array, "batch frames height width 3"]
    ) -> tuple[Float[Array, "batch frames height width 3"], Quantized]:
        """Reconstructs a video in [-1, 1] through its tokens."""
        quantized = self.quantize(video)
        return self._decode_features(quantized.features), quantized

    def encode(self, video: Float[Array, "batch frames height width 3"]) -> Int[Array, "batch times rows columns"]:
        """Tokens of a video in [-1, 1]; those of a prefix are the prefix of those of the whole.

        Raises:
          UserError: a number of frames or a frame shape that the patches do not cover.
        """
        return self.quantize(video).indices

    def decode(self, tokens: Int[Array, "batch times rows columns"]) -> Float[Array, "batch frames height width 3"]:
        """Pixels of tokens, near [-1, 1] but not clipped to it."""
        return self._decode_features(self.quantizer.lookup(tokens))

    def quantize(self, video: Float[Array, "batch frames height width 3"]) -> Quantized:
        """Encodes and quantizes: features and tokens as [batch, times, rows, columns, ...]."""
        config = self.config
        _, frames, height, width, _ = video.shape
        config.times(frames)
        config.check_frame_shape(height, width)
        video = video.astype(self.dtype)
        spans = config.temporal_patch
        first_stem = self.first_stem
        later_stem = jnp.tile(first_stem / spans, (spans, 1)) + self._differences(self.later_stem, axis=0)
        first = linear(patches_lib.to_patches(video[:, :1], 1, config.patch), first_stem)
        later = linear(patches_lib.to_patches(video[:, 1:], spans, config.patch), later_stem)
        tokens = jnp.concatenate([first, later], axis=1)
        tokens = self._over_space(self.spatial_encoder, tokens)
        return self.quantizer(self._over_time(self.temporal_encoder, tokens))

    def _decode_features(self, features: Array) -> Array:
        config = self.config
        tokens = self._over_time(self.temporal_decoder, features.astype(self.dtype))
        tokens = self._over_space(self.spatial_decoder, tokens)
        spans = config.temporal_patch
        first_head = self.first_head
        later_head = jnp.tile(first_head, (1, spans)) + self._differences(self.later_head, axis=1)
        first = patches_lib.from_patches(linear(tokens[:, :1], first_head), 1, config.patch)
        later = patches_lib.from_patches(linear(tokens[:, 1:], later_head), spans, config.patch)
        return jnp.concatenate([first, later], axis=1).astype(jnp.float32)

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
        angles = positions_lib.rotary_angles(sites, self.config.width // self.config.heads)
        flat = tokens.reshape(batch * times, rows * columns, width)
        flat += positions_lib.sinusoidal_embedding(sites, width).astype(self.dtype)
        return stack(flat, angles=angles).reshape(tokens.shape)

    def _over_time(self, stack: Stack, tokens: Array) -> Array:
        """Causal attention among the time steps of each site."""
        batch, times, rows, columns, width = tokens.shape
        steps = jnp.arange(times)[None, :, None]
        angles = positions_lib.rotary_angles(steps, self.config.width // self.config.heads)
        causal = jnp.tril(jnp.ones((1, 1, times, times), bool))
        flat = tokens.reshape(batch, times, rows * columns, width).swapaxes(1, 2).reshape(-1, times, width)
        flat = stack(flat, angles=angles, mask=causal)
        return flat.reshape(batch, rows * columns, times, width).swapaxes(1, 2).reshape(tokens.shape)
