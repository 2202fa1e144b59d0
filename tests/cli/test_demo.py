"""`phenaki demo --quick`: every stage once, from nothing to a report, and what it leaves."""

import json
from pathlib import Path

import pytest

from phenaki_jax.cli.demonstration import stages
from phenaki_jax.cli.demonstration.settings import QUICK
from phenaki_jax.cli.main import main
from phenaki_jax.errors import UserError


def test_the_quick_demo_leaves_everything_and_goes_on_where_it_was(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    assert main(["demo", "--quick", "--out", str(out)]) == 0
    for name in ("story.gif", "story.mp4", "curves.png", "report.html", "model/model.json", "generation_samples.gif"):
        assert (out / name).stat().st_size > 0
    report = json.loads((out / "report.json").read_text())
    for name in ("tokenizer.psnr", "generation.all_correct", "transfer.color_accuracy", "story.prompt_accuracy"):
        assert 0 <= report[name] < 100
    before = (out / "model" / "model.json").stat().st_mtime_ns
    (out / "report.html").unlink()
    assert main(["demo", "--quick", "--out", str(out)]) == 0
    assert (out / "report.html").exists()
    assert (out / "model" / "model.json").stat().st_mtime_ns == before
    assert main(["inspect", str(out / "model")]) == 0
    assert main(["generate", "--model", str(out / "model"), "--prompt", "a red circle", "--out", f"{out}/x.gif"]) == 0


def test_a_folder_of_other_settings_is_refused(tmp_path: Path) -> None:
    (tmp_path / "demo.json").write_text('{"steps": 1}')
    with pytest.raises(UserError, match="holds a demo of other settings"):
        stages.run_stages(tmp_path, QUICK)
