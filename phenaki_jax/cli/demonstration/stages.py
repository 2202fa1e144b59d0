"""The stages of a demo, in order; each leaves something complete, so that an interrupted demo goes on after it."""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from phenaki_jax.cli import evaluate
from phenaki_jax.cli.demonstration import measures, report
from phenaki_jax.cli.demonstration.memory import peak_gib
from phenaki_jax.cli.demonstration.settings import FULL, SETTINGS_FILE, DemoSettings
from phenaki_jax.cli.export import export_checkpoint
from phenaki_jax.data.moving_shapes.builder import prepare
from phenaki_jax.data.moving_shapes.examples import fingerprint
from phenaki_jax.errors import UserError
from phenaki_jax.files import make_folder, write_text
from phenaki_jax.inference.phenaki import Phenaki
from phenaki_jax.inference.story_file import read_story
from phenaki_jax.inference.video_files import film_strips, write_video
from phenaki_jax.training import train

STORY = """\
# Four prompts, the last three two windows each. phenaki generate --model model --story story.yaml --out story.gif
seed: 7
scenes:
  - prompt: a red square moves right
    windows: 1
  - prompt: the red square grows
    windows: 2
  - prompt: the red square turns blue
    windows: 2
  - prompt: the blue square moves left
    windows: 2
"""
FPS = 8.0
_REFERENCE = "gin_configs/reference/demo_transformer.jsonl"
IMAGE_TEXT_LENGTH = 26


def run_stages(folder: str | Path, settings: DemoSettings, began: float) -> int:
    """Does what is not done yet, writes the report and tells where it is; returns 0.

    Args:
      folder: where everything goes.
      settings: how large the demo is.
      began: when the process began by `time.perf_counter`; what was loaded since counts too.

    Raises:
      UserError: the folder holds a demo of other settings.
      KeyboardInterrupt: interrupted; the same call goes on.
    """
    out = make_folder(Path(folder))
    _check_settings(out, settings)
    stages: dict[str, Callable[[Path, DemoSettings], None]] = {
        "dataset": _dataset,
        "tokenizer": _tokenizer,
        "images": _images,
        "transformer": _transformer,
        "export": _export,
        "story": _story,
        "measures": _measures,
        "evaluation": _evaluation,
        "curves": lambda out, settings: report.draw_curves(out),
    }
    if len(_times(out)) < len(stages):
        _add_time(out, "startup", time.perf_counter() - began, done=False)
    for number, (name, stage) in enumerate(stages.items(), start=1):
        if name in _times(out):
            continue
        print(f"[{number}/{len(stages)}] {name}", flush=True)
        began = time.perf_counter()
        try:
            stage(out, settings)
        finally:
            _add_time(out, name, time.perf_counter() - began, done=False)
        _add_time(out, name, 0.0, done=True)
    report.write(out, dataclasses.asdict(settings))
    print(f"done: open {out / 'report.html'}")
    return 0


def _dataset(out: Path, settings: DemoSettings) -> None:
    prepare(
        out / "data",
        size=32,
        train_videos=settings.train_videos,
        test_videos=settings.test_videos,
        train_images=settings.train_images,
        test_images=settings.test_images,
    )


def _tokenizer(out: Path, settings: DemoSettings) -> None:
    evaluated = train.run(
        ["gin_configs/runs/shapes_tokenizer.gin"],
        [
            f"DATA_DIR={str((out / 'data').absolute())!r}",
            f"STEPS={settings.tokenizer_steps}",
            f"BATCH_SIZE={settings.batch_size}",
        ],
        str(out / "tokenizer"),
    )
    _write_json(out / "measures" / "tokenizer.json", evaluated)


def _images(out: Path, settings: DemoSettings) -> None:
    """What things look like is learned from images first: a sixth of a clip's tokens, and nothing moves."""
    _train_transformer(
        out,
        settings,
        "images",
        [
            "FRAMES=1",
            f"TEXT_LENGTH={IMAGE_TEXT_LENGTH}",
            "MIXTURE='moving_shapes_image_text'",
            "EVAL_MIXTURE='moving_shapes_image_text'",
            f"STEPS={settings.image_steps}",
            f"BATCH_SIZE={4 * settings.batch_size}",
        ],
    )


def _transformer(out: Path, settings: DemoSettings) -> None:
    _train_transformer(
        out,
        settings,
        "transformer",
        [
            f"INITIAL_WORKDIR={str((out / 'images').absolute())!r}",
            f"STEPS={settings.transformer_steps}",
            f"BATCH_SIZE={2 * settings.batch_size}",
            # A demo of other sizes goes another way.
            f"REFERENCE={_REFERENCE if settings == FULL else ''!r}",
        ],
    )


def _train_transformer(out: Path, settings: DemoSettings, name: str, bindings: list[str]) -> None:
    train.run(
        ["gin_configs/runs/shapes_transformer.gin"],
        [
            f"DATA_DIR={str((out / 'data').absolute())!r}",
            f"TOKENIZER_WORKDIR={str((out / 'tokenizer').absolute())!r}",
            f"SAMPLING_STEPS={settings.sampling_steps}",
            *bindings,
        ],
        str(out / name),
    )


def _export(out: Path, settings: DemoSettings) -> None:
    del settings
    export_checkpoint(out / "transformer", out / "model")


def _story(out: Path, settings: DemoSettings) -> None:
    del settings
    write_text(out / "story.yaml", STORY)
    model = Phenaki.load(out / "model")
    frames = np.concatenate(list(model.tell(read_story(out / "story.yaml"))))
    write_video(out / "story.gif", frames, FPS)
    write_video(out / "story.mp4", frames, FPS)


def _measures(out: Path, settings: DemoSettings) -> None:
    model = Phenaki.load(out / "model")
    folder = out / "measures"
    drawn = {"generation": measures.generation, "transfer": measures.transfer, "story": measures.stories}
    for name, measure in drawn.items():
        if (folder / f"{name}.json").exists():
            continue
        print(f"      {name}", flush=True)
        values, videos = measure(model, settings)
        write_video(out / f"{name}_samples.png", _strips(videos[:12]), FPS, scale=2)
        write_video(out / f"{name}_samples.gif", _tiles(videos[:24]), FPS, scale=2)
        _write_json(folder / f"{name}.json", values)
    if not (folder / "long_story.json").exists():
        print("      long story", flush=True)
        _write_json(folder / "long_story.json", measures.long_story(model, settings))


def _evaluation(out: Path, settings: DemoSettings) -> None:
    """What `phenaki evaluate` gives, as papers measure models."""
    parser = argparse.ArgumentParser()
    evaluate.add_arguments(parser)
    places = ["--model", str(out / "model"), "--data_dir", str(out / "data"), "--out", str(out / "evaluated")]
    counts = ["--examples", str(settings.evaluated_examples), "--real", str(settings.real_clips)]
    evaluate.run(parser.parse_args([*places, *counts]))


def _strips(videos: measures.Videos) -> np.ndarray:
    """A row of frames for each video, as a video of one frame."""
    return film_strips(videos)[None]


def _tiles(videos: measures.Videos, columns: int = 6) -> np.ndarray:
    """Videos beside and below each other, playing at once."""
    count = len(videos) // columns * columns or len(videos)
    columns = min(columns, count)
    _, frames, height, width, channels = videos.shape
    tiled = videos[:count].reshape(count // columns, columns, frames, height, width, channels)
    return tiled.transpose(2, 0, 3, 1, 4, 5).reshape(frames, count // columns * height, columns * width, channels)


def _check_settings(out: Path, settings: DemoSettings) -> None:
    file = out / SETTINGS_FILE
    wanted = dataclasses.asdict(settings) | {"world": fingerprint("video", 32, 0)}
    if not file.exists():
        _write_json(file, wanted)
        return
    if _read_json(file) != wanted:
        raise UserError(
            f"{out} holds a demo of other settings or of another version, expected the same as now; "
            "name another folder or delete it"
        )


def _times(out: Path) -> dict[str, Any]:
    """Seconds of the stages that are done."""
    return {name: entry["seconds"] for name, entry in _read_times(out).items() if entry["done"]}


def _read_times(out: Path) -> dict[str, Any]:
    file = out / "times.json"
    return _read_json(file) if file.exists() else {}


def _add_time(out: Path, name: str, seconds: float, *, done: bool) -> None:
    times = _read_times(out)
    before = times.get(name, {"seconds": 0.0, "peak_memory_gib": 0.0})
    peak = max(before["peak_memory_gib"], peak_gib())
    times[name] = {"seconds": before["seconds"] + seconds, "peak_memory_gib": peak, "done": done}
    _write_json(out / "times.json", times)


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text())
    except ValueError as error:
        raise UserError(
            f"{file}: found no JSON ({error}), expected what a demo wrote; begin in another folder"
        ) from error


def _write_json(file: Path, value: Any) -> None:
    write_text(make_folder(file.parent) / file.name, json.dumps(value, indent=2))
