"""Whole files become arrays, and any other is told by what was found."""

import json
import pathlib
import struct

import numpy as np
import pytest
from safetensors.numpy import save_file

from phenaki_jax.errors import UserError
from phenaki_jax.features import safetensors_files


def with_header(header: object, values: bytes) -> bytes:
    """A file's content."""
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + values


FP8 = with_header({"kernel": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}}, bytes(4))
CUT = with_header({"kernel": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}, bytes(4))


def test_arrays_are_read_in_their_types(tmp_path: pathlib.Path) -> None:
    tensors = {"kernel": np.arange(6, dtype=np.float16).reshape(2, 3), "count": np.array(3)}
    save_file(tensors, tmp_path / "a.safetensors")
    found = safetensors_files.read_safetensors(tmp_path / "a.safetensors")
    assert {name: array.dtype for name, array in found.items()} == {"kernel": np.float16, "count": np.int64}
    np.testing.assert_array_equal(found["kernel"], tensors["kernel"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "found an empty file, expected safetensors"),
        (b"<!DOCTYPE html><html>", "begins with b'<!DOCTYPE html><', expected safetensors"),
        (CUT, r"is damaged \(.*\), expected safetensors"),
        (struct.pack("<Q", 2**63) + b"{}", r"is damaged \(.*\), expected safetensors"),
        (FP8, r"found values of a type that NumPy has not \(.*float8_e4m3fn.*\), expected float32"),
    ],
    ids=["empty", "HTML", "cut", "a header longer than the file", "fp8"],
)
def test_what_is_no_whole_file_is_told_in_one_line(tmp_path: pathlib.Path, content: bytes, message: str) -> None:
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        safetensors_files.read_safetensors(tmp_path / "a.safetensors")
    assert str(error.value).startswith(str(tmp_path / "a.safetensors"))
    assert "\n" not in str(error.value)


def test_a_file_that_cannot_be_read_is_told(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: pathlib.Path) -> None:
        raise PermissionError(13, "Permission denied")

    save_file({"kernel": np.zeros(1)}, tmp_path / "a.safetensors")
    monkeypatch.setattr(safetensors_files, "load_file", denied)
    with pytest.raises(UserError, match=r"a.safetensors cannot be read \(Permission denied\), expected a file that"):
        safetensors_files.read_safetensors(tmp_path / "a.safetensors")
