"""What a C-ViViT is made of, checked when it is put together."""

from __future__ import annotations

import dataclasses
import math

from jaxtyping import Array, Bool

from phenaki_jax.errors import UserError
from phenaki_jax.layers.stack import StackConfig


@dataclasses.dataclass(frozen=True)
class QuantizerConfig:
    """How features become codes.

    Attributes:
      kind: "cosine_vq" (Phenaki: l2-normalised codes, codebook trained by gradient) or "fsq" (arXiv 2309.15505).
      codes: codebook size of cosine_vq.
      code_width: features of a code of cosine_vq.
      levels: levels of each dimension of fsq; the codebook size is their product.
      commitment: weight of the commitment loss of cosine_vq (beta of VQ-VAE).
    """

    kind: str = "cosine_vq"
    codes: int = 8192
    code_width: int = 32
    levels: tuple[int, ...] = (8, 5, 5, 5)
    commitment: float = 0.25

    def __post_init__(self) -> None:
        if self.kind not in ("cosine_vq", "fsq"):
            raise UserError(f"quantizer {self.kind!r} is unknown; known are cosine_vq and fsq")
        if self.kind == "fsq" and (not self.levels or min(self.levels) < 2):
            raise UserError(f"fsq levels {self.levels} must each be at least 2")

    @property
    def codebook_size(self) -> int:
        """Number of different codes."""
        return math.prod(self.levels) if self.kind == "fsq" else self.codes


@dataclasses.dataclass(frozen=True)
class CViViTConfig:
    """Sizes of a C-ViViT (Phenaki, section 2.1 and appendix).

    Attributes:
      frames: frames of a training clip, 1 + k * temporal_patch.
      frame_size: side of a square training frame, in pixels.
      patch: side of a patch, in pixels; it divides the frame's side.
      temporal_patch: frames that one later token covers.
      width: features of a token.
      heads: attention heads.
      mlp_width: hidden features of the MLPs.
      spatial_layers: layers of all-to-all attention within one time step, on each side.
      temporal_layers: layers of causal attention over time, on each side.
      quantizer: how features become codes.
      tied_stems: whether a patch at rest is embedded, and drawn, by the first frame's layers in later frames too.
      remat: see `StackConfig`.
    """

    frames: int = 11
    frame_size: int = 128
    patch: int = 8
    temporal_patch: int = 2
    width: int = 512
    heads: int = 8
    mlp_width: int = 2048
    spatial_layers: int = 4
    temporal_layers: int = 4
    quantizer: QuantizerConfig = dataclasses.field(default_factory=QuantizerConfig)
    tied_stems: bool = False
    remat: str = "none"

    def __post_init__(self) -> None:
        if min(self.frame_size, self.patch, self.temporal_patch) < 1:
            raise UserError(
                f"frame_size {self.frame_size}, patch {self.patch} and temporal_patch {self.temporal_patch} must each "
                "be at least 1"
            )
        if self.frame_size % self.patch:
            raise UserError(
                f"patch {self.patch} does not divide the frame's side of {self.frame_size} pixels; change one of them"
            )
        self.times(self.frames)
        self.stack(self.spatial_layers)

    def stack(self, layers: int) -> StackConfig:
        """The transformer stack of so many layers in this model's sizes."""
        return StackConfig(layers, self.width, self.heads, self.mlp_width, remat=self.remat)

    def times(self, frames: int) -> int:
        """Token time steps of a video: one for the first frame, one for every `temporal_patch` frames after it.

        Raises:
          UserError: the length is not 1 + k * temporal_patch; names the possible lengths nearest to it.
        """
        whole, rest = divmod(frames - 1, self.temporal_patch)
        if frames < 1 or rest:
            below = max(1, 1 + whole * self.temporal_patch)
            near = f"{below} or {below + self.temporal_patch}" if frames > 1 else f"1 or {1 + self.temporal_patch}"
            raise UserError(
                f"{frames} frames are not 1 + k * {self.temporal_patch}; the lengths nearest are {near}: "
                "trim or repeat frames"
            )
        return 1 + whole

    def time_mask(self, frame_mask: Bool[Array, "batch frames"]) -> Bool[Array, "batch times"]:
        """Which time steps are valid: those whose last frame is."""
        return frame_mask[:, :: self.temporal_patch]

    def whole_length(self, frames: int) -> int:
        """The longest length 1 + k * temporal_patch within so many frames, at least 1; 0 of none."""
        return 1 + (frames - 1) // self.temporal_patch * self.temporal_patch if frames else 0

    def grid(self) -> tuple[int, int]:
        """(rows, columns) of tokens in one time step."""
        side = self.frame_size // self.patch
        return side, side

    def check_frame_shape(self, height: int, width: int) -> None:
        """Refuses frames that do not fall into whole patches.

        Raises:
          UserError: names what was found and what the patch asks for.
        """
        if height % self.patch or width % self.patch or not height or not width:
            raise UserError(
                f"frames of {height}x{width} pixels do not fall into patches of {self.patch}; "
                f"resize to multiples of {self.patch}"
            )
