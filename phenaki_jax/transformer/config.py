"""What a masked video-token transformer is made of, checked when it is put together."""

from __future__ import annotations

import dataclasses
import math

from phenaki_jax.errors import UserError, check_types
from phenaki_jax.layers.stack import StackConfig

PREDICTIONS = ("codes", "scores", "codes_and_scores")


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
    """Sizes of the masked transformer (Phenaki, section 2.2 and appendix).

    Attributes:
      codebook_size: number of video codes; that of the tokenizer.
      code_levels: levels of a finite scalar quantizer's dimensions; codes then share, in embedding and head, what
        belongs to a level they have in common, which small runs learn faster. Empty for any other quantizer.
      code_factors: numbers that multiply to the codebook size, for a table and a head of each instead of one for all
        codes: 2^18 codes are two digits of 512 (MAGVIT-v2); see `QuantizerConfig.factors`. Empty for one head.
      text_width: features of the text embeddings it reads; 0 for a model without text (the prediction model).
      layers: transformer layers.
      width: features of a token.
      heads: attention heads.
      mlp_width: hidden features of the MLP.
      qk_norm: see `StackConfig`.
      predicts: "codes"; "scores" for a token critic (arXiv 2209.04439), which tells a video's own tokens from those
        that were drawn; "codes_and_scores" for a transformer that is its own critic.
      dropout: see `StackConfig`.
      remat: see `StackConfig`.
      unroll: see `StackConfig`.
    """

    codebook_size: int = 8192
    code_levels: tuple[int, ...] = ()
    code_factors: tuple[int, ...] = ()
    text_width: int = 4096
    layers: int = 24
    width: int = 2048
    heads: int = 32
    mlp_width: int = 8192
    qk_norm: bool = False
    predicts: str = "codes"
    dropout: float = 0.0
    remat: str = "none"
    unroll: bool = False

    def __post_init__(self) -> None:
        check_types(self)
        if self.codebook_size < 2:
            raise UserError(f"codebook size {self.codebook_size} must be that of the tokenizer, at least 2")
        if self.code_levels and math.prod(self.code_levels) != self.codebook_size:
            raise UserError(
                f"code_levels {self.code_levels} do not multiply to codebook_size {self.codebook_size}; "
                "set them to the quantizer's levels"
            )
        if self.code_factors and math.prod(self.code_factors) != self.codebook_size:
            raise UserError(
                f"code_factors {self.code_factors} do not multiply to codebook_size {self.codebook_size}; "
                "set them to the quantizer's factors"
            )
        if self.code_factors and self.code_levels:
            raise UserError(
                f"found code_levels {self.code_levels} and code_factors {self.code_factors}, expected one of them: "
                "levels for a head that codes share, factors for a head of each digit"
            )
        if self.predicts not in PREDICTIONS:
            raise UserError(f"predicts {self.predicts!r} is unknown; known are {', '.join(PREDICTIONS)}")
        if self.text_width < 0:
            raise UserError(f"text_width {self.text_width} must be that of the text encoder, or 0 for no text")
        self.stack  # noqa: B018  (its sizes are checked when it is made)

    @property
    def stack(self) -> StackConfig:
        """The transformer stack in these sizes."""
        return StackConfig(
            self.layers,
            self.width,
            self.heads,
            self.mlp_width,
            cross_attention=self.text_width > 0,
            qk_norm=self.qk_norm,
            dropout=self.dropout,
            remat=self.remat,
            unroll=self.unroll,
        )

    @property
    def factors(self) -> tuple[int, ...]:
        """Sizes of the heads: the factors of the codes, or all codes at once."""
        return self.code_factors or (self.codebook_size,)

    @property
    def predicts_codes(self) -> bool:
        """Whether it has heads for codes."""
        return self.predicts != "scores"

    @property
    def predicts_scores(self) -> bool:
        """Whether it has a head for scores."""
        return self.predicts != "codes"

    @property
    def mask_token(self) -> int:
        """The id that stands for "not known yet": one past the last code."""
        return self.codebook_size

    def check_codebook(self, tokenizer_codebook_size: int) -> None:
        """Refuses a tokenizer with another codebook.

        Raises:
          UserError: names both sizes.
        """
        if tokenizer_codebook_size != self.codebook_size:
            raise UserError(
                f"the transformer's codebook_size is {self.codebook_size} but the tokenizer has "
                f"{tokenizer_codebook_size} codes; "
                "set TransformerConfig.codebook_size to the tokenizer's"
            )
