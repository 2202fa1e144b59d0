"""Everything in folders, tables and tars is found, with its captions, or told why it is not."""

import io
import json
import pathlib
import tarfile

import pytest

from phenaki_jax.data.prepare.folders import check_inputs, find_sources
from phenaki_jax.data.prepare.settings import PrepareSettings
from phenaki_jax.data.prepare.sources import Problem, Source
from phenaki_jax.errors import UserError


def write(folder: pathlib.Path, files: dict[str, bytes]) -> pathlib.Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def write_tar(path: pathlib.Path, files: dict[str, bytes]) -> pathlib.Path:
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def found_in(*inputs: pathlib.Path) -> dict[str, object]:
    """By key, captions of sources and reasons of problems."""
    found = find_sources(inputs, PrepareSettings())
    return {each.key: each.captions if isinstance(each, Source) else each.reason for each in found}


def test_captions_stand_beside_files_line_by_line(tmp_path: pathlib.Path) -> None:
    files = {"a.mp4": b"", "a.txt": b"one\n\ntwo\n", "in/b.GIF": b"", "in/b.txt": "Fuß".encode("cp1252"), "c.png": b""}
    files |= {
        ".hidden.mp4": b"",
        ".git/d.mp4": b"",
        "readme.md": b"",
        "in/lonely.txt": b"x",
        "bad.mov": b"",
        "bad.txt": b"\x81",
    }
    found = found_in(write(tmp_path, files))
    assert found.pop("in/lonely.txt").startswith("has captions, and no video or image of its name")
    assert "neither UTF-8 nor cp1252" in found.pop("bad.mov")
    assert found == {"a.mp4": ("one", "two"), "in/b.GIF": ("Fuß",), "c.png": ()}


def test_tables_and_tars_in_folders_are_read_too(tmp_path: pathlib.Path) -> None:
    write(
        tmp_path, {"in/metadata.csv": b"file,caption\na.mp4,a dog\n", "in/a.mp4": b"", "b.mp4": b"", "b.txt": b"a cat"}
    )
    write_tar(tmp_path / "in" / "shard.tar", {"0.mp4": b"", "0.txt": b"a cow"})
    found = list(find_sources([tmp_path], PrepareSettings()))
    assert [(each.key, each.captions) for each in found] == [
        ("b.mp4", ("a cat",)),
        ("in/a.mp4", ()),
        ("in/a.mp4", ("a dog",)),
        ("in/shard.tar/0.mp4", ("a cow",)),
    ]


def test_a_link_back_to_its_folder_is_followed_once(tmp_path: pathlib.Path) -> None:
    write(tmp_path, {"a.mp4": b""})
    (tmp_path / "again").symlink_to(tmp_path)
    assert list(found_in(tmp_path)) == ["a.mp4"]


def test_members_of_a_tar_have_captions_of_their_key(tmp_path: pathlib.Path) -> None:
    described = json.dumps({"caption": "a dog", "url": "x", "captions": ["a hound"]}).encode()
    files = {
        "0.jpg": b"12",
        "0.txt": b"a cat",
        "1.webm": b"345",
        "1.json": described,
        "2.txt": b"x",
        "3.mp4": b"",
        "3.json": b"{",
    }
    path = write_tar(tmp_path / "shard.tar", files)
    found = {each.key: each for each in find_sources([path], PrepareSettings())}
    assert found["shard.tar/0.jpg"].captions == ("a cat",)
    assert found["shard.tar/1.webm"].captions == ("a dog", "a hound")
    with found["shard.tar/1.webm"].place.open() as file:
        assert file.read() == b"345"
    assert isinstance(found["shard.tar/2"], Problem)
    assert found["shard.tar/3.json"].reason.startswith("is no JSON")
    assert found["shard.tar/3.mp4"].captions == ()


def test_a_tar_that_is_cut_off_gives_what_stands_before(tmp_path: pathlib.Path) -> None:
    path = write_tar(tmp_path / "shard.tar", {"0.jpg": b"12", "0.txt": b"a cat", "1.mp4": bytes(5000)})
    path.write_bytes(path.read_bytes()[:4000])
    found = found_in(path)
    assert found["shard.tar/0.jpg"] == ("a cat",)
    assert found["shard.tar"].startswith("is damaged (1.mp4 is cut off)")


def test_several_inputs_are_told_apart_by_their_names(tmp_path: pathlib.Path) -> None:
    first, second = (write(tmp_path / name, {"a.mp4": b""}) for name in ("one", "two"))
    check_inputs([first, second])
    assert list(found_in(first, second)) == ["one/a.mp4", "two/a.mp4"]
    with pytest.raises(UserError, match="found two inputs of the name 'one'"):
        check_inputs([first, second / ".." / "one"])


def test_what_is_nothing_of_these_is_refused(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.tar.gz").touch()
    for path, found in ((tmp_path / "gone", "nothing"), (tmp_path / "a.tar.gz", "a file")):
        with pytest.raises(UserError, match=f"found {found} at .*, expected a folder of videos or images, a table"):
            found_in(path)
