"""C-ViViT: causal in time exactly, any 1 + k * p frames, images as one frame."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phenaki_jax.errors import UserError
from phenaki_jax.inference.parameters import init_params
from phenaki_jax.inference.testing import random_params
from phenaki_jax.tokenizer.config import POSITIONS, CViViTConfig, QuantizerConfig
from phenaki_jax.tokenizer.cvivit import CViViT, stem_gradients

QUANTIZERS = {
    "cosine_vq": QuantizerConfig(kind="cosine_vq", codes=64, code_width=8),
    "cosine_vq_ema": QuantizerConfig(kind="cosine_vq_ema", codes=64, code_width=8),
    "fsq": QuantizerConfig(kind="fsq", levels=(8, 5, 5)),
    "lfq": QuantizerConfig(kind="lfq", bits=8),
    "bsq": QuantizerConfig(kind="bsq", bits=8),
}


def _config(kind: str = "fsq", **changes: object) -> CViViTConfig:
    config = CViViTConfig(
        frames=5,
        frame_size=16,
        patch=8,
        width=16,
        heads=2,
        mlp_width=32,
        spatial_layers=2,
        temporal_layers=2,
        quantizer=QUANTIZERS[kind],
    )
    return dataclasses.replace(config, **changes)


def _model(config: CViViTConfig) -> tuple[CViViT, dict]:
    return CViViT(config), jax.tree.map(jnp.asarray, random_params(config)["tokenizer"])


def _video(frames: int, batch: int = 1, size: int = 16, seed: int = 0) -> jax.Array:
    return jax.random.uniform(jax.random.key(seed), (batch, frames, size, size, 3), minval=-1.0, maxval=1.0)


def _looks_ahead(frame_of_gradient: np.ndarray, temporal_patch: int) -> list[tuple[int, int]]:
    """Pairs (output, input) of frames with the input in a later time step and a gradient that is not exactly 0."""
    step = lambda frame: -(-frame // temporal_patch)  # noqa: E731
    frames = frame_of_gradient.shape[0]
    return [
        (out, into)
        for out in range(frames)
        for into in range(frames)
        if step(into) > step(out) and frame_of_gradient[out, into] != 0
    ]


@pytest.mark.parametrize(
    ("kind", "tied_stems", "frames", "temporal_patch"),
    [*((kind, False, 5, 2) for kind in QUANTIZERS), ("fsq", True, 7, 2), ("cosine_vq", True, 7, 3)],
)
def test_no_output_frame_has_a_gradient_from_an_input_frame_of_a_later_time_step(
    kind: str, tied_stems: bool, frames: int, temporal_patch: int
) -> None:
    """Frames of one time step, which one token stands for, see each other (Phenaki, section 2.1)."""
    model, params = _model(_config(kind, frames=frames, temporal_patch=temporal_patch, tied_stems=tied_stems))

    def frame_sums(video: jax.Array) -> jax.Array:
        reconstruction, _ = model.apply({"params": params}, video)
        return jnp.sum(reconstruction**2, axis=(0, 2, 3, 4))

    gradient = np.asarray(jax.jit(jax.jacrev(frame_sums))(_video(frames)))
    by_frame = np.abs(gradient).sum(axis=(1, 3, 4, 5))
    assert _looks_ahead(by_frame, temporal_patch) == []
    assert (np.diagonal(by_frame) > 0).all(), "every frame must depend on itself, or the check sees nothing"
    assert by_frame[-1, 0] > 0, "the last frame must depend on the first"


def test_decoder_alone_has_no_gradient_from_later_tokens() -> None:
    config = _config(frames=9)
    model, params = _model(config)
    features = jax.random.normal(jax.random.key(1), (1, 5, 2, 2, config.width))

    def frame_sums(features: jax.Array) -> jax.Array:
        return jnp.sum(model.apply({"params": params}, features, method="draw") ** 2, axis=(0, 2, 3, 4))

    by_time = np.abs(np.asarray(jax.jit(jax.jacrev(frame_sums))(features))).sum(axis=(1, 3, 4, 5))
    for frame in range(9):
        time = -(-frame // 2)
        assert (by_time[frame, time + 1 :] == 0).all()
        assert by_time[frame, time] > 0


@pytest.mark.parametrize("kind", QUANTIZERS)
def test_tokens_of_a_prefix_are_the_prefix_of_the_tokens(kind: str) -> None:
    config = _config(kind)
    model, params = _model(config)
    video = _video(41, size=16)
    encode = jax.jit(lambda video: model.apply({"params": params}, video, method="encode"))
    whole = np.asarray(encode(video))
    assert len(np.unique(whole)) > 5
    for frames in (1, 3, 11, 21):
        np.testing.assert_array_equal(np.asarray(encode(video[:, :frames])), whole[:, : config.times(frames)])


@pytest.mark.parametrize("frames", [1, 3, 5, 11])
def test_reconstruction_has_the_shape_of_the_video(frames: int) -> None:
    model, params = _model(_config())
    video = _video(frames, batch=2, size=24)
    reconstruction, quantized = jax.eval_shape(lambda video: model.apply({"params": params}, video), video)
    assert reconstruction.shape == video.shape
    assert quantized.indices.shape == (2, 1 + frames // 2, 3, 3)


@pytest.mark.parametrize("positions", POSITIONS)
def test_every_kind_of_positions_tells_places_apart(positions: str) -> None:
    """Without positions, sites that are exchanged would exchange their features and change no other."""
    model, params = _model(_config(positions=positions, frame_size=24))
    features = jax.jit(lambda video: model.apply({"params": params}, video, method="quantize").features)
    video = _video(1, size=24)
    exchanged = jnp.concatenate([video[:, :, :, 8:16], video[:, :, :, :8], video[:, :, :, 16:]], axis=3)
    before, after = (np.asarray(features(each))[0, 0] for each in (video, exchanged))
    assert np.abs(after[:, :2] - before[:, [1, 0]]).max() > 1e-2


def test_decoding_the_tokens_is_the_reconstruction() -> None:
    model, params = _model(_config())
    video = _video(5)
    reconstruction, quantized = model.apply({"params": params}, video)
    decoded = model.apply({"params": params}, quantized.indices, method="decode")
    np.testing.assert_allclose(decoded, reconstruction, atol=1e-5)


def test_tied_stems_give_a_patch_at_rest_one_code_in_every_time_step() -> None:
    still = jnp.repeat(_video(1, seed=3), 5, axis=1)
    model, params = _model(_config(tied_stems=True))
    tokens = np.asarray(model.apply({"params": params}, still, method="encode"))
    assert (tokens == tokens[:, :1]).all()
    model, params = _model(_config(tied_stems=False))
    tokens = np.asarray(model.apply({"params": params}, still, method="encode"))
    assert (tokens != tokens[:, :1]).any()


@pytest.mark.parametrize(("frames", "near"), [(2, "1 or 3"), (10, "9 or 11"), (0, "1 or 3")])
def test_other_lengths_are_refused_with_the_lengths_nearest(frames: int, near: str) -> None:
    with pytest.raises(UserError, match=f"{frames} frames are not 1 \\+ k \\* 2; the lengths nearest are {near}"):
        _config().times(frames)


def test_frames_that_patches_do_not_cover_are_refused() -> None:
    with pytest.raises(UserError, match="20x24 pixels do not fall into patches of 8"):
        _config().check_frame_shape(20, 24)
    with pytest.raises(UserError, match="patch 7 does not divide"):
        _config(patch=7)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"positions": "learned"}, "positions 'learned' are unknown; known are rotary, sinusoidal, rotary_sinusoidal"),
        ({"temporal_window": 0}, "temporal_window 0 must be at least 1"),
        ({"temporal_layers": 0}, "found temporal_layers 0, expected at least 1"),
        ({"width": 4, "heads": 2}, "4 over 2 heads leaves 2 features each, expected at least 4"),
        ({"width": 2, "heads": 1, "positions": "sinusoidal"}, "width 2 must be at least 4"),
    ],
)
def test_impossible_models_are_refused(settings: dict, line: str) -> None:
    with pytest.raises(UserError, match=line):
        _config(**settings)


_PARAMS = jax.eval_shape(lambda: init_params(_config(), jax.random.key(0)))["tokenizer"]


def _traced(method: str, *inputs: object) -> Any:
    """The shapes that a method returns; nothing is computed."""
    run = lambda params, *inputs: CViViT(_config()).apply({"params": nn.unbox(params)}, *inputs, method=method)  # noqa: E731
    return jax.eval_shape(run, _PARAMS, *inputs)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("method", "inputs", "line"),
    [
        ("encode", [np.zeros((5, 16, 16, 3), np.float32)], r"video: found shape \[5, 16, 16, 3\], .* video\[None\]"),
        (
            "encode",
            [np.zeros((1, 5, 16, 16, 1), np.float32)],
            r"found shape \[1, 5, 16, 16, 1\], expected .* width, 3\]",
        ),
        (
            "encode",
            [np.zeros((1, 5, 16, 16, 3), np.uint8)],
            r"video: found uint8, expected floats in \[-1, 1\]; convert",
        ),
        (
            "quantize",
            [np.zeros((1, 5, 16, 16, 3), np.float32), np.ones((1, 5), bool)],
            r"time_mask: found shape \[1, 5\], expected \[1, 3\]",
        ),
        ("decode", [np.zeros((1, 3, 2, 2), np.float32)], "code indices of type float32, expected whole numbers"),
        ("decode", [np.zeros((3, 2, 2), np.int32)], r"tokens: found shape \[3, 2, 2\], .* tokens\[None\]"),
        ("decode_chunk", [np.zeros((3, 2, 2), np.int32), None], r"tokens: found shape \[3, 2, 2\], .* tokens\[None\]"),
    ],
)
def test_what_does_not_fit_is_refused_from_its_shape(method: str, inputs: list, line: str) -> None:
    with pytest.raises(UserError, match=line):
        _traced(method, *inputs)


@pytest.mark.parametrize(("batch", "height", "width"), [(2, 16, 16), (1, 32, 32), (1, 8, 32)])
def test_a_past_of_another_grid_is_refused(batch: int, height: int, width: int) -> None:
    """Of 8 x 32 pixels there are as many sites as of 16 x 16."""
    tokens, past = _traced("encode_chunk", _video(3), None)
    chunk = _video(2, size=32)[:, :, :height, :width].repeat(batch, axis=0)
    line = rf"past of \[batch, rows, columns\] = \[1, 2, 2\], expected \[{batch}, {height // 8}, {width // 8}\]"
    with pytest.raises(UserError, match=line):
        _traced("encode_chunk", chunk, past)
    _, past = _traced("decode_chunk", tokens, None)
    with pytest.raises(UserError, match=line):
        _traced("decode_chunk", jnp.zeros((batch, 1, height // 8, width // 8), jnp.int32), past)


def test_a_past_of_the_encoder_is_none_of_the_decoder() -> None:
    tokens, past = _traced("encode_chunk", _video(3), None)
    with pytest.raises(UserError, match="found a past of the encoder, expected what the decoder returned"):
        _traced("decode_chunk", tokens, past)
    _, past = _traced("decode_chunk", tokens, None)
    with pytest.raises(UserError, match="found a past of the decoder, expected what the encoder returned"):
        _traced("encode_chunk", _video(2), past)


@pytest.mark.parametrize("tied_stems", [False, True])
def test_gradients_of_stems_are_those_of_the_layers_that_frames_go_through(tied_stems: bool) -> None:
    """Layers (first, later) are what the parameters (first, later - first over time) make."""
    config = _config(tied_stems=tied_stems)
    model, params = _model(config)
    video = _video(5)

    def loss(params: dict) -> jax.Array:
        return jnp.mean((model.apply({"params": params}, video)[0] - video) ** 2)

    def parameters(layers: dict) -> dict:
        over_time = {"stem": jnp.tile(layers["first_stem"] / 2, (2, 1)), "head": jnp.tile(layers["first_head"], (1, 2))}
        later = {f"later_{name}": layers[f"later_{name}"] - kernel for name, kernel in over_time.items()}
        return {**params, **layers, **later}

    over_time = {"stem": jnp.tile(params["first_stem"] / 2, (2, 1)), "head": jnp.tile(params["first_head"], (1, 2))}
    layers = {name: params[name] for name in ("first_stem", "first_head")}
    layers |= {f"later_{name}": params[f"later_{name}"] + kernel for name, kernel in over_time.items()}
    gradients = jax.jit(jax.grad(loss))(params)
    found = stem_gradients(config, gradients)
    if tied_stems:
        assert all(found[name] is gradients[name] for name in found)
        return
    expected = jax.jit(jax.grad(lambda layers: loss(parameters(layers))))(layers)
    for name in ("first_stem", "later_stem", "first_head", "later_head"):
        np.testing.assert_allclose(found[name], expected[name], atol=1e-5 * np.abs(expected[name]).max())
    of_parameter, of_first_frame = (np.linalg.norm(tree["first_stem"]) for tree in (gradients, found))
    assert abs(of_parameter / of_first_frame - 1) > 0.1


@pytest.mark.parametrize(
    ("video", "line"),
    [
        (np.full((1, 1, 16, 16, 3), np.nan, np.float32), "video: found float32 with NaN or infinite values"),
        (
            np.linspace(0, 255, 768, dtype=np.float32).reshape(1, 1, 16, 16, 3),
            r"video: found float32 in 0\.\.255, expected floats in \[-1, 1\]; divide video by 127\.5 and subtract 1",
        ),
        (np.full((1, 1, 16, 16, 3), -1.5, np.float32), r"found float32 in -1\.5\.\.-1\.5, .* clip video to it"),
    ],
)
def test_pixels_that_are_known_are_refused_from_their_range(video: np.ndarray, line: str) -> None:
    model, params = _model(_config())
    with pytest.raises(UserError, match=line):
        model.apply({"params": params}, jnp.asarray(video), method="encode")


@pytest.mark.parametrize("index", [-1, 200])
def test_codes_that_are_not_in_the_codebook_are_refused(index: int) -> None:
    """Here they are known while the parameters are traced."""
    tokens = jnp.full((1, 1, 2, 2), index)
    run = lambda params: CViViT(_config()).apply({"params": params}, tokens, method="decode")  # noqa: E731
    with pytest.raises(UserError, match=f"from {index} to {index}, expected 0 to 199"):
        jax.eval_shape(run, nn.unbox(_PARAMS))
