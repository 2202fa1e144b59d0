"""What a C-ViViT is made of, checked when it is put together."""

from __future__ import annotations

import dataclasses
import math

from jaxtyping import Array, Bool

from phenaki_jax.errors import UserError, check_at_least, check_types, counted
from phenaki_jax.layers.stack import StackConfig

QUANTIZERS = ("cosine_vq", "cosine_vq_ema", "fsq", "lfq", "bsq")
_MOST_BITS = 18
# Bounds reach .05 % beyond the outermost levels, which rounds to levels that are not there from 1001 on.
_MOST_LEVELS = 1000
_LARGEST_HEAD = 8192
_LEAST_HEAD_WIDTH = 4


@dataclasses.dataclass(frozen=True)
class QuantizerConfig:
    """How features become codes.

    Attributes:
      kind: "cosine_vq" (Phenaki: l2-normalised codes, codebook trained by gradient), "cosine_vq_ema" (the same codes as
        moving averages of what took them), "fsq" (finite scalar, arXiv 2309.15505), "lfq" (lookup-free, arXiv
        2310.05737) or "bsq" (binary spherical, arXiv 2406.07548).
      codes: codebook size of cosine_vq and cosine_vq_ema.
      code_width: features of their codes.
      levels: levels of each dimension of fsq; the codebook size is their product.
      bits: dimensions of lfq and bsq, each of which is one of two values; the codebook size is 2 ** bits.
      commitment: weight of the commitment loss of all kinds but fsq (beta of VQ-VAE; MAGVIT-v2 has .25 too).
      entropy: weight of the entropy loss of lfq and bsq: each token's entropy over the codes is
        to be small, that of the average token large.
      diversity: weight of the second within it (BSQ: gamma).
      temperature: of the softmax over squared distances that both entropies are of; 0 for the published one, which is
        .01 for lfq (MAGVIT-v2) and 1 for bsq (BSQ-ViT's released settings).
      entropy_group: bits that the average token's entropy is taken over at once. From `bits` on it is exact; with fewer
        it is the sum over groups as if they were independent, which costs less (BSQ-ViT: 9).
      decay: of the moving averages of both (VQ-VAE, arXiv 1711.00937, appendix A; SoundStream, arXiv
        2107.03312, section III-C).
      restart: a code of cosine_vq or cosine_vq_ema whose moving average of use is below this share of the mean begins
        anew as a token of the batch, most codes so at the first step (as in SoundStream, whose threshold is an absolute
        one, and for codes trained by gradient in arXiv 2307.15139); 0 for never.

    Raises:
      UserError: an unknown kind, or a size or weight that it cannot have.
    """

    kind: str = "cosine_vq"
    codes: int = 8192
    code_width: int = 32
    levels: tuple[int, ...] = (8, 5, 5, 5)
    bits: int = 18
    commitment: float = 0.25
    entropy: float = 0.1
    diversity: float = 1.0
    temperature: float = 0.0
    entropy_group: int = 18
    decay: float = 0.99
    restart: float = 0.03

    def __post_init__(self) -> None:
        check_types(self)
        if self.kind not in QUANTIZERS:
            raise UserError(f"quantizer {self.kind!r} is unknown; known are {', '.join(QUANTIZERS)}")
        if self.kind == "fsq" and not self.levels:
            raise UserError("found no levels of fsq, expected some as in (8, 5, 5, 5)")
        if self.kind == "fsq" and not 2 <= min(self.levels) <= max(self.levels) <= _MOST_LEVELS:
            raise UserError(f"fsq levels {self.levels} must each be from 2 to {_MOST_LEVELS}")
        if self.kind in ("lfq", "bsq") and not 1 <= self.bits <= _MOST_BITS:
            raise UserError(f"{self.kind} bits {self.bits} must be from 1 to {_MOST_BITS}")
        if self.code_width < 1 or not 2 <= self.codebook_size <= 2**_MOST_BITS:
            raise UserError(
                f"{self.kind} of {self.codebook_size} codes of {self.dimensions} features must have from 2 to "
                f"{2**_MOST_BITS} codes of at least 1 feature"
            )
        for name in ("commitment", "entropy", "diversity"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"the weight {name} {getattr(self, name)} must be at least 0")
        if not 0 <= self.temperature < math.inf or self.entropy_group < 1:
            raise UserError(
                f"temperature {self.temperature} must be above 0, or 0 for the published one, and entropy_group "
                f"{self.entropy_group} at least 1 bit"
            )
        if not 0 <= self.decay < 1 or not 0 <= self.restart < 1:
            raise UserError(f"decay {self.decay} and restart {self.restart} must be at least 0 and below 1")

    @property
    def codebook_size(self) -> int:
        """Number of different codes."""
        if self.kind == "fsq":
            return math.prod(self.levels)
        return 2**self.bits if self.kind in ("lfq", "bsq") else self.codes

    @property
    def dimensions(self) -> int:
        """Features of a code before the output projection."""
        if self.kind == "fsq":
            return len(self.levels)
        return self.bits if self.kind in ("lfq", "bsq") else self.code_width

    @property
    def has_codebook(self) -> bool:
        """Whether codes are vectors that are kept, whose use `update_codebook` follows, rather than computed."""
        return self.kind in ("cosine_vq", "cosine_vq_ema")

    @property
    def entropy_temperature(self) -> float:
        """The temperature, or the published one of the kind where none is set."""
        return self.temperature or (0.01 if self.kind == "lfq" else 1.0)

    @property
    def factors(self) -> tuple[int, ...]:
        """Numbers whose product is the codebook size, for heads of these sizes instead of one (MAGVIT-v2).

        The levels of fsq; of the others one number up to the 8192 codes of the paper, and of more codes the two nearest
        to each other, such as 512 x 512. A number of codes that no two small ones make stays whole.
        """
        size = self.codebook_size
        if self.kind == "fsq":
            return tuple(self.levels)
        smaller = max(divisor for divisor in range(1, math.isqrt(size) + 1) if size % divisor == 0)
        whole = size <= _LARGEST_HEAD or size // smaller > _LARGEST_HEAD
        return (size,) if whole else (size // smaller, smaller)


POSITIONS = ("rotary", "sinusoidal", "rotary_sinusoidal")


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
      temporal_window: time steps that a step attends to, itself included; the paper's clips of 11 frames have 6. Every
        distance in time is then one that is trained, in videos of any length, and a stream needs no longer memory.
      positions: how attention among the sites of a step knows them: "rotary" (by their distance), "sinusoidal" (added),
        or "rotary_sinusoidal" (both). Attention over time is rotary.
      quantizer: how features become codes.
      tied_stems: whether a patch at rest is embedded, and drawn, by the first frame's layers in later frames too.
      remat: see `StackConfig`.

    Raises:
      UserError: an unknown kind of positions, or sizes that do not fit each other.
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
    temporal_window: int = 6
    positions: str = "rotary"
    quantizer: QuantizerConfig = dataclasses.field(default_factory=QuantizerConfig)
    tied_stems: bool = False
    remat: str = "none"

    def __post_init__(self) -> None:
        check_types(self)
        check_at_least(self, 1, "frame_size", "patch", "temporal_patch", "spatial_layers", "temporal_layers")
        if self.frame_size % self.patch:
            raise UserError(
                f"patch {self.patch} does not divide the frame's side of {self.frame_size} pixels; change one of them"
            )
        if self.temporal_window < 1:
            raise UserError(f"temporal_window {self.temporal_window} must be at least 1, the step itself")
        if self.positions not in POSITIONS:
            raise UserError(f"positions {self.positions!r} are unknown; known are {', '.join(POSITIONS)}")
        if near := self._nearest_lengths(self.frames):
            raise UserError(f"found frames {self.frames}, expected 1 + k * {self.temporal_patch}: set frames to {near}")
        for layers in (self.spatial_layers, self.temporal_layers):
            self.stack(layers)
        if "rotary" in self.positions and self.head_width < _LEAST_HEAD_WIDTH:
            raise UserError(
                f"width {self.width} over {self.heads} heads leaves {self.head_width} features each, expected at least "
                f"{_LEAST_HEAD_WIDTH}, a pair for rows and one for columns; change width or heads"
            )
        if "sinusoidal" in self.positions and self.width < _LEAST_HEAD_WIDTH:
            raise UserError(
                f"width {self.width} must be at least {_LEAST_HEAD_WIDTH}, a sine and a cosine for rows and for columns"
            )

    @property
    def head_width(self) -> int:
        """Features of one attention head."""
        return self.width // self.heads

    def stack(self, layers: int) -> StackConfig:
        """The transformer stack of so many layers in this model's sizes."""
        return StackConfig(layers, self.width, self.heads, self.mlp_width, remat=self.remat)

    def times(self, frames: int) -> int:
        """Token time steps of a video: one for the first frame, one for every `temporal_patch` frames after it.

        Raises:
          UserError: the length is not 1 + k * temporal_patch; names the possible lengths nearest to it.
        """
        if near := self._nearest_lengths(frames):
            raise UserError(
                f"{frames} frames are not 1 + k * {self.temporal_patch}; the lengths nearest are {near}: "
                "trim or repeat frames"
            )
        return 1 + (frames - 1) // self.temporal_patch

    def _nearest_lengths(self, frames: int) -> str:
        """The possible lengths nearest to one that is none; empty where it is one."""
        whole, rest = divmod(max(frames, 1) - 1, self.temporal_patch)
        below = 1 + whole * self.temporal_patch
        return f"{below} or {below + self.temporal_patch}" if frames < 1 or rest else ""

    def later_times(self, frames: int) -> int:
        """Token time steps of frames that go on from others.

        Raises:
          UserError: the number is not a multiple of `temporal_patch`, or 0; names the possible ones nearest to it.
        """
        whole, rest = divmod(frames, self.temporal_patch)
        if frames < 1 or rest:
            below = max(1, whole) * self.temporal_patch
            raise UserError(
                f"{counted(frames, 'frame')} cannot go on from others in steps of {self.temporal_patch}; the numbers "
                f"nearest are {below} or {below + self.temporal_patch}: hold frames back until a step is full"
            )
        return whole

    def time_mask(self, frame_mask: Bool[Array, "batch frames"]) -> Bool[Array, "batch times"]:
        """Which time steps are valid: those whose last frame is."""
        return frame_mask[:, :: self.temporal_patch]

    def whole_part(self, frames: int, *, begins: bool = True) -> int:
        """How many of so many frames, that begin a video or go on from others, fill whole time steps."""
        if begins:
            return 1 + (frames - 1) // self.temporal_patch * self.temporal_patch if frames else 0
        return frames // self.temporal_patch * self.temporal_patch

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
