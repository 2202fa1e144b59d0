"""Text as bytes: the tokenizer that needs no vocabulary file, with the ids of ByT5 (`seqio.ByteVocabulary`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int32

from phenaki_jax.errors import UserError

PAD_ID, EOS_ID = 0, 1
FIRST_BYTE_ID = 3
VOCABULARY_SIZE = FIRST_BYTE_ID + 256


def check_prompt(prompt: str) -> None:
    """Refuses what says nothing, and bytes that are no text.

    Raises:
      UserError: what was found.
    """
    if not prompt.strip():
        raise UserError(f"found an empty prompt {prompt!r}, expected words: say what the video shows")
    if any("\ud800" <= character <= "\udfff" for character in prompt):
        raise UserError(f"found a prompt {prompt!r} with bytes that are no UTF-8 text, expected UTF-8")


class ByteTokenizer:
    """UTF-8 bytes plus three; 0 is padding, 1 ends a text and 2 stands for the unknown, which bytes never need."""

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without the end of text."""
        return [byte + FIRST_BYTE_ID for byte in text.encode("utf-8")]

    def encode_batch(
        self, texts: Sequence[str], length: int
    ) -> tuple[Int32[np.ndarray, "batch length"], Bool[np.ndarray, "batch length"]]:
        """The ids of several texts, each ended and then padded.

        Args:
          texts: prompts or captions, none of them empty.
          length: tokens per text, the end of text included.

        Returns:
          The ids, and a mask that is True on the bytes and the end of text.

        Raises:
          UserError: a text is empty or over-long.
        """
        rows = [self._encode_to_fit(text, length) for text in texts]
        tokens = np.full((len(rows), length), PAD_ID, dtype=np.int32)
        for row, ids in zip(tokens, rows, strict=True):
            row[: len(ids)] = ids
        return tokens, tokens != PAD_ID

    def _encode_to_fit(self, text: str, length: int) -> list[int]:
        check_prompt(text)
        ids = self.encode(text)
        if len(ids) + 1 > length:
            raise UserError(
                f"found a prompt of {len(ids) + 1} tokens (its bytes and the end of text), expected at most {length}: "
                f"shorten {text[:40]!r}{'...' if len(text) > 40 else ''}"
            )
        return [*ids, EOS_ID]
