"""Views give what NumPy gives, between any slices; damaged files are told in one line."""

import json
import pathlib
from collections.abc import Callable

import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import serialization
from safetensors.numpy import save_file

from phenaki_jax.errors import UserError
from phenaki_jax.text.stored_arrays import StoredArray, lifted, open_arrays, split, transposed

ARRAY = np.arange(2 * 12 * 5, dtype=np.float32).reshape(2, 12, 5)
STORED = StoredArray(ARRAY.shape, lambda index: ARRAY[index])

Unpack = Callable[[str], pathlib.Path]


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        (transposed(STORED, (1, 2, 0)), ARRAY.transpose(1, 2, 0)),
        (split(STORED, 1, 3), ARRAY.reshape(2, 4, 3, 5)),
        (split(STORED, 0, 2), ARRAY.reshape(1, 2, 12, 5)),
        (lifted(STORED), ARRAY[None]),
        (lifted(split(transposed(STORED, (2, 1, 0)), 1, 4)), ARRAY.transpose(2, 1, 0).reshape(1, 5, 3, 4, 2)),
    ],
)
def test_views_are_numpys(view: StoredArray, expected: np.ndarray) -> None:
    assert view.shape == expected.shape
    rng = np.random.default_rng(0)
    for _ in range(20):
        ends = [sorted(rng.integers(0, size + 1, 2).tolist()) for size in expected.shape]
        index = tuple(slice(*pair) for pair in ends)
        np.testing.assert_array_equal(view.read(index), expected[index])


def read_all(path: pathlib.Path) -> None:
    """But for an optimizer's state."""
    for name, opener in open_arrays(path).items():
        if not name.startswith("state/"):
            array = opener()
            array.read(tuple(slice(0, size) for size in array.shape))


def refusal(path: pathlib.Path, file: pathlib.Path | None = None) -> str:
    """The one line that a checkpoint, or one of its arrays, is refused with; it names the file."""
    with pytest.raises(UserError) as error:
        read_all(path)
    assert str(file or path) in str(error.value)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html>", b"\x30\0\0\0\0\0\0\0{}"])
def test_files_of_something_else_are_told(tmp_path: pathlib.Path, content: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    told = refusal(tmp_path, tmp_path / "model.safetensors")
    assert " is damaged (" in told
    assert told.endswith("), expected safetensors; copy or download it again")


def test_half_a_file_is_told(tmp_path: pathlib.Path) -> None:
    save_file({"weight": ARRAY}, tmp_path / "model.safetensors")
    content = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(content[: len(content) // 2])
    assert "is damaged (" in refusal(tmp_path / "model.safetensors")


@pytest.mark.parametrize("index", ["{", "[]", '{"weight_map": 3}', '{"weight_map": {"weight": 3}}'])
def test_a_damaged_index_is_told(tmp_path: pathlib.Path, index: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(index)
    told = refusal(tmp_path, tmp_path / "model.safetensors.index.json")
    assert "), expected the index of safetensors files; copy or download it again" in told


def test_an_index_of_files_that_are_not_there_is_told(tmp_path: pathlib.Path) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"one": "1.safetensors", "two": "2.safetensors"}}))
    save_file({"one": ARRAY}, tmp_path / "1.safetensors")
    assert f"{index}: found no 2.safetensors beside it, expected all files that it names" in refusal(tmp_path, index)
    save_file({"one": ARRAY}, tmp_path / "2.safetensors")
    told = refusal(tmp_path, tmp_path / "2.safetensors")
    assert "2.safetensors: found no two, which model.safetensors.index.json says is in it; copy or" in told


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is damaged ("),
        (b'model_checkpoint_path: "model.ckpt-1000000"', "is damaged ("),
        (serialization.msgpack_serialize({"optimizer": {"target": ARRAY}})[:90], "is damaged ("),
        (serialization.msgpack_serialize({"params": ARRAY}), "found a dict of params, expected a checkpoint of t5x"),
        (serialization.msgpack_serialize([1]), "found a list, expected a checkpoint of t5x, a dict with an optimizer"),
    ],
)
def test_a_damaged_file_of_t5x_is_told(tmp_path: pathlib.Path, content: bytes, message: str) -> None:
    (tmp_path / "checkpoint").write_bytes(content)
    assert message in refusal(tmp_path, tmp_path / "checkpoint")


@pytest.mark.parametrize("flaw", ["half", "absent", "metadata"])
def test_damaged_folders_of_zarr_are_told(t5x_checkpoint: Unpack, flaw: str) -> None:
    """A file that is not there would read as zeros."""
    folder = t5x_checkpoint("t5x_legacy_t5")
    read_all(folder)
    name = "target.encoder.layers_1.mlp.wo.kernel"
    if flaw == "half":
        (folder / name / "0.0").write_bytes((folder / name / "0.0").read_bytes()[:100])
    elif flaw == "absent":
        (folder / name / "0.0").unlink()
    else:
        (folder / name / ".zarray").write_text("{")
    told = refusal(folder)
    assert f"{name} is damaged (" in told
    assert told.endswith("); copy or download it again")


@pytest.mark.parametrize("pattern", ["manifest.ocdbt", "**/d/*"])
def test_damaged_databases_of_orbax_are_told(tmp_path: pathlib.Path, pattern: str) -> None:
    with ocp.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "tree", {"weight": np.random.default_rng(0).random((64, 64), np.float32)})
    files = list((tmp_path / "tree").glob(pattern))
    assert files
    for file in files:
        file.write_bytes(file.read_bytes()[:-9])
    told = refusal(tmp_path / "tree")
    assert "is damaged (" in told
    assert told.endswith("; copy or download it again")
