"""Byte ids: equal to seqio's, ended, padded, and refused where they cannot say what was meant."""

import numpy as np
import pytest

from phenaki_jax.data.tensorflow_stack import seqio
from phenaki_jax.errors import UserError
from phenaki_jax.text.byte_tokenizer import VOCABULARY_SIZE, ByteTokenizer

TEXTS = ["a red circle moves left", "Ünïcödé – 紅い円 🎈", " a\tb\n", "\x00\xff"]


@pytest.mark.parametrize("text", TEXTS)
def test_ids_are_those_of_seqio(text: str) -> None:
    vocabulary = seqio.ByteVocabulary(extra_ids=0)
    assert ByteTokenizer().encode(text) == vocabulary.encode(text) == vocabulary.encode_tf(text).numpy().tolist()


def test_vocabulary_size_is_that_of_seqio() -> None:
    assert seqio.ByteVocabulary(extra_ids=0).vocab_size == VOCABULARY_SIZE


def test_batch_is_ended_and_padded() -> None:
    tokens, mask = ByteTokenizer().encode_batch(["ab", "c"], 4)
    np.testing.assert_array_equal(tokens, [[100, 101, 1, 0], [102, 1, 0, 0]])
    np.testing.assert_array_equal(mask, [[True, True, True, False], [True, True, False, False]])
    assert tokens.dtype == np.int32
    assert mask.dtype == np.bool_


def test_text_that_fits_exactly_is_kept_whole() -> None:
    tokens, mask = ByteTokenizer().encode_batch(["abc"], 4)
    np.testing.assert_array_equal(tokens, [[100, 101, 102, 1]])
    assert mask.all()


def test_overlong_text_is_refused_with_its_length_and_the_limit() -> None:
    with pytest.raises(UserError, match=r"7 tokens .* at most 4") as error:
        ByteTokenizer().encode_batch(["fine"[:3], "abcdef"], 4)
    assert "\n" not in str(error.value)


def test_bytes_that_are_no_text_are_refused() -> None:
    """As Python gives them to a program that was called with a Latin-1 word."""
    with pytest.raises(UserError, match="bytes that are no UTF-8 text"):
        ByteTokenizer().encode_batch([b"ch\xe2teau".decode("utf-8", "surrogateescape")], 16)


@pytest.mark.parametrize("text", ["", "  \n"])
def test_empty_text_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="empty prompt"):
        ByteTokenizer().encode_batch(["a circle", text], 16)
