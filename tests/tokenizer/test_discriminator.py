"""The discriminator: any frame size and length, blur without aliases, padding that changes nothing."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phenaki_jax.errors import UserError
from phenaki_jax.layers.module import apply
from phenaki_jax.tokenizer.discriminator import Block, Discriminator, DiscriminatorConfig, Logits, blur_matrix, halve

KINDS = ("frames", "video")
DTYPES = (jnp.float32, jnp.bfloat16)


def _config(kind: str) -> DiscriminatorConfig:
    return DiscriminatorConfig(kind=kind, most_channels=8)


def _video(frames: int, batch: int = 2, height: int = 16, width: int = 16, seed: int = 0) -> jax.Array:
    return jax.random.uniform(jax.random.key(seed), (batch, frames, height, width, 3), minval=-1.0, maxval=1.0)


def _mask(frames: int, *lengths: int) -> jax.Array:
    return jnp.arange(frames)[None] < jnp.array(lengths)[:, None]


def _params(discriminator: Discriminator, video: jax.Array) -> dict:
    return nn.unbox(jax.jit(discriminator.init)(jax.random.key(1), video, jnp.ones(video.shape[:2], bool)))["params"]


def _judge(discriminator: Discriminator, params: dict, video: jax.Array, mask: jax.Array) -> Logits:
    return jax.jit(functools.partial(apply, discriminator))(params, video, mask)


def _valid_sum(logits: Logits) -> jax.Array:
    return jnp.sum(logits.values * logits.weights)


@pytest.mark.parametrize(
    ("height", "width", "frames", "blocks", "spans"),
    [(16, 16, 1, 2, 1), (16, 16, 11, 2, 3), (24, 24, 11, 3, 2), (40, 16, 5, 4, 1), (72, 128, 33, 5, 2)],
)
def test_frames_of_any_size_and_clips_of_any_length_are_judged(
    height: int, width: int, frames: int, blocks: int, spans: int
) -> None:
    """Of clips, time is halved by each block and rounded up: 11, 6, 3 by two."""
    video, mask = jax.ShapeDtypeStruct((2, frames, height, width, 3), jnp.float32), jnp.ones((2, frames), bool)
    for kind in KINDS:
        discriminator = Discriminator(_config(kind))
        logits, boxed = jax.eval_shape(discriminator.init_with_output, jax.random.key(0), video, mask)
        assert logits.values.shape == logits.weights.shape == (2, frames if kind == "frames" else spans)
        assert sum(name.startswith("block_") for name in boxed["params"]) == blocks


@pytest.mark.parametrize(("kind", "parameters"), [("frames", 23_880_833), ("video", 61_341_569)])
def test_at_the_papers_size_it_is_stylegans(kind: str, parameters: int) -> None:
    """Inputs times outputs of the 3x3 kernels, stem to last, are 2 081 152; the rest counts the same in 2-D and 3-D."""
    config = DiscriminatorConfig(kind)
    assert [config.channels_at(side) for side in (256, 128, 64, 32, 16, 4)] == [64, 128, 256, 512, 512, 512]
    video = jax.ShapeDtypeStruct((1, 11, 128, 128, 3), jnp.float32)
    boxed = jax.eval_shape(Discriminator(config).init, jax.random.key(0), video, jnp.ones((1, 11), bool))
    kernels = 2_081_152 * (9 if kind == "frames" else 27)
    skips = 128 * 256 + 256 * 512 + 3 * 512 * 512
    dense = 4 * 4 * 512 * 512 + 512
    biases = 128 + (128 + 256) + (256 + 512) + 3 * (512 + 512) + 512 + 512 + 1
    assert kernels + skips + dense + biases == parameters
    assert sum(leaf.size for leaf in jax.tree.leaves(nn.unbox(boxed))) == parameters


def test_the_multiplier_widens_layers_above_32_pixels() -> None:
    config = DiscriminatorConfig(channel_multiplier=2.0)
    assert [config.channels_at(side) for side in (128, 64, 32)] == [256, 512, 512]
    config = DiscriminatorConfig(channel_multiplier=0.5, most_channels=8)
    assert [config.channels_at(side) for side in (1024, 64, 32, 16)] == [1, 2, 4, 8]


def test_every_parameter_names_each_of_its_axes_once() -> None:
    for kind in KINDS:
        init = Discriminator(_config(kind)).init
        boxed = jax.eval_shape(init, jax.random.key(0), _video(1), jnp.ones((2, 1), bool))
        leaves = jax.tree.leaves(boxed, is_leaf=lambda leaf: isinstance(leaf, nn.LogicallyPartitioned))
        for leaf in leaves:
            assert len(set(leaf.names)) == leaf.value.ndim


@pytest.mark.parametrize(
    ("length", "columns"),
    [
        (1, [[1]]),
        (2, [[1 / 2, 1 / 2]]),
        (5, [[3 / 7, 3 / 7, 1 / 7, 0, 0], [0, 1 / 8, 3 / 8, 3 / 8, 1 / 8], [0, 0, 0, 1 / 4, 3 / 4]]),
        (6, [[3 / 7, 3 / 7, 1 / 7, 0, 0, 0], [0, 1 / 8, 3 / 8, 3 / 8, 1 / 8, 0], [0, 0, 0, 1 / 7, 3 / 7, 3 / 7]]),
    ],
)
def test_the_blur_weights_the_neighbours_there_are_by_1_3_3_1(length: int, columns: list[list[float]]) -> None:
    np.testing.assert_allclose(blur_matrix(length).T, columns, rtol=1e-6)


def test_halving_keeps_constants_also_at_borders_and_beside_padding() -> None:
    mask = _mask(11, 11, 4, 1)
    features = jnp.where(mask[:, :, None, None, None], jnp.full((3, 11, 24, 10, 2), 0.7), 1e6)
    halved, halved_mask = halve(features, mask)
    assert halved.shape == (3, 6, 12, 5, 2)
    np.testing.assert_array_equal(halved_mask, _mask(6, 6, 2, 1))
    np.testing.assert_allclose(halved[halved_mask], 0.7, rtol=1e-6)


def test_halving_ends_at_sides_of_4_and_at_one_time_step() -> None:
    features = jax.random.normal(jax.random.key(0), (1, 1, 4, 3, 2))
    halved, _ = halve(features, jnp.ones((1, 1), bool))
    np.testing.assert_array_equal(halved, features)


def test_halving_shows_no_alias_and_follows_shifts() -> None:
    """Of alternating values nothing is left within; what moves by two before moves by one after."""
    alternating = jnp.where(jnp.arange(16) % 2 == 0, 1.0, -1.0)
    halved, _ = halve(jnp.broadcast_to(alternating[:, None], (16, 16))[None, :, :, None], None)
    np.testing.assert_allclose(halved[0, 1:-1], 0.0, atol=1e-6)
    features = jax.random.normal(jax.random.key(0), (1, 16, 16, 2))
    halved, _ = halve(features, None)
    shifted, _ = halve(jnp.roll(features, 2, axis=2), None)
    np.testing.assert_allclose(shifted[:, :, 2:-1], halved[:, :, 1:-2], atol=1e-6)


def test_a_block_adds_its_blurred_input_and_divides_by_the_root_of_2() -> None:
    block, mask = Block(2), _mask(5, 5)
    features = jax.random.normal(jax.random.key(0), (1, 5, 8, 8, 2))
    params = nn.unbox(jax.jit(block.init)(jax.random.key(0), features, mask))["params"]
    params = jax.tree.map(jnp.zeros_like, params) | {"skip": jnp.eye(2)}
    halved, halved_mask = jax.jit(functools.partial(apply, block))(params, features, mask)
    np.testing.assert_allclose(halved, halve(features, mask)[0] / np.sqrt(2), atol=1e-6)
    np.testing.assert_array_equal(halved_mask, _mask(3, 3))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_in_padding_changes_nothing(kind: str) -> None:
    discriminator, mask = Discriminator(_config(kind)), _mask(5, 5, 3)
    video = _video(5)
    params = _params(discriminator, video)

    @jax.jit
    def judge(params: dict, video: jax.Array) -> tuple[jax.Array, ...]:
        def total(params: dict, video: jax.Array) -> tuple[jax.Array, Logits]:
            logits = apply(discriminator, params, video, mask)
            return _valid_sum(logits), logits

        gradients, logits = jax.grad(total, argnums=(0, 1), has_aux=True)(params, video)
        return logits, *gradients

    logits, gradient, pixels = judge(params, video)
    changed = jnp.where(mask[:, :, None, None, None], video, jnp.nan)
    other_logits, other_gradient, _ = judge(params, changed)
    np.testing.assert_array_equal(other_logits.values * logits.weights, logits.values * logits.weights)
    np.testing.assert_array_equal(other_logits.weights, logits.weights)
    jax.tree.map(np.testing.assert_array_equal, other_gradient, gradient)
    by_frame = np.abs(pixels).sum(axis=(2, 3, 4))
    assert ((by_frame > 0) == np.asarray(mask)).all()


@pytest.mark.parametrize("length", [0, 1, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_a_padded_clip_has_the_logits_of_the_clip_alone(kind: str, length: int) -> None:
    discriminator, video = Discriminator(_config(kind)), _video(11, batch=1)
    params = _params(discriminator, video)
    padded = _judge(discriminator, params, video, _mask(11, length))
    alone = _judge(discriminator, params, video[:, :length], _mask(length, length)) if length else Logits([[]], [[]])
    valid = np.asarray(padded.weights) == 1
    np.testing.assert_allclose(padded.values[valid][None], alone.values, rtol=1e-4, atol=1e-5)
    assert np.isfinite(padded.values).all()
    np.testing.assert_array_equal(padded.weights[valid][None], alone.weights)


@pytest.mark.parametrize("kind", KINDS)
def test_only_video_sees_the_order_of_frames(kind: str) -> None:
    discriminator, video = Discriminator(_config(kind)), _video(5)
    params, mask, order = _params(discriminator, video), jnp.ones((2, 5), bool), jnp.array([4, 1, 0, 3, 2])
    values = np.asarray(_judge(discriminator, params, video, mask).values)
    shuffled = np.asarray(_judge(discriminator, params, video[:, order], mask).values)
    if kind == "frames":
        np.testing.assert_allclose(shuffled, values[:, np.asarray(order)], atol=1e-5)
    else:
        assert (np.abs(shuffled - values) > 1e-4).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=("float32", "bfloat16"))
@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_has_a_finite_gradient_also_through_a_gradient(kind: str, dtype: jnp.dtype) -> None:
    discriminator, mask = Discriminator(_config(kind), dtype), _mask(3, 3, 1)
    video = _video(3)
    params = _params(discriminator, video)

    def of_logits(params: dict) -> jax.Array:
        logits = apply(discriminator, params, video, mask)
        assert logits.values.dtype == jnp.float32
        return jnp.sum(logits.values**2 * logits.weights)

    def of_pixels(params: dict) -> jax.Array:
        pixels = jax.grad(lambda video: _valid_sum(apply(discriminator, params, video, mask)))(video)
        assert pixels.dtype == jnp.float32
        return jnp.sum(pixels**2)

    first, second = jax.jit(lambda params: (jax.grad(of_logits)(params), jax.grad(of_pixels)(params)))(params)
    assert all(np.isfinite(leaf).all() and np.abs(leaf).sum() > 0 for leaf in jax.tree.leaves(first))
    # A leaky ReLU bends at 0 alone, so biases do not change the gradient of pixels.
    kernels = [leaf for leaf in jax.tree.leaves(second) if leaf.ndim > 1]
    assert all(np.isfinite(leaf).all() and np.abs(leaf).sum() > 0 for leaf in kernels)


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_says_nearly_what_float32_says(kind: str) -> None:
    video, mask = _video(3), jnp.ones((2, 3), bool)
    params = _params(Discriminator(_config(kind)), video)
    exact, rounded = (_judge(Discriminator(_config(kind), dtype), params, video, mask).values for dtype in DTYPES)
    assert np.abs(rounded - exact).max() < 0.05 * np.abs(exact).max()


def test_computing_again_changes_no_gradient() -> None:
    kept = Discriminator(_config("video"))
    again = Discriminator(dataclasses.replace(_config("video"), remat=True))
    video, mask = _video(3), _mask(3, 3, 1)
    params = _params(kept, video)
    gradients, convolutions = [], []
    for each in (kept, again):
        gradient = jax.grad(lambda params, each=each: _valid_sum(apply(each, params, video, mask)))
        convolutions.append(str(jax.make_jaxpr(gradient)(params)).count("conv_general_dilated["))
        gradients.append(jax.jit(gradient)(params))
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5), *gradients)
    # Both of each of the two blocks once more.
    assert convolutions[1] == convolutions[0] + 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "patches"}, "discriminator 'patches' is unknown; known are frames and video"),
        ({"channel_multiplier": 0.0}, "channel_multiplier 0.0"),
        ({"channel_multiplier": float("nan")}, "channel_multiplier nan"),
        ({"most_channels": 0}, "most_channels 0"),
    ],
)
def test_what_no_discriminator_can_be_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        DiscriminatorConfig(**changes)
