"""What is said to be enough for an exported model is enough, in environments that hold nothing else."""

import pathlib
import shutil
import subprocess
import sys

import jaxtyping
import numpy as np
import pytest

from phenaki_jax.inference.export import export_model
from phenaki_jax.inference.phenaki import Phenaki
from phenaki_jax.inference.testing import assert_same_pixels

ROOT = pathlib.Path(__file__).parents[2]
PROMPTS = ["a red circle", "a blue square"]
DRAW = """
import importlib.util, sys, time
import numpy as np
import {before}
begun = time.perf_counter()
{importing}
print(f"\\n{importing}: {{time.perf_counter() - begun:.2f}} s after import {before}")
for name in {absent}:
    assert importlib.util.find_spec(name) is None, f"{{name}} is installed"
np.save(sys.argv[2], {load}(sys.argv[1]).generate({prompts}, seed=3))
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def exported(model: Phenaki, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The model with its programs."""
    folder = tmp_path_factory.mktemp("fresh") / "model"
    jaxtyping.config.update("jaxtyping_disable", True)
    export_model(folder, model.config, model.params, model.metadata, stablehlo=True)
    jaxtyping.config.update("jaxtyping_disable", False)
    return folder


def drawn_with(
    installed: list[list[str]], exported: pathlib.Path, folder: pathlib.Path, **program: object
) -> np.ndarray:
    """What a new environment draws into which pip has installed this, by a program that is `DRAW` filled in."""
    python, out = folder / "venv" / "bin" / "python", folder / "drawn.npy"
    pip = [python, "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt"]
    for command in (
        [sys.executable, "-m", "venv", folder / "venv"],
        *([*pip, *each] for each in installed),
        [python, "-I", "-c", DRAW.format(prompts=PROMPTS, **program), exported, out],
    ):
        subprocess.run(command, check=True, cwd=folder)
    return np.load(out)


def test_the_package_draws_without_what_training_needs(
    model: Phenaki, exported: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """Installed from its sources, as built from a copy of them."""
    source = tmp_path / "source"
    shutil.copytree(ROOT / "phenaki_jax", source / "phenaki_jax", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    installed = [["--no-deps", str(source)], ["--requirement", str(ROOT / "requirements-inference.txt")]]
    drawn = drawn_with(
        installed,
        exported,
        tmp_path,
        before="jax, flax",
        importing="from phenaki_jax.inference import Phenaki",
        load="Phenaki.load",
        absent=["tensorflow", "seqio", "clu", "gin", "matplotlib"],
    )
    assert_same(drawn, model)


def test_programs_run_with_jax_alone(model: Phenaki, exported: pathlib.Path, tmp_path: pathlib.Path) -> None:
    drawn = drawn_with(
        [["jax"]],
        exported,
        tmp_path,
        before="jax",
        importing="sys.path.insert(0, sys.argv[1] + '/stablehlo'); from run import Model",
        load="Model",
        absent=["phenaki_jax", "flax", "safetensors", "flatbuffers", "PIL", "jaxtyping"],
    )
    assert_same(drawn, model)


def assert_same(drawn: np.ndarray, model: Phenaki) -> None:
    """Tells how many pixels differ, too."""
    expected = model.generate(PROMPTS, seed=3)
    differing = (drawn != expected).any(axis=-1)
    print(f"{differing.sum()} of {differing.size} pixels differ")
    assert_same_pixels(drawn, expected)
