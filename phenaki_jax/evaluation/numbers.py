"""The numbers of a protocol, from the rows that real clips and a model's videos have."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from phenaki_jax.evaluation.bootstrap import Interval, interval_of_influences, mean_interval
from phenaki_jax.evaluation.extrapolation import SMALLEST, extrapolated_frechet
from phenaki_jax.evaluation.frechet import FeatureStatistics, InfluenceFunction, frechet_influences
from phenaki_jax.evaluation.inception_score import SPLITS, inception_score
from phenaki_jax.evaluation.kernel import SUBSET_SIZE, kernel_distance_of_subsets
from phenaki_jax.evaluation.measured import Measured, Settings
from phenaki_jax.evaluation.measures import MEASURES, Measure
from phenaki_jax.evaluation.moments import statistics_of_parts
from phenaki_jax.evaluation.networks import Network
from phenaki_jax.evaluation.protocols import Protocol
from phenaki_jax.evaluation.rows import STORED, Rows

# Measures that need all features of a set at once are left out beyond: 1 GiB of them.
MOST_IN_MEMORY = 2**28


class Found(NamedTuple):
    """What is found by a protocol.

    Attributes:
      numbers: in the order of the measures.
      left_out: why other measures have none.
    """

    numbers: list[Measured]
    left_out: dict[str, str]


class _Value(NamedTuple):
    """A value, its interval, and what else is to be told."""

    value: float
    interval: Interval | None = None
    more: tuple[tuple[str, Any], ...] = ()


class _LeftOutError(Exception):
    """Why a measure cannot be taken."""


class _Set(NamedTuple):
    """Rows that are compared: those of this name from one to another, each of one or, by frames, of several features.

    Attributes:
      rows: where they are.
      name: of them.
      start: the first.
      stop: the one after the last.
    """

    rows: Rows
    name: str
    start: int
    stop: int

    def values(self) -> np.ndarray:
        """All of them in memory."""
        return np.concatenate(list(self._parts()))

    def features(self) -> np.ndarray:
        """All of them in memory, a row for each video or for each frame.

        Raises:
          _LeftOutError: they are too many.
        """
        if (size := self.size()) > MOST_IN_MEMORY:
            raise _LeftOutError(f"needs all features at once, and found {size}, more than {MOST_IN_MEMORY}")
        return np.concatenate(list(self._features()))

    def statistics(self) -> FeatureStatistics:
        """Of all of them, a batch at a time in memory."""
        first = self._first()
        return statistics_of_parts(self._features(), self.rows.batch_size * first.size // first.shape[-1])

    def influences(self, function: InfluenceFunction) -> np.ndarray:
        """Of each video, the mean of that of its rows; a batch at a time in memory."""
        found = []
        for part in self._parts():
            of_rows = function.of(part.reshape(-1, part.shape[-1]))
            found.append(of_rows.reshape(len(part), -1).mean(axis=1))
        return np.concatenate(found)

    def clips(self) -> np.ndarray:
        """Which stored clip each video is of, or was made of."""
        return np.concatenate(list(self.rows.read(STORED, self.start, self.stop)))

    def size(self) -> int:
        """Numbers in all features."""
        return int(self._first().size * (self.stop - self.start))

    def _first(self) -> np.ndarray:
        (first,) = self.rows.read(self.name, self.start, self.start + 1)
        return first

    def _parts(self) -> Iterator[np.ndarray]:
        return self.rows.read(self.name, self.start, self.stop)

    def _features(self) -> Iterator[np.ndarray]:
        return (part.reshape(-1, part.shape[-1]) for part in self._parts())


class _Compared(NamedTuple):
    """What a measure is taken of.

    Attributes:
      real: clips.
      folds: a model's videos.
      statistics: of a set, which are kept.
      same_clips: whether the clips that videos are made of are numbered as the real ones are.
      seed: of subsets and intervals.
    """

    real: _Set
    folds: list[_Set]
    statistics: Callable[[_Set], FeatureStatistics]
    same_clips: bool
    seed: int


def numbers_of(
    protocol: Protocol,
    measures: tuple[str, ...],
    networks: Mapping[str, Network],
    real: Rows,
    generated: Rows,
    seed: int,
) -> Found:
    """Each measure as a number with all that it depends on.

    Args:
      protocol: what was measured.
      measures: those of it that were.
      networks: by name.
      real: rows of real clips, with the place of the stored clip of each as `STORED`.
      generated: the same of the model's videos, fold by fold in the order of examples, those from one clip after each
        other.
      seed: of subsets and intervals.

    Raises:
      UserError: rows are damaged, or no numbers.
    """
    found = Found([], {})
    statistics = functools.cache(_Set.statistics)
    for name in measures:
        measure = MEASURES[name]
        folds = [
            _Set(generated, measure.rows, start, start + protocol.videos_of_fold)
            for start in range(0, protocol.videos, protocol.videos_of_fold)
        ]
        real_set = _Set(real, measure.rows, 0, protocol.real_clips)
        sets = _Compared(real_set, folds, statistics, protocol.clip_split == protocol.split, seed)
        try:
            value = _VALUES[measure.kind](sets)
        except _LeftOutError as reason:
            found.left_out[name] = str(reason)
            continue
        found.numbers.append(_measured(protocol, measure, networks.get(measure.network), value, seed))
    return found


def _mean(sets: _Compared) -> _Value:
    values, clips = (np.concatenate([getattr(fold, what)() for fold in sets.folds]) for what in ("values", "clips"))
    values = values.astype(np.float64)
    interval = mean_interval(values, clips, seed=sets.seed)
    # Of one clip, or of values that are all alike, none that is drawn anew differs, which is no certainty.
    moves = not np.isclose(interval.low, interval.high, rtol=1e-9, atol=0)
    return _Value(float(values.mean()), interval if moves else None)


def _frechet(sets: _Compared) -> _Value:
    """The interval is that of the mean of all folds, whose clips are the same."""
    found = [frechet_influences(sets.statistics(sets.real), sets.statistics(fold)) for fold in sets.folds]
    distances = [each.distance for each in found]
    of_real = sets.real.influences(InfluenceFunction.mean_of([each.first for each in found]))
    of_folds = [fold.influences(each.second) for fold, each in zip(sets.folds, found, strict=True)]
    real_clips, clips = sets.real.clips(), sets.folds[0].clips()
    if not sets.same_clips:
        clips = clips + real_clips.max() + 1
    value = float(np.mean(distances))
    interval = interval_of_influences(value, (of_real, real_clips), (np.mean(of_folds, axis=0), clips), seed=sets.seed)
    return _Value(value, interval, _of_folds(distances))


def _kernel(sets: _Compared) -> _Value:
    real = sets.real.features()
    found, sizes = [], []
    for fold in sets.folds:
        features = fold.features()
        sizes = [min(SUBSET_SIZE, len(each)) for each in (real, features)]
        found.append(kernel_distance_of_subsets(real, features, seed=sets.seed))
    more: list[tuple[str, Any]] = [
        ("subsets", found[0].subsets),
        ("subset_size_real", sizes[0]),
        ("subset_size_generated", sizes[1]),
    ]
    values = [each.mean for each in found]
    deviations = [each.deviation for each in found if each.deviation is not None]
    if deviations:
        more.append(("deviation_of_subsets", float(np.mean(deviations))))
    return _Value(float(np.mean(values)), None, (*more, *_of_folds(values)))


def _score(sets: _Compared) -> _Value:
    values = [inception_score(fold.features()).mean for fold in sets.folds]
    return _Value(float(np.mean(values)), None, (("splits", SPLITS), *_of_folds(values)))


def _infinity(sets: _Compared) -> _Value:
    real, found = sets.statistics(sets.real), []
    for fold in sets.folds:
        features = fold.features()
        # A line through sizes that hardly differ would be a line through chance.
        if len(features) < (fewest := 2 * SMALLEST):
            raise _LeftOutError(f"needs at least {fewest} samples, and found {len(features)}")
        found.append(extrapolated_frechet(real, features, seed=sets.seed))
    values = [each.value for each in found]
    more = (("extrapolated_from", list(found[0].sizes)), *_of_folds(values))
    return _Value(float(np.mean(values)), None, more)


_VALUES: dict[str, Callable[[_Compared], _Value]] = {
    "mean": _mean,
    "frechet": _frechet,
    "kernel": _kernel,
    "infinity": _infinity,
    "score": _score,
}


def _of_folds(values: list[float]) -> tuple[tuple[str, Any], ...]:
    if len(values) == 1:
        return ()
    return ("folds", len(values)), ("deviation_of_folds", float(np.std(values, ddof=1)))


def _measured(protocol: Protocol, measure: Measure, network: Network | None, value: _Value, seed: int) -> Measured:
    """A number of images where its network sees frames by themselves, of clips otherwise."""
    of_images = measure.network == "inception"
    frames = 1 if of_images else protocol.frames
    count = protocol.frames if of_images else 1
    size = (network.size if network else 0) or protocol.compared_size
    more: dict[str, Any] = {
        "protocol": protocol.name,
        "compared_size": protocol.compared_size,
        "examples": protocol.examples,
        "samples": protocol.samples,
        **({"given": protocol.given} if protocol.given else {}),
        **({"frames_of_each_clip": protocol.frames} if of_images else {}),
        **dict(network.more if network else ()),
        **dict(value.more),
    }
    if protocol.compared_size != protocol.size:
        more["generated_size"] = protocol.size
    settings = Settings(
        generated=protocol.videos if measure.kind == "mean" else protocol.videos_of_fold * count,
        frames=frames,
        size=(size, size),
        seed=seed,
        real=protocol.real_clips * count if measure.compares_sets else 0,
        network=measure.network,
        features=network.features if network and measure.compares_sets else 0,
        weights_sha256=network.sha256 if network else "",
        resize=network.resize if network else "none",
        more=tuple(more.items()),
    )
    return Measured(measure.metric, value.value, settings, value.interval)
