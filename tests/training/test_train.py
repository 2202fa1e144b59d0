"""Run files: what is wrong in them, or in what is set over them, is told in one line."""

import math
from pathlib import Path

import gin
import jax
import pytest

from phenaki_jax.errors import UserError
from phenaki_jax.inference.parameters import init_params
from phenaki_jax.tokenizer.config import CViViTConfig
from phenaki_jax.training import train

TOKENIZER = "gin_configs/runs/shapes_tokenizer.gin"
ROOT = Path(__file__).parents[2]
RUNS = sorted(ROOT.glob("gin_configs/runs/*.gin"))


@pytest.mark.parametrize("file", RUNS, ids=lambda file: file.stem)
def test_every_run_file_describes_a_learner(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bindings = ["DATA_DIR='data'"]
    if "transformer" in file.stem:
        bindings.append("TOKENIZER_WORKDIR='tokenizer'")
    if "paper" in file.stem:
        bindings.append("MIXTURE='clips'")
    train.run([str(file)], bindings, "workdir", dry_run=True)
    assert "parameters" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "sizes", "parameters"),
    [
        ("cvivit_paper", {"frames": 11, "frame_size": 128, "patch": 8, "temporal_window": 6}, 51_235_360),
        ("cvivit_bair", {"frames": 17, "frame_size": 64, "patch": 4, "temporal_window": 9}, 88_554_016),
        ("cvivit_kinetics600", {"frames": 17, "frame_size": 64, "patch": 8, "temporal_window": 9}, 101_583_392),
    ],
)
def test_models_of_the_paper_have_its_sizes(name: str, sizes: dict[str, int], parameters: int) -> None:
    gin.clear_config()
    gin.add_config_file_search_path(str(ROOT))
    gin.parse_config_file(f"gin_configs/models/{name}.gin")
    config = CViViTConfig(**gin.get_bindings(CViViTConfig))
    assert {size: getattr(config, size) for size in sizes} == sizes
    shapes = jax.eval_shape(lambda: init_params(config, jax.random.key(0)))
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)) == parameters


def test_bindings_go_over_files() -> None:
    train.configure([TOKENIZER], ["DATA_DIR='data'", "STEPS=77", "loop.Schedule.log_every=3"])
    assert gin.query_parameter("loop.Schedule.log_every") == 3
    assert gin.query_parameter("STEPS/gin.macro.value") == 77


@pytest.mark.parametrize(
    ("binding", "told"),
    [
        ("STEPZ=77", "no file has a macro STEPZ"),
        ("loop.Schedule.stepz=1", "stepz"),
        ("nothing.at_all=1", "nothing.at_all"),
        ("STEPS=", "gin configuration"),
    ],
)
def test_an_unknown_name_is_refused_in_one_line(binding: str, told: str) -> None:
    with pytest.raises(UserError, match=told) as caught:
        train.configure([TOKENIZER], ["DATA_DIR='data'", binding])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("binding", "told"),
    [
        ("STEPS='many'", "a value of type str, expected int as \\d+"),
        ("STEPS=120.5", "a value of type float, expected int"),
        ("LEARNING_RATE='small'", "a value of type str, expected float"),
        ("MIXTURE=3", "a value of type int, expected str"),
    ],
)
def test_a_value_of_another_type_is_refused(binding: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        train.configure([TOKENIZER], ["DATA_DIR='data'", binding])


def test_a_file_of_a_model_alone_is_no_run_file() -> None:
    with pytest.raises(UserError, match=r"models/shapes\.gin says nothing of a training"):
        train.configure(["gin_configs/models/shapes.gin"], [])


def test_a_missing_run_file_is_told() -> None:
    with pytest.raises(UserError, match=r"found no gin file nowhere\.gin"):
        train.configure(["nowhere.gin"], [])
