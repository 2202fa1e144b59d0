"""From what workers decoded to the files of a dataset, source by source in the order of the journal."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from phenaki_jax.data.prepare.clips import Clips, Task
from phenaki_jax.data.prepare.journal import First, Journal, Listed
from phenaki_jax.data.prepare.metadata import IMAGES, SPLITS
from phenaki_jax.data.prepare.records import encode_example
from phenaki_jax.data.prepare.settings import PrepareSettings
from phenaki_jax.data.prepare.shards import Shards
from phenaki_jax.data.prepare.sources import EMPTY, Source
from phenaki_jax.data.prepare.workers import Outcome, Workers, WorkerSettings
from phenaki_jax.errors import counted

ALL_SPLITS = (*SPLITS, *(split + IMAGES for split in SPLITS))
# Tests are taken from up to this share of the sources where there are fewer clips for tests than this.
_LARGEST_TEST_SHARE = 0.2
_FEW_TESTS = 32


class Writer:
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
            for task, outcome in pool.in_order(self._tasks(listed, progress)):
                self._write(listed.pop(task.number), outcome)
                rate = (self.records - before) / max(progress.format_dict["elapsed"], 1e-3)
                progress.set_postfix_str(f"{counted(self.records, 'clip')}, {rate:.1f} clips/s", refresh=False)
                progress.update()

    def _tasks(self, listed: dict[int, Listed], progress: tqdm) -> Iterator[Task]:
        for each in self._journal.sources(todo=True):
            if not each.source.captions and self._settings.on_missing_caption == "skip":
                with self._journal.together():
                    self._journal.write_result(each.number, {"reason": _why_without_caption(each.source)})
                progress.update()
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
        if first := self._journal.first_of(identity):
            with self._journal.together():
                self._journal.write_result(listed.number, {"reason": _copied(source, first)})
            outcome.file.unlink()
            return
        split = self._split(listed, clips)
        shards = self.shards[split]
        for record in self._records(source, clips, outcome.file):
            shards.write(record)
        shards.flush()
        with self._journal.together():
            self._journal.write_fact(split, shards.state)
            self._journal.write_first(identity, listed.number, split)
            self._journal.write_first(clips.digest, listed.number, split)
            self._journal.write_result(listed.number, _result_of(split, clips))
        outcome.file.unlink()

    def _split(self, listed: Listed, clips: Clips) -> str:
        """Of a source, as it was told or by its hash; of few sources a larger share, for a batch of tests."""
        images = IMAGES * clips.is_image
        if told := listed.source.split:
            return told + images
        if (first := self._journal.first_of(clips.digest)) is not None:
            return first.split
        tests = self.shards[f"test{images}"]
        wanted = self._settings.test_share
        few = not tests.records or (tests.records < _FEW_TESTS and listed.share < _LARGEST_TEST_SHARE)
        is_test = listed.share < wanted or (wanted > 0 and few)
        return ("test" if is_test else "train") + images

    def _records(self, source: Source, clips: Clips, file: Path) -> Iterator[bytes]:
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


def _why_without_caption(source: Source) -> str:
    """Why a source without caption is set aside: what is wrong with the file comes first, as far as its size tells."""
    with contextlib.suppress(OSError):
        if not source.place.size:
            return EMPTY
    return "has no caption"


def _copied(source: Source, first: First) -> str:
    lost = [caption for caption in source.captions if caption not in first.captions]
    others = f", and its own captions are lost: {', '.join(map(repr, lost))}" if lost else ""
    return f"is the same as {first.key!r}{others}"


def _result_of(split: str, clips: Clips) -> dict[str, Any]:
    return {
        "split": split,
        "clips": len(clips.starts),
        "frames": len(clips.sizes),
        "scenes": clips.scenes,
        "size": [clips.height, clips.width],
    }
