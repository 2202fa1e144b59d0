"""The numbers of a protocol, from the rows that real clips and a model's videos have."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from phenaki_jax.evaluation.bootstrap import Interval, bootstrap, frechet_interval, means_of_samples
from phenaki_jax.evaluation.frechet import FeatureStatistics, frechet_of_moments
from phenaki_jax.evaluation.kernel import kernel_distance_of_subsets
from phenaki_jax.evaluation.measured import Measured, Settings
from phenaki_jax.evaluation.moments import Moments
from phenaki_jax.evaluation.networks import Network
from phenaki_jax.evaluation.protocols import MEASURES, Measure, Protocol
from phenaki_jax.evaluation.rows import Rows

# Kernel distances and intervals, which need all features of a set at once, are left out beyond: 1 GiB of them.
MOST_IN_MEMORY = 2**28
_SUBSETS, _SUBSET_SIZE = 100, 1000


class _Value(NamedTuple):
    """A value, its interval, and what else is to be told."""

    value: float
    interval: Interval | None = None
    more: tuple[tuple[str, Any], ...] = ()


class _Set(NamedTuple):
    """Rows that are compared: those of this name from one to another, each of one or, by frames, of several features.

    Attributes:
      rows: where they are.
      name: of them.
      start: the first.
      stop: the one after the last.
      drawn_together: how many that follow each other are of one clip.
    """

    rows: Rows
    name: str
    start: int
    stop: int
    drawn_together: int = 1

    def features(self) -> np.ndarray:
        """All of them in memory, a row for each video or for each frame."""
        return np.concatenate([part.reshape(-1, part.shape[-1]) for part in self._parts()])

    def statistics(self) -> FeatureStatistics:
        """Of all of them, a batch at a time in memory."""
        add = jax.jit(Moments.add, donate_argnums=0)
        moments: Moments | None = None
        for part in self._parts():
            rows = part.reshape(-1, part.shape[-1])
            full = self.rows.batch_size * len(rows) // len(part)
            padded = np.pad(rows, [(0, full - len(rows)), (0, 0)])
            moments = moments or Moments.empty(rows.shape[1])
            moments = add(moments, padded, np.arange(full) < len(rows))
        assert moments is not None
        return moments.compute()

    def frames(self) -> int:
        """How many rows of features each video has."""
        (first,) = self.rows.read(self.name, self.start, self.start + 1)
        return first.size // first.shape[-1]

    def size(self) -> int:
        """Numbers in all features."""
        (first,) = self.rows.read(self.name, self.start, self.start + 1)
        return int(first.size * (self.stop - self.start))

    def _parts(self) -> Any:
        return self.rows.read(self.name, self.start, self.stop)


def numbers_of(
    protocol: Protocol,
    measures: tuple[str, ...],
    networks: Mapping[str, Network],
    real: Rows,
    generated: Rows,
    seed: int,
) -> list[Measured]:
    """Each measure as a number with all that it depends on.

    Args:
      protocol: what was measured.
      measures: those of it that were.
      networks: by name.
      real: rows of real clips.
      generated: rows of the model's videos, in the order of examples, those from one clip after each other.
      seed: of subsets and intervals.

    Raises:
      UserError: rows are damaged, or no numbers.
    """
    found = []
    statistics = functools.cache(_Set.statistics)
    for name in measures:
        measure = MEASURES[name]
        value: _Value | None
        if measure.kind == "mean":
            value = _mean(protocol, measure, generated, seed)
        else:
            of_real = _Set(real, measure.rows, 0, protocol.real_clips)
            folds = [
                _Set(generated, measure.rows, start, start + protocol.videos_of_fold, protocol.samples)
                for start in range(0, protocol.videos, protocol.videos_of_fold)
            ]
            compare = _frechet if measure.kind == "frechet" else _kernel
            value = compare(of_real, folds, statistics, seed)
            if value is None:
                continue
        found.append(_measured(protocol, measure, networks.get(measure.network), value, seed))
    return found


def _mean(protocol: Protocol, measure: Measure, generated: Rows, seed: int) -> _Value:
    values = np.concatenate(list(generated.read(measure.rows, 0, protocol.videos))).astype(np.float64)
    by_clip = means_of_samples(values, protocol.samples)
    return _Value(float(by_clip.mean()), bootstrap(np.mean, by_clip, seed=seed))


def _frechet(real: _Set, folds: list[_Set], statistics: Any, seed: int) -> _Value:
    values = [frechet_of_moments(statistics(real), statistics(fold)) for fold in folds]
    interval = None
    if max(real.size(), folds[0].size()) <= MOST_IN_MEMORY:
        frames = real.frames()
        interval = frechet_interval(
            real.features(),
            folds[0].features(),
            seed=seed,
            rows_drawn_together=(frames, frames * folds[0].drawn_together),
        )
    return _Value(float(np.mean(values)), interval, _of_folds(values))


def _kernel(real: _Set, folds: list[_Set], statistics: Any, seed: int) -> _Value | None:
    del statistics
    if max(real.size(), folds[0].size()) > MOST_IN_MEMORY:
        return None
    features = real.features()
    subsets = [
        kernel_distance_of_subsets(features, fold.features(), subsets=_SUBSETS, size=_SUBSET_SIZE, seed=seed)
        for fold in folds
    ]
    more = (
        ("subsets", _SUBSETS),
        ("subset_size", _SUBSET_SIZE),
        ("deviation_of_subsets", float(np.mean([each.deviation for each in subsets]))),
    )
    values = [each.mean for each in subsets]
    return _Value(float(np.mean(values)), None, (*more, *_of_folds(values)))


def _of_folds(values: list[float]) -> tuple[tuple[str, Any], ...]:
    if len(values) == 1:
        return ()
    return ("folds", len(values)), ("deviation_of_folds", float(np.std(values, ddof=1))), ("interval_of", "a fold")


def _measured(protocol: Protocol, measure: Measure, network: Network | None, value: _Value, seed: int) -> Measured:
    """A number of images where its network sees frames by themselves, of clips otherwise."""
    of_images = measure.rows == "inception"
    frames = 1 if of_images else protocol.frames
    count = protocol.frames if of_images else 1
    size = (network.size if network else 0) or protocol.compared_size
    distances = measure.kind != "mean"
    more: dict[str, Any] = {
        "protocol": protocol.name,
        "compared_size": protocol.compared_size,
        "examples": protocol.examples,
        "samples": protocol.samples,
        **({"frames_of_each_clip": protocol.frames} if of_images else {}),
        **dict(network.more if network else ()),
        **dict(value.more),
    }
    if protocol.compared_size != protocol.size:
        more["generated_size"] = protocol.size
    settings = Settings(
        generated=protocol.videos_of_fold * count if distances else protocol.videos,
        frames=frames,
        size=(size, size),
        seed=seed,
        real=protocol.real_clips * count if distances else 0,
        network=measure.network,
        features=network.features if network and distances else 0,
        weights_sha256=network.sha256 if network else "",
        resize=network.resize if network else "none",
        more=tuple(more.items()),
    )
    return Measured(measure.metric, value.value, settings, value.interval)
