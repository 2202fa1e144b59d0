"""What every tokenizer does: texts of any length become batches of one."""

from __future__ import annotations

import abc
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int32

from phenaki_jax.errors import UserError

PAD_ID, EOS_ID = 0, 1


def check_prompt(prompt: str) -> None:
    """Refuses what says nothing, and bytes that are no text.

    Raises:
      UserError: what was found.
    """
    if not prompt.strip():
        raise UserError(f"found an empty prompt {prompt!r}, expected words: say what the video shows")
    if any("\ud800" <= character <= "\udfff" for character in prompt):
        raise UserError(f"found a prompt {prompt!r} with bytes that are no UTF-8 text, expected UTF-8")


class Tokenizer(abc.ABC):
    """Text to ids; 0 is padding, 1 ends a text and 2 stands for the unknown.

    Attributes:
      unit: what a token is of a text, for messages.
    """

    unit: str

    @abc.abstractmethod
    def encode(self, text: str) -> list[int]:
        """The ids of a text, without the end of text."""

    def encode_batch(
        self, texts: Sequence[str], length: int, *, truncate: bool = False
    ) -> tuple[Int32[np.ndarray, "batch length"], Bool[np.ndarray, "batch length"]]:
        """The ids of several texts, each ended and then padded.

        Args:
          texts: prompts or captions, none of them empty.
          length: tokens per text, the end of text included.
          truncate: cuts texts that are over-long; they end with the end of text too.

        Returns:
          The ids, and a mask that is True on those of the text and its end.

        Raises:
          UserError: a text is empty, or over-long where it is not to be cut.
        """
        rows = [self._encode_to_fit(text, length, truncate) for text in texts]
        tokens = np.full((len(rows), length), PAD_ID, dtype=np.int32)
        for row, ids in zip(tokens, rows, strict=True):
            row[: len(ids)] = ids
        return tokens, tokens != PAD_ID

    def _encode_to_fit(self, text: str, length: int, truncate: bool) -> list[int]:
        check_prompt(text)
        ids = self.encode(text)
        if not ids:
            raise UserError(f"found a prompt {text!r} without a {self.unit} of the vocabulary, expected words")
        if len(ids) + 1 > length and not truncate:
            raise UserError(
                f"found a prompt of {len(ids) + 1} tokens (its {self.unit}s and the end of text), expected at most "
                f"{length}: shorten {text[:40]!r}{'...' if len(text) > 40 else ''}, or have "
                "prompts truncated (--truncate_prompts, or truncate_prompts=True)"
            )
        return [*ids[: length - 1], EOS_ID]
