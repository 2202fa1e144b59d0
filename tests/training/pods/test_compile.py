"""`phenaki compile` with the real TPU compiler, on topologies whose chips are not here."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

LIBRARY = os.environ.get("TPU_LIBRARY_PATH", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not LIBRARY, reason="the TPU compiler is not there: make test-slow installs it, TPU_LIBRARY_PATH"
    ),
]

PHENAKI = pathlib.Path(sys.executable).parent / "phenaki"
SHAPES = "gin_configs/runs/shapes_transformer.gin"
PAPER = ["gin_configs/runs/phenaki_paper.gin", "--gin.PRECOMPUTED='x'"]


def _compile(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [str(PHENAKI), "compile", "--gin_file", *arguments]
    # Of the flags of these tests none is for TPUs.
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("program", ["train", "sample", "tokens"])
def test_every_program_of_a_training_compiles(program: str) -> None:
    done = _compile(SHAPES, "--topology", "v5e:2x2", "--program", program, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["fits"] is True
    assert 0 < found["memory"]["peak"] < found["memory_there"]
    assert found["useful_flops"] > 0
    slow, fast = (found["seconds"][how] for how in ("without overlap", "with full overlap"))
    assert 0 < fast <= slow <= found["seconds"]["in series"] * (1 + 1e-6)
    # Gradients are added up over all four chips; what draws or encodes needs nothing of other rows.
    assert list(found["sent"])[:1] == (["all-reduce along data"] if program == "train" else [])


def test_between_slices_gradients_go_over_their_network() -> None:
    arguments = ("--topology", "v5p:2x2x1", "--json", "--gin.REPLICA=2", "--gin.RULES='fully_sharded'")
    done = _compile(SHAPES, *arguments, "--slices", "2")
    assert done.returncode == 0, done.stderr
    sent = json.loads(done.stdout)["sent"]
    assert any("replica" in along for along in sent)
    refused = _compile(SHAPES, "--topology", "v5p:2x2x1", "--slices", "2")
    assert refused.returncode == 2
    assert "found replica 1 for devices of 2 slices, expected a multiple of 2" in refused.stderr


def test_what_does_not_fit_is_told_with_how_much_is_lacking() -> None:
    done = _compile(*PAPER, "--topology", "v5e:2x2", "--gin.RULES='data_parallel'")
    assert done.returncode == 2
    assert "GiB more than there are; try" in done.stderr
    assert len(done.stderr.splitlines()) == 1
