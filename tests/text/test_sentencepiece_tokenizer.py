"""Ids are those of seqio on the same file, for any text; files of something else, and of another encoder, are told."""

import io
import pathlib

import hypothesis
import numpy as np
import pytest
import sentencepiece
from hypothesis import strategies

from phenaki_jax.data.tensorflow_stack import seqio
from phenaki_jax.errors import UserError
from phenaki_jax.text.sentencepiece_tokenizer import SentencePieceTokenizer

SENTENCES = [
    "a red circle moves left",
    "ein blaues Quadrat bewegt sich",
    "Ünïcödé – 紅い円",
    "दो गोले",
    "a teddy bear swims",
]
# Flags, families joined by joiners, skin; marks that combine; right to left; no width; full width; signs that control.
# No sentinel such as <extra_id_0>: seqio adds those to a vocabulary.
ODD = [
    *("🎈", "🇩🇪", "👩\u200d👩\u200d👧", "👍🏽", "❤️", "é", "ä̃", "क्षि", "שלום", "مرحبا"),
    *("Ａｂｃ", "１２", "ｶﾞ", "ﬁ", "½", "ß", "İ", "▁", "<pad>", "</s>", "<unk>", "<0x41>", "𝔄"),
    *("\U0010ffff", "\ufffd", "\u200b", "\u200d", "\u200f", "\ufeff", "\u2060", "\xad", "\u3000"),
    *("\xa0", "\u2028", "\0", "\x01", "\x1b[0m", "\x7f", "\x85", "\t", "\r\n", " ", "  "),
]  # fmt: skip
TEXTS = strategies.lists(
    strategies.one_of(
        strategies.sampled_from(ODD),
        strategies.sampled_from(SENTENCES),
        strategies.text(strategies.characters(exclude_categories=["Cs"]), max_size=8),
    ),
    max_size=6,
).map("".join)


def train(kind: str, **options: object) -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(SENTENCES * 10),
        model_writer=model,
        model_type=kind,
        **{"vocab_size": 360, "hard_vocab_limit": False, "byte_fallback": True, "minloglevel": 2}
        | {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
        | options,
    )
    return model.getvalue()


@pytest.fixture(scope="module", params=["unigram", "bpe"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    file = tmp_path_factory.mktemp("vocabulary") / "sentencepiece.model"
    file.write_bytes(train(request.param))
    return file


def test_ids_are_those_of_seqio(model: pathlib.Path) -> None:
    found, expected = SentencePieceTokenizer(model), seqio.SentencePieceVocabulary(str(model), extra_ids=100)

    @hypothesis.settings(max_examples=1000)
    @hypothesis.given(TEXTS)
    def compare(text: str) -> None:
        assert found.encode(text) == expected.encode(text)

    compare()
    assert found.encode("a red circle") == expected.encode_tf("a red circle").numpy().tolist()
    assert found.vocabulary_size + 100 == expected.vocab_size
    assert (expected.pad_id, expected.eos_id) == (0, 1)


def test_a_batch_ends_with_the_end_of_text(model: pathlib.Path) -> None:
    tokenizer = SentencePieceTokenizer(model)
    ids = tokenizer.encode("a red circle")
    tokens, mask = tokenizer.encode_batch(["a red circle", "\u200b a"], len(ids) + 3)
    np.testing.assert_array_equal(tokens[0], [*ids, 1, 0, 0])
    np.testing.assert_array_equal(mask[0], [True] * (len(ids) + 1) + [False] * 2)
    with pytest.raises(UserError, match=rf"found a prompt of {len(ids) + 1} tokens \(its pieces and the end of text\)"):
        tokenizer.encode_batch(["a red circle"], 2)
    cut, _ = tokenizer.encode_batch(["a red circle"], 2, truncate=True)
    np.testing.assert_array_equal(cut, [[ids[0], 1]])


def test_a_text_of_nothing_that_is_seen_is_refused(model: pathlib.Path) -> None:
    with pytest.raises(UserError, match="without a piece of the vocabulary"):
        SentencePieceTokenizer(model).encode_batch(["\u200b"], 8)


@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html>", b"\0" * 99, b'{"model": {"type": "Unigram"}}'])
def test_a_file_of_something_else_is_told(tmp_path: pathlib.Path, content: bytes) -> None:
    file = tmp_path / "spiece.model"
    file.write_bytes(content)
    with pytest.raises(UserError) as error:
        SentencePieceTokenizer(file)
    assert str(error.value) == (
        f"{file}: found {len(content)} bytes that are no vocabulary of sentencepiece, or not a whole one, expected the "
        "encoder's own vocabulary, a sentencepiece.model or spiece.model"
    )


def test_a_damaged_file_is_told(model: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (tmp_path / "half.model").write_bytes(model.read_bytes()[:3000])
    with pytest.raises(UserError, match="found 3000 bytes that are no vocabulary of sentencepiece, or not a whole one"):
        SentencePieceTokenizer(tmp_path / "half.model")


def test_a_missing_file_is_told(tmp_path: pathlib.Path) -> None:
    for path, reason in ((tmp_path / "absent", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(UserError) as error:
            SentencePieceTokenizer(path)
        assert str(error.value).startswith(f"{path} cannot be read ({reason}), expected the encoder's own vocabulary")


def test_a_vocabulary_of_other_special_ids_is_told(tmp_path: pathlib.Path) -> None:
    """As those of language models that are no T5."""
    file = tmp_path / "other.model"
    file.write_bytes(train("bpe", pad_id=-1, bos_id=1, eos_id=2, unk_id=0))
    with pytest.raises(UserError, match="found padding and end of text at -1 and 2, expected them at 0 and 1, as T5"):
        SentencePieceTokenizer(file)


def test_a_vocabulary_of_another_encoder_is_told(model: pathlib.Path) -> None:
    """Sentinels and a round number make rows more than pieces: 100 and 28 for T5, 300 and 84 for umT5."""
    size = SentencePieceTokenizer(model).vocabulary_size
    for rows in (size, size + 128, size + 384):
        assert SentencePieceTokenizer(model, rows).vocabulary_size == size
    for rows, least in ((size - 1, max(0, size - 385)), (size + 385, size + 1), (32128, 31744)):
        with pytest.raises(UserError) as error:
            SentencePieceTokenizer(model, rows)
        told = (
            f"found {size} pieces for an embedding of {rows} rows, expected {least} to {rows}: name the encoder's own"
        )
        assert told in str(error.value)
