"""What a masked video-token transformer is made of, checked when it is put together."""

from __future__ import annotations

import dataclasses
import math

from phenaki_jax.errors import UserError, check_types
from phenaki_jax.layers.stack import StackConfig


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
    """Sizes of the masked transformer (Phenaki, section 2.2 and appendix).

    Attributes:
      codebook_size: number of video codes; that of the tokenizer.
      code_levels: levels of a finite scalar quantizer's dimensions; codes then share, in embedding and head, what
        belongs to a level they have in common, which small runs learn faster. Empty for any other quantizer.
      text_width: features of the text embeddings it reads.
      layers: transformer layers.
      width: features of a token.
      heads: attention heads.
      mlp_width: hidden features of the MLP.
      dropout: see `StackConfig`.
      remat: see `StackConfig`.
    """

    codebook_size: int = 8192
    code_levels: tuple[int, ...] = ()
    text_width: int = 4096
    layers: int = 24
    width: int = 2048
    heads: int = 32
    mlp_width: int = 8192
    dropout: float = 0.0
    remat: str = "none"

    def __post_init__(self) -> None:
        check_types(self)
        if self.codebook_size < 2:
            raise UserError(f"codebook size {self.codebook_size} must be that of the tokenizer, at least 2")
        if self.code_levels and math.prod(self.code_levels) != self.codebook_size:
            raise UserError(
                f"code_levels {self.code_levels} do not multiply to codebook_size {self.codebook_size}; "
                "set them to the quantizer's levels"
            )
        self.stack  # noqa: B018  (its sizes are checked when it is made)

    @property
    def stack(self) -> StackConfig:
        """The transformer stack in these sizes."""
        return StackConfig(
            self.layers,
            self.width,
            self.heads,
            self.mlp_width,
            cross_attention=True,
            dropout=self.dropout,
            remat=self.remat,
        )

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
