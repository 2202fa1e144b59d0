"""Quantizers: codes and indices go round, gradients pass, padding counts for nothing, and values are those by hand."""

import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.extend.core import ClosedJaxpr, Jaxpr
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from benchmarks.quantizer_oracles import CASES, FIXTURES, TOLERANCE, differences
from phenaki_jax.errors import UserError
from phenaki_jax.tokenizer.config import QUANTIZERS, QuantizerConfig
from phenaki_jax.tokenizer.quantizers import (
    CodebookAverages,
    check_indices,
    initial_averages,
    join_index,
    make_quantizer,
    split_index,
    update_codebook,
)
from phenaki_jax.tokenizer.quantizers.binary import bit_entropy, code_entropy
from phenaki_jax.tokenizer.quantizers.cosine_vq import nearest_code
from phenaki_jax.tokenizer.quantizers.moving_averages import codebook_statistics

CONFIGS = {kind: QuantizerConfig(kind, codes=32, code_width=4, levels=(4, 5), bits=5) for kind in QUANTIZERS}
LARGE = {
    "cosine_vq": QuantizerConfig("cosine_vq", codes=2**18),
    "cosine_vq_ema": QuantizerConfig("cosine_vq_ema", codes=2**18),
    "fsq": QuantizerConfig("fsq", levels=(8, 8, 8, 8, 8, 8)),
    "lfq": QuantizerConfig("lfq", bits=18),
    "lfq in groups": QuantizerConfig("lfq", bits=18, entropy_group=9),
    "bsq": QuantizerConfig("bsq", bits=18),
}
TERMS = {
    "cosine_vq": {"commitment": 0.25, "codebook": 1.0},
    "cosine_vq_ema": {"commitment": 0.25},
    "fsq": {},
    "lfq": {"commitment": 0.25, "token_entropy": 0.1, "code_entropy": -0.1},
    "bsq": {"commitment": 0.25, "token_entropy": 0.1, "code_entropy": -0.1},
}

RESTART = {"restart": jax.random.key(0)}


def _made(config: QuantizerConfig, shape: tuple[int, ...] = (3, 7, 8)) -> tuple[Any, Any, np.ndarray]:
    """A quantizer's `apply`, parameters, and features of some tokens."""
    quantizer = make_quantizer(config, shape[-1])
    features = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    params = nn.unbox(jax.jit(quantizer.init)(jax.random.key(1), features))
    return jax.jit(quantizer.apply, static_argnames="method"), jax.tree.map(np.array, params), features


_update = jax.jit(update_codebook, static_argnums=0)
_observe = jax.jit(codebook_statistics, static_argnums=0)


@pytest.mark.parametrize("kind", QUANTIZERS)
def test_looking_up_the_indices_gives_the_quantized_features(kind: str) -> None:
    apply, params, features = _made(CONFIGS[kind])
    quantized = apply(params, features)
    looked_up = apply(params, quantized.indices, method="lookup")
    np.testing.assert_allclose(looked_up, quantized.features, atol=1e-5)
    assert quantized.indices.dtype == jnp.int32
    check_indices(CONFIGS[kind], np.asarray(quantized.indices))
    assert len(np.unique(quantized.indices)) > 3


@pytest.mark.parametrize("kind", QUANTIZERS)
def test_every_index_has_a_code_of_its_own_and_every_code_its_index(kind: str) -> None:
    apply, params, _ = _made(CONFIGS[kind])
    every = np.arange(CONFIGS[kind].codebook_size, dtype=np.int32)
    codes = apply(params, every, method="codes")
    assert codes.shape == (len(every), CONFIGS[kind].dimensions)
    np.testing.assert_array_equal(apply(params, codes, method="indices"), every)
    if kind not in ("fsq", "lfq"):
        np.testing.assert_allclose(np.linalg.norm(codes, axis=1), 1.0, rtol=1e-5)


@pytest.mark.parametrize("kind", QUANTIZERS)
def test_the_gradient_passes_straight_through(kind: str) -> None:
    """It is that of the output projection after the vectors before they are quantized, whatever the codes are."""
    apply, params, features = _made(CONFIGS[kind], (5, 8))
    gradient = jax.jit(jax.grad(lambda features: jnp.sum(apply(params, features).features[:, 0])))(features)
    kernels = [params["params"][name]["kernel"] for name in ("into_code", "out_of_code")]

    def unquantized(features: jax.Array) -> jax.Array:
        projected = features @ kernels[0]
        if kind in ("cosine_vq", "cosine_vq_ema", "bsq"):
            projected /= jnp.linalg.norm(projected, axis=-1, keepdims=True)
        if kind == "fsq":
            # Levels 4 and 5: half a range of 1.5 and 2 and a thousandth more, over 2 as codes; 4 are off centre by .5.
            half_range = jnp.array([1.5, 2.0]) * 1.001
            projected = jnp.tanh(projected + jnp.arctanh(jnp.array([0.5, 0.0]) / half_range)) * half_range / 2
        return jnp.sum(projected @ kernels[1][:, 0])

    expected = jax.jit(jax.grad(unquantized))(features)
    assert (np.abs(expected).sum(axis=1) > 0).all()
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", QUANTIZERS)
def test_gradients_are_finite_for_features_of_any_size(kind: str) -> None:
    apply, params, features = _made(CONFIGS[kind])
    features *= np.array([0.0, 1e-20, 1e4], np.float32)[:, None, None]

    def loss(params: Any, features: jax.Array) -> jax.Array:
        quantized = apply(params, features)
        return quantized.loss + jnp.sum(quantized.features**2)

    gradients = jax.jit(jax.grad(loss, argnums=(0, 1)))(params, features)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


@pytest.mark.parametrize("kind", QUANTIZERS)
def test_the_loss_is_the_weighted_sum_of_the_terms(kind: str) -> None:
    apply, params, features = _made(CONFIGS[kind])
    quantized = apply(params, features, rngs=RESTART)
    assert set(quantized.terms) == set(TERMS[kind])
    total = sum(weight * float(quantized.terms[name]) for name, weight in TERMS[kind].items())
    np.testing.assert_allclose(quantized.loss, total, atol=1e-6)
    assert set(quantized.statistics) == ({"counts", "sums", "candidates"} if "cosine" in kind else set())
    assert apply(params, features).statistics == {}


@pytest.mark.parametrize("kind", QUANTIZERS)
def test_padding_counts_for_nothing(kind: str) -> None:
    """Loss, terms and statistics are those of the valid tokens alone, and padding gets no gradient of the loss."""
    apply, params, features = _made(CONFIGS[kind])
    valid = np.arange(7) < np.array([[7], [2], [0]])
    padded = np.where(valid[..., None], features, np.float32(1000.0))
    masked, alone = jax.tree.map(np.asarray, (apply(params, padded, valid), apply(params, features[valid])))
    if masked.statistics:
        assert (np.abs(masked.statistics.pop("candidates")).sum(axis=1) > 0).sum() == 9
        alone.statistics.pop("candidates")
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, atol=1e-5), masked[2:], alone[2:])
    gradient = np.asarray(jax.jit(jax.grad(lambda features: apply(params, features, valid).loss))(padded))
    assert (gradient[~valid] == 0).all()
    assert kind == "fsq" or (np.abs(gradient[valid]).sum(axis=1) > 0).all()
    nothing = apply(params, padded, np.zeros_like(valid))
    assert all(float(value) == 0 for value in (nothing.loss, *nothing.terms.values()))


def test_cosine_vq_takes_the_code_of_the_smallest_angle_and_trains_its_codebook() -> None:
    apply, params, features = _made(CONFIGS["cosine_vq"], (50, 4))
    projected = features @ params["params"]["into_code"]["kernel"]
    cosine = _directions(projected) @ _directions(params["params"]["codebook"]).T
    quantized = apply(params, features)
    np.testing.assert_array_equal(quantized.indices, np.argmax(cosine, axis=1))
    np.testing.assert_allclose(quantized.loss, np.mean(1.25 * (2 - 2 * np.max(cosine, axis=1))), atol=1e-5)
    gradient = jax.jit(jax.grad(lambda params: apply(params, features).loss))(params)["params"]["codebook"]
    assert (np.abs(gradient[np.unique(quantized.indices)]).sum(axis=1) > 0).all()


def _directions(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@pytest.mark.parametrize("at_once", [1, 5, 31, 32, 33])
def test_the_nearest_code_is_the_same_by_blocks(at_once: int) -> None:
    """Also where the last block overlaps the one before; of equally near codes, of which there are many, the first."""
    rng = np.random.default_rng(0)
    vectors, codebook = (rng.integers(-3, 4, (rows, 4)).astype(np.float32) for rows in (100, 32))
    codebook[-1] = 4.0
    similarity = vectors @ codebook.T
    assert {0, 31} < set(np.argmax(similarity, axis=1).tolist())
    assert (np.sum(similarity == np.max(similarity, axis=1, keepdims=True), axis=1) > 1).sum() > 10
    found = jax.jit(nearest_code, static_argnums=2)(vectors, codebook, at_once)
    np.testing.assert_array_equal(found, np.argmax(similarity, axis=1))


def test_fsq_reaches_every_code_and_counts_its_first_dimension_fastest() -> None:
    apply, params, _ = _made(CONFIGS["fsq"], (1, 2))
    grid = np.stack(np.meshgrid(*[np.linspace(-4, 4, 60, dtype=np.float32)] * 2), axis=-1).reshape(-1, 2)
    params["params"]["into_code"]["kernel"] = np.eye(2, dtype=np.float32)
    assert len(np.unique(apply(params, grid).indices)) == 20
    # The second of the levels -1, -1/2, 0, 1/2, and the fourth of -1, -1/2, 0, 1/2, 1.
    assert int(apply(params, np.array([-0.5, 0.5], np.float32), method="indices")) == 1 + 4 * 3


@pytest.mark.parametrize(("kind", "value"), [("lfq", 1.0), ("bsq", 0.5)])
def test_binary_codes_are_signs_and_the_first_is_the_highest_bit(kind: str, value: float) -> None:
    apply, params, _ = _made(QuantizerConfig(kind, bits=4))
    signs = apply(params, np.array([0, 8, 5], np.int32), method="codes")
    np.testing.assert_allclose(signs, value * np.array([[-1, -1, -1, -1], [1, -1, -1, -1], [-1, 1, -1, 1]]))
    assert int(apply(params, np.array([0.1, -3.0, 0.0, 2.0], np.float32), method="indices")) == 8 + 1


def test_bit_entropy_is_that_of_a_coin() -> None:
    """Even odds are ln 2; odds of 3 to 1 are ln 4 - 3/4 ln 3; it does not drown in rounding where it is almost 0."""
    logits = np.array([0.0, math.log(3), -math.log(3), 30.0, -30.0, -300.0], np.float32)
    expected = [math.log(2), *[math.log(4) - 0.75 * math.log(3)] * 2, *[31 * math.exp(-30)] * 2, 0.0]
    entropies, gradients = jax.jit(jax.vmap(jax.value_and_grad(bit_entropy)))(logits)
    np.testing.assert_allclose(entropies, expected, rtol=1e-5)
    np.testing.assert_allclose(gradients[:2], [0.0, -math.log(3) * 3 / 16], atol=1e-6)


@pytest.mark.parametrize("kind", ["lfq", "bsq"])
def test_entropies_are_those_of_the_softmax_over_all_codes(kind: str) -> None:
    """Over squared distances to all 32 codes, as MAGVIT-v2 and BSQ define them."""
    apply, params, features = _made(dataclasses.replace(CONFIGS[kind], temperature=0.5))
    codes = np.asarray(apply(params, np.arange(32, dtype=np.int32), method="codes"))
    projected = features.reshape(-1, 8) @ params["params"]["into_code"]["kernel"]
    distances = np.sum(((projected if kind == "lfq" else _directions(projected))[:, None] - codes) ** 2, axis=-1)
    shares = np.exp(-distances / 0.5) / np.sum(np.exp(-distances / 0.5), axis=1, keepdims=True)
    average = np.mean(shares, axis=0)
    terms = apply(params, features).terms
    np.testing.assert_allclose(terms["token_entropy"], -np.sum(shares * np.log(shares)) / 21, rtol=1e-4)
    np.testing.assert_allclose(terms["code_entropy"], -np.sum(average * np.log(average)), rtol=1e-4)
    nearest = np.min(distances, axis=1) / (5 if kind == "lfq" else 1)
    np.testing.assert_allclose(terms["commitment"], np.mean(nearest), rtol=1e-4)


def test_groups_of_bits_count_what_they_share_twice() -> None:
    """Three bits always alike, on in half of the tokens: ln 2 together, three times that as if independent."""
    entropy = jax.jit(lambda logits, group: code_entropy(logits, None, group), static_argnums=1)
    alike = np.array([[50.0] * 3, [-50.0] * 3], np.float32)
    for group, times in ((1, 3), (2, 2), (3, 1), (18, 1)):
        np.testing.assert_allclose(entropy(alike, group), times * math.log(2), rtol=1e-5)
    every = np.array([[100.0 * (code >> bit & 1) - 50.0 for bit in range(3)] for code in range(8)], np.float32)
    for group in (1, 2, 3):
        np.testing.assert_allclose(entropy(every, group), math.log(8), rtol=1e-5)


def _largest_array(jaxpr: Jaxpr) -> int:
    """Elements of the largest array that any equation makes, those inside of loops and calls included."""
    largest = 0
    for equation in jaxpr.eqns:
        sizes = [math.prod(getattr(variable.aval, "shape", ())) for variable in equation.outvars]
        inner = jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: isinstance(x, Jaxpr | ClosedJaxpr))
        parts = [part.jaxpr if isinstance(part, ClosedJaxpr) else part for part in inner]
        sizes += [_largest_array(part) for part in parts if isinstance(part, Jaxpr)]
        largest = max(largest, *sizes, 0)
    return largest


@pytest.mark.parametrize("name", LARGE)
def test_no_array_has_an_entry_for_each_token_and_each_of_many_codes(name: str) -> None:
    """Nothing in the loss and its gradient over 2^18 codes is larger than the codebook or a block of similarities."""
    tokens, config = 4096, LARGE[name]
    quantizer = make_quantizer(config, 64)
    features = jax.ShapeDtypeStruct((4, tokens // 4, 64), jnp.float32)
    valid = jax.ShapeDtypeStruct((4, tokens // 4), jnp.bool_)
    params = nn.unbox(jax.eval_shape(quantizer.init, jax.random.key(0), features))

    def loss(params: Any, features: jax.Array, valid: jax.Array) -> tuple[jax.Array, Any]:
        quantized = quantizer.apply(params, features, valid)
        return quantized.loss + jnp.sum(quantized.features**2), quantized

    step = jax.make_jaxpr(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(params, features, valid)
    assert config.codebook_size == 2**18
    assert tokens * 64 <= _largest_array(step.jaxpr) <= max(tokens * 8192, 2**18 * 32)


def test_the_search_for_large_arrays_finds_them_in_loops() -> None:
    """The check above would see similarities of all tokens and codes, and those of a block in each turn of a loop."""
    vectors, codebook = jax.ShapeDtypeStruct((80, 4), jnp.float32), jax.ShapeDtypeStruct((100, 4), jnp.float32)
    for at_once in (100, 10):
        made = jax.make_jaxpr(nearest_code, static_argnums=2)(vectors, codebook, at_once)
        assert _largest_array(made.jaxpr) == 80 * at_once


# Moving averages of two codes of two features: along x, and along y.
PAIR = QuantizerConfig("cosine_vq_ema", codes=2, code_width=2, decay=0.5, restart=0.25)
AXES = np.eye(2, dtype=np.float32)
RNG = jax.random.key(0)


def _all_take_the_first(vector: list[float]) -> dict[str, jax.Array]:
    """Statistics of eight tokens that are this vector, and of code 0."""
    return _observe(PAIR, np.array([vector] * 8, np.float32), np.zeros(8, np.int32), None, RNG)


def test_codes_become_the_direction_of_their_average_sum() -> None:
    """Half of what was, (4, 0) and (0, 4), and half of (0, 8) and nothing: (2, 4), and (0, 2) which stays."""
    averages = CodebookAverages(np.full(2, 4.0, np.float32), 4 * AXES)
    codebook, averages, _ = _update(PAIR, 0.5 * AXES, averages, _all_take_the_first([0.0, 1.0]), RNG)
    np.testing.assert_allclose(codebook, [[1 / math.sqrt(5), 2 / math.sqrt(5)], [0.0, 1.0]], rtol=1e-6)
    np.testing.assert_allclose(averages.counts, [6.0, 2.0])
    np.testing.assert_allclose(averages.sums, [[2.0, 4.0], [0.0, 2.0]])


def test_a_code_that_is_seldom_taken_begins_anew_as_a_token_with_the_mean_count() -> None:
    """After eight tokens more, counts are 8 and .5: the second is below a quarter of their mean, 4.25."""
    before = CodebookAverages(np.array([8.0, 1.0], np.float32), np.array([[8.0, 0.0], [0.0, 1.0]], np.float32))
    statistics = _all_take_the_first([0.6, -0.8])
    codebook, averages, _ = _update(PAIR, AXES, before, statistics, RNG)
    np.testing.assert_allclose(codebook[1], [0.6, -0.8], rtol=1e-6)
    np.testing.assert_allclose(averages.counts, [8.0, 4.25])
    np.testing.assert_allclose(averages.sums[1], [4.25 * 0.6, -4.25 * 0.8], rtol=1e-6)
    for restart in (0.0, 0.1):
        codebook, averages, _ = _update(dataclasses.replace(PAIR, restart=restart), AXES, before, statistics, RNG)
        np.testing.assert_allclose(codebook[1], [0.0, 1.0])
        np.testing.assert_allclose(averages.counts, [8.0, 0.5])


def test_a_code_trained_by_gradient_is_moved_only_to_begin_anew_and_keeps_its_length() -> None:
    """Counts as above: code 0 stays where the optimizer left it, code 1 points to the token."""
    config = dataclasses.replace(PAIR, kind="cosine_vq")
    before = CodebookAverages(np.array([8.0, 1.0], np.float32), np.array([[8.0, 0.0], [0.0, 1.0]], np.float32))
    codebook, averages, restarts = _update(config, 3 * AXES, before, _all_take_the_first([0.6, -0.8]), RNG)
    np.testing.assert_allclose(codebook, [[3.0, 0.0], [1.8, -2.4]], rtol=1e-6)
    np.testing.assert_allclose(averages.counts, [8.0, 4.25])
    np.testing.assert_array_equal(restarts, [False, True])


def test_a_code_trained_by_gradient_stays_where_none_begins_anew_and_its_use_is_followed_all_the_same() -> None:
    """So that a run may go on with restarts, or without them."""
    config = dataclasses.replace(PAIR, kind="cosine_vq", restart=0.0)
    before = CodebookAverages(np.array([8.0, 1.0], np.float32), np.array([[8.0, 0.0], [0.0, 1.0]], np.float32))
    codebook, averages, restarts = _update(config, 3 * AXES, before, _all_take_the_first([0.6, -0.8]), RNG)
    np.testing.assert_array_equal(codebook, 3 * AXES)
    np.testing.assert_allclose(averages.counts, [8.0, 0.5])
    assert not np.any(restarts)


def test_a_step_without_tokens_changes_no_code() -> None:
    nothing = jax.tree.map(np.zeros_like, _all_take_the_first([1.0, 0.0]))
    for averages in (initial_averages(PAIR), CodebookAverages(np.array([9.0, 0.0], np.float32), AXES)):
        codebook, averages, _ = _update(PAIR, AXES, averages, nothing, RNG)
        np.testing.assert_array_equal(codebook, AXES)
        assert np.isfinite(averages.sums).all()


def test_codes_begin_anew_as_different_valid_tokens_and_some_wait_where_tokens_are_few() -> None:
    """Code 0 has all of the five tokens; of nine others five become one of them each, and none the padding."""
    config = QuantizerConfig("cosine_vq_ema", codes=10, code_width=2)
    angles = np.array([0.1, 0.2, 0.3, 0.4, 0.5, *[2.0] * 45], np.float32)
    vectors, valid = np.stack([np.cos(angles), np.sin(angles)], axis=1), np.arange(50) < 5
    codebook = np.tile(np.array([0.0, -1.0], np.float32), (10, 1))
    seen = set()
    for seed in range(3):
        rngs = jax.random.split(jax.random.key(seed))
        statistics = _observe(config, vectors, np.zeros(50, np.int32), valid, rngs[0])
        new, *_ = _update(config, codebook, initial_averages(config), statistics, rngs[1])
        found = np.arctan2(new[1:, 1], new[1:, 0])
        np.testing.assert_allclose(np.sort(found), [-math.pi / 2] * 4 + [0.1, 0.2, 0.3, 0.4, 0.5], atol=1e-5)
        seen.add(tuple(np.round(found, 1)))
    assert len(seen) == 3


def test_statistics_of_parts_of_a_batch_add_up() -> None:
    """Counts and sums are those of the whole; candidates are, but for what is drowned out, tokens of one part."""
    apply, params, features = _made(CONFIGS["cosine_vq_ema"], (4, 40, 8))
    ask = lambda features, seed: jax.tree.map(  # noqa: E731
        np.asarray, apply(params, features, rngs={"restart": jax.random.key(seed)}).statistics
    )
    whole, parts = ask(features, 0), [ask(features[part : part + 1], part) for part in range(4)]
    total = jax.tree.map(lambda *leaves: sum(leaves), *parts)
    for name in ("counts", "sums"):
        np.testing.assert_allclose(total[name], whole[name], atol=1e-5)
    tokens = _directions(features.reshape(-1, 8) @ params["params"]["into_code"]["kernel"])
    nearest = lambda statistics: np.max(_directions(statistics["candidates"]) @ tokens.T, axis=1)  # noqa: E731
    np.testing.assert_allclose(nearest(whole), 1.0, atol=1e-5)
    assert np.mean(nearest(total) > 0.9999) > 0.6


def test_the_averaged_codebook_has_no_gradient_and_no_term_of_the_loss() -> None:
    apply, params, features = _made(CONFIGS["cosine_vq_ema"])

    def loss(params: Any) -> jax.Array:
        quantized = apply(params, features)
        return quantized.loss + jnp.sum(apply(params, quantized.indices, method="lookup") ** 2)

    gradient = jax.jit(jax.grad(loss))(params)["params"]
    assert (gradient["codebook"] == 0).all()
    assert (gradient["into_code"]["kernel"] != 0).any()


@pytest.mark.parametrize("kind", ["cosine_vq", "cosine_vq_ema"])
def test_a_collapsed_codebook_comes_into_use(kind: str) -> None:
    """All codes alike at first, of which one takes everything; in ten steps each takes about its share."""
    config = dataclasses.replace(CONFIGS[kind], decay=0.9)
    apply, params, features = _made(config, (400, 8))
    params["params"]["codebook"] = np.ones((32, 4), np.float32)
    assert len(np.unique(apply(params, features).indices)) == 1
    averages = initial_averages(config)

    @jax.jit
    def step(codebook: jax.Array, averages: CodebookAverages, rng: jax.Array) -> tuple[Any, jax.Array, jax.Array]:
        quantized = apply({"params": {**params["params"], "codebook": codebook}}, features, rngs={"restart": rng})
        new = update_codebook(config, codebook, averages, quantized.statistics, rng)
        return new, quantized.statistics["counts"], quantized.loss

    codebook, losses = params["params"]["codebook"], []
    for seed in range(10):
        (codebook, averages, _), counts, loss = step(codebook, averages, jax.random.key(seed))
        losses.append(float(loss))
    assert counts.min() > 0
    assert counts.max() < 0.25 * 400
    assert losses[-1] < 0.3 * losses[0]


def test_statistics_and_codebook_are_those_of_the_whole_batch_on_many_devices() -> None:
    config = CONFIGS["cosine_vq_ema"]
    apply, params, features = _made(config, (8, 6, 8))
    valid = np.arange(6) < np.array([[6], [1], [0], [3], [6], [6], [2], [5]])

    @jax.jit
    def step(params: Any, features: jax.Array, valid: jax.Array) -> Any:
        quantized = apply(params, features, valid, rngs={"restart": jax.random.key(3)})
        codebook, averages = params["params"]["codebook"], initial_averages(config)
        return update_codebook(config, codebook, averages, quantized.statistics, RNG), quantized.loss

    one = step(params, features, valid)
    mesh = Mesh(np.asarray(jax.devices()), ("data",))
    placed = jax.device_put((features, valid), NamedSharding(mesh, PartitionSpec("data")))
    four = step(jax.device_put(params, NamedSharding(mesh, PartitionSpec())), *placed)
    assert len(mesh.devices) == 4
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), one, four)
    assert one[0][1].counts.sum() > 0


FACTORISED = [
    (QuantizerConfig("lfq", bits=18), (512, 512)),
    (QuantizerConfig("bsq", bits=14), (128, 128)),
    (QuantizerConfig("lfq", bits=17), (512, 256)),
    (QuantizerConfig("bsq", bits=13), (8192,)),
    (QuantizerConfig(), (8192,)),
    (QuantizerConfig(codes=10_000), (100, 100)),
    (QuantizerConfig(codes=10_007), (10_007,)),
    (QuantizerConfig("fsq"), (8, 5, 5, 5)),
]


@pytest.mark.parametrize(("config", "factors"), FACTORISED, ids=lambda value: str(getattr(value, "kind", value)))
def test_factors_multiply_to_the_codebook(config: QuantizerConfig, factors: tuple[int, ...]) -> None:
    assert config.factors == factors
    assert math.prod(factors) == config.codebook_size
    last = jnp.array(config.codebook_size - 1, jnp.int32)
    np.testing.assert_array_equal(split_index(config, last), np.array(factors) - 1)
    np.testing.assert_array_equal(split_index(config, jnp.array([1], jnp.int32))[0, :2], [1, 0][: len(factors)])


@given(st.data())
def test_splitting_and_joining_an_index_go_round(data: st.DataObject) -> None:
    config = data.draw(st.sampled_from([config for config, _ in FACTORISED]))
    indices = np.array([data.draw(st.integers(0, config.codebook_size - 1))], np.int32)
    digits = split_index(config, jnp.asarray(indices))
    assert ((digits >= 0) & (digits < np.array(config.factors))).all()
    np.testing.assert_array_equal(join_index(config, digits), indices)


@pytest.mark.parametrize(
    ("indices", "line"),
    [
        (np.array([[0, 20]]), "found code indices from 0 to 20, expected 0 to 19"),
        (np.array([-1, 3]), "found code indices from -1 to 3, expected 0 to 19"),
        (np.array([1.0]), "found code indices of type float64, expected whole numbers"),
    ],
)
def test_indices_out_of_range_are_refused(indices: np.ndarray, line: str) -> None:
    check_indices(CONFIGS["fsq"], np.array([0, 19], np.int32))
    check_indices(CONFIGS["fsq"], np.zeros((0, 3), np.int32))
    with pytest.raises(UserError, match=line):
        check_indices(CONFIGS["fsq"], indices)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"kind": "vq"}, "quantizer 'vq' is unknown; known are cosine_vq, cosine_vq_ema, fsq, lfq, bsq"),
        ({"kind": "fsq", "levels": (8, 1)}, "levels .* from 2 to 1000"),
        ({"kind": "fsq", "levels": ()}, "found no levels of fsq"),
        ({"kind": "fsq", "levels": (1001, 2)}, "levels .* from 2 to 1000"),
        ({"kind": "fsq", "levels": (1000, 512)}, "fsq of 512000 codes .* from 2 to 262144"),
        ({"kind": "lfq", "bits": 19}, "lfq bits 19 must be from 1 to 18"),
        ({"kind": "bsq", "bits": 0}, "bsq bits 0 must be from 1 to 18"),
        ({"codes": 2**18 + 1}, "cosine_vq of 262145 codes"),
        ({"codes": 1}, "cosine_vq of 1 codes"),
        ({"code_width": 0}, "of 0 features"),
        ({"commitment": -0.1}, "commitment -0.1 must be at least 0"),
        ({"entropy": math.nan}, "entropy nan must be"),
        ({"temperature": -1.0}, "temperature -1.0 must be above 0"),
        ({"entropy_group": 0}, "entropy_group 0 at least 1"),
        ({"decay": 1.0}, "decay 1.0 .* below 1"),
        ({"restart": -1.0}, "restart -1.0 must be at least 0"),
    ],
)
def test_impossible_quantizers_are_refused(settings: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError, match=line):
        QuantizerConfig(**settings)


@pytest.mark.parametrize("name", CASES)
def test_answers_are_those_of_vector_quantize_pytorch(name: str) -> None:
    """Its answers were kept by benchmarks/quantizer_oracles.py, which says what was mapped."""
    with np.load(FIXTURES) as kept:
        arrays = {key.removeprefix(f"{name}."): kept[key] for key in kept.files if key.startswith(f"{name}.")}
        compared = differences(name, kept["features"], kept["valid"], arrays)
    assert {"features", "indices", "lookup"} <= set(compared)
    assert max(compared.values()) <= TOLERANCE, compared
