"""A folder of files of every kind becomes a dataset: all that is good once, and a reason for each that is not."""

import collections
import errno
import io
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from tqdm import tqdm

from phenaki_jax.data.clips import count_clips
from phenaki_jax.data.prepare import preparation, writing
from phenaki_jax.data.prepare.listing import Changes
from phenaki_jax.data.prepare.metadata import PreparedDataset
from phenaki_jax.data.prepare.preparation import Prepared, prepare
from phenaki_jax.data.prepare.records import encode_example
from phenaki_jax.data.prepare.settings import PrepareSettings
from phenaki_jax.data.prepare.sources import Source
from phenaki_jax.data.tensorflow_stack import tfds
from phenaki_jax.errors import UserError
from tests.data.prepare.conftest import BAD, GOOD, SETTINGS, TWO_WORKERS, make_folder
from tests.data.prepare.files import cut_off, make_image, make_video

ONE_WORKER = TWO_WORKERS._replace(workers=1)


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
    [(name, copy)] = [(name, reason) for name, reason in found.items() if reason.startswith("is the same as")]
    assert name == "copy.mp4"
    assert re.fullmatch(
        r"is the same as '(h264|copy).mp4', and its own captions are lost: 'a caption of (copy|h264)'", copy
    )
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
    # A picture has no length.
    assert statistics["seconds"]["least"] > 1
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
    with pytest.raises(
        UserError, match=rf"found inputs {folder.parent}, expected {folder}, of which .* another --name"
    ):
        prepare([folder.parent], prepared.folder.parents[1], SETTINGS, TWO_WORKERS)


def test_what_a_finished_dataset_was_made_of_is_compared(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, data = make_images(tmp_path / "images", 3), tmp_path / "data"
    assert prepare([images], data, SETTINGS, ONE_WORKER).changes == Changes()
    make_image(images / "3.png", seed=3)
    (images / "3.txt").write_text("image 3")
    assert prepare([images], data, SETTINGS, ONE_WORKER).changes == Changes(came=1)
    for name in ("0.png", "0.txt", "1.png", "1.txt"):
        (images / name).unlink()
    assert prepare([images], data, SETTINGS, ONE_WORKER).changes == Changes(came=1, gone=2)
    listed = data / "my_videos" / "1.0.0" / "files.jsonl"
    assert listed.read_text() == '"0.png"\n"1.png"\n"2.png"\n'
    listed.write_text("0.png\n")
    assert prepare([images], data, SETTINGS, ONE_WORKER).changes.unknown.startswith("Extra data")
    listed.unlink()
    assert prepare([images], data, SETTINGS, ONE_WORKER).changes == Changes()


def test_a_finished_dataset_is_there_whatever_became_of_its_inputs(tmp_path: pathlib.Path) -> None:
    images, data = make_images(tmp_path / "images", 3), tmp_path / "data"
    table = images / "metadata.csv"
    table.write_text("file,caption\n0.png,a dog\n")
    prepare([images], data, SETTINGS, ONE_WORKER)
    table.write_text("file,caption,licence\n0.png,a dog,free\n")
    done = prepare([images], data, SETTINGS, ONE_WORKER)
    assert done.was_there
    assert "licence" in done.changes.unknown


def test_a_finished_dataset_whose_settings_are_damaged_is_told(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    finished = tmp_path / "my_videos" / "1.0.0"
    finished.mkdir(parents=True)
    for text in ("", "[]", '{"size": '):
        (finished / "prepare.json").write_text(text)
        with pytest.raises(UserError, match=r"prepare.json cannot be read .* delete .* and prepare the dataset again"):
            prepare([folder], tmp_path, SETTINGS, TWO_WORKERS)


def rewrite_info(folder: pathlib.Path, text: str) -> None:
    (folder / "dataset_info.json").write_text(text)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda folder: [file.unlink() for file in folder.glob("*-train_images.*")], "found 0 of 2 train_images files"),
        (
            lambda folder: (folder / "my_videos-train_images.tfrecord-00001-of-00002").unlink(),
            "found 1 of 2 train_images files, expected also my_videos-train_images.tfrecord-00001-of-00002",
        ),
        (
            lambda folder: cut_off(folder / "my_videos-test_images.tfrecord-00000-of-00001", 0.5),
            r"found test_images files of \d+ bytes together, expected \d+",
        ),
        (lambda folder: rewrite_info(folder, ""), "dataset_info.json cannot be read"),
        (lambda folder: rewrite_info(folder, '{"splits": [{"na'), "dataset_info.json cannot be read"),
        (lambda folder: rewrite_info(folder, "{}"), "found dataset_info.json without the files of its splits"),
        (lambda folder: rewrite_info(folder, '{"splits": []}'), "found dataset_info.json without the files of its"),
        (lambda folder: (folder / "features.json").unlink(), "features.json cannot be read"),
        (lambda folder: (folder / "statistics.json").write_text("{"), "statistics.json cannot be read"),
        (lambda folder: (folder / "statistics.json").write_text("{}"), "found metadata without 'splits'"),
    ],
)
def test_a_finished_dataset_that_was_damaged_is_refused_with_the_way_to_make_it_again(
    tmp_path: pathlib.Path, damage: Callable[[pathlib.Path], object], told: str
) -> None:
    images, data = make_images(tmp_path / "images", 3), tmp_path / "data"
    folder = prepare([images], data, SETTINGS, ONE_WORKER).folder
    whole = content(folder)
    damage(folder)
    damaged = content(folder)
    with pytest.raises(UserError, match=rf"{told}.*: delete (that folder|{folder})") as error:
        prepare([images], data, SETTINGS, ONE_WORKER)
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)
    assert content(folder) == damaged
    shutil.rmtree(folder)
    assert content(prepare([images], data, SETTINGS, ONE_WORKER).folder) == whole


def make_images(folder: pathlib.Path, count: int) -> pathlib.Path:
    folder.mkdir()
    for index in range(count):
        make_image(folder / f"{index}.png", seed=index)
        (folder / f"{index}.txt").write_text(f"image {index}")
    return folder


def test_what_was_interrupted_goes_on_from_another_working_directory(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_images(tmp_path / "images", 6)
    monkeypatch.chdir(tmp_path)
    written = iter(range(2))

    def encode(*arguments: object, **named: object) -> bytes:
        if next(written, None) is None:
            raise KeyboardInterrupt
        return encode_example(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(writing, "encode_example", encode)
        with pytest.raises(KeyboardInterrupt, match="interrupted; the same command goes on"):
            prepare(["images"], "data", SETTINGS, ONE_WORKER)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    make_image(tmp_path / "images" / "later.png", seed=6)
    done = prepare(["../images"], "../data", SETTINGS, ONE_WORKER)
    assert report(done.folder) == {}
    assert done.changes == Changes(came=1)
    again = prepare([tmp_path / "images"], tmp_path / "data", SETTINGS, ONE_WORKER)
    assert again == done._replace(folder=tmp_path / "data" / "my_videos" / "1.0.0", was_there=True)
    sources = [each["source"].decode() for split in read(done.folder).values() for each in split]
    assert sorted(sources) == [f"{index}.png" for index in range(6)]


def test_splits_that_are_told_hold_and_all_that_is_done_is_counted(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_images(tmp_path / "images", 7)
    splits = {"0.png": "test", "1.png": "test", "2.png": "test", "3.png": "test", "4.png": "train", "5.png": "train"}
    rows = "".join(f"images/{name},{name},{split}\n" for name, split in splits.items())
    (tmp_path / "table.csv").write_text(f"file,caption,split\n{rows}images/6.png,,test\n")
    bars: list[tqdm] = []

    class Bar(tqdm):
        def __init__(self, *arguments: object, **named: object) -> None:
            super().__init__(*arguments, **{**named, "disable": False, "file": io.StringIO()})
            bars.append(self)

    monkeypatch.setattr(preparation, "tqdm", Bar)
    monkeypatch.setattr(writing, "tqdm", Bar)
    done = prepare([tmp_path / "table.csv"], tmp_path / "data", SETTINGS, ONE_WORKER)
    found = {each["source"].decode(): split for split, examples in read(done.folder).items() for each in examples}
    assert found == {f"images/{name}": f"{split}_images" for name, split in splits.items()}
    assert [(bar.n, bar.total) for bar in bars] == [(7, None), (7, 7)]


def test_of_an_empty_file_without_caption_it_is_told_that_it_is_empty(tmp_path: pathlib.Path) -> None:
    images = make_images(tmp_path / "images", 2)
    (images / "empty.mp4").touch()
    (images / "empty.txt").write_text("\n")
    make_image(images / "silent.png", seed=5)
    found = report(prepare([images], tmp_path / "data", SETTINGS, ONE_WORKER).folder)
    assert found["empty.mp4"] == "is empty (0 bytes)"
    assert found["silent.png"] == "has no caption"


def test_where_all_is_told_to_be_for_tests_it_stays_so(tmp_path: pathlib.Path) -> None:
    make_images(tmp_path / "images", 2)
    (tmp_path / "table.jsonl").write_text('{"image": "images/0.png", "caption": "a", "split": "test"}\n')
    done = prepare([tmp_path / "table.jsonl"], tmp_path / "data", SETTINGS, ONE_WORKER)
    assert set(done.statistics["splits"]) == {"test_images"}


def test_what_cannot_be_listed_is_no_fault_of_the_dataset(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find_nothing(_: object, __: object, out: pathlib.Path) -> Iterator[Source]:
        # Where datasets are made there is nothing to be found.
        assert out == tmp_path / "data"
        raise OSError(errno.EIO, "Input/output error")
        yield

    monkeypatch.setattr(preparation, "find_sources", find_nothing)
    with pytest.raises(UserError, match=rf"^{tmp_path} cannot be read \(Input/output error\)"):
        prepare([tmp_path], tmp_path / "data", SETTINGS, ONE_WORKER)


def test_where_nothing_is_good_it_is_told_and_only_the_report_is_left(tmp_path: pathlib.Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    with pytest.raises(UserError, match=r"found no video and no image in .*videos, expected at least one of .mp4, "):
        prepare([videos], tmp_path / "data", SETTINGS, TWO_WORKERS)
    (videos / "a.wmv").touch()
    with pytest.raises(UserError, match=r"in .*videos, only files that are not read \(1 .wmv\), expected at least one"):
        prepare([videos], tmp_path / "data", SETTINGS, TWO_WORKERS)
    (videos / "a.mp4").touch()
    (videos / "a.txt").write_text("a caption")
    with pytest.raises(UserError, match=r"found nothing good in .*, 1 for the reason: is empty \(0 bytes\); .*report"):
        prepare([videos], tmp_path / "data", SETTINGS, TWO_WORKERS)
    left = {path.name for path in (tmp_path / "data" / "my_videos").iterdir()}
    assert left == {".lock", "report.jsonl", "report.txt"}


def test_of_a_refused_table_nothing_is_left_and_what_was_there_stays(tmp_path: pathlib.Path) -> None:
    (tmp_path / "table.csv").write_text("a.mp4,a dog\n")
    for before in ("", "data", "data/my_videos"):
        (tmp_path / before).mkdir(exist_ok=True)
        with pytest.raises(UserError, match="in the first line, expected the names of columns"):
            prepare([tmp_path / "table.csv"], tmp_path / "data", SETTINGS, ONE_WORKER)
        assert (tmp_path / "data").exists() == bool(before)
        assert (tmp_path / "data" / "my_videos").exists() == (before == "data/my_videos")


def test_the_only_video_is_for_training(tmp_path: pathlib.Path) -> None:
    (tmp_path / "videos").mkdir()
    make_video(tmp_path / "videos" / "a.mp4")
    settings = PrepareSettings(size=32, frames=5, on_missing_caption="empty")
    done = prepare([tmp_path / "videos"], tmp_path / "data", settings, TWO_WORKERS)
    assert {split: len(found) for split, found in read(done.folder).items()} == {"train": 4}
    assert read(done.folder)["train"][0]["captions"].size == 0


def test_all_may_be_for_tests(tmp_path: pathlib.Path) -> None:
    """As protocols ask for of clips that nothing is trained on: no training split, and all else as ever."""
    (tmp_path / "videos").mkdir()
    for hue in range(3):
        make_video(tmp_path / "videos" / f"{hue}.mp4", filters=f"hue=h={100 * hue}")
    make_image(tmp_path / "videos" / "still.png", seed=0)
    settings = PrepareSettings(size=32, frames=5, on_missing_caption="empty", test_share=1.0)
    done = prepare([tmp_path / "videos"], tmp_path / "data", settings, TWO_WORKERS)
    assert {split: len(found) for split, found in read(done.folder).items()} == {"test": 12, "test_images": 1}
    assert {split: each["sources"] for split, each in done.statistics["splits"].items()} == {
        "test": 3,
        "test_images": 1,
    }
    assert (done.folder / "contact_sheet.png").is_file()
    assert prepare([tmp_path / "videos"], tmp_path / "data", settings, TWO_WORKERS).was_there
    assert count_clips("my_videos_video_text", "test", tmp_path / "data") == 12
    with pytest.raises(UserError, match="found split 'train', expected one of test, of my_videos_video_text: train on"):
        count_clips("my_videos_video_text", "train", tmp_path / "data")


TURNS = 14
COMMAND = "from tests.data.prepare.test_preparation import run_command; run_command()"


def run_command() -> None:
    """What is killed and begun again: prepares what its arguments name."""
    videos, data, workers = sys.argv[1:]
    prepare([videos], data, SETTINGS, TWO_WORKERS._replace(workers=int(workers)))


def begin(videos: pathlib.Path, data: pathlib.Path, workers: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", COMMAND, str(videos), str(data), str(workers)])


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder of 300 files."""
    folder = tmp_path_factory.mktemp("many")
    for index in range(TURNS):
        (folder / str(index)).mkdir()
        make_folder(folder / str(index), turn=index)
    for path in folder.rglob("nobody.txt"):
        path.unlink()
    assert sum(path.suffix != ".txt" for path in folder.rglob("*.*")) > 300 - len(BAD)
    return folder


@pytest.fixture(scope="module")
def many_prepared(many: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[pathlib.Path, float]:
    """The dataset of these, made by one process that decodes, and how long it took."""
    data = tmp_path_factory.mktemp("whole")
    began = time.monotonic()
    assert begin(many, data, 1).wait() == 0
    return data / "my_videos" / "1.0.0", time.monotonic() - began


@pytest.mark.slow
def test_of_300_files_every_good_clip_is_there_once_and_every_bad_file_is_named(
    many_prepared: tuple[pathlib.Path, float],
) -> None:
    folder, _ = many_prepared
    clips = collections.Counter(each["source"].decode() for split in read(folder).values() for each in split)
    aside = report(folder)
    for turn in range(TURNS):
        copies = {f"{turn}/h264.mp4", f"{turn}/copy.mp4"}
        assert len(copies & set(clips)) == len(copies & set(aside)) == 1
        for name, count in GOOD.items():
            assert name == "h264.mp4" or clips[f"{turn}/{name}"] == count
        for name in set(BAD) - {"copy.mp4", "nobody.txt"}:
            assert aside[f"{turn}/{name}"].startswith(BAD[name])
    assert sum(clips.values()) == TURNS * sum(GOOD.values())
    assert len(aside) == TURNS * (len(BAD) - 1)


@pytest.mark.slow
def test_workers_and_kills_change_no_byte(
    many: pathlib.Path, many_prepared: tuple[pathlib.Path, float], tmp_path: pathlib.Path
) -> None:
    """Killed with -9 at ten instants all over the work, and gone on with each time; begun anew where it was done."""
    whole, lasts = many_prepared
    made = tmp_path / "my_videos" / "1.0.0"
    rng = np.random.default_rng(0)
    kills = 0
    while kills < 10:
        process = begin(many, tmp_path, 2)
        time.sleep(lasts * rng.uniform(0.1, 0.4))
        process.send_signal(signal.SIGKILL)
        process.wait()
        if made.is_dir():
            assert content(made) == content(whole)
            shutil.rmtree(made)
        else:
            kills += 1
    assert begin(many, tmp_path, 2).wait() == 0
    assert content(made) == content(whole)
    assert sorted(os.listdir(tmp_path / "my_videos")) == [".lock", "1.0.0", "1.0.0.inputs.json"]
