"""From videos and pictures to a dataset of TFDS, on all cores, resumable at any instant."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from phenaki_jax.data.prepare import summary
from phenaki_jax.data.prepare.clips import Clips, Task
from phenaki_jax.data.prepare.folders import check_inputs, find_sources
from phenaki_jax.data.prepare.journal import Journal, Listed
from phenaki_jax.data.prepare.metadata import IMAGES, SETTINGS_FILE, SPLITS, read_statistics
from phenaki_jax.data.prepare.records import dataset_features, encode_example
from phenaki_jax.data.prepare.settings import PrepareSettings
from phenaki_jax.data.prepare.shards import Shards
from phenaki_jax.data.prepare.workers import Outcome, Workers, WorkerSettings
from phenaki_jax.data.tensorflow_stack import tfds
from phenaki_jax.errors import UserError, counted
from phenaki_jax.files import locked, make_folder, told_unwritable, write_text

ALL_SPLITS = (*SPLITS, *(split + IMAGES for split in SPLITS))
# Tests are taken from up to this share of the sources where there are fewer clips for tests than this.
_LARGEST_TEST_SHARE = 0.2
_FEW_TESTS = 32
_RESUMES = "the same command goes on where it stopped"


class Prepared(NamedTuple):
    """What was made.

    Attributes:
      folder: of the dataset.
      was_there: whether it was finished before.
      statistics: see `summary.write_summary`.
    """

    folder: Path
    was_there: bool
    statistics: dict[str, Any]


def prepare(
    inputs: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    settings: PrepareSettings,
    how: WorkerSettings,
) -> Prepared:
    """Makes a dataset, in `out`/name/version; what an interruption has left is gone on with.

    A script that calls this does so under `if __name__ == "__main__":`, as always with `multiprocessing`.

    Args:
      inputs: folders, tables and tars; see `folders.find_sources`.
      out: folder of datasets.
      settings: what the dataset's bytes depend on.
      how: the work is shared.

    Raises:
      UserError: an input is not there, nothing of it was good, the settings are others than those of what is there, or
        the disk is full.
    """
    check_inputs(inputs)
    folder = Path(out) / settings.name / settings.version
    work = folder.with_name(f"incomplete.{settings.version}")
    make_folder(folder.parent)
    with locked(folder.parent, f"another phenaki prepare is at work on {folder.parent}: wait for it, or stop it"):
        if folder.is_dir():
            _check_finished(folder, settings)
            shutil.rmtree(work, ignore_errors=True)
            return Prepared(folder, True, read_statistics(folder))
        with told_unwritable(work, f"free some space; {_RESUMES}"), _told_resumable():
            _prepare(inputs, folder, work, settings, how)
    return Prepared(folder, False, read_statistics(folder))


@contextlib.contextmanager
def _told_resumable() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(f"interrupted; {_RESUMES}") from error


def _check_finished(folder: Path, settings: PrepareSettings) -> None:
    file = folder / SETTINGS_FILE
    if not file.is_file():
        raise UserError(
            f"{folder}: found a folder without {file.name}, expected none or a dataset of phenaki prepare: choose "
            "another --name or --version"
        )
    _check_settings(folder, file.read_text(), settings)


def _check_settings(folder: Path, before: str, settings: PrepareSettings) -> None:
    if found := settings.differences(before):
        raise UserError(
            f"{folder} was made with other settings ({'; '.join(found)}): delete it, choose another --name or "
            "--version, or leave the settings as they were"
        )


def _prepare(
    inputs: Sequence[str | os.PathLike[str]], folder: Path, work: Path, settings: PrepareSettings, how: WorkerSettings
) -> None:
    dataset, frames = work / "dataset", work / "frames"
    shutil.rmtree(frames, ignore_errors=True)
    for each in (dataset, frames):
        make_folder(each)
    with contextlib.closing(Journal(work / "journal.sqlite")) as journal:
        if journal.fact("inputs") is None:
            _list(journal, inputs, work, settings)
        _check_settings(work, journal.fact("settings"), settings)
        _check_listed(journal, inputs)
        writer = _Writer(journal, dataset, frames, settings)
        writer.write_all(how)
        if not writer.records:
            _refuse(journal, work, folder.parent, inputs)
        _finish(journal, writer, dataset, settings)
    dataset.rename(folder)
    shutil.rmtree(work)


def _list(journal: Journal, inputs: Sequence[str | os.PathLike[str]], work: Path, settings: PrepareSettings) -> None:
    """Finds all sources, once: what comes to a folder while it is prepared is left for another version."""
    try:
        with journal.together():
            journal.add(find_sources(inputs, settings))
            journal.write_fact("settings", settings.text())
            journal.write_fact("inputs", _absolute(inputs))
    except UserError:
        shutil.rmtree(work)
        raise


def _absolute(inputs: Sequence[str | os.PathLike[str]]) -> list[str]:
    return [str(Path(each).absolute()) for each in inputs]


def _check_listed(journal: Journal, inputs: Sequence[str | os.PathLike[str]]) -> None:
    found, listed = _absolute(inputs), journal.fact("inputs")
    if found != listed:
        raise UserError(
            f"found inputs {', '.join(found)}, expected {', '.join(listed)}, of which a part is prepared: name these, "
            "or another --name or --version"
        )


def _refuse(journal: Journal, work: Path, beside: Path, inputs: Sequence[str | os.PathLike[str]]) -> None:
    """Tells that nothing was good, leaves the report, and nothing else."""
    counts = summary.write_report(journal, beside)
    shutil.rmtree(work)
    named = ", ".join(map(str, inputs))
    if not counts:
        raise UserError(f"found no video and no image in {named}, expected at least one")
    reason, count = max(counts.items(), key=lambda item: item[1])
    raise UserError(
        f"found nothing good in {named}, expected at least one video or image: of {sum(counts.values())}, {count} "
        f"for the reason: {reason}; {beside / summary.REPORT_FILE} tells of each"
    )


class _Writer:
    """Writes what workers made, source by source in the order of the journal, and each in the journal.

    Args:
      journal: of the sources.
      dataset: folder of the files.
      frames: folder that workers write to.
      settings: of the dataset.
    """

    def __init__(self, journal: Journal, dataset: Path, frames: Path, settings: PrepareSettings) -> None:
        self._journal, self._frames, self._settings = journal, frames, settings
        self.shards = {
            split: Shards(dataset, settings.name, split, settings.shard_bytes, journal.fact(split))
            for split in ALL_SPLITS
        }

    @property
    def records(self) -> int:
        """How many are written."""
        return sum(each.records for each in self.shards.values())

    def write_all(self, how: WorkerSettings) -> None:
        """Decodes and writes all that is not written yet.

        Raises:
          UserError: something cannot be written.
        """
        total = self._journal.count()
        done = self._journal.count(done=True)
        left = total - done
        if not left:
            return
        workers = min(how.workers, left)
        listed: dict[int, Listed] = {}
        before = self.records
        with (
            contextlib.closing(Workers(self._settings, how._replace(workers=workers), self._frames)) as pool,
            # disable=None: only where stderr is a terminal.
            tqdm(total=total, initial=done, unit="file", disable=None, smoothing=0.05) as progress,
        ):
            for task, outcome in pool.in_order(self._tasks(listed)):
                self._write(listed.pop(task.number), outcome)
                rate = (self.records - before) / max(progress.format_dict["elapsed"], 1e-3)
                progress.set_postfix_str(f"{counted(self.records, 'clip')}, {rate:.1f} clips/s", refresh=False)
                progress.update()

    def _tasks(self, listed: dict[int, Listed]) -> Iterator[Task]:
        for each in self._journal.sources(todo=True):
            if not each.source.captions and self._settings.on_missing_caption == "skip":
                with self._journal.together():
                    self._journal.write_result(each.number, {"reason": "has no caption"})
                continue
            listed[each.number] = each
            yield Task(each.number, each.source.place, each.source.start, each.source.end)

    def _write(self, listed: Listed, outcome: Outcome) -> None:
        source, clips = listed.source, outcome.clips
        if clips is None:
            with self._journal.together():
                self._journal.write_result(listed.number, {"reason": outcome.reason})
            return
        identity = f"{clips.digest} {source.start:g} {source.end:g}"
        first = self._journal.first_of(identity)
        if first:
            with self._journal.together():
                self._journal.write_result(listed.number, {"reason": f"is the same as {first[0]}"})
            outcome.file.unlink()
            return
        split = self._split(listed, clips)
        shards = self.shards[split]
        for record in self._records(source, clips, outcome.file):
            shards.write(record)
        shards.flush()
        with self._journal.together():
            self._journal.write_fact(split, shards.state)
            self._journal.write_first(identity, source.key, split)
            self._journal.write_first(clips.digest, source.key, split)
            self._journal.write_result(listed.number, _result_of(split, clips))
        outcome.file.unlink()

    def _split(self, listed: Listed, clips: Clips) -> str:
        """Of a source, by its hash; of few sources a larger share, so that there is a batch of tests."""
        if (first := self._journal.first_of(clips.digest)) is not None:
            return first[1]
        images = IMAGES * clips.is_image
        tests = self.shards[f"test{images}"]
        wanted = self._settings.test_share
        few = not tests.records or (tests.records < _FEW_TESTS and listed.share < _LARGEST_TEST_SHARE)
        is_test = listed.share < wanted or (wanted > 0 and few)
        return ("test" if is_test else "train") + images

    def _records(self, source: Any, clips: Clips, file: Path) -> Iterator[bytes]:
        offsets = [0]
        for size in clips.sizes:
            offsets.append(offsets[-1] + size)
        with file.open("rb") as encoded:
            for start in clips.starts:
                encoded.seek(offsets[start])
                frames = [encoded.read(size) for size in clips.sizes[start : start + clips.frames]]
                yield encode_example(
                    frames,
                    source.captions,
                    source=source.key,
                    start=clips.begins + start / self._settings.fps,
                    fps=self._settings.fps,
                    original_size=(clips.height, clips.width),
                )


def _result_of(split: str, clips: Clips) -> dict[str, Any]:
    return {
        "split": split,
        "clips": len(clips.starts),
        "frames": len(clips.sizes),
        "scenes": clips.scenes,
        "size": [clips.height, clips.width],
    }


def _finish(journal: Journal, writer: _Writer, dataset: Path, settings: PrepareSettings) -> None:
    """Closes the files and writes what is said of them; done again from its beginning where it is interrupted."""
    for split, shards in writer.shards.items():
        shards.close_group()
        with journal.together():
            journal.write_fact(split, shards.state)
    records = {split: shards.records for split, shards in writer.shards.items()}
    names = {split: split for split in records if records[split]} if settings.test_share == 1 else _last_names(records)
    infos = []
    for split, name in names.items():
        writer.shards[split].finish(name)
        lengths, size = writer.shards[split].describe()
        infos.append(tfds.core.SplitInfo(name=name, shard_lengths=list(lengths), num_bytes=size))
    with contextlib.redirect_stdout(None):
        tfds.folder_dataset.write_metadata(
            data_dir=dataset,
            features=dataset_features(settings.size),
            split_infos=infos,
            version=settings.version,
            description=f"Clips of {settings.frames} frames of {settings.size} px, {settings.fps:g} a second; images.",
            check_data=False,
        )
    write_text(dataset / SETTINGS_FILE, settings.text())
    summary.write_summary(journal, dataset, settings, names)


def _last_names(records: dict[str, int]) -> dict[str, str]:
    """The splits that hold something, and what they are called; the only source there is is for training."""
    names = {}
    for images in ("", IMAGES):
        train, test = f"train{images}", f"test{images}"
        if records[train]:
            names[train] = train
        if records[test]:
            names[test] = test if records[train] else train
    return names
