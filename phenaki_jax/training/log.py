"""Where metrics and pictures of a run go: TensorBoard, and plain files that reports are made from."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from phenaki_jax.files import make_folder, told_unwritable, whole_file, write_text
from phenaki_jax.inference.video_files import film_strips

METRICS_FILE = "metrics.jsonl"
HEALTH_FILE = "health.jsonl"


class RunLog:
    """Writes to `workdir`: TensorBoard events, `metrics.jsonl`, and grids of videos under `images`.

    Args:
      workdir: the run's folder.
      first_step: what the plain files have after it, of a run that was cut off, is forgotten.
    """

    def __init__(self, workdir: Path, first_step: int) -> None:
        self._workdir = workdir
        self._is_first_process = jax.process_index() == 0
        if not self._is_first_process:
            return
        make_folder(workdir)
        for name in (METRICS_FILE, HEALTH_FILE):
            kept = [entry for entry in _read_entries(workdir / name) if entry["step"] <= first_step]
            write_text(workdir / name, "".join(json.dumps(entry) + "\n" for entry in kept))
        # It loads TensorFlow, which `data` keeps quiet: later than that.
        from clu import metric_writers

        with self._writing():
            self._writer = metric_writers.SummaryWriter(str(workdir / "tensorboard"))

    def write(self, kind: str, step: int, values: Mapping[str, float], expected: Mapping[str, float]) -> None:
        """Adds the metrics of a step, of kind "train" or "eval", and to TensorBoard what was to be expected of them."""
        if not self._is_first_process:
            return
        with self._writing():
            self._writer.write_scalars(step, {f"{kind}/{name}": value for name, value in values.items()})
            shown = {f"{kind}_expected/{name}": value for name, value in expected.items() if name in values}
            self._writer.write_scalars(step, shown)
            with (self._workdir / METRICS_FILE).open("a") as file:
                file.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")

    def write_speed(self, step: int, values: Mapping[str, float]) -> None:
        """Adds what is no property of the training, and differs between runs of it: to TensorBoard alone."""
        if self._is_first_process:
            with self._writing():
                self._writer.write_scalars(step, {f"speed/{name}": value for name, value in values.items()})

    def write_advice(self, step: int, lines: list[str]) -> None:
        """Adds what was told of the training's health."""
        if not self._is_first_process:
            return
        with self._writing():
            self._writer.write_texts(step, {"health": "\n\n".join(lines)})
            with (self._workdir / HEALTH_FILE).open("a") as file:
                file.write(json.dumps({"step": step, "advice": lines}) + "\n")

    def write_videos(self, step: int, videos: Mapping[str, UInt8[jax.Array, "rows frames height width 3"]]) -> None:
        """Adds videos as pictures: a row each, frames from left to right."""
        if not self._is_first_process:
            return
        folder = self._workdir / "images"
        for name, video in videos.items():
            picture = film_strips(np.asarray(video))
            with self._writing():
                self._writer.write_images(step, {name: picture[None]})
                folder.mkdir(exist_ok=True)
                with whole_file(folder / f"{name}_{step:07d}.png") as unfinished:
                    Image.fromarray(picture).save(unfinished)

    def last_evaluation(self) -> dict[str, float]:
        """The metrics of the last evaluation that was logged."""
        evaluations = [entry for entry in read_metrics(self._workdir) if entry["kind"] == "eval"]
        last = evaluations[-1] if evaluations else {}
        return {name: value for name, value in last.items() if name not in ("kind", "step")}

    def close(self) -> None:
        """Flushes."""
        if self._is_first_process:
            with self._writing():
                self._writer.flush()
                self._writer.close()

    def _writing(self) -> contextlib.AbstractContextManager[None]:
        return told_unwritable(
            f"the metrics in {self._workdir}",
            "make room, or give the right to write there; the same command goes on from the last checkpoint",
            Exception,
        )


def read_metrics(workdir: Path) -> list[dict]:
    """All metrics of a run, in the order of their steps; a last line that was cut off is left out."""
    return _read_entries(workdir / METRICS_FILE)


def _read_entries(file: Path) -> list[dict]:
    entries = []
    for line in file.read_text().splitlines() if file.exists() else []:
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return entries
