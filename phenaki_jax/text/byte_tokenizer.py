"""Text as bytes: the tokenizer that needs no vocabulary file, with the ids of ByT5 (`seqio.ByteVocabulary`)."""

from __future__ import annotations

from phenaki_jax.text.tokenizer import Tokenizer

FIRST_BYTE_ID = 3
VOCABULARY_SIZE = FIRST_BYTE_ID + 256


class ByteTokenizer(Tokenizer):
    """UTF-8 bytes plus three; the unknown is never needed."""

    unit = "byte"

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without the end of text."""
        return [byte + FIRST_BYTE_ID for byte in text.encode("utf-8")]
