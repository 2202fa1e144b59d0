"""A stream in chunks is the whole video: same tokens, same frames, in memory that does not grow."""

import dataclasses
import functools
import itertools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phenaki_jax.errors import UserError
from phenaki_jax.inference.phenaki import Phenaki
from phenaki_jax.inference.streaming import StreamDecoder, StreamEncoder
from phenaki_jax.inference.testing import random_params, tiny_config
from phenaki_jax.layers import pixels
from phenaki_jax.tokenizer.config import QUANTIZERS, CViViTConfig
from phenaki_jax.tokenizer.cvivit import CViViT

CONFIG = dataclasses.replace(tiny_config().tokenizer, temporal_layers=2, temporal_window=3)
# Of a whole number of time steps each, more and fewer than the window has.
CHUNKS = (1, 2, 8, 4, 2, 10)


def _model(config: CViViTConfig = CONFIG) -> Phenaki:
    return Phenaki(config, random_params(config))


def _video(frames: int, batch: int = 1, side: int = 16) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (batch, frames, side, side, 3)).astype(np.uint8)


def _in_chunks(video: np.ndarray, sizes: tuple[int, ...]) -> list[np.ndarray]:
    assert sum(sizes) == video.shape[1]
    return np.split(video, np.cumsum(sizes)[:-1], axis=1)


def test_tokens_and_frames_in_chunks_are_those_of_the_whole_video() -> None:
    model, video = _model(), _video(sum(CHUNKS), batch=2)
    tokens = list(model.encode_stream(_in_chunks(video, CHUNKS)))
    assert [chunk.shape[1] for chunk in tokens] == [1, 1, 4, 2, 1, 5]
    whole = model.encode(video)
    assert len(np.unique(whole)) > 5
    np.testing.assert_array_equal(np.concatenate(tokens, axis=1), whole)
    frames = np.concatenate(list(model.decode_stream(np.split(whole, [2, 3, 9], axis=1))), axis=1)
    # Values on the edge between two levels may fall to either side.
    assert np.abs(frames.astype(int) - model.decode(whole)).max() <= 1


def test_a_window_of_one_step_keeps_nothing() -> None:
    model, video = _model(dataclasses.replace(CONFIG, temporal_window=1)), _video(7)
    tokens = np.concatenate(list(model.encode_stream(_in_chunks(video, (3, 4)))), axis=1)
    np.testing.assert_array_equal(tokens, model.encode(video))


def test_what_is_older_than_the_windows_reach_is_forgotten() -> None:
    """Two layers of windows of three steps reach back four steps, from step 9 (frames 17, 18) to step 5 (9, 10)."""
    model, video = CViViT(CONFIG), pixels.to_float(jnp.asarray(_video(21)))

    @jax.jit
    @jax.grad
    def slope(video: jax.Array, params: dict) -> jax.Array:
        return jnp.sum(model.apply({"params": params}, video, method="quantize").features[:, 9])

    reached = np.any(np.asarray(slope(video, random_params(CONFIG)["tokenizer"])) != 0, axis=(0, 2, 3, 4))
    np.testing.assert_array_equal(np.flatnonzero(reached), np.arange(9, 19))


@pytest.mark.parametrize(
    ("chunk", "first_frame", "message"),
    [
        (_video(3), None, "3 frames cannot go on from others in steps of 2; the numbers nearest are 2 or 4"),
        (_video(1), None, "1 frame cannot .* 2 or 4: .*; the stream is at frame 5, and an image begins a new one"),
        (_video(0), None, "chunk: found an empty frames axis"),
        (_video(2, side=32), None, r"chunk of \[batch, height, width\] = \[1, 32, 32\], expected \[1, 16, 16\]"),
        (_video(2, batch=2), None, r"chunk of \[batch, height, width\] = \[2, 16, 16\], expected \[1, 16, 16\]"),
        (_video(2), 6, "chunk that begins with frame 6, expected frame 5, the next of the stream"),
    ],
)
def test_a_chunk_that_does_not_continue_its_stream_is_refused(
    chunk: np.ndarray, first_frame: int | None, message: str
) -> None:
    model = _model()
    stream = StreamEncoder(model.tokenizer, model.params["tokenizer"])
    stream.encode(_video(5), first_frame=0)
    with pytest.raises(UserError, match=message):
        stream.encode(chunk, first_frame)
    stream.encode(_video(2), first_frame=5)


def test_a_first_chunk_without_a_whole_step_is_refused() -> None:
    expected = r"2 frames are not 1 \+ k \* 2; .*; this is the first chunk, and later ones are of k \* 2 frames"
    with pytest.raises(UserError, match=expected):
        next(_model().encode_stream([_video(2)]))


def test_tokens_that_do_not_continue_their_stream_are_refused() -> None:
    model = _model()
    stream = StreamDecoder(model.tokenizer, model.params["tokenizer"])
    stream.decode(np.zeros((1, 2, 2, 2), np.int32))
    with pytest.raises(
        UserError, match=r"\[batch, rows, columns\] = \[1, 4, 4\], expected \[1, 2, 2\] as in the chunks before"
    ):
        stream.decode(np.zeros((1, 2, 4, 4), np.int32))
    with pytest.raises(UserError, match="16"):
        stream.decode(np.full((1, 1, 2, 2), 16, np.int32))
    with pytest.raises(UserError, match="begins with time step 3, expected time step 2, the next of the stream"):
        stream.decode(np.zeros((1, 2, 2, 2), np.int32), first_step=3)
    stream.decode(np.zeros((1, 2, 2, 2), np.int32), first_step=2)


@pytest.mark.slow
@pytest.mark.parametrize("kind", QUANTIZERS)
def test_a_thousand_frames_in_chunks_are_those_of_the_whole(kind: str) -> None:
    """Pixels as the model gives them, in [-1, 1], before they are rounded."""
    config = dataclasses.replace(CONFIG, quantizer=dataclasses.replace(CONFIG.quantizer, kind=kind, bits=6))
    model, video = CViViT(config), pixels.to_float(jnp.asarray(_video(1001)))
    run = functools.partial(
        jax.jit(model.apply, static_argnames="method"), {"params": random_params(config)["tokenizer"]}
    )
    encoded, drawn, past_of_encoder, past_of_decoder = [], [], None, None
    for start, end in itertools.pairwise([0, *range(11, 1002, 10)]):
        tokens, past_of_encoder = run(video[:, start:end], past_of_encoder, method="encode_chunk")
        frames, past_of_decoder = run(tokens, past_of_decoder, method="decode_chunk")
        encoded.append(tokens)
        drawn.append(frames)
    tokens = np.concatenate(encoded, axis=1)
    np.testing.assert_array_equal(tokens, run(video, method="encode"))
    np.testing.assert_allclose(np.concatenate(drawn, axis=1), run(tokens, method="decode"), atol=1e-4, rtol=0)


_STREAM = """
import pathlib, re, sys
import numpy as np
from phenaki_jax.inference.phenaki import Phenaki
from phenaki_jax.inference.testing import random_params
from phenaki_jax.tokenizer.config import CViViTConfig

config = CViViTConfig(frame_size=128, width=128, heads=4, mlp_width=512, spatial_layers=2, temporal_layers=2)
model = Phenaki(config, random_params(config))
chunks = (np.full((1, 11 if not i else 10, 128, 128, 3), i % 256, np.uint8) for i in range(int(sys.argv[1]) // 10))
print(sum(frames.shape[1] for frames in model.decode_stream(model.encode_stream(chunks))))
print(re.search(r"VmHWM:\\s*(\\d+)", pathlib.Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.slow
def test_the_memory_of_a_stream_does_not_grow_with_its_length() -> None:
    """Would it grow: 900 frames are 170 MiB in float32, keys and values of their steps 450; 15 % here are some 90."""
    peaks = {}
    for length in (101, 1001):
        done = subprocess.run([sys.executable, "-c", _STREAM, str(length)], capture_output=True, text=True, check=True)
        frames, peak = done.stdout.split()
        assert int(frames) == length
        peaks[length] = float(peak)
    assert peaks[1001] <= 1.15 * peaks[101]
