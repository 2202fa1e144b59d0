"""What phenaki prepare made is read by the name of the dataset: windows, captions, images, in mixtures."""

import collections
import json
import pathlib
import re
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

from phenaki_jax.data.feed import MixtureFeed, make_feed
from phenaki_jax.data.position import Order
from phenaki_jax.data.prepare import metadata
from phenaki_jax.data.prepare.metadata import shard_name
from phenaki_jax.data.prepare.pictures import encode_jpeg
from phenaki_jax.data.prepare.records import encode_example, framed
from phenaki_jax.data.prepared import prepared_names, video_text_task
from phenaki_jax.data.sources import provider_of, rates_of, source_shards
from phenaki_jax.data.tensorflow_stack import tfds
from phenaki_jax.errors import UserError

FRAMES, SIZE = 9, 16
CAPTIONS = ["one", "two", "three"]


def example(index: int, frames: int) -> bytes:
    """A clip whose frame k is of grey 10 * k, as bright in red as its index says."""
    pictures = [Image.new("RGB", (SIZE, SIZE), (20 * index, 10 * k, 10 * k)) for k in range(frames)]
    encoded = [encode_jpeg(picture, 100) for picture in pictures]
    captions = CAPTIONS[: index % 4]
    return encode_example(encoded, captions, source=f"{index}.mp4", start=0.0, fps=8.0, original_size=(48, 64))


def write_dataset(data_dir: pathlib.Path, name: str, examples: dict[str, int], version: str = "1.0.0") -> pathlib.Path:
    """A dataset as phenaki prepare lays it out, of so many examples of each split, in two files."""
    folder = data_dir / name / version
    folder.mkdir(parents=True)
    for split, count in examples.items():
        records = [framed(example(index, 1 if metadata.IMAGES in split else FRAMES)) for index in range(count)]
        for file in range(2):
            (folder / shard_name(name, split, file, 2)).write_bytes(b"".join(records[file::2]))
    (folder / metadata.SETTINGS_FILE).write_text(json.dumps({"name": name, "size": SIZE, "frames": FRAMES}))
    splits = {split: {"examples": count} for split, count in examples.items()}
    (folder / metadata.STATISTICS_FILE).write_text(json.dumps({"splits": splits}))
    return folder


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """With a dataset of both kinds and one of clips alone."""
    folder = tmp_path_factory.mktemp("data")
    write_dataset(folder, "both", {"train": 12, "test": 4, "train_images": 4, "test_images": 2})
    write_dataset(folder, "clips", {"train": 3})
    return folder


def read(name: str, data_dir: pathlib.Path, *, frames: int = 5, epochs: int = 1, **options: object) -> list[dict]:
    lengths = {"video": frames, "prefix_frames": 1}
    dataset = provider_of(name, data_dir).get_dataset(lengths, **{"seed": 0, "num_epochs": epochs, **options})
    return list(tfds.as_numpy(dataset))


def test_windows_are_successive_frames_anywhere_in_a_clip(data_dir: pathlib.Path) -> None:
    starts = collections.Counter()
    for each in read("both_video_text", data_dir, epochs=20):
        assert each["video"].shape == (5, SIZE, SIZE, 3)
        green = each["video"][:, 8, 8, 1].astype(int)
        start = round(green[0] / 10)
        assert np.abs(green - 10 * (start + np.arange(5))).max() <= 2
        starts[start] += 1
    assert set(starts) == set(range(FRAMES - 5 + 1))
    assert max(starts.values()) < 2.5 * min(starts.values())


def test_every_caption_is_drawn_and_none_is_empty_text(data_dir: pathlib.Path) -> None:
    found = collections.defaultdict(set)
    for each in read("both_video_text", data_dir, epochs=20):
        found[round(each["video"][0, 8, 8, 0] / 20)].add(each["text"].decode())
    assert {index: len(texts) for index, texts in found.items()} == {index: max(1, index % 4) for index in range(12)}
    assert found[0] == {""}
    assert found[3] == set(CAPTIONS)


@pytest.mark.parametrize(("frames", "given"), [(1, {0}), (3, {0, 1}), (5, {0, 3}), (7, {0, 5}), (9, {0, 5})])
def test_half_of_the_windows_are_continuations(data_dir: pathlib.Path, frames: int, given: set[int]) -> None:
    counts = collections.Counter(
        each["prefix_frames"].item() for each in read("both_video_text", data_dir, frames=frames, epochs=20)
    )
    assert set(counts) == given
    if len(given) > 1:
        assert 0.35 < counts[0] / counts.total() < 0.65


def test_images_are_one_frame_and_have_their_share_of_the_mixture(data_dir: pathlib.Path) -> None:
    images = read("both_image_text", data_dir)
    assert [each["video"].shape for each in images] == [(1, SIZE, SIZE, 3)] * 4
    assert {task.name: rate for task, rate in rates_of("both", data_dir).items()} == {
        "both_video_text": pytest.approx(0.8),
        "both_image_text": pytest.approx(0.2),
    }
    mixed = provider_of("both", data_dir).get_dataset({"video": 5, "prefix_frames": 1}, seed=0, num_epochs=None)
    lengths = collections.Counter(len(each["video"]) for each in tfds.as_numpy(mixed.take(400)))
    assert set(lengths) == {1, 5}
    assert 0.12 < lengths[1] / 400 < 0.28


def test_a_dataset_of_clips_alone_is_a_mixture_of_one_task(data_dir: pathlib.Path) -> None:
    assert {task.name: rate for task, rate in rates_of("clips", data_dir).items()} == {"clips_video_text": 1.0}
    assert len(read("clips", data_dir)) == 3
    assert prepared_names(data_dir) == [
        *("both", "both_video_text", "both_image_text"),
        *("clips", "clips_video_text"),
    ]


def feed_of(
    mixture: str, split: str, data_dir: pathlib.Path, *, devices: int = 1, batch_size: int = 4, **options: Any
) -> MixtureFeed:
    mesh = jax.make_mesh((devices,), ("data",))
    return make_feed(
        mixture=mixture,
        split=split,
        batch_size=batch_size,
        frames=5,
        text_length=8,
        converter="transformer",
        temporal_patch=2,
        seed=0,
        sharding=jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data")),
        data_dir=data_dir,
        **options,
    )


@pytest.mark.parametrize(
    ("there", "split", "advice"),
    [
        ("test", "train", "train on another MIXTURE, or .* with a --test_share below 1"),
        ("train", "test", "evaluate on another EVAL_MIXTURE, or .* of two files and more with a --test_share above 0"),
    ],
)
def test_a_split_that_is_absent_is_told_with_what_makes_it(
    tmp_path: pathlib.Path, there: str, split: str, advice: str
) -> None:
    write_dataset(tmp_path, "half", {there: 4})
    with pytest.raises(UserError, match=f"found split '{split}', expected one of {there}, of half: {advice}$"):
        feed_of("half", split, tmp_path)


@pytest.mark.parametrize(
    ("devices", "count", "found", "advice"),
    [
        (
            1,
            6,
            "6 examples",
            r"set --gin.EVAL_BATCH_SIZE=6 \(BATCH_SIZE, if the run file has no EVAL_BATCH_SIZE\); or r",
        ),
        (4, 6, "6 examples", "set --gin.EVAL_BATCH_SIZE=4 .*; or read more examples, as phenaki prepare makes"),
        (4, 1, "1 example", "read more examples, as phenaki prepare makes of more videos, or with a larger --test"),
    ],
)
def test_of_a_test_split_that_fills_no_batch_it_is_told_how_many_there_are_and_what_to_set(
    tmp_path: pathlib.Path, devices: int, count: int, found: str, advice: str
) -> None:
    write_dataset(tmp_path, "few", {"test": count})
    few = feed_of("few", "test", tmp_path, devices=devices, batch_size=8, shuffle=False, repeat=False)
    with pytest.raises(
        UserError, match=f"^the test split of few is smaller than one batch of 8: found {found}; {advice}"
    ):
        next(few)


def test_what_is_advised_to_readers_of_uneven_shares_goes(tmp_path: pathlib.Path) -> None:
    """Of two files, of three examples and of two, two readers have four in equal shares."""
    write_dataset(tmp_path, "few", {"test": 5})
    once = {"order": Order(2), "shuffle": False, "repeat": False}
    told = "found 5 examples, of which equal shares of 2 readers have 4; set --gin.EVAL_BATCH_SIZE=4 "
    with pytest.raises(UserError, match=told):
        next(feed_of("few", "test", tmp_path, batch_size=6, **once))
    assert next(feed_of("few", "test", tmp_path, batch_size=4, **once))["video"].shape[0] == 4


def test_of_a_mixture_it_is_told_that_it_ends_with_its_smallest_part(tmp_path: pathlib.Path) -> None:
    write_dataset(tmp_path, "few", {"test": 2, "test_images": 30})
    told = "found [1-7] examples?, as it ends with the smallest of few_\\w+, few_\\w+; .*name one of these alone"
    with pytest.raises(UserError, match=told):
        next(feed_of("few", "test", tmp_path, batch_size=8, shuffle=False, repeat=False))


def test_a_position_is_of_the_version_that_was_read(tmp_path: pathlib.Path) -> None:
    """A newer one that came since has other examples."""
    write_dataset(tmp_path, "clips", {"train": 8})
    feed = feed_of("clips", "train", tmp_path)
    next(feed)
    feed.save(tmp_path / "position")
    feed_of("clips", "train", tmp_path).restore(tmp_path / "position")
    write_dataset(tmp_path, "clips", {"train": 8}, "1.0.1")
    told = "with data='clips 1.0.0', not 'clips 1.0.1': resume .*; of a dataset the newest version is read: move it aw"
    with pytest.raises(UserError, match=told):
        feed_of("clips", "train", tmp_path).restore(tmp_path / "position")


def test_what_is_read_again_and_again_fills_batches_however_few_it_is(data_dir: pathlib.Path) -> None:
    assert next(feed_of("clips", "train", data_dir, batch_size=8))["video"].shape[0] == 8
    shared = feed_of("clips", "train", data_dir, batch_size=8, order=Order(4))
    told = "^found 3 examples in the train split of clips, expected at least 4, one for each share that is read: train"
    with pytest.raises(UserError, match=told):
        next(shared)


def test_a_feed_yields_batches_of_it_by_name(data_dir: pathlib.Path) -> None:
    batch = next(feed_of("both", "test", data_dir))
    assert batch["video"].shape == (4, 5, SIZE, SIZE, 3)
    assert batch["frame_mask"].sum(1).min() in (1, 5)
    [task] = rates_of("clips", data_dir)
    assert source_shards(task, "train", data_dir) >= 2


def test_the_newest_version_is_read(tmp_path: pathlib.Path) -> None:
    for version, count in (("1.9.0", 1), ("1.10.0", 2)):
        write_dataset(tmp_path, "clips", {"train": count}, version)
    assert len(read("clips", tmp_path)) == 2


def test_what_is_not_there_is_refused_with_what_is(data_dir: pathlib.Path, tmp_path: pathlib.Path) -> None:
    there = (
        rf"expected one of both, clips \(prepared in {data_dir}\), .*moving_shapes_joint, moving_shapes_joint_64 and"
    )
    with pytest.raises(UserError, match=rf"found mixture 'nowhere', {there} 10 more, or a published one; docs/data.md"):
        provider_of("nowhere", data_dir)
    with pytest.raises(UserError, match=rf"found mixture 'both_vidoe_text': did you mean both_video_text\? {there}"):
        provider_of("both_vidoe_text", data_dir)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"expected one of .*moving_shapes.*; nothing is prepared in .*/empty; one of"):
        provider_of("nowhere", tmp_path / "empty")


@pytest.mark.parametrize(
    ("name", "folder", "told"),
    [
        ("clips", "absent", "found no folder 'absent', expected that of the datasets, clips among them: set DATA_DIR"),
        ("clips", "gs://bucket/data", "to a folder of this machine, as a bucket is once it is mounted"),
        ("moving_shapes_jiont", "absent", "did you mean moving_shapes_joint?"),
    ],
)
def test_a_folder_that_is_not_there_is_told_unless_a_name_is_misspelt(name: str, folder: str, told: str) -> None:
    with pytest.raises(UserError, match=re.escape(told)):
        provider_of(name, folder)


def test_the_refusal_of_a_name_is_short_however_much_there_is(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index in range(9):
        write_dataset(tmp_path / "data", f"clips_{index}", {"train": 1})
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"clips_0, clips_1, clips_2, clips_3 and 5 more \(prepared in data\)") as error:
        provider_of("clipz_4_video_text", "data")
    assert str(error.value).startswith("found mixture 'clipz_4_video_text': did you mean clips_4_video_text? expected")
    assert len(str(error.value)) < 340


@pytest.mark.parametrize(("within", "wanted"), [("data/clips", "data"), ("data/clips/1.0.0", "data"), (".", "..")])
def test_of_a_folder_of_one_dataset_that_of_all_is_told(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, within: str, wanted: str
) -> None:
    folder = write_dataset(tmp_path / "data", "clips", {"train": 1})
    monkeypatch.chdir(folder.parent if within == "." else tmp_path)
    told = f"; {re.escape(within)} is the folder of one dataset: set DATA_DIR to {re.escape(wanted)}; one of your own"
    with pytest.raises(UserError, match=told):
        provider_of("clips", within)


def test_a_kind_that_a_dataset_has_not_is_told_with_what_it_has(data_dir: pathlib.Path, tmp_path: pathlib.Path) -> None:
    told = r"^found no images in .*clips/1.0.0, expected some for clips_image_text: name clips_video_text$"
    with pytest.raises(UserError, match=told):
        provider_of("clips_image_text", data_dir)
    write_dataset(tmp_path, "pictures", {"train_images": 1})
    with pytest.raises(UserError, match=r"found no videos in .*, expected some for .*: name pictures_image_text$"):
        provider_of("pictures_video_text", tmp_path)


@pytest.mark.parametrize(
    ("frames", "options", "message"),
    [
        (
            11,
            {},
            "^found windows of 11 frames, expected at most 9, those of a clip of both: set FRAMES to 9 or fewer, or",
        ),
        (5, {"prefix_frames": 5}, "continuations of 5 frames, 5 of them given"),
        (5, {"prefix_probability": 1.5}, "prefix_probability 1.5, expected a share"),
    ],
)
def test_windows_that_cannot_be_are_refused(data_dir: pathlib.Path, frames: int, options: dict, message: str) -> None:
    dataset = metadata.PreparedDataset.read(data_dir / "both" / "1.0.0")
    with pytest.raises(UserError, match=message):
        video_text_task(dataset, **options).get_dataset({"video": frames, "prefix_frames": 1})


def test_a_dataset_of_which_a_file_is_absent_or_damaged_is_refused(tmp_path: pathlib.Path) -> None:
    folder = write_dataset(tmp_path, "clips", {"train": 4})
    (folder / shard_name("clips", "train", 1, 2)).unlink()
    with pytest.raises(UserError, match=r"found 1 of 2 train files in .*: copy the rest"):
        read("clips", tmp_path)
    (folder / shard_name("clips", "train", 0, 2)).unlink()
    with pytest.raises(UserError, match=r"found no train files in .*, or delete the folder and prepare it again$"):
        read("clips", tmp_path)
    (folder / metadata.STATISTICS_FILE).write_text("{")
    with pytest.raises(UserError, match=r"statistics.json cannot be read"):
        provider_of("clips", tmp_path)
