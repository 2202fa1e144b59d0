"""A folder of files of every kind becomes a dataset: all that is good once, and a reason for each that is not."""

import collections
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from phenaki_jax.data.prepare.metadata import PreparedDataset
from phenaki_jax.data.prepare.preparation import Prepared, prepare
from phenaki_jax.data.prepare.settings import PrepareSettings
from phenaki_jax.data.tensorflow_stack import tfds
from phenaki_jax.errors import UserError
from tests.data.prepare.conftest import BAD, GOOD, SETTINGS, TWO_WORKERS
from tests.data.prepare.files import make_video


def read(folder: pathlib.Path) -> dict[str, list[dict]]:
    """The examples of each split, as TFDS reads them."""
    builder = tfds.builder_from_directory(str(folder))
    uncached = tfds.ReadConfig(try_autocache=False)
    return {
        split: list(tfds.as_numpy(builder.as_dataset(split=split, read_config=uncached)))
        for split in builder.info.splits
    }


def report(folder: pathlib.Path) -> dict[str, str]:
    lines = map(json.loads, (folder / "report.jsonl").read_text().splitlines())
    return {line["source"]: line["reason"] for line in lines if "reason" in line}


def content(folder: pathlib.Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def examples(prepared: Prepared) -> dict[str, list[dict]]:
    return read(prepared.folder)


def test_every_good_file_is_there_once_with_all_its_clips(prepared: Prepared, examples: dict[str, list[dict]]) -> None:
    clips = collections.Counter(each["source"].decode() for split in examples.values() for each in split)
    # Of two copies the one whose name comes first in the order of hashes is taken.
    [taken] = {"h264.mp4", "copy.mp4"} & set(clips)
    assert clips == {taken if name == "h264.mp4" else name: count for name, count in GOOD.items()}
    starts = sorted(
        float(each["start"]) for split in examples.values() for each in split if each["source"] == b"vp9.webm"
    )
    assert starts == [0, 0.625, 1.25, 1.875]


def test_every_bad_file_is_named_with_its_reason(prepared: Prepared) -> None:
    found = report(prepared.folder)
    if "h264.mp4" in found:
        found["copy.mp4"] = found.pop("h264.mp4")
    assert set(found) == set(BAD)
    for name, reason in BAD.items():
        assert found[name].startswith(reason), (name, found[name])
    assert prepared.statistics["set_aside"] == len(BAD)
    summary = (prepared.folder / "report.txt").read_text()
    assert summary.startswith(f"{len(BAD)} set aside")


def test_no_source_is_in_two_splits_and_each_kind_has_both(examples: dict[str, list[dict]]) -> None:
    sources = {split: {each["source"] for each in found} for split, found in examples.items()}
    assert set(sources) == {"train", "test", "train_images", "test_images"}
    everything = [source for found in sources.values() for source in found]
    assert len(everything) == len(set(everything))
    assert all(sources.values())
    images = sources["train_images"] | sources["test_images"]
    assert images == {b"still.png", b"photo.jpg", b"one_frame.gif"}


def test_examples_are_clips_with_their_captions(examples: dict[str, list[dict]]) -> None:
    for split, found in examples.items():
        for each in found:
            assert each["frames"].shape == ((1 if "images" in split else 5), 32, 32, 3)
            assert each["frames"].dtype == np.uint8
            assert each["captions"].tolist()[1] == b"another caption"
            assert each["fps"] == 8
    [size] = {
        tuple(each["original_size"])
        for found in examples.values()
        for each in found
        if each["source"] == b"rotated.mov"
    }
    assert size == (64, 48)


def test_clips_of_a_cut_video_are_of_one_scene_each(examples: dict[str, list[dict]]) -> None:
    clips = [
        each["frames"].astype(int) for found in examples.values() for each in found if each["source"] == b"cut.mp4"
    ]
    first, second = (clip.mean((1, 2)) for clip in clips)
    assert max(np.ptp(first, 0).max(), np.ptp(second, 0).max()) < 6
    assert np.abs(first.mean(0) - second.mean(0)).max() > 20


def test_there_is_something_to_look_at(prepared: Prepared) -> None:
    statistics = json.loads((prepared.folder / "statistics.json").read_text())
    assert statistics["splits"] == prepared.statistics["splits"]
    assert sum(split["examples"] for split in statistics["splits"].values()) == sum(GOOD.values())
    assert statistics["width"]["most"] == 67
    for name in ("contact_sheet.png", "histograms.png"):
        assert (prepared.folder / name).stat().st_size > 1000
    dataset = PreparedDataset.read(prepared.folder)
    assert (dataset.name, dataset.size, dataset.frames) == ("my_videos", 32, 5)


def test_a_finished_dataset_is_left_alone(folder: pathlib.Path, prepared: Prepared) -> None:
    before = content(prepared.folder)
    again = prepare([folder], prepared.folder.parents[1], SETTINGS, TWO_WORKERS)
    assert again == prepared._replace(was_there=True)
    assert content(prepared.folder) == before
    other = PrepareSettings(size=64, frames=5)
    with pytest.raises(UserError, match=r"made with other settings \(size 32, now 64\)"):
        prepare([folder], prepared.folder.parents[1], other, TWO_WORKERS)


def test_where_nothing_is_good_it_is_told_and_only_the_report_is_left(tmp_path: pathlib.Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    with pytest.raises(UserError, match=r"found no video and no image in .*videos"):
        prepare([videos], tmp_path / "data", SETTINGS, TWO_WORKERS)
    (videos / "a.mp4").touch()
    (videos / "a.txt").write_text("a caption")
    with pytest.raises(UserError, match=r"found nothing good in .*, 1 for the reason: is empty \(0 bytes\); .*report"):
        prepare([videos], tmp_path / "data", SETTINGS, TWO_WORKERS)
    left = {path.name for path in (tmp_path / "data" / "my_videos").iterdir()}
    assert left == {".lock", "report.jsonl", "report.txt"}


def test_the_only_video_is_for_training(tmp_path: pathlib.Path) -> None:
    (tmp_path / "videos").mkdir()
    make_video(tmp_path / "videos" / "a.mp4")
    settings = PrepareSettings(size=32, frames=5, on_missing_caption="empty")
    done = prepare([tmp_path / "videos"], tmp_path / "data", settings, TWO_WORKERS)
    assert {split: len(found) for split, found in read(done.folder).items()} == {"train": 4}
    assert read(done.folder)["train"][0]["captions"].size == 0


COMMAND = "from tests.data.prepare.test_preparation import run_command; run_command()"


def run_command() -> None:
    """What is killed and begun again: prepares what its arguments name."""
    videos, data, workers = sys.argv[1:]
    prepare([videos], data, SETTINGS, TWO_WORKERS._replace(workers=int(workers)))


def begin(videos: pathlib.Path, data: pathlib.Path, workers: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", COMMAND, str(videos), str(data), str(workers)])


@pytest.mark.slow
def test_workers_and_kills_change_no_byte(folder: pathlib.Path, prepared: Prepared, tmp_path: pathlib.Path) -> None:
    """Killed with -9 at ten instants that are spread over the work, and gone on with each time."""
    videos = tmp_path / folder.name
    shutil.copytree(folder, videos)
    whole = tmp_path / "whole"
    began = time.monotonic()
    assert begin(videos, whole, 1).wait() == 0
    lasts = time.monotonic() - began
    expected = content(whole / "my_videos" / "1.0.0")
    assert expected == content(prepared.folder)
    killed = tmp_path / "killed"
    rng = np.random.default_rng(0)
    for _ in range(10):
        process = begin(videos, killed, 2)
        time.sleep(lasts * rng.uniform(0.3, 1.0))
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert begin(videos, killed, 2).wait() == 0
    assert content(killed / "my_videos" / "1.0.0") == expected
    assert os.listdir(killed / "my_videos") == os.listdir(whole / "my_videos")
