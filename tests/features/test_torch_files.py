"""Files of torch.save are read as torch wrote them; whatever else they hold is refused in one line, and never run."""

import pathlib
import pickle
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest

from phenaki_jax.errors import UserError
from phenaki_jax.features import testing
from phenaki_jax.features.torch_files import read_torch_file

MAGIC = 0x1950A86A20F9469CFC6C
FORMATS = ("zip", "legacy")
# A storage of four values, as a pickle refers to it.
STORAGE = b"(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\x000X\3\0\0\0cpuK\4tQ"


def write_archive(path: pathlib.Path, pickled: bytes, **records: bytes) -> None:
    """As torch.save does since 1.6, of a state dict with one storage."""
    with zipfile.ZipFile(path, "w") as archive:
        values = np.arange(4, dtype=np.float32).tobytes()
        for name, content in {"data.pkl": pickled, "data/0": values, **records}.items():
            archive.writestr(f"archive/{name}", content)


def write_legacy(path: pathlib.Path, pickled: bytes, magic: int = MAGIC, little_endian: bool = True) -> None:
    """As torch.save did before 1.6, of a state dict with one storage."""
    machine = {"protocol_version": 1001, "little_endian": little_endian, "type_sizes": {}}
    parts = [pickle.dumps(part, 2) for part in (magic, 1001, machine)]
    values = np.array(4, "<i8").tobytes() + np.arange(4, dtype=np.float32).tobytes()
    path.write_bytes(b"".join([*parts, pickled, pickle.dumps(["0"], 2), values]))


WRITERS = {"zip": write_archive, "legacy": write_legacy}


def pickled_tensor(offset: int, size: int, stride: int, storage: bytes = STORAGE) -> bytes:
    """The pickle of a state dict with one tensor `w`, by hand."""
    place = b"K%c(K%ct(K%ct" % (offset, size, stride)
    return b"\x80\2}X\1\0\0\0wctorch._utils\n_rebuild_tensor_v2\n(" + storage + place + b"\x89}tRs."


def refusal(path: pathlib.Path) -> str:
    """The one line that a file is refused with."""
    with pytest.raises(UserError) as error:
        read_torch_file(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("kind", FORMATS)
def test_tensors_are_read_as_torch_wrote_them(fixtures: pathlib.Path, kind: str) -> None:
    """Of all usual types, with views, parts and parameters, and nothing in them."""
    found = read_torch_file(fixtures / f"state_{kind}.pt")
    expected = testing.example_tensors()
    expected["bfloat16"] = expected["bfloat16"].astype(jnp.bfloat16)
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(("offset", "size", "stride", "values"), [(0, 4, 1, [0, 1, 2, 3]), (1, 2, 2, [1, 3])])
def test_tensors_by_hand(
    tmp_path: pathlib.Path, kind: str, offset: int, size: int, stride: int, values: list[float]
) -> None:
    WRITERS[kind](tmp_path / "state.pt", pickled_tensor(offset, size, stride))
    np.testing.assert_array_equal(read_torch_file(tmp_path / "state.pt")["w"], values)


def test_views_of_old_storages_begin_where_they_say(tmp_path: pathlib.Path) -> None:
    """Their sixth entry is the view's key, its first value and how many it has."""
    storage = STORAGE.removesuffix(b"tQ") + b"(X\1\0\0\x001K\2K\2ttQ"
    write_legacy(tmp_path / "state.pt", pickled_tensor(0, 2, 1, storage))
    np.testing.assert_array_equal(read_torch_file(tmp_path / "state.pt")["w"], [2, 3])


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(("offset", "size", "stride"), [(0, 5, 1), (4, 1, 1), (1, 2, 3)])
def test_tensors_larger_than_their_storage_are_refused(
    tmp_path: pathlib.Path, kind: str, offset: int, size: int, stride: int
) -> None:
    WRITERS[kind](tmp_path / "state.pt", pickled_tensor(offset, size, stride))
    assert f"a tensor of [{size}] in a storage of 4 values" in refusal(tmp_path / "state.pt")


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("callable_name", ["os\nsystem", "builtins\neval", "torch\nload", "numpy\nload"])
def test_nothing_that_a_file_says_is_run(tmp_path: pathlib.Path, kind: str, callable_name: str) -> None:
    command = f"touch {tmp_path}/ran".encode()
    pickled = b"\x80\2c" + callable_name.encode() + b"\n(X%c\0\0\0" % len(command) + command + b"tR."
    WRITERS[kind](tmp_path / "state.pt", pickled)
    name = callable_name.replace("\n", ".")
    assert f"found {name} in it, of which nothing was run, expected a state dict" in refusal(tmp_path / "state.pt")
    assert not (tmp_path / "ran").exists()


def test_a_pickle_cannot_change_a_tensor_that_was_checked(tmp_path: pathlib.Path) -> None:
    with_state = pickled_tensor(0, 4, 1).removesuffix(b"s.") + b"}X\5\0\0\0sizesK\11\x85sbs."
    write_archive(tmp_path / "state.pt", with_state)
    assert "is damaged" in refusal(tmp_path / "state.pt")


def test_a_pickle_changes_functions_for_itself_alone(tmp_path: pathlib.Path) -> None:
    """The first file makes the function that rebuilds tensors refuse any state; the next gives it an empty one."""
    name, set_nothing = b"ctorch._utils\n_rebuild_tensor_v2\n", b"}b"
    change = b"}X\x0c\0\0\0__setstate__" + name + b"sb"
    for file, changes in (("changed", change + set_nothing), ("next", set_nothing)):
        write_archive(tmp_path / file, pickled_tensor(0, 4, 1).replace(name, name + changes))
    assert "is damaged" in refusal(tmp_path / "changed")
    np.testing.assert_array_equal(read_torch_file(tmp_path / "next")["w"], [0, 1, 2, 3])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("module_zip.pt", "found torch.nn.modules.linear.Linear in it, of which nothing was run"),
        ("checkpoint_zip.pt", "found 'state_dict' to be an OrderedDict, expected tensors alone"),
        ("checkpoint_legacy.pt", "found 'state_dict' to be an OrderedDict, expected tensors alone"),
    ],
)
def test_other_things_that_torch_saves_are_refused(fixtures: pathlib.Path, name: str, message: str) -> None:
    assert message in refusal(fixtures / name)


@pytest.mark.parametrize("kind", FORMATS)
def test_files_cut_off_anywhere_are_refused(fixtures: pathlib.Path, tmp_path: pathlib.Path, kind: str) -> None:
    content = (fixtures / f"state_{kind}.pt").read_bytes()
    for length in range(0, len(content), 37):
        (tmp_path / "state.pt").write_bytes(content[:length])
        refusal(tmp_path / "state.pt")


@pytest.mark.parametrize("kind", FORMATS)
def test_damaged_files_are_refused_or_hold_tensors(fixtures: pathlib.Path, tmp_path: pathlib.Path, kind: str) -> None:
    """The old format has no checksums, so that wrong values pass; nothing else ends it but the one line."""
    content = (fixtures / f"state_{kind}.pt").read_bytes()
    rng, messages = np.random.default_rng(0), []
    for _ in range(150):
        damaged = bytearray(content)
        damaged[rng.integers(len(content))] = rng.integers(256)
        (tmp_path / "state.pt").write_bytes(damaged)
        try:
            found = read_torch_file(tmp_path / "state.pt")
        except UserError as error:
            messages.append(str(error))
        else:
            assert [array.copy().nbytes for array in found.values()]
    assert len(messages) > 20
    assert not any("\n" in message for message in messages)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "found an empty file, expected one that torch.save wrote"),
        (b"<!DOCTYPE html><html>", "begins with b'<!DOCTYPE html><', expected one that torch.save wrote"),
        (pickle.dumps({"w": [1.0]}), "found a pickle of another program"),
        (b"PK\3\4 and nothing else", "is damaged"),
    ],
)
def test_files_of_other_programs_are_refused(tmp_path: pathlib.Path, content: bytes, message: str) -> None:
    (tmp_path / "state.pt").write_bytes(content)
    assert message in refusal(tmp_path / "state.pt")


def test_other_archives_are_refused(tmp_path: pathlib.Path) -> None:
    path, pickled = tmp_path / "state.pt", pickled_tensor(0, 4, 1)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weights.npy", b"")
    assert "found a zip archive without data.pkl" in refusal(path)
    write_archive(path, pickled, **{"constants.pkl": b""})
    assert "found a TorchScript program" in refusal(path)
    write_archive(path, pickled.replace(b"\1\0\0\x000X", b"\1\0\0\x001X"))
    assert "found no data/1 in it" in refusal(path)
    write_archive(path, pickled, byteorder=b"big")
    assert "big-endian" in refusal(path)
    write_archive(path, pickled, **{"data/0": b"\0" * 12})
    assert "found float32[3] for w, expected float32[4]" in refusal(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickled)
    assert "found data.pkl compressed" in refusal(path)


def test_other_old_files_are_refused(tmp_path: pathlib.Path) -> None:
    write_legacy(tmp_path / "state.pt", pickled_tensor(0, 4, 1), little_endian=False)
    assert "big-endian" in refusal(tmp_path / "state.pt")
    write_legacy(tmp_path / "state.pt", pickle.dumps([1.0], 2))
    assert "found a list, expected a state dict" in refusal(tmp_path / "state.pt")
    write_legacy(tmp_path / "state.pt", pickle.dumps({}, 2))
    assert "found values that belong to no tensor" in refusal(tmp_path / "state.pt")


def test_what_cannot_be_read_is_told(tmp_path: pathlib.Path) -> None:
    assert "cannot be read (Is a directory)" in refusal(tmp_path)
    assert "cannot be read (No such file or directory)" in refusal(tmp_path / "absent.pt")
