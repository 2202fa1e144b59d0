"""Numbers of rows: of the right ones of them, with intervals by clip; what cannot be taken is told."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from phenaki_jax.evaluation import numbers as numbers_lib
from phenaki_jax.evaluation.extrapolation import extrapolated_frechet
from phenaki_jax.evaluation.frechet import FeatureStatistics, frechet_distance
from phenaki_jax.evaluation.inception_score import inception_score
from phenaki_jax.evaluation.kernel import kernel_distance
from phenaki_jax.evaluation.measured import Measured
from phenaki_jax.evaluation.networks import Network
from phenaki_jax.evaluation.numbers import Found, numbers_of
from phenaki_jax.evaluation.protocols import PROTOCOLS, Protocol
from phenaki_jax.evaluation.rows import STORED, Rows

MEASURES = ("fid", "kid", "clipsim")
FEATURES = 3
NETWORKS = {
    name: Network({}, "0" * 64, 0, FEATURES * (name == "inception"), "none", None) for name in ("inception", "clip")
}


@pytest.fixture
def protocol() -> Protocol:
    """Videos of two frames: two of each of five clips, drawn three times; six real clips, two of one stored clip."""
    return dataclasses.replace(
        PROTOCOLS["kinetics400"], frames=2, examples=5, samples=2, folds=3, real=6, windows=2, measures=MEASURES
    )


def made_rows(folder: pathlib.Path, values: Mapping[str, np.ndarray], batch_size: int = 4) -> Rows:
    count = len(values[STORED])
    rows = Rows(folder, {}, count, batch_size)
    for index in rows.missing():
        start = index * batch_size
        rows.write(index, {name: each[start : start + batch_size] for name, each in values.items()})
    return rows


def random_values(count: int, stored: np.ndarray, seed: int, frames: int = 2) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((count, frames, FEATURES)).astype(np.float32) * (1 + seed) + seed
    return {STORED: stored, "inception": features, "clip": rng.standard_normal(count).astype(np.float32)}


@pytest.fixture
def real() -> dict[str, np.ndarray]:
    return random_values(6, np.array([0, 1, 2, 3, 4, 0]), 1)


@pytest.fixture
def made() -> dict[str, np.ndarray]:
    """Three folds of the same clips."""
    return random_values(30, np.tile(np.arange(5).repeat(2), 3), 2)


def found_of(protocol: Protocol, folder: pathlib.Path, real: Any, made: Any, measures: Any = MEASURES) -> Found:
    rows = made_rows(folder / "real", real), made_rows(folder / "made", made)
    return numbers_of(protocol, measures, NETWORKS, *rows, seed=0)


def by_metric(found: Found) -> dict[str, Measured]:
    return {number.metric: number for number in found.numbers}


def test_numbers_are_means_of_folds(
    protocol: Protocol, tmp_path: pathlib.Path, real: dict[str, np.ndarray], made: dict[str, np.ndarray]
) -> None:
    """Folds of ten videos are in three files each and share some; each frame is a row of its own."""
    numbers = by_metric(found_of(protocol, tmp_path, real, made))
    of_real, *folds = (each.reshape(-1, FEATURES) for each in (real["inception"], *np.split(made["inception"], 3)))
    distances = [frechet_distance(of_real, fold) for fold in folds]
    assert numbers["fid"].value == pytest.approx(np.mean(distances), rel=1e-6)
    settings = dict(numbers["fid"].settings.more)
    assert (settings["folds"], settings["deviation_of_folds"]) == (3, pytest.approx(np.std(distances, ddof=1)))
    assert (numbers["fid"].settings.real, numbers["fid"].settings.generated) == (12, 20)
    # Sets of fewer rows than a subset are taken whole, which is told; of them nothing deviates.
    kernels = [kernel_distance(of_real, fold) for fold in folds]
    assert numbers["kid"].value == pytest.approx(np.mean(kernels), rel=1e-6)
    settings = dict(numbers["kid"].settings.more)
    assert (settings["subset_size_real"], settings["subset_size_generated"], settings["subsets"]) == (12, 20, 1)
    assert "deviation_of_subsets" not in settings
    assert "found 12 real and 20 generated samples, expected more than the 1000 of a subset" in numbers["kid"].caution
    assert numbers["clipsim"].value == pytest.approx(made["clip"].mean())
    assert numbers["clipsim"].settings.generated == 30


@pytest.mark.parametrize("clip", [np.full(30, 0.3), np.arange(30)], ids=["equal values", "one clip"])
def test_a_mean_that_does_not_move_has_no_interval(
    protocol: Protocol, tmp_path: pathlib.Path, real: dict[str, np.ndarray], made: dict[str, np.ndarray], clip: Any
) -> None:
    stored = made[STORED] if clip[0] == clip[1] else np.zeros(30, int)
    assert by_metric(found_of(protocol, tmp_path / "usual", real, made))["clipsim"].interval is not None
    found = found_of(protocol, tmp_path / "still", real, {**made, "clip": clip, STORED: stored}, ("clipsim",))
    assert by_metric(found)["clipsim"].interval is None


def test_the_inception_score_is_of_frames_in_their_order(
    protocol: Protocol, tmp_path: pathlib.Path, real: dict[str, np.ndarray], made: dict[str, np.ndarray]
) -> None:
    """The mean over folds; real clips have none."""
    logits = 3 * np.random.default_rng(9).standard_normal((30, 2, 4)).astype(np.float32)
    number = by_metric(found_of(protocol, tmp_path, real, {**made, "inception_logits": logits}, ("inception_score",)))[
        "inception_score"
    ]
    scores = [inception_score(fold.reshape(-1, 4)).mean for fold in np.split(logits, 3)]
    assert number.value == pytest.approx(np.mean(scores))
    assert (number.settings.real, number.settings.generated, number.caution) == (0, 20, None)


def replicates(real: dict[str, np.ndarray], made: dict[str, np.ndarray], folds: int, count: int) -> tuple[float, float]:
    """Percentiles of the mean distance of folds where clips are drawn anew, with all that came of them."""
    rng = np.random.default_rng(0)
    clips = np.unique(made[STORED])
    fold_of = np.arange(len(made[STORED])) * folds // len(made[STORED])
    found = []
    for _ in range(count):
        drawn = rng.choice(clips, len(clips))
        of_real = np.concatenate([real["inception"][real[STORED] == clip] for clip in drawn]).reshape(-1, FEATURES)
        distances = []
        for fold in range(folds):
            own = {clip: made["inception"][(made[STORED] == clip) & (fold_of == fold)] for clip in clips}
            distances.append(
                frechet_distance(of_real, np.concatenate([own[clip] for clip in drawn]).reshape(-1, FEATURES))
            )
        found.append(float(np.mean(distances)))
    low, high = np.quantile(found, [0.025, 0.975]).tolist()
    return low, high


def test_an_interval_is_that_of_all_folds_with_clips_drawn_anew(protocol: Protocol, tmp_path: pathlib.Path) -> None:
    """Of 60 clips with two windows and two folds of two videos, all like the clip: as wide as plain replicates."""
    rng = np.random.default_rng(7)
    content = rng.standard_normal((60, 1, FEATURES))

    def values(stored: np.ndarray, scale: float) -> dict[str, np.ndarray]:
        noise = 0.5 * rng.standard_normal((len(stored), 2, FEATURES))
        return {STORED: stored, "inception": (scale * content[stored] + noise + scale).astype(np.float32)}

    real, made = values(np.tile(np.arange(60), 2), 1.0), values(np.tile(np.arange(60).repeat(2), 2), 2.0)
    few = dataclasses.replace(protocol, examples=60, real=120, folds=2)
    interval = by_metric(found_of(few, tmp_path, real, made, ("fid",)))["fid"].interval
    assert interval is not None
    low, high = replicates(real, made, 2, 300)
    assert interval.high - interval.low == pytest.approx(high - low, rel=0.15)


def test_reconstructions_that_differ_alike_are_at_a_distance_without_doubt(
    protocol: Protocol, tmp_path: pathlib.Path
) -> None:
    """Unless they are compared with clips of another split, which have nothing to do with theirs."""
    real = random_values(200, np.arange(200), 0)
    made = {**real, "inception": real["inception"] + 1}
    pairs = dataclasses.replace(protocol, kind="reconstruction", examples=200, samples=1, folds=1, real=0)
    paired = by_metric(found_of(pairs, tmp_path / "pairs", real, made, ("fid",)))["fid"].interval
    assert paired is not None
    assert paired.high - paired.low < 1e-4
    other = dataclasses.replace(pairs, real_split="train")
    apart = by_metric(found_of(other, tmp_path / "apart", real, made, ("fid",)))["fid"].interval
    assert apart is not None
    assert apart.high - apart.low > 0.2


def test_what_does_not_fit_into_memory_is_left_out_with_the_reason(
    protocol: Protocol,
    tmp_path: pathlib.Path,
    real: dict[str, np.ndarray],
    made: dict[str, np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Distances need no more than a batch at a time."""
    monkeypatch.setattr(numbers_lib, "MOST_IN_MEMORY", 10 * 2 * FEATURES - 1)
    found = found_of(protocol, tmp_path, real, made, (*MEASURES, "fid_infinity"))
    assert [number.metric for number in found.numbers] == ["fid", "clipsim"]
    reason = "needs all features at once, and found 60, more than 59"
    assert found.left_out == {"kid": reason, "fid_infinity": reason}
    assert by_metric(found)["fid"].interval is not None


def test_distances_of_infinitely_many_samples_need_enough_of_them(
    protocol: Protocol,
    tmp_path: pathlib.Path,
    real: dict[str, np.ndarray],
    made: dict[str, np.ndarray],
) -> None:
    found = found_of(protocol, tmp_path / "few", real, made, ("fid_infinity", "clipsim"))
    assert found.left_out == {"fid_infinity": "needs at least 10000 samples, and found 20"}
    many = random_values(5000, np.arange(5000), 3)
    one = dataclasses.replace(protocol, examples=5000, samples=1, folds=1)
    number = by_metric(found_of(one, tmp_path / "many", real, many, ("fid_infinity",)))["fid_infinity"]
    of_real, features = (each["inception"].reshape(-1, FEATURES) for each in (real, many))
    expected = extrapolated_frechet(FeatureStatistics.of(of_real), features, seed=0)
    assert number.value == pytest.approx(expected.value, rel=1e-4)
    assert dict(number.settings.more)["extrapolated_from"][-1] == 10_000
