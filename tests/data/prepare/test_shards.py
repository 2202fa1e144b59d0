"""Records are dealt out and shuffled, and what an interruption left is cut off."""

import pathlib

import pytest

from phenaki_jax.data.prepare.records import framed, payload, read_framed
from phenaki_jax.data.prepare.shards import Shards
from phenaki_jax.data.tensorflow_stack import tf
from phenaki_jax.errors import UserError

RECORDS = [b"record %d" % index for index in range(40)]


def fill(folder: pathlib.Path, records: list[bytes], most_bytes: int = 2**20) -> Shards:
    folder.mkdir(exist_ok=True)
    shards = Shards(folder, "clips", "train", most_bytes, None)
    for record in records:
        shards.write(record)
        shards.flush()
    return shards


def finished(folder: pathlib.Path, shards: Shards) -> dict[str, bytes]:
    shards.close_group()
    shards.finish("train")
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_files_are_those_of_tensorflow(tmp_path: pathlib.Path) -> None:
    files = finished(tmp_path / "a", fill(tmp_path / "a", RECORDS))
    assert list(files) == [f"clips-train.tfrecord-{index:05}-of-00016" for index in range(16)]
    read = [list(tf.data.TFRecordDataset(str(tmp_path / "a" / name)).as_numpy_iterator()) for name in files]
    assert sorted(record for each in read for record in each) == sorted(RECORDS)
    assert {len(each) for each in read} == {2, 3}
    with tf.io.TFRecordWriter(str(tmp_path / "theirs")) as writer:
        writer.write(RECORDS[0])
    assert (tmp_path / "theirs").read_bytes() == framed(RECORDS[0])


def test_neighbours_are_in_other_files_and_in_no_order(tmp_path: pathlib.Path) -> None:
    records = [b"%04d" % index for index in range(1600)]
    shards = fill(tmp_path / "a", records)
    finished(tmp_path / "a", shards)
    with (tmp_path / "a" / "clips-train.tfrecord-00003-of-00016").open("rb") as file:
        numbers = [int(payload(frame)) for frame in read_framed(file)]
    assert sorted(numbers) == list(range(3, 1600, 16))
    assert numbers != sorted(numbers)


def test_groups_are_closed_at_their_size(tmp_path: pathlib.Path) -> None:
    size = len(framed(RECORDS[10]))
    shards = fill(tmp_path / "a", RECORDS[10:30] * 4, most_bytes=2 * size)
    files = finished(tmp_path / "a", shards)
    lengths, total = shards.describe()
    assert (len(files), len(lengths), sum(lengths)) == (48, 48, 80)
    assert total == 80 * size == sum(map(len, files.values()))


def test_what_was_written_after_the_state_is_cut_off(tmp_path: pathlib.Path) -> None:
    whole = finished(tmp_path / "whole", fill(tmp_path / "whole", RECORDS))
    stopped = fill(tmp_path / "stopped", RECORDS[:25])
    state = {name: value if isinstance(value, int) else list(value) for name, value in stopped.state.items()}
    for record in RECORDS[25:32]:
        stopped.write(record)
    stopped.flush()
    resumed = Shards(tmp_path / "stopped", "clips", "train", 2**20, state)
    assert resumed.records == 25
    for record in RECORDS[25:]:
        resumed.write(record)
    assert finished(tmp_path / "stopped", resumed) == whole


def test_what_is_absent_is_told(tmp_path: pathlib.Path) -> None:
    shards = fill(tmp_path / "a", RECORDS)
    (tmp_path / "a" / "train-03.growing").write_bytes(b"")
    with pytest.raises(UserError, match=r"found 0 bytes, expected at least \d+, as many as were written"):
        Shards(tmp_path / "a", "clips", "train", 2**20, shards.state)


def test_damaged_records_are_told(tmp_path: pathlib.Path) -> None:
    data = bytearray(framed(b"one") + framed(b"two"))
    data[-6] ^= 1
    (tmp_path / "a").write_bytes(data)
    with (tmp_path / "a").open("rb") as file, pytest.raises(UserError, match="found damaged records"):
        list(read_framed(file))
