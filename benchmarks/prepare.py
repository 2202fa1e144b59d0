"""`phenaki prepare` against a plain `ffmpeg -vf scale` of the same files: clips per second of one core.

    make bench BENCH=prepare

The files are 720p H.264 that this makes, with grain so that they have the bit rate of filmed video. ffmpeg decodes them
on one thread, scales every frame to 128 px and throws it away. Prepare takes 8 frames of a second, as it does unless
asked otherwise, or every frame; it looks for scenes, crops, encodes JPEG and writes the dataset. Both take turns. A
core's second is a second of CPU time of all processes together, so that others on the machine count for neither.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imageio_ffmpeg

_SIZE, _FRAMES, _FILE_FPS = 128, 17, 30
_AIMS = {
    "ratio": ">= .8, of 8 frames a second, as prepare takes unless asked otherwise: of the others it decodes a part",
    "ratio.every_frame": "none; where all 30 are taken, each is decoded and encoded too",
}


def make_files(folder: Path, count: int, seconds: int) -> None:
    """Videos of 1280 x 720 at 30 frames per second, each another."""
    for index in range(count):
        picture = f"testsrc2=size=1280x720:rate={_FILE_FPS}:duration={seconds},hue=h={40 * index},noise=alls=12:allf=t"
        coded = ["-c:v", "libx264", "-preset", "veryfast", "-crf", "26", "-pix_fmt", "yuv420p"]
        _ffmpeg("-f", "lavfi", "-i", picture, *coded, str(folder / f"{index}.mp4"))


def _ffmpeg(*arguments: str) -> None:
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error", *arguments], check=True)


def scale(folder: Path) -> None:
    """What ffmpeg does."""
    for file in sorted(folder.glob("*.mp4")):
        _ffmpeg("-threads", "1", "-i", str(file), "-vf", f"scale=-2:{_SIZE}", "-filter_threads", "1", "-f", "null", "-")


def prepared(folder: Path, fps: float) -> int:
    """What prepare does; returns how many clips it made."""
    # Its processes import this module, and what they load would be measured.
    from phenaki_jax.data.prepare.preparation import prepare
    from phenaki_jax.data.prepare.settings import PrepareSettings
    from phenaki_jax.data.prepare.workers import WorkerSettings

    settings = PrepareSettings(size=_SIZE, fps=fps, frames=_FRAMES, on_missing_caption="empty")
    with tempfile.TemporaryDirectory() as out:
        done = prepare([folder], out, settings, WorkerSettings(1, 60.0, 2**32))
    return sum(split["examples"] for split in done.statistics["splits"].values())


def _timed(call: Callable[[], Any]) -> tuple[float, float, Any]:
    """Seconds of CPU and of the clock, and what came of it."""
    began, used = time.perf_counter(), _cpu_seconds()
    result = call()
    return _cpu_seconds() - used, time.perf_counter() - began, result


def _cpu_seconds() -> float:
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def measure(count: int, seconds: int, turns: int) -> dict[str, Any]:
    """All figures.

    Args:
      count: files.
      seconds: of each.
      turns: of each side.
    """
    figures: dict[str, Any] = {"files": count, "seconds_of_a_file": seconds}
    with tempfile.TemporaryDirectory() as folder:
        make_files(Path(folder), count, seconds)
        size = sum(file.stat().st_size for file in Path(folder).iterdir())
        figures["megabits_per_s"] = size * 8e-6 / count / seconds
        prepared(Path(folder), 8.0)
        for name, fps in (("", 8.0), (".every_frame", float(_FILE_FPS))):
            theirs, ours = [], []
            for _ in range(turns):
                theirs.append(_timed(lambda: scale(Path(folder))))
                ours.append(_timed(lambda fps=fps: prepared(Path(folder), fps)))
            clips = ours[0][2]
            for side, times in (("ffmpeg", theirs), ("prepare", ours)):
                figures[f"clips_per_core_second.{side}{name}"] = clips / statistics.median(each[0] for each in times)
                figures[f"seconds.{side}{name}"] = statistics.median(each[1] for each in times)
            rates = [figures[f"clips_per_core_second.{side}{name}"] for side in ("prepare", "ffmpeg")]
            figures[f"ratio{name}"] = rates[0] / rates[1]
    return figures


def main() -> int:
    """Prints a line of JSON with the figures; 1 where the aim is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=8, help="how many (default: 8)")
    parser.add_argument("--seconds", type=int, default=12, help="of each (default: 12)")
    parser.add_argument("--turns", type=int, default=3, help="of each side (default: 3)")
    args = parser.parse_args()
    figures = measure(args.files, args.seconds, args.turns)
    versions = {name: importlib.metadata.version(name) for name in ("av", "imageio-ffmpeg", "pillow")}
    versions["ffmpeg"] = imageio_ffmpeg.get_ffmpeg_version()
    print(json.dumps({"name": "prepare", **figures, "aims": _AIMS, "versions": versions}))
    return 0 if figures["ratio"] >= 0.8 else 1


if __name__ == "__main__":
    sys.exit(main())
