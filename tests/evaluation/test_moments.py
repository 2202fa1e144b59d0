"""Moments that stream by are those of all features at once in float64, however batches and devices divide them."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from clu import metrics
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from phenaki_jax.errors import UserError
from phenaki_jax.evaluation.frechet import FeatureStatistics, frechet_distance
from phenaki_jax.evaluation.moments import FrechetDistance, Moments, statistics_of_parts

DEVICES = 4
FEATURES = 12

add = jax.jit(Moments.add)


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    return jax.make_mesh((DEVICES,), ("batch",), axis_types=(AxisType.Auto,))


def features(rows: int, seed: int = 0) -> np.ndarray:
    """Of deviations from 1 to 1e-5, mixed, about a mean that is larger than all of them."""
    rng = np.random.default_rng(seed)
    spectrum = 10.0 ** -np.linspace(0, 5, FEATURES)
    mix = np.linalg.qr(np.random.default_rng(99).standard_normal((FEATURES, FEATURES)))[0]
    return ((rng.standard_normal((rows, FEATURES)) * spectrum) @ mix + 4 + seed / 7).astype(np.float32)


def batches(rows: np.ndarray, size: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Batches of one size and their masks; the last is filled up with what is no number."""
    filled = np.concatenate([rows, np.full((-len(rows) % size, rows.shape[1]), np.nan, np.float32)])
    valid = np.arange(len(filled)) < len(rows)
    return [(filled[at : at + size], valid[at : at + size]) for at in range(0, len(filled), size)]


def is_of(found: FeatureStatistics, rows: np.ndarray) -> None:
    expected = FeatureStatistics.of(rows)
    assert found.count == expected.count
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-13)
    np.testing.assert_allclose(found.covariance, expected.covariance, atol=1e-12 * np.abs(expected.covariance).max())


def test_a_small_variance_beside_a_large_mean_is_kept() -> None:
    """50 000 rows of 1000 + 1/8 and 1000 - 1/8: a variance of 1/64 (n / (n - 1)), 8 digits below the squares."""
    rows = 1000 + np.tile(np.array([[0.125, -0.125], [-0.125, 0.125]], np.float32), (25000, 1))
    found = Moments.empty(2)
    for start in range(0, 50000, 10000):
        found = add(found, rows[start : start + 10000])
    statistics = found.compute()
    assert statistics.count == 50000
    np.testing.assert_array_equal(statistics.mean, [1000, 1000])
    np.testing.assert_allclose(statistics.covariance * 49999 / 50000 * 64, [[1, -1], [-1, 1]], rtol=1e-8)


@pytest.mark.parametrize("size", [96, 300])
def test_moments_do_not_depend_on_batches(size: int) -> None:
    rows = features(700)
    found = Moments.empty(FEATURES)
    for batch in batches(rows, size):
        found = add(found, *batch)
    is_of(found.compute(), rows)


@pytest.mark.parametrize("scale", [1e-10, 3e8])
def test_features_of_any_size_lose_nothing(scale: float) -> None:
    rows = features(300) * np.float32(scale)
    rows[:, 3] = 0
    is_of(add(Moments.empty(), rows).compute(), rows)


def test_a_sharded_uneven_batch_counts_each_valid_row_once(mesh: Mesh) -> None:
    """Of 513 valid rows the last batch has one, and devices that have none."""
    rows = features(513)
    step = jax.jit(Moments.add, donate_argnums=0)
    found = Moments.empty(FEATURES)
    for batch in batches(rows, 512):
        found = step(found, *jax.device_put(batch, NamedSharding(mesh, PartitionSpec("batch"))))
    is_of(found.compute(), rows)


def test_devices_gather_and_reduce_as_other_metrics_of_clu_do(mesh: Mesh) -> None:
    rows, others = features(100), features(100, seed=1)
    collection = metrics.Collection.create(
        moments=Moments.from_output("features"), distance=FrechetDistance.from_outputs("features", "generated")
    )

    def gather(features: Array, generated: Array, mask: Array) -> metrics.Collection:
        return collection.gather_from_model_output(features=features, generated=generated, mask=mask)

    step = jax.jit(
        jax.shard_map(gather, mesh=mesh, in_specs=PartitionSpec("batch"), out_specs=PartitionSpec(), check_vma=False)
    )
    total = collection.empty()
    for (batch, valid), (other, _) in zip(batches(rows, 64), batches(others, 64), strict=True):
        total = total.merge(step(batch, other, valid))
    found = total.compute()
    is_of(found["moments"], rows)
    assert found["distance"] == pytest.approx(frechet_distance(rows, others), rel=1e-9)


def test_real_and_generated_features_may_come_apart() -> None:
    """And each with its own mask."""
    metric = FrechetDistance.from_outputs()
    rows, others = features(90), features(50, seed=1)
    found = metric.empty()
    for batch, valid in batches(rows, 40):
        found = found.merge(metric.from_model_output(real_features=batch, mask=valid))
    for batch, valid in batches(others, 40):
        found = found.merge(metric.from_model_output(generated_features=batch, generated_features_mask=valid))
    assert found.compute() == pytest.approx(frechet_distance(rows, others), rel=1e-9)


def test_rows_that_are_no_numbers_are_told() -> None:
    rows = features(8)
    rows[2, 1], rows[5, 0], rows[7] = np.nan, np.inf, np.nan
    found = add(Moments.empty(), rows, jnp.arange(8) < 7)
    with pytest.raises(UserError, match="found NaN or infinity in 2 of 7 rows of features, expected numbers alone"):
        found.compute()


def test_moments_that_say_nothing_are_told() -> None:
    with pytest.raises(UserError, match="found 1 rows of features, expected at least 2"):
        add(Moments.empty(), features(1)).compute()
    with pytest.raises(UserError, match="expected features below 1e15"):
        add(Moments.empty(), features(9) * np.float32(1e25)).compute()


EIGHT_DEVICES = """
import json, sys
import jax, numpy as np, scipy.linalg
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from phenaki_jax.evaluation.frechet import frechet_of_moments
from phenaki_jax.evaluation.moments import Moments

ROWS, WIDTH = json.loads(sys.argv[1])
BATCH = 512
mesh = jax.make_mesh((8,), ("batch",), axis_types=(AxisType.Auto,))
step = jax.jit(Moments.add, donate_argnums=0)

def draw(seed, spectrum):
    rng = np.random.default_rng(seed)
    turned = np.linalg.qr(np.eye(WIDTH) + seed * 0.03 / WIDTH**0.5 * rng.standard_normal((WIDTH, WIDTH)))[0]
    return ((rng.standard_normal((ROWS, WIDTH)) * spectrum) @ turned + 1 + seed / 50).astype(np.float32)

def streamed(rows):
    moments = Moments.empty(WIDTH)
    for at in range(0, ROWS, BATCH):
        batch = np.full((BATCH, WIDTH), np.nan, np.float32)
        part = rows[at : at + BATCH]
        batch[: len(part)] = part
        valid = np.arange(BATCH) < len(part)
        moments = step(moments, *jax.device_put((batch, valid), NamedSharding(mesh, PartitionSpec("batch"))))
    return moments.compute()

def at_once(first, second):
    sets = [rows.astype(np.float64) for rows in (first, second)]
    means, covariances = [rows.mean(axis=0) for rows in sets], [np.cov(rows, rowvar=False) for rows in sets]
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    return np.sum((means[0] - means[1]) ** 2) + sum(map(np.trace, covariances)) - 2 * np.trace(root)

def factors(first, second):
    roots = []
    for rows in (first, second):
        centred = rows.astype(np.float64) - rows.mean(axis=0, dtype=np.float64)
        roots.append(scipy.linalg.qr(centred, mode="r")[0][:WIDTH] / np.sqrt(ROWS - 1))
    shift = np.sum((first.mean(axis=0, dtype=np.float64) - second.mean(axis=0, dtype=np.float64)) ** 2)
    return shift + sum(np.sum(root**2) for root in roots) - 2 * scipy.linalg.svdvals(roots[0] @ roots[1].T).sum()

places = np.arange(WIDTH)
spectra = (("flat", np.ones(WIDTH)), ("decaying", 1 / (1 + places)), ("steep", 10 ** (-6 * places / WIDTH)))
for name, spectrum in spectra:
    first, second = draw(1, spectrum), draw(2, spectrum)
    distance = frechet_of_moments(streamed(first), streamed(second))
    found = {"spectrum": name, "sqrtm": abs(distance / at_once(first, second) - 1)}
    print(json.dumps(found | {"factors": abs(distance / factors(first, second) - 1)}), flush=True)
"""


@pytest.mark.parametrize(
    ("rows", "width"),
    [pytest.param(700, 64, id="small"), pytest.param(10000, 2048, id="large", marks=pytest.mark.slow)],
)
def test_the_distance_from_eight_devices_is_scipys_of_all_features(rows: int, width: int) -> None:
    """Features in float64, by scipy's root of the product; and by factors of the covariances, which need no root.

    The root of a product loses the smallest parts of a steep spectrum, whose deviations end at a millionth.
    """
    environment = os.environ | {"XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=8"}
    command = [sys.executable, "-c", EIGHT_DEVICES, json.dumps([rows, width])]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = {line.pop("spectrum"): line for line in map(json.loads, done.stdout.splitlines())}
    assert max(line["factors"] for line in found.values()) <= 1e-8, found
    assert max(found[spectrum]["sqrtm"] for spectrum in ("flat", "decaying")) <= 1e-6, found


def test_parts_of_any_lengths_are_counted_once() -> None:
    features = 3 + np.random.default_rng(3).standard_normal((50, 7)).astype(np.float32)
    found = statistics_of_parts([features[:20], features[20:40], features[40:]], 20)
    expected = FeatureStatistics.of(features)
    assert found.count == 50
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-7)
    np.testing.assert_allclose(found.covariance, expected.covariance, rtol=1e-6, atol=1e-9)
    with pytest.raises(UserError, match="found 0 rows of features, expected at least 2"):
        statistics_of_parts([], 20)
