"""The files of a dataset of TFDS: the newest, whole, shuffled as encoded records of which few are large."""

import pathlib
import shutil

import pytest

from phenaki_jax.data.published.catalog import CATALOG, TfdsLayout
from phenaki_jax.data.published.records import TfdsExamples
from phenaki_jax.data.records import SHUFFLE_BUFFER
from phenaki_jax.data.sources import data_dir_of_seqio
from phenaki_jax.errors import UserError
from tests.data.published.files import write_ucf101


def layout_of(name: str) -> TfdsLayout:
    layout = CATALOG[name].tfds
    assert layout is not None
    return layout


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("tfds")
    write_ucf101(folder, lengths=(3, 4, 5))
    return folder


def test_all_files_of_the_newest_version_are_read(data_dir: pathlib.Path, tmp_path: pathlib.Path) -> None:
    versions = tmp_path / "ucf101" / "ucf101_1"
    for version in ("2.0.0", "10.0.0"):
        shutil.copytree(data_dir / "ucf101" / "ucf101_1" / "2.0.0", versions / version)
    source = TfdsExamples(layout_of("ucf101"))
    with data_dir_of_seqio(tmp_path):
        names = [pathlib.Path(file) for file in source.list_shards("train")]
        assert [file.parent.name for file in names] == ["10.0.0", "10.0.0"]
        assert len(list(source.get_dataset("train", shuffle=False))) == 3
        assert source.class_names()[:3] == ["apply eye makeup", "apply lipstick", "archery"]


def test_large_records_are_shuffled_among_fewer(data_dir: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = TfdsExamples(layout_of("ucf101"))
    with data_dir_of_seqio(data_dir):
        assert source.shuffle_buffer("train") == SHUFFLE_BUFFER
        mean = sum(part.num_bytes for part in [source.builder().info.splits["train"]]) / 3
        monkeypatch.setattr("phenaki_jax.data.published.records._MOST_SHUFFLED_BYTES", round(100.5 * mean))
        assert source.shuffle_buffer("train") == 100
        monkeypatch.setattr("phenaki_jax.data.published.records._MOST_SHUFFLED_BYTES", 0)
        assert source.shuffle_buffer("train") == 16


def test_an_absent_file_is_told(data_dir: pathlib.Path, tmp_path: pathlib.Path) -> None:
    shutil.copytree(data_dir, tmp_path, dirs_exist_ok=True)
    folder = tmp_path / "ucf101" / "ucf101_1" / "2.0.0"
    first, _ = sorted(folder.glob("ucf101-train.tfrecord-*"))
    first.unlink()
    source = TfdsExamples(layout_of("ucf101"))
    again = f"with: tfds build ucf101/ucf101_1 --data_dir {tmp_path}$"
    told = pytest.raises(UserError, match=rf"found 1 of 2 train files in {folder}, .* {again}")
    with data_dir_of_seqio(tmp_path), told:
        source.list_shards("train")
