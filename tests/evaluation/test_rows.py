"""Rows in files: read as they were written, of one choice of settings, by several processes at once."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest

from phenaki_jax.errors import UserError
from phenaki_jax.evaluation.rows import Rows

SETTINGS = {"seed": 0, "protocol": {"name": "bair", "examples": 4, "sizes": [1, 2]}}


def test_rows_are_read_over_batches(tmp_path: pathlib.Path) -> None:
    rows = Rows(tmp_path / "rows", SETTINGS, 10, 4)
    assert [rows.count(index) for index in rows.missing()] == [4, 4, 2]
    assert rows.missing(1, 2) == [1]
    values = np.arange(10)
    for index in (2, 0, 1):
        rows.write(index, {"place": values[4 * index : 4 * index + 4]})
    assert not rows.missing()
    for start, stop in ((0, 10), (3, 9), (5, 6)):
        np.testing.assert_array_equal(np.concatenate(list(rows.read("place", start, stop))), values[start:stop])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({**SETTINGS, "seed": 1}, "holds an evaluation with seed 0, expected 1: go on"),
        ({**SETTINGS, "protocol": {**SETTINGS["protocol"], "examples": 8}}, "with protocol.examples 4, expected 8:"),
        ({**SETTINGS, "protocol": {**SETTINGS["protocol"], "sizes": [1]}}, r"with protocol.sizes \[1, 2\], expected"),
        ({"protocol": SETTINGS["protocol"]}, "with seed 0, expected None"),
    ],
)
def test_other_settings_are_told_by_the_first_that_differs(
    tmp_path: pathlib.Path, settings: dict, message: str
) -> None:
    Rows(tmp_path, SETTINGS, 10, 4)
    with pytest.raises(UserError, match=message):
        Rows(tmp_path, settings, 10, 4)


WRITE = """
import pathlib, sys
import numpy as np
from phenaki_jax.files import whole_file
with whole_file(pathlib.Path(sys.argv[1])) as unfinished:
    np.savez(unfinished, place=np.arange(4))
    print("writes", flush=True)
    sys.stdin.readline()
"""


def test_what_another_process_is_writing_stays(tmp_path: pathlib.Path) -> None:
    """Two write the same batch, as two evaluations by the same real clips do; what a third left as it died goes."""
    rows = Rows(tmp_path, SETTINGS, 4, 4)
    file = tmp_path / "000000.npz"
    command = [sys.executable, "-c", WRITE, str(file)]
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as dead,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as alive,
    ):
        for writer in (dead, alive):
            assert writer.stdout is not None
            assert writer.stdout.readline() == "writes\n"
        dead.kill()
        dead.wait()
        assert len(list(tmp_path.glob(".000000.*"))) == 2
        rows.write(0, {"place": np.arange(4)})
        assert len(list(tmp_path.glob(".000000.*"))) == 1
        alive.communicate("\n")
    assert alive.returncode == 0
    assert not list(tmp_path.glob(".000000.*"))
    np.testing.assert_array_equal(*rows.read("place", 0, 4), np.arange(4))
