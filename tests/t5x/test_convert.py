"""Checkpoints go to t5x and come back as they were, or are refused in a line; nothing here needs t5x."""

import dataclasses
import json
import pathlib
import shutil
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from phenaki_jax.errors import UserError
from phenaki_jax.inference.parameters import parameter_shapes
from phenaki_jax.inference.testing import tiny_config
from phenaki_jax.t5x.convert import DESCRIPTION, convert, main
from phenaki_jax.training import checkpoints

STEP = 7


def _random(tree: Any, seed: int) -> Any:
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape).astype(np.float32), tree)


@pytest.fixture(scope="module")
def state() -> dict[str, Any]:
    """Of a transformer's training with averages, an optimizer of two parts, and a statistic."""
    everything = parameter_shapes(tiny_config())
    frozen = {"tokenizer": everything.pop("tokenizer")}
    return {
        "step": np.int32(STEP),
        "params": _random(everything, 0),
        "average": _random(everything, 1),
        "statistics": {"tokenizer": {"counts": np.arange(3, dtype=np.float32)}},
        "frozen": _random(frozen, 2),
        "optimizer": [None, {"count": np.int32(STEP), "mu": _random(everything, 3)}],
    }


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory, state: dict[str, Any]) -> pathlib.Path:
    """The folder of that training."""
    folder = tmp_path_factory.mktemp("ours")
    description = {"kind": "transformer", **dataclasses.asdict(tiny_config()), "format": checkpoints.FORMAT}
    with ocp.CheckpointManager(folder / "checkpoints") as manager:
        arguments = {"state": ocp.args.StandardSave(state), "description": ocp.args.JsonSave(description)}
        manager.save(STEP, args=ocp.args.Composite(**arguments))
    return folder


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory, workdir: pathlib.Path) -> pathlib.Path:
    """The same as t5x has it."""
    folder = tmp_path_factory.mktemp("t5x") / "model_dir"
    assert convert(workdir, folder) == folder / f"checkpoint_{STEP}"
    return folder


def _read(checkpoint: pathlib.Path) -> Any:
    with ocp.PyTreeCheckpointer() as checkpointer:
        return checkpointer.restore(checkpoint / "state")


def _assert_equal(found: Any, wanted: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, found, wanted)


def test_t5x_finds_all_that_it_goes_on_from(model_dir: pathlib.Path, state: dict[str, Any]) -> None:
    optimizer = {"1": {"count": STEP, "mu": state["optimizer"][1]["mu"]}}
    _assert_equal(
        _read(model_dir / f"checkpoint_{STEP}"),
        {
            "target": state["params"],
            "state": {"step": STEP, "param_states": optimizer},
            "flax_mutables": {"frozen": state["frozen"], "statistics": state["statistics"]},
        },
    )


def test_there_and_back_every_bit_is_the_same(
    model_dir: pathlib.Path, state: dict[str, Any], tmp_path: pathlib.Path
) -> None:
    back = tmp_path / "back"
    assert convert(model_dir / f"checkpoint_{STEP}", back) == back / "checkpoints" / str(STEP)
    wanted = {name: state[name] for name in ("params", "statistics", "frozen")}
    _assert_equal(checkpoints.read_params(back), wanted)
    description = {"kind": "transformer", **dataclasses.asdict(tiny_config())}
    _assert_equal(checkpoints.read_parameters_that_fit(back, description), wanted)
    again = convert(back, tmp_path / "again")
    _assert_equal(_read(again)["target"], state["params"])
    # What was converted is looked after as what was trained.
    files = [file for file in (back / "checkpoints").rglob("*") if "/d/" in str(file) and file.is_file()]
    files[0].write_bytes(b"\0" + files[0].read_bytes()[1:])
    with pytest.raises(UserError, match="is damaged"):
        checkpoints.read_params(back)


def test_averages_go_without_the_optimizer(
    workdir: pathlib.Path, state: dict[str, Any], tmp_path: pathlib.Path
) -> None:
    read = _read(convert(workdir, tmp_path / "t5x", average=True))
    _assert_equal((read["target"], read["state"]), (state["average"], {"step": STEP}))


def _without_description(model_dir: pathlib.Path) -> None:
    (model_dir / DESCRIPTION).unlink()


def _of_another_format(model_dir: pathlib.Path) -> None:
    found = json.loads((model_dir / DESCRIPTION).read_text())
    (model_dir / DESCRIPTION).write_text(json.dumps({**found, "format": 1}))


def _with_a_list(model_dir: pathlib.Path) -> None:
    (model_dir / DESCRIPTION).write_text("[]")


def _of_no_kind(model_dir: pathlib.Path) -> None:
    found = json.loads((model_dir / DESCRIPTION).read_text())
    del found["kind"]
    (model_dir / DESCRIPTION).write_text(json.dumps(found))


def _of_another_width(model_dir: pathlib.Path) -> None:
    found = json.loads((model_dir / DESCRIPTION).read_text())
    found["tokenizer"]["mlp_width"] = 64
    (model_dir / DESCRIPTION).write_text(json.dumps(found))


def _without_a_file(model_dir: pathlib.Path) -> None:
    (model_dir / f"checkpoint_{STEP}" / "state" / "_METADATA").unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_without_description, f"{DESCRIPTION} cannot be read .*expected what the training is"),
        (_with_a_list, 'does not say what the training is, expected "kind": "tokenizer" or "transformer"'),
        (_of_no_kind, 'does not say what the training is, expected "kind": "tokenizer" or "transformer"'),
        (_of_another_format, "has format 1, expected"),
        (_of_another_width, r"has tokenizer/.*mlp/.*: \(.*32.*\), expected \(.*64.*\)"),
        (_without_a_file, "cannot be read .*expected one of orbax with all its files"),
    ],
)
def test_what_does_not_fit_is_refused(
    damage: Any, message: str, model_dir: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    copy = shutil.copytree(model_dir, tmp_path / "copy")
    damage(copy)
    with pytest.raises(UserError, match=message):
        convert(copy, tmp_path / "to")
    assert not (tmp_path / "to").exists()


def test_a_mistake_is_one_line(
    workdir: pathlib.Path, model_dir: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for source, to, message in [
        (tmp_path, "new", "found no checkpoint in"),
        (model_dir, ".", "expected a new folder"),
        (model_dir, "new --step 3", f"found no checkpoint of step 3 in {model_dir}, expected one of step {STEP}"),
        (workdir, "new --step 3", "found no checkpoint of step 3"),
        (model_dir / f"checkpoint_{STEP}", "new --step 3", "found step 3 and"),
        (model_dir, "new --average", "t5x keeps no averages"),
        (model_dir / f"checkpoint_{STEP}", "new --average", "t5x keeps no averages"),
        (workdir, "file", f"found a file {tmp_path / 'file'}, expected a new folder"),
    ]:
        (tmp_path / "file").touch()
        folder, *options = to.split()
        assert main(["--from", str(source), "--to", str(tmp_path / folder), *options]) == 2
        told = capsys.readouterr().err
        assert message in told
        assert told.count("\n") == 1


def test_a_discriminator_stays_here(workdir: pathlib.Path, tmp_path: pathlib.Path) -> None:
    copy = shutil.copytree(workdir, tmp_path / "copy")
    [file] = (copy / "checkpoints" / str(STEP) / "description").glob("metadata")
    file.write_text(json.dumps({**json.loads(file.read_text()), "discriminator": {"width": 8}}))
    with pytest.raises(UserError, match="with a discriminator"):
        convert(copy, tmp_path / "to")
