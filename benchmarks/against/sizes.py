"""The sizes that both sides are built in, and the floating-point operations of their matrix products."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Sizes:
    """A C-ViViT for clips on two CPU cores.

    Attributes:
      frames: frames of a clip, 1 + k * temporal_patch.
      frame_size: side of a frame in pixels.
      patch: side of a patch in pixels.
      temporal_patch: frames of a later patch.
      width: features of a token; heads are of `head_width` each.
      heads: attention heads.
      head_width: features of a head.
      layers: spatial layers, and as many temporal ones, on each side.
      codes: codebook size.
      code_width: features of our codes; phenaki-pytorch's codes have the token's width.
    """

    frames: int = 11
    frame_size: int = 64
    patch: int = 8
    temporal_patch: int = 2
    width: int = 256
    heads: int = 4
    head_width: int = 64
    layers: int = 4
    codes: int = 1024
    code_width: int = 32

    @property
    def times(self) -> int:
        """Token time steps of a clip."""
        return 1 + (self.frames - 1) // self.temporal_patch

    @property
    def sites(self) -> int:
        """Tokens of a time step."""
        return (self.frame_size // self.patch) ** 2

    @property
    def mlp_width(self) -> int:
        """Hidden features of our MLPs, and what phenaki-pytorch's gated ones come to: two thirds of it, three times."""
        return 4 * self.width


def gflop_of_step(sizes: Sizes, side: str, batch: int) -> float:
    """10^9 floating-point operations of the matrix products of one training step; to multiply and add are two.

    A product that is trained through counts three times: forward, and backward to its input and to its kernel. Left
    out are phenaki-pytorch's depthwise convolutions (positions) and all that is no product.

    Args:
      sizes: of the model.
      side: "phenaki_jax" or "phenaki_pytorch".
      batch: clips of the step.
    """
    theirs = side == "phenaki_pytorch"
    width, inner = sizes.width, sizes.heads * sizes.head_width
    # Gated: two kernels into int(8/3 width) features and one out of them.
    mlp = 3 * width * int(8 / 3 * width) if theirs else 2 * width * sizes.mlp_width
    layer = 4 * width * inner + mlp
    # Scores and weighted values, of as many keys as there are sites, or times.
    attention = 2 * inner * (sizes.sites + sizes.times)
    stacks = 4 * sizes.layers * layer + 2 * sizes.layers * attention
    first, later = (3 * sizes.patch**2 * frames for frames in (1, sizes.temporal_patch))
    tokens = batch * sizes.times * sizes.sites
    pixels = 2 * width * (first + (sizes.times - 1) * later) / sizes.times
    trained = tokens * (stacks + pixels)
    if theirs:
        # Bias of spatial attention by distance, from an MLP over all pairs of sites, once for each side; the nearest
        # code is searched, and codes follow their tokens, without a gradient.
        trained += 2 * sizes.sites**2 * (2 * width + width**2 + width * sizes.heads)
        untrained = 2 * tokens * sizes.codes * width
    else:
        trained += tokens * 2 * width * sizes.code_width
        untrained = tokens * sizes.codes * sizes.code_width
    return 2 * (3 * trained + untrained) / 1e9


@dataclasses.dataclass(frozen=True)
class TransformerSizes:
    """A masked transformer over the tokens of `Sizes`' clips.

    Attributes:
      tokenizer: sizes of the tokenizer.
      layers: transformer layers, whose width and heads are the tokenizer's.
      text_length: tokens of a text.
      text_width: features of a text's token.
    """

    tokenizer: Sizes = dataclasses.field(default_factory=Sizes)
    layers: int = 6
    text_length: int = 32
    text_width: int = 768

    @property
    def tokens(self) -> int:
        """Tokens of a clip."""
        return self.tokenizer.times * self.tokenizer.sites


def gflop_of_transformer(sizes: TransformerSizes, side: str, batch: int, *, trained: bool) -> float:
    """10^9 floating-point operations of the matrix products of one pass, or of one training step.

    Left out are phenaki-pytorch's depthwise convolutions (positions) and all that is no product; of a pass of ours in
    sampling also the keys and values of texts, which are computed once for all rounds.

    Args:
      sizes: of the model.
      side: "phenaki_jax" or "phenaki_pytorch".
      batch: clips of the step, or of the pass with its conditions.
      trained: whether products count three times: forward, and backward to input and kernel.
    """
    theirs = side == "phenaki_pytorch"
    width, inner = sizes.tokenizer.width, sizes.tokenizer.heads * sizes.tokenizer.head_width
    mlp = 3 * width * int(8 / 3 * width) if theirs else 2 * width * sizes.tokenizer.mlp_width
    # Self-attention has four kernels, cross-attention two for the tokens; both score and weigh.
    layer = 6 * width * inner + mlp + 2 * inner * (sizes.tokens + sizes.text_length)
    through = batch * sizes.tokens * (sizes.layers * layer + width * sizes.tokenizer.codes)
    # The text needs no gradient.
    texts = batch * sizes.layers * sizes.text_length * 2 * sizes.text_width * inner
    if theirs:
        # Bias of attention by distance, from an MLP over all pairs of tokens.
        head_width = sizes.tokenizer.head_width
        through += sizes.tokens**2 * (3 * head_width + head_width**2 + head_width * sizes.tokenizer.heads)
    if not trained:
        return 2 * (through + (texts if theirs else 0)) / 1e9
    return 2 * (3 * through + 2 * texts) / 1e9
