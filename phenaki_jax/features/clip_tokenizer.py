"""CLIP's tokenizer: byte pairs of lower-case words (arXiv 2103.00020, section 2.4; 1508.07909 for the pairs)."""

from __future__ import annotations

import functools
import html
import itertools
import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int32

from phenaki_jax.errors import UserError, kind_of, reason_of

START, END = "<|startoftext|>", "<|endoftext|>"
WORD_END = "</w>"
LENGTH = 77

_URL = "https://huggingface.co/openai/clip-vit-base-patch32/resolve/main"
_REMEMBERED = 2**16

# What is a token whatever it stands in, before runs of letters, single digits and runs of all else but spaces.
_WHOLE = re.compile(rf"{re.escape(START)}|{re.escape(END)}|'(?:s|t|re|ve|m|ll|d)")
_RUN = re.compile(r"L+|N|O+")


def _spelled_plainly() -> dict[int, str]:
    """Curly quotes, ligatures and characters of full width as what they stand for; control characters as nothing."""
    ligatures = [*range(0xFB00, 0xFB07), *range(0x132, 0x134), *range(0x1C4, 0x1CD), *range(0x1F1, 0x1F4)]
    plain = {code: unicodedata.normalize("NFKC", chr(code)) for code in [*ligatures, *range(0xFF01, 0xFFF0)]}
    plain |= dict.fromkeys([0x2BC, *range(0x2018, 0x201C)], "'") | dict.fromkeys(range(0x201C, 0x2020), '"')
    plain[0x149] = "'n"
    controls = [*range(9), 0xB, *range(0xE, 0x20), 0x7F, *range(0x206A, 0x2070), 0xFEFF, *range(0xFFF9, 0xFFFD)]
    return plain | dict.fromkeys(controls, "")


def byte_symbols() -> dict[int, str]:
    """The character that stands for each byte in the vocabulary: its own where that can be seen, or one past 255."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return {byte: chr(byte) for byte in visible} | {byte: chr(256 + place) for place, byte in enumerate(hidden)}


_PLAIN, _SYMBOLS = _spelled_plainly(), byte_symbols()


class ClipTokenizer:
    """Texts to ids, as the released models were trained on them.

    Of what the original has ftfy mend in a text, this does what needs no guess; text that was once decoded wrongly
    stays as it is.

    Attributes:
      vocabulary_size: entries of the vocabulary; the last two are start and end of a text.
    """

    def __init__(self, vocabulary: str | Path, merges: str | Path) -> None:
        """Reads a vocabulary.

        Args:
          vocabulary: of vocab.json of https://huggingface.co/openai/clip-vit-base-patch32, which all released models
            share.
          merges: of merges.txt beside it.

        Raises:
          UserError: a file cannot be read, is none of that kind, or the two do not belong together.
        """
        self._ids = _read_vocabulary(Path(vocabulary))
        self._ranks = _read_merges(Path(merges), self._ids)
        self.vocabulary_size = len(self._ids)
        self._ids_of_word = functools.lru_cache(_REMEMBERED)(self._merged)

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without start and end."""
        return [token for word in _words(_cleaned(text)) for token in self._ids_of_word(word)]

    def encode_batch(self, texts: Sequence[str], length: int = LENGTH) -> Int32[np.ndarray, "batch length"]:
        """The ids of several texts between start and end, filled up with ends; long ones are cut, and ended too.

        Args:
          texts: captions or prompts, none of them empty.
          length: tokens per text.

        Raises:
          UserError: a text is empty, or no text.
        """
        tokens = np.full((len(texts), length), self._ids[END], np.int32)
        for row, text in zip(tokens, texts, strict=True):
            _check(text)
            ids = self.encode(text)[: length - 2]
            row[: len(ids) + 1] = [self._ids[START], *ids]
        return tokens

    def _merged(self, word: str) -> tuple[int, ...]:
        """The ids of a word: pairs become one symbol, those that were merged first in training before others."""
        if word in (START, END):
            return (self._ids[word],)
        symbols = [_SYMBOLS[byte] for byte in word.encode()]
        symbols[-1] += WORD_END
        while len(symbols) > 1:
            pairs = list(itertools.pairwise(symbols))
            place = min(range(len(pairs)), key=lambda place: self._ranks.get(pairs[place], len(self._ranks)))
            if pairs[place] not in self._ranks:
                break
            symbols[place : place + 2] = ["".join(pairs[place])]
        return tuple(self._ids[symbol] for symbol in symbols)


def _check(text: str) -> None:
    if not text.strip():
        raise UserError(f"found an empty text {text!r} for CLIP, expected words")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise UserError(f"found a text {text!r} with bytes that are no UTF-8 text, expected UTF-8")


def _cleaned(text: str) -> str:
    plain = unicodedata.normalize("NFC", text.translate(_PLAIN))
    return " ".join(html.unescape(html.unescape(plain)).split()).lower()


def _words(text: str) -> Iterator[str]:
    """What pairs are merged within."""
    kinds = "".join(map(_kind, text))
    place = 0
    while place < len(text):
        match = _WHOLE.match(text, place) or _RUN.match(kinds, place)
        if match:
            yield text[place : match.end()]
        place = match.end() if match else place + 1


def _kind(character: str) -> str:
    """L for letters, N for digits and other numbers, O for others but spaces."""
    category = unicodedata.category(character)[0]
    return category if category in "LN" else " " if character.isspace() else "O"


def _read_vocabulary(path: Path) -> dict[str, int]:
    try:
        vocabulary = json.loads(_read(path, "vocab.json"))
    except json.JSONDecodeError as error:
        raise _refused(path, f"what is no JSON ({reason_of(error)})", "vocab.json") from error
    if not isinstance(vocabulary, dict):
        raise _refused(path, kind_of(vocabulary), "vocab.json")
    if sorted(map(_sortable, vocabulary.values())) != list(range(len(vocabulary))):
        raise _refused(path, f"{len(vocabulary)} entries whose ids are not 0 to {len(vocabulary) - 1}", "vocab.json")
    symbols = [symbol + end for symbol in _SYMBOLS.values() for end in ("", WORD_END)]
    if absent := [entry for entry in (*symbols, START, END) if entry not in vocabulary]:
        raise _refused(path, f"no entry {absent[0]!r}", "vocab.json")
    if (last := vocabulary[END]) != len(vocabulary) - 1:
        raise _refused(path, f"{END} at {last} of {len(vocabulary)} entries", "vocab.json", "it as the last")
    return vocabulary


def _sortable(value: Any) -> int:
    return value if type(value) is int else -1


def _read_merges(path: Path, vocabulary: Mapping[str, int]) -> dict[tuple[str, str], int]:
    ranks: dict[tuple[str, str], int] = {}
    for number, line in enumerate(_read(path, "merges.txt").split("\n"), start=1):
        if not line.strip() or (number == 1 and line.startswith("#")):
            continue
        pair = tuple(line.split())
        if len(pair) != 2 or "".join(pair) not in vocabulary:
            raise _refused(
                path, f"{line[:40]!r} in line {number}", "merges.txt", "two symbols whose join is in the vocabulary"
            )
        ranks[pair[0], pair[1]] = len(ranks)
    return ranks


def _read(path: Path, name: str) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path} cannot be read ({reason_of(error)}), expected CLIP's {name}; download {_URL}/{name}"
        ) from error


def _refused(path: Path, found: str, name: str, expected: str = "") -> UserError:
    expected = expected or f"CLIP's {name}"
    return UserError(f"{path}: found {found}, expected {expected}; download {_URL}/{name}")
