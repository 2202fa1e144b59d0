"""The loop: what is resumed is what was never stopped, and what is broken is told in one line."""

import contextlib
import dataclasses
import json
import shutil
import signal
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from phenaki_jax.errors import UserError
from phenaki_jax.tokenizer.adversarial import AdversarialConfig
from phenaki_jax.tokenizer.discriminator import DiscriminatorConfig
from phenaki_jax.tokenizer.objective import ObjectiveConfig
from phenaki_jax.training import checkpoints, loop
from phenaki_jax.training.data_config import DataConfig
from phenaki_jax.training.learner import Learner
from phenaki_jax.training.log import read_metrics
from phenaki_jax.training.optimizers import OptimizerConfig
from phenaki_jax.training.sharding import MeshConfig
from phenaki_jax.training.state import StepConfig
from phenaki_jax.training.tokenizer_learner import TokenizerLearner
from phenaki_jax.training.transformer_learner import TransformerLearner


@dataclasses.dataclass(frozen=True)
class Training:
    """A training but for what is trained, and where."""

    optimizer: OptimizerConfig
    data: DataConfig
    schedule: loop.Schedule

    def run(self, learner: Learner, workdir: Path, **options: Any) -> dict[str, float]:
        return loop.train(learner, self.optimizer, self.data, self.schedule, workdir, **options)

    def changed(self, part: str, **settings: Any) -> "Training":
        return dataclasses.replace(self, **{part: dataclasses.replace(getattr(self, part), **settings)})

    def on_images(self) -> "Training":
        return self.changed("data", mixture="moving_shapes_image_text", eval_mixture="moving_shapes_image_text")


@pytest.fixture
def small(optimizer: OptimizerConfig, data: DataConfig, schedule: loop.Schedule) -> Training:
    return Training(optimizer, data, schedule)


@pytest.fixture
def game_learner(tokenizer_learner: TokenizerLearner) -> TokenizerLearner:
    """One whose discriminator begins late, and whose averages of logits count."""
    game = AdversarialConfig(DiscriminatorConfig(most_channels=4), lecam=0.1, discriminator_start=2, start=3)
    return dataclasses.replace(tokenizer_learner, adversarial=game)


@pytest.fixture(params=["game", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("tokenizer", "transformer"))])
def learner(request: pytest.FixtureRequest) -> Learner:
    return request.getfixturevalue(f"{request.param}_learner")


def _losses(workdir: Path) -> list[float]:
    return [entry["loss"] for entry in read_metrics(workdir) if entry["kind"] == "train"]


def _stop_after(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sends this process a Ctrl-C while the given step is being logged."""
    write = loop.RunLog.write

    def interrupting(self: loop.RunLog, kind: str, at: int, *values: dict[str, float]) -> None:
        write(self, kind, at, *values)
        if at == step and kind == "train":
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(loop.RunLog, "write", interrupting)


def test_a_run_that_was_stopped_ends_like_one_that_was_not(
    learner: Learner,
    small: Training,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    evaluated = small.run(learner, whole)
    with monkeypatch.context() as patch:
        _stop_after(2, patch)
        with pytest.raises(KeyboardInterrupt, match="stopped after step 3, which is saved"):
            small.run(learner, parts)
    assert checkpoints.latest_checkpoint(parts).name == "3"
    assert len(_losses(parts)) == 3
    assert small.run(learner, parts) == evaluated
    assert _losses(parts) == _losses(whole)
    assert len(_losses(whole)) == small.schedule.steps
    expected, found = checkpoints.read_params(whole), checkpoints.read_params(parts)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    if isinstance(learner, TokenizerLearner) and learner.adversarial is not None:
        told = ["gradient_norm_discriminator" in entry for entry in read_metrics(whole) if entry["kind"] == "train"]
        assert told == [False, False, True, True, True, True]


def test_a_checkpoint_lost_with_the_last_steps_is_made_again_from_the_one_before(
    tokenizer_learner: Learner,
    small: Training,
    tokenizer_workdir: Path,
    tmp_path: Path,
) -> None:
    workdir = tmp_path / "run"
    shutil.copytree(tokenizer_workdir, workdir)
    shutil.rmtree(workdir / "checkpoints" / str(small.schedule.steps))
    half_written = workdir / "checkpoints" / "3.orbax-checkpoint-tmp"
    half_written.mkdir()
    small.run(tokenizer_learner, workdir)
    assert not half_written.exists()
    jax.tree.map(
        np.testing.assert_array_equal, checkpoints.read_params(workdir), checkpoints.read_params(tokenizer_workdir)
    )
    assert _losses(workdir) == _losses(tokenizer_workdir)


def test_training_lowers_the_loss(tokenizer_workdir: Path) -> None:
    losses = _losses(tokenizer_workdir)
    assert losses[-1] < losses[0]


def test_pictures_and_boards_are_left(tokenizer_workdir: Path, schedule: loop.Schedule) -> None:
    assert (tokenizer_workdir / "images" / f"reconstruction_{schedule.steps:07d}.png").exists()
    assert list((tokenizer_workdir / "tensorboard").iterdir())


def test_another_configuration_is_refused(
    tokenizer_learner: Learner,
    small: Training,
    tokenizer_workdir: Path,
) -> None:
    model = dataclasses.replace(tokenizer_learner.model, mlp_width=64)
    other = dataclasses.replace(tokenizer_learner, model=model)
    with pytest.raises(UserError, match=r"tokenizer\.mlp_width = 32, not 64"):
        small.run(other, tokenizer_workdir)


def test_a_state_of_other_arrays_is_not_called_damaged(tokenizer_workdir: Path) -> None:
    state = {"params": {"tokenizer": np.zeros(1)}, "more": np.zeros(1)}
    description = checkpoints.read_description(tokenizer_workdir)
    with (
        contextlib.closing(checkpoints.Checkpoints(tokenizer_workdir)) as kept,
        pytest.raises(UserError, match="has no more: go on with the configuration and the phenaki_jax that wrote it"),
    ):
        kept.restore(state, None, description, step=6)


def test_settings_that_a_run_goes_on_with_and_did_not_begin_with_are_told(
    tokenizer_learner: TokenizerLearner, small: Training, tokenizer_workdir: Path, tmp_path: Path, capsys: Any
) -> None:
    shutil.copytree(tokenizer_workdir, tmp_path / "run")
    quantizer = dataclasses.replace(tokenizer_learner.model.quantizer, restart=0.0)
    model = dataclasses.replace(tokenizer_learner.model, quantizer=quantizer)
    other = dataclasses.replace(tokenizer_learner, model=model, objective=ObjectiveConfig(l1=0.5))
    small.changed("schedule", steps=7).run(other, tmp_path / "run")
    told = "going on from step 6 with tokenizer.quantizer.restart = 0.0, was 0.03, loss.objective.l1 = 0.5, was 0.0\n"
    assert told in capsys.readouterr().out
    last = [entry for entry in read_metrics(tmp_path / "run") if entry["kind"] == "train"][-1]
    assert (last["step"], last["codebook_restarts"]) == (7, 0)


def test_a_truncated_checkpoint_is_named(tokenizer_workdir: Path, tmp_path: Path) -> None:
    workdir = tmp_path / "run"
    shutil.copytree(tokenizer_workdir, workdir)
    for file in (checkpoints.latest_checkpoint(workdir) / "state").rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(UserError, match=r"is damaged \(checkpoints/6/state/.* has \d+ bytes, expected \d+\)"):
        checkpoints.read_params(workdir)
    shutil.rmtree(workdir / "checksums")
    with pytest.raises(UserError, match="cannot be read"):
        checkpoints.read_params(workdir)


def test_a_workdir_that_another_training_writes_to_is_refused(
    tokenizer_learner: Learner, small: Training, tmp_path: Path
) -> None:
    with (
        contextlib.closing(checkpoints.Checkpoints(tmp_path / "run")),
        pytest.raises(UserError, match=r"another training is writing to .*run: wait for it, or name another workdir"),
    ):
        small.run(tokenizer_learner, tmp_path / "run")


def test_a_missing_checkpoint_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="found no checkpoint"):
        checkpoints.read_params(tmp_path)


def test_a_loss_that_is_not_finite_stops_the_run(tokenizer_learner: Learner, small: Training, tmp_path: Path) -> None:
    exploding = small.changed("optimizer", kind="adamw", learning_rate=1e30)
    with pytest.raises(UserError, match=r"at step .*; begin anew with a lower learning_rate"):
        exploding.run(tokenizer_learner, tmp_path / "run")


def test_a_run_that_skips_every_step_ends(tokenizer_learner: Learner, small: Training, tmp_path: Path) -> None:
    exploding = small.changed("optimizer", kind="adamw", learning_rate=1e30)
    with pytest.raises(UserError, match=r"every step since the last log was skipped, at step \d+, .*; begin anew with"):
        exploding.run(tokenizer_learner, tmp_path / "run", step_config=StepConfig(non_finite="skip"))


def test_metrics_are_whole_lines_of_json(tokenizer_workdir: Path) -> None:
    lines = (tokenizer_workdir / "metrics.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    assert all(set(entry) >= {"kind", "step", "loss"} for entry in entries)
    assert {entry["kind"] for entry in entries} == {"train", "eval"}


@pytest.mark.slow
def test_a_run_begins_with_the_parameters_of_another_whose_clips_are_shorter(
    transformer_learner: TransformerLearner,
    small: Training,
    tmp_path: Path,
) -> None:
    tokenizer = dataclasses.replace(transformer_learner.model.tokenizer, frames=1)
    model = dataclasses.replace(transformer_learner.model, tokenizer=tokenizer)
    still = dataclasses.replace(transformer_learner, model=model)
    small.on_images().run(still, tmp_path / "images")
    begun = checkpoints.read_params(tmp_path / "images")["params"]

    no_learning = small.changed("optimizer", learning_rate=1e-30)
    no_learning.run(transformer_learner, tmp_path / "videos", initial_workdir=str(tmp_path / "images"))
    jax.tree.map(np.testing.assert_array_equal, checkpoints.read_params(tmp_path / "videos")["params"], begun)


def test_parameters_of_another_model_are_no_beginning(
    transformer_learner: TransformerLearner,
    small: Training,
    tokenizer_workdir: Path,
    tmp_path: Path,
) -> None:
    with pytest.raises(UserError, match=r"the checkpoint in .* is of a tokenizer, expected one of a transformer: name"):
        small.run(transformer_learner, tmp_path / "run", initial_workdir=str(tokenizer_workdir))


def test_videos_of_another_size_are_refused_before_anything_is_written(
    tokenizer_learner: TokenizerLearner,
    small: Training,
    tmp_path: Path,
) -> None:
    larger = dataclasses.replace(tokenizer_learner, model=dataclasses.replace(tokenizer_learner.model, frame_size=64))
    with pytest.raises(UserError, match=r"are uint8 \[7, 32, 32, 3\], expected uint8 \[7, 64, 64, 3\]"):
        small.run(larger, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_damaged_checkpoint_is_set_aside_for_the_one_before(
    tokenizer_learner: TokenizerLearner,
    small: Training,
    tokenizer_workdir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    workdir = tmp_path / "run"
    shutil.copytree(tokenizer_workdir, workdir)
    (largest,) = sorted((workdir / "checkpoints" / "6" / "state").rglob("*"), key=lambda path: path.stat().st_size)[-1:]
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    small.run(tokenizer_learner, workdir)
    told = capsys.readouterr()
    assert f"the checkpoint of step 6 in {workdir} is damaged ({largest.relative_to(workdir)} is not what" in told.err
    assert "going on from step 4" in told.out
    assert (workdir / "damaged" / "6" / "state").is_dir()
    jax.tree.map(
        np.testing.assert_array_equal, checkpoints.read_params(workdir), checkpoints.read_params(tokenizer_workdir)
    )
    # Once more, now that it has come to its end.
    small.run(tokenizer_learner, workdir)
    assert (
        "going on from step 6: all its steps are done, more of them is a longer training\n" in capsys.readouterr().out
    )


def test_checkpoints_that_are_all_damaged_are_refused_and_stay(
    tokenizer_learner: TokenizerLearner, small: Training, tokenizer_workdir: Path, tmp_path: Path
) -> None:
    workdir = tmp_path / "run"
    shutil.copytree(tokenizer_workdir, workdir)
    for step in (4, 6):
        (workdir / "checkpoints" / str(step) / "description" / "metadata").unlink()
    before = sorted(workdir.rglob("*"))
    with pytest.raises(UserError, match=r"of step 6 .* is damaged \(checkpoints/6/description/metadata is missing\)"):
        small.run(tokenizer_learner, workdir)
    assert sorted(workdir.rglob("*")) == before


@pytest.mark.slow
@pytest.mark.parametrize("harm", ["byte", "file", "folder"])
def test_no_damage_goes_unseen(harm: str, tokenizer_workdir: Path, tmp_path: Path) -> None:
    """Twenty random ones of each kind: each is named and the step before taken."""
    rng, whole = np.random.default_rng(0), checkpoints.read_params(tokenizer_workdir)
    for trial in range(20):
        workdir = tmp_path / str(trial)
        shutil.copytree(tokenizer_workdir, workdir)
        parts = [workdir / "checkpoints" / "6", workdir / "data_position" / "6"]
        found = sorted(path for part in parts for path in part.rglob("*") if path.is_file() == (harm != "folder"))
        chosen = found[rng.integers(len(found))]
        if harm == "byte":
            content = bytearray(chosen.read_bytes())
            content[rng.integers(len(content))] ^= 1 << rng.integers(8)
            chosen.write_bytes(content)
        elif harm == "file":
            chosen.unlink()
        else:
            for file in sorted(path for path in chosen.rglob("*") if path.is_file())[::2]:
                file.unlink()
        told: list[str] = []
        found_step = checkpoints.first_whole_step(workdir, [4, 6], told.append)
        if found_step == 6:
            # Proved harmless: when the checkpoint was complete is told in there, which nobody reads.
            assert chosen.name == "commit_success.txt" or (harm, chosen.name) == ("byte", "_CHECKPOINT_METADATA")
            jax.tree.map(np.testing.assert_array_equal, checkpoints.read_params(workdir), whole)
        else:
            assert f"the checkpoint of step 6 in {workdir} is damaged" in told[0]


def test_a_truncated_data_position_is_named(
    tokenizer_learner: TokenizerLearner,
    small: Training,
    tokenizer_workdir: Path,
    tmp_path: Path,
) -> None:
    shutil.copytree(tokenizer_workdir, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checksums")
    for file in (tmp_path / "run" / "data_position" / str(small.schedule.steps)).rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[:7])
    with pytest.raises(UserError, match=r"the data position .* cannot be read"):
        small.changed("schedule", steps=9).run(tokenizer_learner, tmp_path / "run")


def test_a_tokenizer_of_shorter_clips_is_refused(
    transformer_learner: TransformerLearner,
    tokenizer_learner: TokenizerLearner,
    small: Training,
    tmp_path: Path,
) -> None:
    short = dataclasses.replace(tokenizer_learner, model=dataclasses.replace(tokenizer_learner.model, frames=1))
    small.on_images().run(short, tmp_path / "tokenizer")
    with pytest.raises(UserError, match="was trained on clips of 1 frames, expected at least 7"):
        dataclasses.replace(transformer_learner, tokenizer_workdir=str(tmp_path / "tokenizer")).check_files()


def test_what_an_evaluation_would_stumble_over_is_told_before_the_first_step(
    tokenizer_learner: TokenizerLearner, small: Training, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="the test split of moving_shapes_video_text is smaller than one batch of 16"):
        small.changed("data", batch_size=16).run(tokenizer_learner, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_evaluations_may_have_smaller_batches(
    tokenizer_learner: TokenizerLearner, small: Training, tmp_path: Path
) -> None:
    few = small.changed("data", batch_size=16, eval_batch_size=4).changed("schedule", steps=1)
    assert np.isfinite(few.run(tokenizer_learner, tmp_path / "run")["loss"])


@pytest.mark.parametrize(
    ("wanted", "shares", "found"), [(0, 0, 16), (4, 0, 4), (5, 0, 5), (4, 8, 8), (64, 0, 16), (3, 2, 4)]
)
def test_batches_of_evaluations_are_of_sizes_that_shares_divide_and_no_larger_than_steps(
    tokenizer_learner: TokenizerLearner, small: Training, wanted: int, shares: int, found: int
) -> None:
    data = dataclasses.replace(small.data, batch_size=16, eval_batch_size=wanted, shares=shares)
    feed = data.eval_feeds(tokenizer_learner, MeshConfig().over(jax.devices()[:1]), 0)[""]
    assert feed.settings.batch_size == found


@pytest.mark.parametrize("seed", [-1, 2**31])
def test_a_seed_out_of_range_is_refused(
    tokenizer_learner: TokenizerLearner, small: Training, tmp_path: Path, seed: int
) -> None:
    with pytest.raises(UserError, match=f"found seed {seed}, expected 0 to 2147483647"):
        small.run(tokenizer_learner, tmp_path / "run", seed=seed)
    assert not (tmp_path / "run").exists()


def test_parts_that_do_not_divide_a_batch_are_refused(
    tokenizer_learner: TokenizerLearner, small: Training, tmp_path: Path
) -> None:
    """A batch of 4 over 4 devices has nothing to take in parts."""
    with pytest.raises(UserError, match="batch_size 4, expected a multiple of 8, for 2 microbatches on 4 devices"):
        small.run(tokenizer_learner, tmp_path / "run", step_config=StepConfig(microbatches=2))


@pytest.mark.slow
def test_a_game_begins_with_a_tokenizer_trained_without_and_resumes_with_its_averages(
    tokenizer_learner: TokenizerLearner, small: Training, tokenizer_workdir: Path, tmp_path: Path
) -> None:
    """What is exported is the average; what trains on is not."""
    game = AdversarialConfig(DiscriminatorConfig(most_channels=4))
    learner = dataclasses.replace(tokenizer_learner, adversarial=game)
    averaging = {"step_config": StepConfig(average_decay=0.9), "initial_workdir": str(tokenizer_workdir)}
    small.changed("schedule", steps=3).run(learner, tmp_path / "run", **averaging)
    small.run(learner, tmp_path / "run", **averaging)
    assert checkpoints.checkpoint_steps(tmp_path / "run")[-1] == small.schedule.steps
    average, last = (checkpoints.read_params(tmp_path / "run", average=average)["params"] for average in (True, False))
    begun = checkpoints.read_params(tokenizer_workdir)["params"]
    heads = [params["tokenizer"]["first_head"] for params in (begun, average, last)]
    distances = [np.linalg.norm(head - heads[0]) for head in heads]
    assert 0 < distances[1] < distances[2]
    jax.tree.map(np.testing.assert_array_equal, average["discriminator"], last["discriminator"])
    other = dataclasses.replace(learner, adversarial=AdversarialConfig(DiscriminatorConfig(most_channels=8)))
    same = dataclasses.replace(learner, adversarial=AdversarialConfig(DiscriminatorConfig(most_channels=4, remat=True)))
    kept = [checkpoints.read_parameters_that_fit(tmp_path / "run", each.describe()) for each in (same, other)]
    assert [sorted(each["params"]) for each in kept] == [["discriminator", "tokenizer"], ["tokenizer"]]
    assert [sorted(each["statistics"]) for each in kept] == [["discriminator", "tokenizer"], ["tokenizer"]]
    no_learning = small.changed("optimizer", learning_rate=1e-30).changed("schedule", steps=1)
    no_learning.run(learner, tmp_path / "again", initial_workdir=str(tmp_path / "run"))
    again = checkpoints.read_params(tmp_path / "again")["params"]
    np.testing.assert_array_equal(again["tokenizer"]["first_head"], last["tokenizer"]["first_head"])
    with pytest.raises(UserError, match="average_decay = 'above 0', not '0'"):
        small.run(learner, tmp_path / "run")
    with pytest.raises(UserError, match=r"discriminator = .*, not None"):
        small.run(tokenizer_learner, tmp_path / "run", **averaging)


def test_what_is_not_well_is_told_when_it_comes_and_at_every_evaluation_while_it_lasts() -> None:
    health = loop._Health()
    collapse, other = "codebook_perplexity 3: collapse", "logits_real 400: explodes"
    told = [health.new(lines, again=again) for lines, again in (
        ([collapse], False),
        ([collapse.replace("3", "4"), other], False),
        ([collapse, other], False),
        ([collapse, other], True),
        ([], False),
        ([collapse], False),
    )]  # fmt: skip
    assert told == [[collapse], [other], [], [collapse, other], [], [collapse]]
