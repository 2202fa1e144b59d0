"""A loaded model draws what it drew before, from the seed alone, and keeps what it is given."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest

from phenaki_jax.errors import UserError
from phenaki_jax.inference.phenaki import Phenaki

UNWANTED = ("tensorflow", "seqio", "tensorflow_datasets", "clu", "gin", "orbax", "matplotlib", "tqdm")


def frames_of(count: int, seed: int = 0) -> np.ndarray:
    """Noise."""
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


def test_a_video_depends_on_its_prompt_and_seed_alone(model: Phenaki) -> None:
    """The second of two is what it is alone with the next seed, and another seed gives another."""
    both = model.generate(["a red circle", "a blue square"], seed=3)
    assert both.shape == (2, 5, 32, 32, 3)
    # Values on the edge between two levels may fall to either side.
    assert np.abs(both[1:].astype(int) - model.generate("a blue square", seed=4)).max() <= 1
    assert (both[0] != model.generate("a red circle", seed=5)[0]).any()


def test_a_loaded_model_draws_the_same(model: Phenaki, folder: pathlib.Path) -> None:
    np.testing.assert_array_equal(Phenaki.load(folder).generate("a circle"), model.generate("a circle"))


@pytest.mark.parametrize("frames", [3, 5, 8])
def test_videos_have_the_length_that_is_asked_for(model: Phenaki, frames: int) -> None:
    assert model.generate("a circle", frames=frames).shape == (1, frames, 32, 32, 3)


def test_a_video_begins_with_the_given_image(model: Phenaki) -> None:
    image = frames_of(1)
    video = model.generate(["a circle", "a square"], start=image)
    assert video.shape == (2, 5, 32, 32, 3)
    np.testing.assert_array_equal(video[:, 0], np.stack([image[0], image[0]]))


def test_a_video_goes_on_from_its_last_frames_alone(model: Phenaki) -> None:
    """3 of 7 given frames are looked at, so others before them change nothing."""
    first, second = frames_of(7), frames_of(7, seed=1)
    second[-3:] = first[-3:]
    drawn = [model.generate("a circle", start=start) for start in (first, second)]
    assert drawn[0].shape == (1, 9, 32, 32, 3)
    np.testing.assert_array_equal(drawn[0][0, :7], first)
    np.testing.assert_array_equal(drawn[0][:, 7:], drawn[1][:, 7:])


@pytest.mark.parametrize("count", [1, 7])
def test_reconstruction_is_decoding_of_the_tokens(model: Phenaki, count: int) -> None:
    video = frames_of(count)
    tokens = model.encode(video[None])
    assert tokens.shape == (1, 1 + count // 2, 4, 4)
    np.testing.assert_array_equal(model.reconstruct(video), model.decode(tokens)[0])


@pytest.mark.parametrize(
    ("prompt", "options", "message"),
    [
        (" ", {}, "empty prompt"),
        ("a circle that moves on and on", {}, "at most 24"),
        ("a circle", {"frames": 0}, "more than the 0"),
        ("a circle", {"start": np.zeros((1, 16, 16, 3), np.uint8)}, "fit_frames"),
        ("a circle", {"seed": -1}, "seed"),
    ],
)
def test_what_cannot_be_drawn_is_refused(model: Phenaki, prompt: str, options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        model.generate(prompt, **options)


def test_lengths_that_tokens_do_not_cover_are_refused(model: Phenaki) -> None:
    with pytest.raises(UserError, match="3 or 5"):
        model.reconstruct(frames_of(4))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("start", "message"),
    [
        (np.zeros((1, 32, 32, 4), np.uint8), "fit_frames"),
        (np.zeros((32, 32, 3), np.uint8), "fit_frames"),
        (np.zeros((1, 32, 32, 3), np.float32), "uint8"),
    ],
)
def test_what_are_no_frames_is_not_gone_on_from(model: Phenaki, start: np.ndarray, message: str) -> None:
    with pytest.raises(UserError, match=message):
        model.generate("a circle", start=start)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("video", "message"),
    [
        (
            frames_of(5),
            r"video: found shape \[5, 32, 32, 3\], expected \[batch, .*; give a single one as video\[None\]",
        ),
        (frames_of(5)[None][:0], r"video: found an empty batch axis in shape \[0, 5, 32, 32, 3\]"),
        (frames_of(5)[None, ..., :1], r"found shape \[1, 5, 32, 32, 1\], expected .*width, 3\]$"),
        ([[1, 2]], "video: found a list, expected a NumPy or JAX array"),
        (None, "video: found None, expected a NumPy or JAX array"),
    ],
)
def test_what_is_no_video_is_not_encoded(model: Phenaki, video: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        model.encode(video)  # type: ignore[arg-type]


@pytest.mark.usefixtures("unchecked")
def test_several_videos_are_not_reconstructed_at_once(model: Phenaki) -> None:
    with pytest.raises(
        UserError, match=r"shape \[1, 5, 32, 32, 3\], expected \[frames, .*one at a time, as video\[0\]"
    ):
        model.reconstruct(frames_of(5)[None])


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("chunks", "message"),
    [
        (None, "chunks: found None, expected a list or a generator"),
        (frames_of(5)[None], r"found an array of shape \[1, 5, 32, 32, 3\], .* one as \[chunk\]"),
    ],
)
def test_what_are_no_chunks_is_refused(model: Phenaki, chunks: object, message: str) -> None:
    for stream in (model.encode_stream, model.decode_stream):
        with pytest.raises(UserError, match=message):
            stream(chunks)  # type: ignore[arg-type]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (np.zeros((3, 4, 4), np.int32), r"shape \[3, 4, 4\], expected \[batch, .*tokens\[None\]"),
        (np.zeros((1, 0, 4, 4), np.int32), r"empty times axis in shape \[1, 0, 4, 4\], expected .* at least 1 each"),
        ([[1]], "tokens: found a list, expected a NumPy or JAX array"),
        (np.zeros((1, 1, 4, 4), np.float32), "type float32, expected whole numbers"),
    ],
)
def test_what_are_no_tokens_is_not_decoded(model: Phenaki, tokens: object, message: str) -> None:
    for decode in (model.decode, lambda chunk: next(model.decode_stream([chunk]))):
        with pytest.raises(UserError, match=message):
            decode(tokens)


def test_codes_that_are_not_in_the_codebook_are_refused(model: Phenaki) -> None:
    with pytest.raises(
        UserError, match=r"from 3 to 16, expected 0 to 15: .*decode them with the model that encoded them"
    ):
        model.decode(np.array([3, *[16] * 15]).reshape(1, 1, 4, 4))


def test_a_tokenizer_alone_cannot_draw(model: Phenaki) -> None:
    with pytest.raises(UserError, match=r"found a tokenizer alone, .* expected a model with a transformer"):
        Phenaki(model.tokenizer, {"tokenizer": model.params["tokenizer"]}).generate("a circle")


def test_inference_needs_no_training_library(folder: pathlib.Path) -> None:
    """A process that draws from an exported folder has loaded none of them."""
    program = (
        "import sys\n"
        "from phenaki_jax.inference import Phenaki\n"
        f"assert Phenaki.load({str(folder)!r}).generate('a circle').shape == (1, 5, 32, 32, 3)\n"
        f"print([name for name in {UNWANTED} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_only_what_is_to_be_drawn_anew_is(model: Phenaki) -> None:
    video = np.stack([frames_of(5), frames_of(5, seed=1)])
    redrawn = np.zeros((2, 5, 32, 32), bool)
    redrawn[0, 3, 9:14, 9:14] = True
    redrawn[1, 0, 0, 0] = True
    drawn = model.redraw(["a circle", "a square"], video, redrawn, seed=3)
    np.testing.assert_array_equal(drawn[~redrawn], video[~redrawn])
    assert (drawn[redrawn] != video[redrawn]).any()
    # A window of which nothing is given is a window from nothing.
    everything = np.ones((1, 5, 32, 32), bool)
    anew = model.redraw("a circle", video[:1], everything, seed=3)
    assert np.abs(anew.astype(int) - model.generate("a circle", seed=3)).max() > 0  # keys differ
    np.testing.assert_array_equal(anew, model.redraw("a circle", video[1:], everything, seed=3))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("shape", "kind", "message"),
    [
        ((1, 7, 32, 32, 3), bool, r"video: found \[1, 7, 32, 32, 3\], expected \[1, 5, 32, 32, 3\]"),
        ((2, 5, 32, 32, 3), bool, "a window of the model for each prompt"),
        ((1, 5, 32, 32, 3), np.uint8, r"redrawn: found uint8 \[1, 5, 32, 32\], expected bool"),
    ],
)
def test_what_cannot_be_drawn_anew_is_refused(model: Phenaki, shape: tuple, kind: type, message: str) -> None:
    with pytest.raises(UserError, match=message):
        model.redraw("a circle", np.zeros(shape, np.uint8), np.ones(shape[:4], kind))
