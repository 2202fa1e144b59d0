"""From videos and pictures to a dataset of TFDS, on all cores, resumable at any instant."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from phenaki_jax.data.prepare import summary
from phenaki_jax.data.prepare.folders import find_sources
from phenaki_jax.data.prepare.inputs import check_inputs
from phenaki_jax.data.prepare.journal import Journal
from phenaki_jax.data.prepare.listing import Changes, changes_since, write_files
from phenaki_jax.data.prepare.metadata import (
    IMAGES,
    SETTINGS_FILE,
    UNFINISHED,
    read_inputs,
    read_settings,
    read_statistics,
    write_inputs,
)
from phenaki_jax.data.prepare.names import check_name
from phenaki_jax.data.prepare.records import dataset_features
from phenaki_jax.data.prepare.report import REPORT_FILE, in_words, write_report
from phenaki_jax.data.prepare.settings import PrepareSettings
from phenaki_jax.data.prepare.sources import SUFFIXES, Found
from phenaki_jax.data.prepare.wholeness import check_whole
from phenaki_jax.data.prepare.workers import WorkerSettings
from phenaki_jax.data.prepare.writing import Writer
from phenaki_jax.data.tensorflow_stack import tfds
from phenaki_jax.errors import UserError, reason_of
from phenaki_jax.files import LOCK, locked, make_folder, told_unwritable, write_text

_JOURNAL = "journal.sqlite"
_RESUMES = "the same command goes on where it stopped"


class Prepared(NamedTuple):
    """What was made.

    Attributes:
      folder: of the dataset.
      was_there: whether it was finished before.
      statistics: see `summary.write_summary`.
      changes: of the files since it was begun, where that was by an earlier call.
    """

    folder: Path
    was_there: bool
    statistics: dict[str, Any]
    changes: Changes = Changes()


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
      UserError: the name is taken, an input is not there, nothing of it was good, the inputs or the settings are others
        than those of what is there, what is there is damaged, or the disk is full.
    """
    check_name(settings)
    check_inputs(inputs)
    folder = Path(out) / settings.name / settings.version
    work = folder.with_name(UNFINISHED + settings.version)
    missing = [place for place in (folder.parent, *folder.parent.parents) if not place.exists()]
    make_folder(folder.parent)
    refusal = f"another phenaki prepare is at work on {folder.parent}: wait for it, or stop it"
    with locked(folder.parent, refusal), _removed_where_refused(missing):
        was_there, was_begun = folder.is_dir(), (work / _JOURNAL).is_file()
        if was_there:
            _check_finished(inputs, folder, settings)
            shutil.rmtree(work, ignore_errors=True)
        else:
            with told_unwritable(work, f"free some space; {_RESUMES}"), _told_resumable():
                _prepare(inputs, folder, work, settings, how)
        statistics = read_statistics(folder)
        if not was_there and not was_begun:
            return Prepared(folder, was_there, statistics)
        changes = changes_since(folder, _found(inputs, settings, folder.parents[1]))
        return Prepared(folder, was_there, statistics, changes)


@contextlib.contextmanager
def _told_resumable() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(f"interrupted; {_RESUMES}") from error


@contextlib.contextmanager
def _removed_where_refused(folders: Sequence[Path]) -> Iterator[None]:
    """Of folders that were made for a dataset, the innermost first, leaves none that holds nothing but a lock."""
    try:
        yield
    except UserError:
        if folders and os.listdir(folders[0]) == [LOCK]:
            (folders[0] / LOCK).unlink()
            # Another command may have begun beside it.
            with contextlib.suppress(OSError):
                for each in folders:
                    each.rmdir()
        raise


def _check_finished(inputs: Sequence[str | os.PathLike[str]], folder: Path, settings: PrepareSettings) -> None:
    file = folder / SETTINGS_FILE
    if not file.is_file():
        raise UserError(
            f"{folder}: found a folder without {file.name}, expected none or a dataset of phenaki prepare: choose "
            "another --name or --version"
        )
    _check_settings(folder, json.dumps(read_settings(folder)), settings)
    found, before = _absolute(inputs), read_inputs(folder)
    # Not there where the dataset came from elsewhere.
    if before is not None and found != before:
        raise UserError(
            f"found inputs {', '.join(found)}, expected {', '.join(before)}, of which {folder} was made: choose "
            "another --name or --version, or delete it"
        )
    check_whole(folder)


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
    with contextlib.closing(Journal(work / _JOURNAL)) as journal:
        if journal.fact("inputs") is None:
            _list(journal, inputs, work, folder.parents[1], settings)
        _check_settings(work, journal.fact("settings"), settings)
        _check_listed(journal, inputs)
        writer = Writer(journal, dataset, frames, settings)
        writer.write_all(how)
        if not writer.records:
            _refuse(journal, work, folder.parent, inputs)
        _finish(journal, writer, dataset, settings)
    write_inputs(folder, _absolute(inputs))
    dataset.rename(folder)
    shutil.rmtree(work)


def _list(
    journal: Journal, inputs: Sequence[str | os.PathLike[str]], work: Path, out: Path, settings: PrepareSettings
) -> None:
    """Finds all sources, once: what comes to a folder while it is prepared is left for another version."""
    try:
        with journal.together():
            journal.add(_found(inputs, settings, out))
            journal.write_fact("settings", settings.text())
            journal.write_fact("inputs", _absolute(inputs))
    except UserError:
        shutil.rmtree(work)
        raise


def _found(inputs: Sequence[str | os.PathLike[str]], settings: PrepareSettings, out: Path) -> Found:
    try:
        found = find_sources(inputs, settings, out)
        yield from tqdm(found, desc="looking for files", unit="file", disable=None)
    except OSError as error:
        named = ", ".join(map(str, inputs))
        raise UserError(f"{named} cannot be read ({reason_of(error)}): see whether it is whole and yours") from error


def _absolute(inputs: Sequence[str | os.PathLike[str]]) -> list[str]:
    return [os.path.abspath(each) for each in inputs]


def _check_listed(journal: Journal, inputs: Sequence[str | os.PathLike[str]]) -> None:
    found, listed = _absolute(inputs), journal.fact("inputs")
    if found != listed:
        raise UserError(
            f"found inputs {', '.join(found)}, expected {', '.join(listed)}, of which a part is prepared: name these, "
            "or another --name or --version"
        )


def _refuse(journal: Journal, work: Path, beside: Path, inputs: Sequence[str | os.PathLike[str]]) -> None:
    """Tells that nothing was good, leaves the report, and nothing else."""
    named = ", ".join(map(str, inputs))
    passed_over = journal.fact("passed_over")
    if not journal.count() and not any(journal.problems()):
        shutil.rmtree(work)
        only = f", only files that are not read ({in_words(passed_over)})" if passed_over else ""
        raise UserError(f"found no video and no image in {named}{only}, expected at least one of {', '.join(SUFFIXES)}")
    counts = write_report(journal, beside).reasons
    shutil.rmtree(work)
    reason, count = next(iter(counts.items()))
    raise UserError(
        f"found nothing good in {named}, expected at least one video or image: of {sum(counts.values())}, {count} "
        f"for the reason: {reason}; {beside / REPORT_FILE} tells of each"
    )


def _finish(journal: Journal, writer: Writer, dataset: Path, settings: PrepareSettings) -> None:
    """Closes the files and writes what is said of them; done again from its beginning where it is interrupted."""
    for split, shards in writer.shards.items():
        shards.close_group()
        with journal.together():
            journal.write_fact(split, shards.state)
    records = {split: shards.records for split, shards in writer.shards.items()}
    as_told = settings.test_share == 1 or journal.has_told_split()
    names = {split: split for split in records if records[split]} if as_told else _last_names(records)
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
    write_files(dataset, journal.keys())
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
