"""Files appear whole or not at all, and it is told where they cannot be."""

import errno
import pathlib
import subprocess
import sys

import pytest

from phenaki_jax.errors import UserError
from phenaki_jax.files import check_output, locked, make_folder, told_unwritable, whole_file, write_text


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
    with pytest.raises(UserError, match=r"file/c cannot be made \(Not a directory\)"):
        make_folder(tmp_path / "file" / "c")
    with pytest.raises(UserError, match=r"file cannot be made \(File exists\)"):
        make_folder(tmp_path / "file")


def test_a_folder_that_takes_no_files_is_refused_early() -> None:
    with pytest.raises(UserError, match="/proc is not writable"):
        check_output("/proc/story.gif", (".gif",))


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
