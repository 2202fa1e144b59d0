"""Files appear whole or not at all, and it is told where they cannot be."""

import errno
import pathlib
import subprocess
import sys

import pytest

from phenaki_jax.errors import UserError
from phenaki_jax.files import check_folder, check_output, locked, make_folder, told_unwritable, whole_file, write_text


def test_what_cannot_be_written_is_told_with_what_to_do() -> None:
    expected = r"^the log cannot be written \(No space left on device\): make room$"
    with pytest.raises(UserError, match=expected), told_unwritable("the log", "make room"):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_users_mistake_is_told_as_it_is() -> None:
    with pytest.raises(UserError, match=r"^a mistake$"), told_unwritable("the log", errors=Exception):
        raise UserError("a mistake")


def test_a_bug_stays_a_bug() -> None:
    with pytest.raises(ZeroDivisionError), told_unwritable("the log"):
        raise ZeroDivisionError


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(), OSError(errno.ENOSPC, "No space left on device")])
def test_a_file_that_is_not_finished_leaves_the_old_one(tmp_path: pathlib.Path, error: BaseException) -> None:
    write_text(tmp_path / "file.txt", "old")

    def write(unfinished: pathlib.Path) -> None:
        unfinished.write_text("new")
        raise error

    with pytest.raises((UserError, KeyboardInterrupt)), whole_file(tmp_path / "file.txt") as unfinished:
        write(unfinished)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"file.txt": "old"}


def test_a_folder_that_cannot_be_is_told(tmp_path: pathlib.Path) -> None:
    assert make_folder(tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").touch()
    for refuse in (make_folder, check_folder):
        for path in (tmp_path / "file" / "c", tmp_path / "file"):
            with pytest.raises(UserError, match=rf"{path} cannot be made: found a file {tmp_path}/file, expected none"):
                refuse(path)
    check_folder(tmp_path / "c" / "d")
    assert not (tmp_path / "c").exists()


def test_a_folder_that_takes_no_files_is_refused_early() -> None:
    with pytest.raises(UserError, match="/proc is not writable"):
        check_output("/proc/story.gif", (".gif",))
    with pytest.raises(UserError, match="/proc is not writable"):
        check_folder(pathlib.Path("/proc/runs/first"))


@pytest.mark.parametrize(
    ("path", "suffixes", "message"),
    [
        ("", (".mp4", ".gif"), r"^found an empty name, .* ends in \.mp4 or \.gif$"),
        ("a.txt", (".png",), r"found suffix '\.txt', expected \.png; change the name"),
        ("clip.gif/x.gif", (".gif",), "found a file .*clip.gif, expected a folder"),
        ("none/x.gif", (".gif",), "found no folder .*none"),
    ],
)
def test_a_name_that_no_file_can_have_is_refused_early(
    tmp_path: pathlib.Path, path: str, suffixes: tuple[str, ...], message: str
) -> None:
    (tmp_path / "clip.gif").touch()
    with pytest.raises(UserError, match=message):
        check_output(path and tmp_path / path, suffixes)


def test_a_folder_that_another_process_holds_is_refused_until_that_one_ends(tmp_path: pathlib.Path) -> None:
    holding = "import sys, pathlib; from phenaki_jax.files import locked\nwith locked(pathlib.Path(sys.argv[1])): "
    command = [sys.executable, "-c", holding + "print(flush=True); input()", str(tmp_path / "run")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(UserError, match="wait for it"), locked(tmp_path / "run", "held: wait for it"):
            pass
        other.communicate(b"\n")
    with locked(tmp_path / "run", "held: wait for it"):
        pass
