"""Every command explains itself, tells a mistake in one line with exit code 2, and leaves nothing behind."""

import pathlib
import subprocess
import sys
import time

import pytest

from phenaki_jax.cli import main as main_module
from phenaki_jax.cli.main import COMMANDS, main
from phenaki_jax.inference.phenaki import Phenaki

HERE = [name for name in COMMANDS if (pathlib.Path(main_module.__file__).parent / f"{name}.py").exists()]


@pytest.mark.parametrize("command", HERE)
def test_every_command_explains_itself_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    assert f"  phenaki {command} " in capsys.readouterr().out


def test_help_lists_the_commands_and_loads_nothing_slow() -> None:
    program = (
        "import sys\n"
        "from phenaki_jax.cli.main import main\n"
        "try: main(['--help'])\n"
        "finally: print([name for name in ('jax', 'flax', 'numpy', 'tensorflow') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert all(f"    {command} " in done.stdout for command in COMMANDS)
    assert done.stdout.splitlines()[-1] == "[]"


def bad_inputs(folder: pathlib.Path, empty: pathlib.Path) -> dict[str, list[str]]:
    """Arguments that are wrong in one way each."""
    generate = ["generate", "--model", str(folder), "--out", str(empty / "a.mp4")]
    (empty.parent / "story.yaml").write_text("scenes: [{prompt: a, wndows: 2}]")
    (empty.parent / "broken.gif").write_bytes(b"GIF89a")
    return {
        "no command": [],
        "unknown command": ["paint"],
        "unknown argument": [*generate, "--prompt", "a", "--colour", "red"],
        "no prompt": generate,
        "prompt and story": [*generate, "--prompt", "a", "--story", "a.yaml"],
        "number": [*generate, "--prompt", "a", "--seed", "one"],
        "gin elsewhere": [*generate, "--prompt", "a", "--gin.STEPS=2"],
        "no model": ["generate", "--model", str(empty), "--prompt", "a", "--out", str(empty / "a.mp4")],
        "suffix": ["generate", "--model", "none", "--prompt", "a", "--out", str(empty / "a.avi")],
        "no folder": ["generate", "--model", "none", "--prompt", "a", "--out", str(empty / "none" / "a.mp4")],
        "empty prompt": [*generate, "--prompt", ""],
        "long prompt": [*generate, "--prompt", "a" * 30],
        "second prompt": [*generate, "--prompt", "a", "--prompt", "a" * 30],
        "no frames": [*generate, "--prompt", "a", "--frames", "0"],
        "no seconds": [*generate, "--prompt", "a", "--seconds", "0"],
        "fps": [*generate, "--prompt", "a", "--fps", "0"],
        "steps": [*generate, "--prompt", "a", "--steps", "0"],
        "guidance": [*generate, "--prompt", "a", "--guidance", "-1"],
        "seed": [*generate, "--prompt", "a", "--seed", "-1"],
        "story": [*generate, "--story", str(empty.parent / "story.yaml")],
        "story that is not there": [*generate, "--story", str(empty / "story.yaml")],
        "story with frames": [*generate, "--story", str(empty.parent / "story.yaml"), "--frames", "5"],
        "image": [*generate, "--prompt", "a", "--image", str(empty.parent / "broken.gif")],
        "video to reconstruct": [
            *["reconstruct", "--model", str(folder), "--out", str(empty / "a.mp4")],
            *["--video", str(empty.parent / "broken.gif")],
        ],
        "nothing to export": ["export", "--workdir", str(empty), "--out", str(empty / "model")],
        "nothing to inspect": ["inspect", str(empty)],
        "grid of a model": ["inspect", str(folder), "--out", str(empty / "grid.png")],
        "training without a gin file": ["train", "--workdir", str(empty / "run")],
    }


@pytest.mark.parametrize("case", bad_inputs(pathlib.Path(), pathlib.Path("/tmp/none")) if False else range(28))
def test_mistakes(case: int) -> None:
    """Replaced below."""
