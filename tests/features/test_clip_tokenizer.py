"""Texts become the ids of OpenAI's own tokenizer, and files of something else are refused by their first flaw."""

import json
import pathlib
from collections.abc import Callable

import numpy as np
import pytest

from phenaki_jax.errors import UserError
from phenaki_jax.features import testing
from phenaki_jax.features.clip_tokenizer import END, START, ClipTokenizer

URL = "https://huggingface.co/openai/clip-vit-base-patch32/resolve/main"


@pytest.fixture
def files(tmp_path: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """The small vocabulary as one is published."""
    return testing.write_vocabulary(tmp_path, *testing.example_vocabulary())


@pytest.fixture
def tokenizer(files: tuple[pathlib.Path, pathlib.Path]) -> ClipTokenizer:
    return ClipTokenizer(*files)


@pytest.fixture
def ids_of() -> Callable[..., list[int]]:
    """The ids of entries of the small vocabulary."""
    vocabulary, _ = testing.example_vocabulary()
    return lambda *entries: [vocabulary[entry] for entry in entries]


@pytest.mark.parametrize("text", [*testing.PLAIN_TEXTS, *testing.UNTIDY_TEXTS])
def test_texts_become_openais_ids(tokenizer: ClipTokenizer, fixtures: pathlib.Path, text: str) -> None:
    expected = json.loads((fixtures / "clip_tokens.json").read_text())
    assert tokenizer.encode(text) == expected[text]


def test_pairs_are_merged_in_the_order_of_training(tokenizer: ClipTokenizer, ids_of: Callable[..., list[int]]) -> None:
    """Of "moved" the first four letters are a beginning of "moves" and of "moving" the first three."""
    assert tokenizer.encode("The circles, moved") == ids_of("the</w>", "circles</w>", ",</w>", "move", "d</w>")
    assert tokenizer.encode("MOVING re-reds") == ids_of("moving</w>", "re</w>", "-</w>", "re", "d", "s</w>")


def test_words_are_letters_single_digits_and_runs_of_the_rest(
    tokenizer: ClipTokenizer, ids_of: Callable[..., list[int]]
) -> None:
    assert tokenizer.encode("red20..'s") == ids_of("red</w>", "2</w>", "0</w>", ".", ".", "'</w>", "s</w>")
    assert tokenizer.encode("red's ..") == ids_of("red</w>", "'s</w>", "..</w>")


def test_texts_are_cut_and_ended(tokenizer: ClipTokenizer, ids_of: Callable[..., list[int]]) -> None:
    start, end, red = ids_of(START, END, "red</w>")
    tokens = tokenizer.encode_batch(["red", "red " * 9], 5)
    assert tokens.dtype == np.int32
    assert tokens.tolist() == [[start, red, end, end, end], [start, red, red, red, end]]
    assert tokenizer.encode_batch(["red"]).shape == (1, 77)
    assert (start, end) == (tokenizer.vocabulary_size - 2, tokenizer.vocabulary_size - 1)


@pytest.mark.parametrize(
    ("text", "found"), [(" \n", "an empty text ' "), ("\udc80 red", "with bytes that are no UTF-8")]
)
def test_what_is_no_text_is_refused(tokenizer: ClipTokenizer, text: str, found: str) -> None:
    with pytest.raises(UserError) as error:
        tokenizer.encode_batch(["red", text])
    assert found in str(error.value)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda entries: ["red"], "a list, expected CLIP's vocab.json"),
        (lambda entries: entries | {"red": 3}, "entries whose ids are not 0 to "),
        (lambda entries: entries | {"red": "3"}, "entries whose ids are not 0 to "),
        (lambda entries: {"red": 0, END: 1}, "no entry '!'"),
        (lambda entries: {**entries, END: entries[START], START: entries[END]}, "<|endoftext|> at "),
    ],
)
def test_another_vocabulary_is_refused(
    files: tuple[pathlib.Path, pathlib.Path], change: Callable[..., object], found: str
) -> None:
    files[0].write_text(json.dumps(change(json.loads(files[0].read_text()))))
    with pytest.raises(UserError) as error:
        ClipTokenizer(*files)
    assert str(error.value).startswith(f"{files[0]}: found ")
    assert found in str(error.value)
    assert str(error.value).endswith(f"download {URL}/vocab.json")


def test_other_merges_are_refused(files: tuple[pathlib.Path, pathlib.Path]) -> None:
    vocabulary, merges = files
    merges.write_text(merges.read_text() + "x y\n")
    number = len(merges.read_text().splitlines())
    message = (
        f"{merges}: found 'x y' in line {number}, expected two symbols whose join is in the vocabulary; download "
        f"{URL}/merges.txt"
    )
    with pytest.raises(UserError) as error:
        ClipTokenizer(vocabulary, merges)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (None, "cannot be read (No such file"),
        (b"<html>", "found what is no JSON"),
        (b"\xff\xfe", "cannot be read ('utf-8'"),
    ],
)
def test_a_file_of_something_else_is_refused(
    files: tuple[pathlib.Path, pathlib.Path], content: bytes | None, found: str
) -> None:
    files[0].unlink()
    if content is not None:
        files[0].write_bytes(content)
    with pytest.raises(UserError) as error:
        ClipTokenizer(*files)
    assert found in str(error.value)
    assert "CLIP's vocab.json; download" in str(error.value)
