"""Run files: what is wrong in them, or in what is set over them, is told in one line."""

import contextlib
import math
import re
from pathlib import Path

import flax.linen as nn
import gin
import jax
import jaxtyping
import pytest

from phenaki_jax.data.moving_shapes.builder import prepare
from phenaki_jax.errors import UserError
from phenaki_jax.inference.parameters import init_params
from phenaki_jax.inference.window import PhenakiConfig
from phenaki_jax.tokenizer.config import CViViTConfig
from phenaki_jax.training import loop, run_files, train

TOKENIZER = "gin_configs/runs/shapes_tokenizer.gin"
PAPER = "gin_configs/runs/cvivit_paper.gin"
GAN = "gin_configs/runs/shapes_tokenizer_gan.gin"
ROOT = Path(__file__).parents[2]
RUNS = sorted(ROOT.glob("gin_configs/runs/*.gin"))


def text(file: Path) -> str:
    """Of a run file and what it includes."""
    own = file.read_text()
    return own + "".join(text(ROOT / name) for name in re.findall(r'^include "(.*)"', own, re.MULTILINE))


@pytest.mark.parametrize("file", RUNS, ids=lambda file: file.stem)
def test_every_run_file_describes_a_learner(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bindings = ["DATA_DIR='data'"]
    required = {macro for macro in ("TOKENIZER_WORKDIR", "INITIAL_WORKDIR") if f"{macro} = %gin.REQUIRED" in text(file)}
    bindings += [f"{macro}='training'" for macro in required]
    if "MIXTURE = %gin.REQUIRED" in text(file):
        bindings.append("MIXTURE='clips'")
    if "T5_CHECKPOINT" in text(file):
        bindings.append("PRECOMPUTED='precomputed'")
    if "VGG16_FILE" in text(file):
        bindings += ["VGG16_FILE='random'", "LPIPS_FILE='random'", "I3D_FILE='random'"]
    # What another training would leave is not there.
    needs_tokenizer = pytest.raises(UserError, match="no checkpoint")
    with needs_tokenizer if "TOKENIZER_WORKDIR" in required else contextlib.nullcontext():
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


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("phenaki_paper", {"tokenizer": 51.235, "text": 4762.311, "transformer": 1845.649}),
        ("phenaki_900m", {"tokenizer": 51.235, "text": 4762.311, "transformer": 937.526}),
        ("phenaki_prediction", {"tokenizer": 101.583, "transformer": 182.491}),
        ("phenaki_small", {"tokenizer": 51.235, "text": 109.629, "transformer": 125.859}),
        ("phenaki_tiny", {"tokenizer": 13.474, "text": 35.333, "transformer": 3.541}),
    ],
)
def test_text_to_video_models_have_their_sizes(name: str, millions: dict[str, float]) -> None:
    """The paper's two are within 1 % of 1849 and 940; of the prediction model's, 170 are in the layers."""
    gin.clear_config()
    gin.add_config_file_search_path(str(ROOT))
    gin.parse_config_file(f"gin_configs/models/{name}.gin")
    config = PhenakiConfig(**gin.get_bindings(PhenakiConfig))
    shapes = jax.eval_shape(lambda: init_params(config, jax.random.key(0)))
    found = {part: sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree)) for part, tree in shapes.items()}
    assert {part: round(count / 1e6, 3) for part, count in found.items()} == millions


def test_every_setting_of_the_loss_can_be_set_by_its_name() -> None:
    values = {
        "objective.ObjectiveConfig.l1": 0.5,
        "perceptual.PerceptualConfig.image": 0.25,
        "adversarial.AdversarialConfig.weight": 0.125,
        "discriminator.DiscriminatorConfig.most_channels": 16,
        "state.StepConfig.microbatches": 4,
    }
    run_files.configure([GAN], ["DATA_DIR='data'", *(f"{name}={value}" for name, value in values.items())])
    settings = gin.get_bindings(loop.train)
    learner, step_config = settings["learner"], settings["step_config"]
    found = (learner.objective.l1, learner.perceptual.image, learner.adversarial.weight)
    assert found == (0.5, 0.25, 0.125)
    assert (learner.adversarial.discriminator.most_channels, step_config.microbatches) == (16, 4)
    warmups = [each.warmup_steps for each in (settings["optimizer"], learner.discriminator_optimizer)]
    assert warmups == [80, 80]


@pytest.mark.parametrize(
    ("binding", "told"),
    [
        ("CODE_LEVELS=()", "found no levels of fsq, expected some"),
        ("loop.train.initial_workdir=3", r"found train\.initial_workdir 3, .*, expected text in quotes$"),
        ("loop.train.learner='x'", r"found train\.learner 'x', .*, expected a Learner$"),
        ("loop.train.seed=-1", "found seed -1, expected 0 to 2147483647"),
        ("loop.Schedule.log_every=0", "^found log_every 0, expected at least 1$"),
        ("BATCH_SIZE=0", "^found batch_size 0, expected at least 1$"),
        ("CViViTConfig.heads=0", "^found heads 0, expected at least 1$"),
        ("CViViTConfig.spatial_layers=0", "^found spatial_layers 0, expected at least 1$"),
        ("CViViTConfig.frames=10", "found frames 10, expected .*: set frames to 9 or 11$"),
        ("LEARNING_RATE=-1.0", "found learning_rate -1.0, expected a number above 0"),
    ],
)
def test_a_setting_that_cannot_be_is_named_in_a_dry_run(binding: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        train.run([TOKENIZER], ["DATA_DIR='data'", binding], "workdir", dry_run=True)


@pytest.mark.parametrize(
    ("binding", "told"),
    [
        (
            "CODE_LEVELS=5",
            r"found QuantizerConfig\.levels 5, .*, expected whole numbers as in \(8, 5\); .* has CODE_LEVELS = 5$",
        ),
        ("CViViTConfig.quantizer='fsq'", r"found CViViTConfig\.quantizer 'fsq', .*, expected a QuantizerConfig$"),
        ("TokenizerLearner.adversarial='yes'", "'yes', .*, expected an AdversarialConfig or None$"),
        ("DataConfig.resolutions=3", r"found DataConfig\.resolutions 3, .*, expected a tuple of ResolutionConfig$"),
    ],
)
def test_a_setting_of_another_type_is_named_before_it_is_used(
    binding: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As for users, for whom nothing else checks types.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(UserError, match=told):
        train.run([TOKENIZER], ["DATA_DIR='data'", binding], "workdir", dry_run=True)


def test_a_value_that_is_refused_is_told_with_the_macro_that_sets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In whose place a parameter that it goes to would be told alone."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    file = tmp_path / "my.gin"
    file.write_text(f'include "{TOKENIZER}"\nSTEPS = "twenty"\n')
    with pytest.raises(UserError, match=r"found \w+\.\w+ 'twenty', .*; the configuration has STEPS = 'twenty'$"):
        train.run([str(file)], ["DATA_DIR='data'"], "workdir", dry_run=True)


def test_files_that_are_not_there_are_told_after_what_would_be_trained(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=r"found nothing at nowhere\.pth"):
        train.run([PAPER], ["DATA_DIR='data'", "MIXTURE='clips'", "LPIPS_FILE='nowhere.pth'"], "workdir", dry_run=True)
    assert "parameters" in capsys.readouterr().out


def test_a_discriminator_that_would_never_act_is_refused() -> None:
    bindings = ["DATA_DIR='data'", "MIXTURE='clips'", "AdversarialConfig.start=1_000_000"]
    with pytest.raises(
        UserError, match=r"found AdversarialConfig\.start 1000000, expected less than the 1000000 steps"
    ):
        train.run([PAPER], bindings, "workdir", dry_run=True)


OF_THE_PAPER = [file for file in RUNS if "paper" in text(file) or "phenaki_prediction" in text(file)]


@pytest.mark.parametrize("file", OF_THE_PAPER, ids=lambda file: file.stem)
def test_every_run_of_the_papers_models_shrinks_to_a_laptop(file: Path) -> None:
    bindings = ["DATA_DIR='data'"]
    if "TOKENIZER_WORKDIR = %gin.REQUIRED" in text(file):
        bindings.append("TOKENIZER_WORKDIR='training'")
    settings = train.settings_of([str(file), str(ROOT / "gin_configs" / "shrink.gin")], bindings)
    learner = settings["learner"]
    sizes = jax.tree.map(lambda leaf: leaf.size, nn.unbox(jax.eval_shape(learner.init_params, jax.random.key(0))))
    assert sum(jax.tree.leaves(sizes)) < 1_000_000
    assert (learner.frames, learner.frame_size, settings["data"].mixture) == (7, 32, "moving_shapes_joint")
    assert settings["schedule"].steps == 100


@pytest.mark.slow
def test_shrunk_runs_train(tmp_path: Path) -> None:
    """Each of the paper's studies from its tokenizer to its samples."""
    prepare(tmp_path / "data", size=32, train_videos=24, test_videos=8, train_images=16, test_images=8)
    shrink = "gin_configs/shrink.gin"
    short = [f"DATA_DIR={str(tmp_path / 'data')!r}", "STEPS=12", "Schedule.checkpoint_every=12"]
    for study in ("bair", "kinetics600", "ucf101"):
        tokenizer = tmp_path / f"{study}_tokenizer"
        train.run([f"gin_configs/runs/cvivit_{study}.gin", shrink], short, str(tokenizer))
        over = [*short, f"TOKENIZER_WORKDIR={str(tokenizer)!r}"]
        seen = train.run([f"gin_configs/runs/phenaki_{study}.gin", shrink], over, str(tmp_path / study))
        assert 0 < seen["loss"] < 5
        assert list((tmp_path / study / "images").glob("sample_*.png"))
