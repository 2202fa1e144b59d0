"""What both tokenizers do: texts are ended, padded, refused where they say nothing, and cut only where asked for."""

import numpy as np
import pytest

from phenaki_jax.errors import UserError
from phenaki_jax.text.tokenizer import Tokenizer


class Letters(Tokenizer):
    """a is 3, b is 4 and so on; other characters are nothing."""

    unit = "letter"

    def encode(self, text: str) -> list[int]:
        return [ord(letter) - 94 for letter in text if "a" <= letter <= "z"]


def test_a_batch_is_ended_and_padded() -> None:
    tokens, mask = Letters().encode_batch(["ab", "c", "cab"], 4)
    np.testing.assert_array_equal(tokens, [[3, 4, 1, 0], [5, 1, 0, 0], [5, 3, 4, 1]])
    np.testing.assert_array_equal(mask, tokens > 0)
    assert (tokens.dtype, mask.dtype) == (np.int32, np.bool_)


def test_an_overlong_text_is_refused_by_its_length() -> None:
    with pytest.raises(UserError) as error:
        Letters().encode_batch(["a", "abcdef"], 4)
    assert str(error.value) == (
        "found a prompt of 7 tokens (its letters and the end of text), expected at most 4: shorten 'abcdef', or have "
        "prompts truncated (--truncate_prompts, or truncate_prompts=True)"
    )


def test_an_overlong_text_is_cut_where_asked_for_and_still_ends() -> None:
    tokens, mask = Letters().encode_batch(["abcdef", "ab"], 4, truncate=True)
    np.testing.assert_array_equal(tokens, [[3, 4, 5, 1], [3, 4, 1, 0]])
    np.testing.assert_array_equal(mask, [[True] * 4, [True, True, True, False]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty prompt ''"),
        (" \n", "empty prompt"),
        ("!?", r"found a prompt '!\?' without a letter of the vocabulary, expected words"),
        (b"ch\xe2teau".decode("utf-8", "surrogateescape"), "bytes that are no UTF-8 text"),
    ],
)
def test_a_text_that_says_nothing_is_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Letters().encode_batch(["a", text], 4, truncate=True)
