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

ROOT = pathlib.Path(__file__).parents[2]
PROMPTS = ["a red circle", "a blue square"]
DRAW = """
import importlib.util, sys
import numpy as np
{load}
for name in {absent}:
    assert importlib.util.find_spec(name) is None, f"{{name}} is installed"
np.save(sys.argv[2], model.generate({prompts}, seed=3))
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
    installed: list[list[str]], load: str, absent: list[str], exported: pathlib.Path, folder: pathlib.Path
) -> np.ndarray:
    """What a new environment draws into which pip has installed this."""
    python, out = folder / "venv" / "bin" / "python", folder / "drawn.npy"
    pip = [python, "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt"]
    program = DRAW.format(load=load, absent=absent, prompts=PROMPTS)
    for command in (
        [sys.executable, "-m", "venv", folder / "venv"],
        *([*pip, *each] for each in installed),
        [python, "-I", "-c", program, exported, out],
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
    load = "from phenaki_jax.inference import Phenaki; model = Phenaki.load(sys.argv[1])"
    absent = ["tensorflow", "seqio", "clu", "gin", "matplotlib"]
    drawn = drawn_with(installed, load, absent, exported, tmp_path)
    assert np.abs(drawn.astype(int) - model.generate(PROMPTS, seed=3)).max() <= 1


def test_programs_run_with_jax_alone(model: Phenaki, exported: pathlib.Path, tmp_path: pathlib.Path) -> None:
    load = "sys.path.insert(0, f'{sys.argv[1]}/stablehlo'); from run import Model; model = Model(sys.argv[1])"
    absent = ["phenaki_jax", "flax", "safetensors", "flatbuffers", "PIL", "jaxtyping"]
    drawn = drawn_with([["jax"]], load, absent, exported, tmp_path)
    assert np.abs(drawn.astype(int) - model.generate(PROMPTS, seed=3)).max() <= 1
