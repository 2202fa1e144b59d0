"""Text as the pieces of a SentencePiece vocabulary: the tokenizer of T5, with the ids of seqio."""

from __future__ import annotations

import hashlib
from pathlib import Path

import sentencepiece

from phenaki_jax.errors import UserError, counted, reason_of
from phenaki_jax.text.tokenizer import EOS_ID, PAD_ID, Tokenizer

# Those of umT5: 300 sentinels, and 84 for a round number. T5 has 100 and 28.
_MOST_SPARE_ROWS = 384
_EXPECTED = "the encoder's own vocabulary, a sentencepiece.model or spiece.model"


class SentencePieceTokenizer(Tokenizer):
    """The ids of `seqio.SentencePieceVocabulary`, but for sentinels such as <extra_id_0>, which no prompt has.

    Attributes:
      vocabulary_size: pieces in the file, special ones included.
    """

    unit = "piece"

    def __init__(self, path: str | Path, embedding_rows: int | None = None) -> None:
        """Reads a vocabulary.

        Args:
          path: `sentencepiece.model` of a vocabulary of t5x, `spiece.model` of Hugging Face.
          embedding_rows: of the encoder that the ids are for, `T5Config.vocabulary_size`; None where it is not known.

        Raises:
          UserError: there is no such file, it is damaged or none of sentencepiece, has padding and end of text not at 0
            and 1, or is not the encoder's.
        """
        try:
            model = Path(path).read_bytes()
        except OSError as error:
            raise UserError(f"{path} cannot be read ({reason_of(error)}), expected {_EXPECTED}") from error
        self._processor = sentencepiece.SentencePieceProcessor()
        try:
            self._processor.LoadFromSerializedProto(model)
        except RuntimeError as error:
            raise UserError(
                f"{path}: found {counted(len(model), 'byte')} that are no vocabulary of sentencepiece, or not a whole "
                f"one, expected {_EXPECTED}"
            ) from error
        self.vocabulary_size = self._processor.GetPieceSize()
        special = self._processor.pad_id(), self._processor.eos_id()
        if special != (PAD_ID, EOS_ID):
            raise UserError(
                f"{path}: found padding and end of text at {special[0]} and {special[1]}, expected them at {PAD_ID} "
                f"and {EOS_ID}, as T5 has them: name {_EXPECTED}"
            )
        if embedding_rows is not None and not 0 <= embedding_rows - self.vocabulary_size <= _MOST_SPARE_ROWS:
            raise UserError(
                f"{path}: found {self.vocabulary_size} pieces for an embedding of {embedding_rows} rows, expected "
                f"{max(0, embedding_rows - _MOST_SPARE_ROWS)} to {embedding_rows}: name {_EXPECTED}, or another encoder"
            )

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without the end of text."""
        return self._processor.EncodeAsIds(text)


def fingerprint_of(vocabulary: str | Path) -> str:
    """What tells the vocabulary of a file from others; empty for bytes, which have none.

    Raises:
      UserError: it cannot be read.
    """
    if not vocabulary:
        return ""
    try:
        return hashlib.sha256(Path(vocabulary).read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise UserError(f"{vocabulary} cannot be read ({reason_of(error)}), expected {_EXPECTED}") from error
