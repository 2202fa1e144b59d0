"""`phenaki demo --quick`: every stage once, from nothing to a report, and what it leaves."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from phenaki_jax.cli.demonstration import stages
from phenaki_jax.cli.demonstration.settings import QUICK
from phenaki_jax.cli.main import main
from phenaki_jax.errors import UserError


def _quick_demo(out: Path) -> None:
    """As a user runs it, on the one device of a CPU and in a process of its own, but compiled quickly."""
    usual = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    subprocess.run(
        [sys.executable, "-m", "phenaki_jax.cli.main", "demo", "--quick", "--out", str(out)],
        env={**usual, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
        check=True,
    )


def test_the_quick_demo_leaves_everything_and_goes_on_where_it_was(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    _quick_demo(out)
    for name in ("story.gif", "story.mp4", "curves.png", "report.html", "model/model.json", "generation_samples.gif"):
        assert (out / name).stat().st_size > 0
    report = json.loads((out / "report.json").read_text())
    for name in ("tokenizer.psnr", "generation.all_correct", "transfer.color_accuracy", "story.prompt_accuracy"):
        assert 0 <= report[name] < 100
    assert any(name.startswith("evaluation.frechet_shapes") for name in report)
    before = (out / "model" / "model.json").stat().st_mtime_ns
    (out / "report.html").unlink()
    _quick_demo(out)
    assert (out / "report.html").exists()
    assert (out / "model" / "model.json").stat().st_mtime_ns == before
    assert main(["inspect", str(out / "model")]) == 0
    assert main(["generate", "--model", str(out / "model"), "--prompt", "a red circle", "--out", f"{out}/x.gif"]) == 0


def test_a_folder_of_other_settings_is_refused(tmp_path: Path) -> None:
    (tmp_path / "demo.json").write_text('{"steps": 1}')
    with pytest.raises(UserError, match="holds a demo of other settings"):
        stages.run_stages(tmp_path, QUICK, began=0.0)


def test_a_folder_of_other_files_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert main(["demo", "--quick", "--out", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert "found 'notes.txt' and no demo.json in it, expected a new or empty folder or that of an earlier demo" in told
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    "names",
    [
        (),
        ("lost+found", ".DS_Store"),
        (".lock",),
        (".lock", ".demo.host-1-ab.json"),
        (".lock", "demo.json", "data", "notes.txt"),
    ],
)
def test_a_demo_goes_on_whenever_it_was_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...]
) -> None:
    begun = []
    monkeypatch.setattr(stages, "run_stages", lambda out, settings, began: begun.append(out) or 0)
    for name in names:
        (tmp_path / name).touch()
    assert main(["demo", "--quick", "--out", str(tmp_path)]) == 0
    assert begun == [tmp_path]


def test_damaged_settings_are_told(tmp_path: Path) -> None:
    (tmp_path / "demo.json").write_text('{"steps": ')
    with pytest.raises(UserError, match=r"demo.json: found no JSON .* begin in another folder"):
        stages.run_stages(tmp_path, QUICK, began=0.0)
