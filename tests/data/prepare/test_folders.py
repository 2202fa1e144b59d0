"""Everything in folders, tables and tars is found, with its captions, or told why it is not."""

import bz2
import gzip
import io
import json
import lzma
import os
import pathlib
import tarfile
from typing import Any

import pytest

from phenaki_jax.data.prepare.folders import find_sources
from phenaki_jax.data.prepare.inputs import check_inputs
from phenaki_jax.data.prepare.settings import PrepareSettings
from phenaki_jax.data.prepare.sources import PassedOver, Problem, Source
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
    found = [each for each in find_sources(inputs, PrepareSettings()) if not isinstance(each, PassedOver)]
    return {each.key: each.captions if isinstance(each, Source) else each.reason for each in found}


def passed_over(path: pathlib.Path) -> list[str]:
    return [each.ending for each in find_sources([path], PrepareSettings()) if isinstance(each, PassedOver)]


def test_captions_stand_beside_files_line_by_line(tmp_path: pathlib.Path) -> None:
    files = {"a.mp4": b"", "a.txt": b"one\n\ntwo\n", "in/b.GIF": b"", "in/b.txt": "Fuß".encode("cp1252"), "c.png": b""}
    files |= {
        ".hidden.mp4": b"",
        ".git/d.mp4": b"",
        "readme.md": b"",
        "in/lonely.txt": b"x",
        "bad.mov": b"",
        "bad.txt": b"\x81",
        "D.MP4": b"",
        "D.TXT": b"a dog",
    }
    found = found_in(write(tmp_path, files))
    assert found.pop("in/lonely.txt").startswith("has captions, and no video or image of its name")
    assert "neither UTF-8 nor cp1252" in found.pop("bad.mov")
    assert found == {"a.mp4": ("one", "two"), "in/b.GIF": ("Fuß",), "c.png": (), "D.MP4": ("a dog",)}


def test_files_that_are_not_read_are_told_by_their_ending_and_where_they_have_captions_by_their_name(
    tmp_path: pathlib.Path,
) -> None:
    files = {
        "a.wmv": b"",
        "a.txt": b"a dog",
        "b.WMV": b"",
        "c.mp4": b"",
        "c.txt": b"a cat",
        "c.json": b"",
        "README": b"",
    }
    folder = write(tmp_path / "videos", files | {"metadata.csv": b"file\nc.mp4\n", "other.csv": b"file\n"})
    assert sorted(passed_over(folder)) == ["", ".csv", ".json", ".wmv", ".wmv"]
    reason = "has captions of 'a.wmv', whose ending is not read, expected one of .mp4, .webm, "
    found = found_in(folder)
    assert found.pop("a.txt").startswith(reason)
    assert found == {"c.mp4": ("a cat",)}
    tar = write_tar(tmp_path / "shard.tar", {"in/a.wmv": b"", "in/a.txt": b"a dog", "b.cls": b"3"})
    assert passed_over(tar) == [".wmv", ".cls"]
    assert found_in(tar)["shard.tar/in/a"].startswith(reason)


@pytest.mark.parametrize(("packer", "program"), [(gzip, "gzip"), (bz2, "bzip2"), (lzma, "xz")])
def test_a_compressed_tar_is_told(tmp_path: pathlib.Path, packer: Any, program: str) -> None:
    path = write_tar(tmp_path / "shard.tar", {"0.jpg": b"12"})
    path.write_bytes(packer.compress(path.read_bytes()))
    expected = f"is compressed ({program}), expected a plain .tar: unpack it, as with {program} -dc"
    assert found_in(path) == {"shard.tar": expected}


def test_a_tar_whose_first_name_looks_compressed_is_read(tmp_path: pathlib.Path) -> None:
    assert list(found_in(write_tar(tmp_path / "shard.tar", {"BZh.jpg": b"12"}))) == ["shard.tar/BZh.jpg"]


def test_labels_and_subtitles_are_no_video_that_captions_are_of(tmp_path: pathlib.Path) -> None:
    folder = write(tmp_path / "in", {"a.txt": b"a dog", "a.srt": b"1"})
    tar = write_tar(tmp_path / "shard.tar", {"0.txt": b"a dog", "0.cls": b"3"})
    reason = "has captions, and no video or image of its name is beside it"
    assert found_in(folder) == {"a.txt": reason}
    assert found_in(tar) == {"shard.tar/0": reason}


def test_tables_and_tars_in_folders_are_read_too(tmp_path: pathlib.Path) -> None:
    write(
        tmp_path, {"in/metadata.csv": b"file,caption\na.mp4,a dog\n", "in/a.mp4": b"", "b.mp4": b"", "b.txt": b"a cat"}
    )
    write_tar(tmp_path / "in" / "shard.tar", {"0.mp4": b"", "0.txt": b"a cow"})
    found = list(find_sources([tmp_path], PrepareSettings()))
    assert [(each.key, each.captions) for each in found] == [
        ("in/a.mp4", ("a dog",)),
        ("b.mp4", ("a cat",)),
        ("in/shard.tar/0.mp4", ("a cow",)),
    ]


def test_of_a_file_that_a_table_names_in_parts_there_is_no_whole_without_captions(tmp_path: pathlib.Path) -> None:
    files = {"in/metadata.csv": b"file,caption,start,end\n../a.mp4,one,0,1\n../a.mp4,two,1,2\nb.mp4,three,1,\n"}
    write(tmp_path, files | {"a.mp4": b"", "in/b.mp4": b"", "in/b.txt": b"all", "c.mp4": b""})
    found = [(each.key, each.start, each.end, each.captions) for each in find_sources([tmp_path], PrepareSettings())]
    assert found == [
        ("a.mp4", 0, 1, ("one",)),
        ("a.mp4", 1, 2, ("two",)),
        ("in/b.mp4", 1, -1, ("three",)),
        ("c.mp4", 0, -1, ()),
        ("in/b.mp4", 0, -1, ("all",)),
    ]


def test_what_prepare_wrote_is_passed_over(tmp_path: pathlib.Path) -> None:
    written = {"old/x/1.0.0/prepare.json": b"{}", "old/x/1.0.0/contact_sheet.png": b"", "data/x/incomplete/a.png": b""}
    write(tmp_path, written | {"a.png": b"", "old/b.png": b""})
    found = find_sources([tmp_path], PrepareSettings(), tmp_path / "data")
    assert [each.key for each in found] == ["a.png", "old/b.png"]
    assert [each.key for each in find_sources([tmp_path / "data"], PrepareSettings(), tmp_path / "data")] == [
        "x/incomplete/a.png"
    ]


def test_a_folder_that_cannot_be_listed_is_told(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {"a.mp4": b"", "secret/b.mp4": b"", "z/c.mp4": b""})
    listed = os.scandir

    def scandir(path: str) -> object:
        if pathlib.Path(path).name == "secret":
            raise PermissionError(13, "Permission denied", path)
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert found_in(tmp_path) == {"secret": "cannot be listed (Permission denied)", "a.mp4": (), "z/c.mp4": ()}


def test_sources_are_found_from_any_working_directory(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {"in/a.mp4": b"", "in/metadata.csv": b"file\nb.mp4\n", "in/b.mp4": b""})
    write_tar(tmp_path / "in" / "shard.tar", {"0.mp4": b""})
    monkeypatch.chdir(tmp_path)
    places = {each.key: each.place.path for each in find_sources(["in"], PrepareSettings())}
    assert places == {
        "a.mp4": str(tmp_path / "in/a.mp4"),
        "b.mp4": str(tmp_path / "in/b.mp4"),
        "shard.tar/0.mp4": str(tmp_path / "in/shard.tar"),
    }


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
    assert found["shard.tar"].startswith("is damaged ('1.mp4' is cut off)")


@pytest.mark.parametrize(
    ("kept", "damage", "there", "reason"),
    [
        # A header of 512 bytes and 512 of the file for each member.
        (None, (2048, 5), 2, "is damaged (neither a file nor an end is at byte 2048)"),
        (2048, None, 2, "is damaged (neither a file nor an end is at byte 2048)"),
        (2048 + 100, None, 2, "is damaged (neither a file nor an end is at byte 2048)"),
        (None, (6000, 1), 5, "is damaged (its end is at byte 5120, and more stands behind it)"),
    ],
)
def test_what_a_damaged_tar_loses_is_told(
    tmp_path: pathlib.Path, kept: int | None, damage: tuple[int, int] | None, there: int, reason: str
) -> None:
    path = write_tar(tmp_path / "shard.tar", {f"{number}.jpg": b"12" for number in range(5)})
    data = bytearray(path.read_bytes()[:kept])
    if damage:
        data[damage[0] : damage[0] + damage[1]] = b"x" * damage[1]
    path.write_bytes(data)
    found = found_in(path)
    assert found.pop("shard.tar").startswith(reason)
    assert list(found) == [f"shard.tar/{number}.jpg" for number in range(there)]


def test_of_members_of_one_name_the_first_is_taken_and_the_other_told(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "shard.tar"
    with tarfile.open(path, "w") as archive:
        for data in (b"1", b"22"):
            member = tarfile.TarInfo("0.jpg")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    problem, source = find_sources([path], PrepareSettings())
    assert source.place.size == 1
    assert (problem.key, problem.reason[:25]) == ("shard.tar/0.jpg", "is there again in the tar")


def test_keys_of_several_inputs_name_each_once(tmp_path: pathlib.Path) -> None:
    folders = [write(tmp_path / name, {"metadata.csv": b"file\n../c.mp4\n", "x.mp4": b""}) for name in ("a", "b")]
    write(tmp_path, {"c.mp4": b"", "z.csv": b"file\na/../c.mp4\ngone.mp4\n"})
    tar = write_tar(tmp_path / "z.tar", {"0.jpg": b""})
    keys = [each.key for each in find_sources([*folders, tar, tmp_path / "z.csv"], PrepareSettings())]
    assert keys == ["a/../c.mp4", "a/x.mp4", "b/../c.mp4", "b/x.mp4", "z.tar/0.jpg", "z.csv/c.mp4", "z.csv, line 3"]


def test_several_inputs_are_told_apart_by_their_names(tmp_path: pathlib.Path) -> None:
    first, second = (write(tmp_path / name, {"a.mp4": b""}) for name in ("one", "two"))
    check_inputs([first, second])
    assert list(found_in(first, second)) == ["one/a.mp4", "two/a.mp4"]
    with pytest.raises(UserError, match="found two inputs of the name 'one'"):
        check_inputs([first, second / ".." / "one"])


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (
            "a.tar.gz",
            "found a compressed file at {}, expected a plain .tar: unpack it with gunzip, or name a folder of",
        ),
        ("a.TGZ", "found a compressed file at {}, expected a plain .tar: unpack it with gunzip, or name a folder of"),
        ("a.tar.xz", "unpack it with unxz"),
        ("a.zip", "found a file .zip at {}, expected a folder: unpack it, and name the folder of what is in it"),
        ("a.xlsx", "found a spreadsheet at {}, expected a table as text: save it as .csv"),
        (
            "a.json",
            "found a file .json at {}, expected .jsonl: write an object for each file, each in a line of its own",
        ),
        ("a.mp4", "found one video or image at {}, expected a folder of them: name {folder}"),
        ("a.pdf", "found a file at {}, expected a folder of videos or images, a table (.csv, .tsv, .jsonl) or a tar"),
    ],
)
def test_what_is_nothing_of_these_is_refused_with_what_to_do(tmp_path: pathlib.Path, name: str, told: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(UserError) as error:
        check_inputs([tmp_path / name])
    assert told.format(tmp_path / name, folder=tmp_path) in str(error.value)


@pytest.mark.parametrize("name", ["gone", "gone.tar.gz", "gone.xlsx"])
def test_what_is_not_there_is_refused(tmp_path: pathlib.Path, name: str) -> None:
    with pytest.raises(UserError, match=r"found nothing at .*, expected a folder of videos or images, a table"):
        found_in(tmp_path / name)
