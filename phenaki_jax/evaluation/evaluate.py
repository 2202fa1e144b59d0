"""Evaluates a model by a protocol, in parts that a kill loses one of and that several processes may share."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, UInt8
from PIL import Image
from tqdm import tqdm

from phenaki_jax import __version__
from phenaki_jax.data.clips import fingerprint_of_split
from phenaki_jax.errors import UserError, check_at_least, check_process, check_types
from phenaki_jax.evaluation.drawing import Drawer, Layout
from phenaki_jax.evaluation.examples import Example, OrderedExamples, check_clips
from phenaki_jax.evaluation.measures import MEASURES
from phenaki_jax.evaluation.networks import Network, judged, rows_of, told_of
from phenaki_jax.evaluation.numbers import Found, numbers_of
from phenaki_jax.evaluation.protocols import Protocol
from phenaki_jax.evaluation.rows import FOLDER, STORED, Rows
from phenaki_jax.files import whole_file
from phenaki_jax.inference import compiled
from phenaki_jax.inference.phenaki import Phenaki
from phenaki_jax.inference.video_files import film_strips

PICTURE = "samples.png"
_SHOWN = 8
# Rows are made anew where what makes them has changed.
_VERSION = 2


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """How a protocol is gone through.

    Attributes:
      batch_size: videos that are made and looked at at once.
      seed: of windows, wordings and all that is drawn.
      process: which of the processes this one is, from 0; they need not know of each other.
      processes: how many there are, which share a folder.

    Raises:
      UserError: a value that it cannot have.
    """

    batch_size: int = 16
    seed: int = 0
    process: int = 0
    processes: int = 1

    def __post_init__(self) -> None:
        check_types(self)
        check_at_least(self, 1, "batch_size", "processes")
        check_at_least(self, 0, "process")
        if not 0 <= self.seed < 2**32:
            raise UserError(f"found seed {self.seed}, expected 0 to {2**32 - 1}")
        check_process(self.process, self.processes)


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What is evaluated, and where everything is.

    Attributes:
      protocol: what is measured.
      measures: those of the protocol's that are.
      networks: that they look through, by name.
      model: what makes the videos.
      layout: how devices share a batch.
      data_dir: the folder of datasets.
      folder: of rows and the picture.
      real_folder: of rows of real clips, which other evaluations share.
      config: how.
    """

    protocol: Protocol
    measures: tuple[str, ...]
    networks: Mapping[str, Network]
    model: Phenaki
    layout: Layout
    data_dir: Path
    folder: Path
    real_folder: Path
    config: EvaluationConfig

    @functools.cached_property
    def described(self) -> dict[str, Any]:
        """What the numbers are of, as JSON knows it.

        Raises:
          UserError: the dataset is not there, or has too few clips.
        """
        protocol = dataclasses.asdict(self.protocol)
        for name in ("reported", "prepared_with"):
            protocol.pop(name)
        clips = check_clips(self.protocol, self.data_dir)
        return {
            "protocol": protocol,
            "dataset": fingerprint_of_split(self.protocol.task, self.protocol.split, self.data_dir),
            "clips": {split: counts._asdict() for split, counts in clips.items()},
            **self.computed,
            "model": self.model.fingerprint,
            "vocabulary": self.model.vocabulary_fingerprint or None,
            "config": dataclasses.asdict(self.model.config),
            "sampling": dataclasses.asdict(self.model.metadata.sampling),
            "prefix_frames": self.model.metadata.prefix_frames,
            "seed": self.config.seed,
        }

    @property
    def computed(self) -> dict[str, Any]:
        """What computes."""
        device = self.layout.whole.mesh.devices.flat[0]
        return {
            "phenaki_jax": __version__,
            "computed": {"platform": device.platform, "dtype": "float32"},
        }


def evaluate(evaluation: Evaluation) -> Found | None:
    """Makes what is missing, and from all of it the numbers.

    Returns:
      Them; None where other processes have not made all of their share yet.

    Raises:
      UserError: model, protocol, dataset and folder do not fit, examples are too few, or rows cannot be written.
    """
    config, protocol = evaluation.config, evaluation.protocol
    if config.batch_size % (ways := evaluation.layout.batch_parts):
        raise UserError(f"found batch_size {config.batch_size}, expected a multiple of {ways}, the devices there are")
    _check_counts(protocol, evaluation.measures)
    drawer = Drawer(evaluation.model, protocol, evaluation.layout, config.seed)
    # Clips that are too few or do not fit are told before a folder belongs to this evaluation.
    for split in evaluation.described["clips"]:
        OrderedExamples(protocol, split, config.seed, evaluation.data_dir).at([0])
    real, generated = _stores(evaluation)
    look, of_real = _Looker(evaluation, evaluation.networks), _networks_of_real(evaluation)
    with evaluation.layout.applied():
        if of_real:
            _make_real(evaluation, real, look if of_real == evaluation.networks else _Looker(evaluation, of_real))
        _make_generated(evaluation, generated, look, drawer)
    if (of_real and real.missing()) or generated.missing():
        return None
    return numbers_of(protocol, evaluation.measures, evaluation.networks, real, generated, config.seed)


def _check_counts(protocol: Protocol, measures: Sequence[str]) -> None:
    """Refuses, before anything is drawn, sets that have no covariance."""
    compared = [name for name in measures if MEASURES[name].compares_sets]
    for count, what, name in (
        (protocol.real_clips, "real clip", "--real" if protocol.real else "--examples"),
        (protocol.videos_of_fold, "video", "--examples"),
    ):
        if compared and count < 2:
            raise UserError(
                f"found {count} {what} to compare, expected at least 2 for {compared[0]}: ask for more with {name}"
            )


def _stores(evaluation: Evaluation) -> tuple[Rows, Rows]:
    """The rows of real clips and of the model's videos; settings of the first name the folder that they are in."""
    protocol, size = evaluation.protocol, evaluation.config.batch_size
    split, described = protocol.clip_split, evaluation.described
    of_real = {
        "version": _VERSION,
        "task": protocol.task,
        "split": split,
        "dataset": fingerprint_of_split(protocol.task, split, evaluation.data_dir),
        **{
            name: getattr(protocol, name)
            for name in ("frames", "size", "compared_size", "stored_frames", "drawn_frames", "windows")
        },
        "seed": evaluation.config.seed,
        **evaluation.computed,
        "networks": _told(_networks_of_real(evaluation)),
    }
    of_generated = {
        "version": _VERSION,
        **described,
        "measures": list(evaluation.measures),
        "networks": _told(evaluation.networks),
    }
    told = json.dumps({**of_real, "rows": protocol.real_clips, "batch_size": size}, sort_keys=True)
    name = f"{protocol.task}-{hashlib.sha256(told.encode()).hexdigest()[:16]}"
    real = Rows(evaluation.real_folder / name, of_real, protocol.real_clips, size)
    return real, Rows(evaluation.folder / FOLDER, of_generated, protocol.videos, size)


def _networks_of_real(evaluation: Evaluation) -> dict[str, Network]:
    """Those by which videos are compared with real clips, and not each with its own or with its text."""
    needed = {MEASURES[name].network for name in evaluation.measures if MEASURES[name].compares_sets}
    return {name: network for name, network in evaluation.networks.items() if name in needed}


def _told(networks: Mapping[str, Network]) -> dict[str, Any]:
    """What the rows of networks depend on."""
    return {
        name: [network.sha256, network.resize, *map(list, network.more)] for name, network in sorted(networks.items())
    }


class _Looker:
    """Networks, on the devices that share a batch."""

    def __init__(self, evaluation: Evaluation, networks: Mapping[str, Network]) -> None:
        self._networks, self._layout = networks, evaluation.layout
        self._size = evaluation.protocol.compared_size
        self._kept = {MEASURES[name].rows for name in evaluation.measures}
        self._params = jax.device_put(
            {name: network.params for name, network in self._networks.items()}, self._layout.whole
        )
        self._rows = jax.jit(self._judged_rows)

    def rows(
        self, videos: UInt8[Array, "batch frames _ _ 3"], texts: Sequence[str], original: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """What each video has that measures ask for; compared with the clip that it should be where these are given."""
        known: dict[str, Any] = told_of(self._networks, texts)
        if original is not None:
            known["original"] = original
        known = jax.device_put(known, self._layout.batch)
        rows = self._rows(self._params, videos, known)
        return {name: compiled.fetched(values) for name, values in rows.items() if name in self._kept}

    def _judged_rows(self, params: Any, videos: Array, known: dict[str, Array]) -> dict[str, Array]:
        if "original" in known:
            known = {**known, "original": judged(known["original"], self._size)}
        return rows_of(self._networks, params, judged(videos, self._size), known)


def _make_real(evaluation: Evaluation, rows: Rows, look: _Looker) -> None:
    missing = rows.missing(evaluation.config.process, evaluation.config.processes)
    split, seed = evaluation.protocol.clip_split, evaluation.config.seed
    examples = OrderedExamples(evaluation.protocol, split, seed, evaluation.data_dir)
    with _progress(evaluation, rows, missing, "real clips") as progress:
        for index in missing:
            start = index * rows.batch_size
            batch = examples.at(range(start, start + rows.count(index)))
            full = [example.clip for example in _filled(batch, rows.batch_size)]
            videos = jax.device_put(np.stack([clip.video for clip in full]), evaluation.layout.batch)
            _write(rows, index, batch, look.rows(videos, [clip.text for clip in full]))
            progress.update(len(batch))


def _make_generated(evaluation: Evaluation, rows: Rows, look: _Looker, drawer: Drawer) -> None:
    protocol, size = evaluation.protocol, rows.batch_size
    missing = rows.missing(evaluation.config.process, evaluation.config.processes)
    examples = OrderedExamples(protocol, protocol.split, evaluation.config.seed, evaluation.data_dir)
    stored = evaluation.described["clips"][protocol.split]["stored"]
    if missing and not protocol.stored_frames and protocol.examples > stored:
        # Windows that a task draws may differ less often than they are asked for, which drawing would find last.
        examples.at([protocol.examples - 1])
    with _progress(evaluation, rows, missing, protocol.name) as progress:
        for index in missing:
            numbers = range(index * size, index * size + rows.count(index))
            # The next fold begins with the same examples.
            batch = examples.at([number % protocol.videos_of_fold // protocol.samples for number in numbers])
            full = [example.clip for example in _filled(batch, size)]
            videos = drawer.make(full, _filled(list(numbers), size))
            original = None
            if protocol.kind == "reconstruction":
                original = np.stack([clip.video for clip in full])
            found = look.rows(videos, [clip.text for clip in full], original)
            if index == 0:
                _show(evaluation.folder / PICTURE, np.asarray(videos)[: min(_SHOWN, len(batch))], original)
            _write(rows, index, batch, found)
            progress.update(len(batch))


def _write(rows: Rows, index: int, batch: Sequence[Example], found: Mapping[str, np.ndarray]) -> None:
    stored = np.array([example.stored for example in batch])
    rows.write(index, {STORED: stored, **{name: values[: len(batch)] for name, values in found.items()}})


def _progress(evaluation: Evaluation, rows: Rows, missing: Sequence[int], title: str) -> Any:
    """A bar that counts what this process has to do, with samples per second and the time that is left."""
    own = range(evaluation.config.process, rows.batches, evaluation.config.processes)
    total = sum(map(rows.count, own))
    return tqdm(
        total=total,
        initial=total - sum(map(rows.count, missing)),
        desc=title,
        unit="sample",
        disable=None,
        smoothing=0.1,
    )


def _filled(batch: list[Any], size: int) -> list[Any]:
    """The last one repeated, so that all batches are of one shape."""
    return batch + [batch[-1]] * (size - len(batch))


def _show(path: Path, videos: np.ndarray, original: np.ndarray | None) -> None:
    """Keeps some videos as a picture, a row of frames for each, below the clip that it should be where there is one."""
    if original is not None:
        videos = np.stack([original[: len(videos)], videos], axis=1).reshape(-1, *videos.shape[1:])
    with whole_file(path) as unfinished:
        Image.fromarray(film_strips(videos)).save(unfinished)
