"""Evaluations: the same numbers whatever interrupts or shares them, of videos that are what the protocol says."""

import copy
import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from phenaki_jax.data.clips import Clip, read_clips
from phenaki_jax.errors import UserError
from phenaki_jax.evaluation import evaluate as evaluate_lib
from phenaki_jax.evaluation.drawing import Drawer
from phenaki_jax.evaluation.evaluate import PICTURE, Evaluation, evaluate
from phenaki_jax.evaluation.examples import OrderedExamples
from phenaki_jax.evaluation.networks import judged
from phenaki_jax.evaluation.numbers import Found
from phenaki_jax.evaluation.protocols import PROTOCOLS, Protocol
from phenaki_jax.evaluation.rows import Rows
from phenaki_jax.inference.phenaki import Phenaki
from phenaki_jax.inference.testing import random_params, tiny_config, tiny_metadata
from phenaki_jax.training.sharding import Layout, MeshConfig

from .conftest import evaluation_of

NAMES = ["frechet_shapes_11f_32_r8_n12", "kernel_shapes_11f_32_r8_n12", "obeyed_shapes_11f_32_n12"]


def told(found: Found | None) -> list[dict[str, Any]]:
    assert found is not None
    assert not found.left_out
    return json.loads(json.dumps([number.as_json() for number in found.numbers]))


def compile_quickly() -> None:
    """What goes on around the networks is tested here."""
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture(autouse=True)
def compiled_quickly() -> None:
    compile_quickly()


@pytest.fixture(scope="module")
def whole(
    model: Phenaki,
    protocol: Protocol,
    data_dir: pathlib.Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Evaluation, list[dict[str, Any]]]:
    """An evaluation that nothing interrupts, over four devices, and its numbers."""
    compile_quickly()
    evaluation = evaluation_of(model, protocol, data_dir, tmp_path_factory.mktemp("whole"))
    return evaluation, told(evaluate(evaluation))


def test_numbers_tell_what_they_are_of(whole: tuple[Evaluation, list[dict[str, Any]]]) -> None:
    evaluation, numbers = whole
    assert [number["name"] for number in numbers[:3]] == NAMES
    distance, _, followed, color, *_ = numbers
    assert distance["value"] > 0
    assert distance["interval"]["low"] <= distance["value"] <= distance["interval"]["high"]
    assert "found 8 real and 12 generated samples for 64 features" in distance["caution"]
    settings = distance["settings"]
    assert (settings["protocol"], settings["examples"], settings["samples"]) == ("moving_shapes", 6, 2)
    assert settings["weights_sha256"] == evaluation.networks["shapes"].sha256
    assert followed["value"] <= color["value"]
    # Two videos of each of six prompts are told by film strips of eleven frames; one batch of four is shown.
    with Image.open(evaluation.folder / PICTURE) as picture:
        assert picture.size == (11 * 32, 4 * 32)


def test_clips_that_do_not_fit_leave_no_folder(
    model: Phenaki, protocol: Protocol, data_dir: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """Which would belong to the evaluation that cannot be."""
    longer = dataclasses.replace(protocol, frames=13, drawn_frames=0)
    with pytest.raises(UserError, match="windows of 13 frames"):
        evaluate(evaluation_of(model, longer, data_dir, tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_what_is_done_is_not_done_again(
    whole: tuple[Evaluation, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluation, numbers = whole
    monkeypatch.setattr(Drawer, "make", None)
    monkeypatch.setattr(evaluate_lib, "rows_of", None)
    assert told(evaluate(evaluation)) == numbers


@pytest.mark.parametrize("written", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_an_interrupted_evaluation_goes_on_to_the_same_numbers(
    evaluation: Evaluation,
    whole: tuple[Evaluation, list[dict[str, Any]]],
    monkeypatch: pytest.MonkeyPatch,
    written: int,
) -> None:
    """After so many of the five batches."""
    write, left = Rows.write, [written]

    def interrupted(self: Rows, *batch: Any) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        write(self, *batch)

    with monkeypatch.context() as patched:
        patched.setattr(Rows, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            evaluate(evaluation)
    assert len(list(evaluation.folder.parent.glob("**/*.npz"))) == written
    assert told(evaluate(evaluation)) == whole[1]


@pytest.mark.slow
def test_processes_share_the_work(evaluation: Evaluation, whole: tuple[Evaluation, list[dict[str, Any]]]) -> None:
    """Two of them, each without the other's batches."""
    first, second = (
        dataclasses.replace(evaluation, config=dataclasses.replace(evaluation.config, process=index, processes=2))
        for index in range(2)
    )
    assert evaluate(second) is None
    assert told(evaluate(first)) == whole[1]


@pytest.mark.slow
def test_clips_themselves_obey_their_captions(evaluation: Evaluation, monkeypatch: pytest.MonkeyPatch) -> None:
    """And are nearer to real ones than their first frames standing still are."""

    def shown(frames: list[int]) -> dict[str, float]:
        def make(self: Drawer, clips: Sequence[Clip], numbers: Sequence[int]) -> jax.Array:
            return jax.device_put(np.stack([clip.video[frames] for clip in clips]), evaluation.layout.batch)

        monkeypatch.setattr(Drawer, "make", make)
        folder = evaluation.folder / str(len(set(frames)))
        numbers = told(evaluate(dataclasses.replace(evaluation, folder=folder)))
        return {number["metric"]: number["value"] for number in numbers}

    moving, still = shown([*range(11)]), shown([0] * 11)
    assert moving["obeyed"] == 1.0
    assert still["obeyed_motion"] < 0.5
    assert moving["frechet"] < still["frechet"]


@pytest.mark.slow
def test_one_device_finds_what_four_find(
    evaluation: Evaluation, whole: tuple[Evaluation, list[dict[str, Any]]]
) -> None:
    # Its own model, as embeddings of texts are kept where they were computed.
    model = Phenaki(tiny_config(), random_params(tiny_config()), tiny_metadata(), truncate_prompts=True)
    by_one = dataclasses.replace(evaluation, model=model, layout=alone())
    assert whole[0].layout.batch_parts == 4
    for found, expected in zip(told(evaluate(by_one)), whole[1], strict=True):
        assert found["value"] == pytest.approx(expected["value"], rel=1e-5)


def test_a_folder_belongs_to_one_evaluation(whole: tuple[Evaluation, list[dict[str, Any]]]) -> None:
    evaluation = whole[0]
    other = dataclasses.replace(evaluation, config=dataclasses.replace(evaluation.config, seed=1))
    with pytest.raises(UserError, match=r"holds an evaluation with seed 0, expected 1: go on with the settings"):
        evaluate(other)
    another = copy.copy(evaluation.model)
    another.fingerprint = "another"
    with pytest.raises(UserError, match=r"holds an evaluation with model 0123456789abcdef, expected another"):
        evaluate(dataclasses.replace(evaluation, model=another))
    other_words = copy.copy(evaluation.model)
    other_words.vocabulary_fingerprint = "another"
    with pytest.raises(UserError, match=r"holds an evaluation with vocabulary None, expected another"):
        evaluate(dataclasses.replace(evaluation, model=other_words))
    damaged = evaluation.folder / "rows" / "000000.npz"
    content = damaged.read_bytes()
    damaged.write_bytes(content[:100])
    with pytest.raises(UserError, match=r"000000.npz is damaged, expected rows as they were written: delete it"):
        evaluate(evaluation)
    damaged.write_bytes(content)


@pytest.mark.slow
def test_reconstructions_are_compared_with_their_clips(
    model: Phenaki, data_dir: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """PSNR is that of the model's own reconstructions; the picture has each below its clip."""
    protocol = dataclasses.replace(PROTOCOLS["moving_shapes_reconstruction"], examples=5)
    evaluation = evaluation_of(model, protocol, data_dir, tmp_path)
    numbers = {number["metric"]: number for number in told(evaluate(evaluation))}
    assert [*numbers] == ["psnr", "ssim", "frechet", "kernel", "obeyed"]
    assert numbers["psnr"]["name"] == "psnr_11f_32_n5"
    clips = [example.clip for example in OrderedExamples(protocol, "test", 0, data_dir).at(range(5))]
    decibels = []
    for clip in clips:
        error = (clip.video.astype(np.float64) - model.reconstruct(clip.video)) / 255
        decibels.append(np.mean(-10 * np.log10(np.mean(error**2, axis=(1, 2, 3)))))
    assert numbers["psnr"]["value"] == pytest.approx(np.mean(decibels), abs=1e-4)
    with Image.open(evaluation.folder / PICTURE) as picture:
        shown = np.asarray(picture)
    np.testing.assert_array_equal(shown[:32, :32], clips[0].video[0])
    np.testing.assert_array_equal(shown[32:64, :32], model.reconstruct(clips[0].video)[0])


def alone() -> Layout:
    """One device, for which less is compiled."""
    return MeshConfig().over(jax.local_devices()[:1])


def drawn_as(monkeypatch: pytest.MonkeyPatch, evaluation: Evaluation) -> list[tuple[list[int], list[str]]]:
    """Videos are the clips with a brightness that their numbers decide; which numbers and texts they were made by."""
    made = []

    def make(self: Drawer, clips: Sequence[Clip], numbers: Sequence[int]) -> jax.Array:
        made.append((list(numbers), [clip.text for clip in clips]))
        videos = [clip.video // (2 + number % 3) for clip, number in zip(clips, numbers, strict=True)]
        return jax.device_put(np.stack(videos), evaluation.layout.batch)

    monkeypatch.setattr(Drawer, "make", make)
    return made


def test_folds_are_drawn_anew_from_the_same_clips(evaluation: Evaluation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three videos of each of two clips, twice, of which a batch holds the end of one fold and the next one's begin."""
    protocol = dataclasses.replace(evaluation.protocol, examples=2, samples=3, folds=2, real=4, split="test")
    evaluation = dataclasses.replace(evaluation, protocol=protocol, layout=alone())
    made = drawn_as(monkeypatch, evaluation)
    numbers = told(evaluate(evaluation))
    assert [number for batch, _ in made for number in batch] == [*range(12)]
    texts = [text for _, batch in made for text in batch]
    assert texts == 2 * [*3 * texts[:1], *3 * texts[3:4]]
    assert texts[0] != texts[3]
    settings = numbers[0]["settings"]
    assert (settings["folds"], settings["generated"], settings["real"]) == (2, 6, 4)


def test_windows_of_stored_clips_are_brought_to_the_size_in_which_they_are_compared(
    evaluation: Evaluation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 12 stored frames two windows of 11 each, at half of their size."""
    protocol = dataclasses.replace(
        PROTOCOLS["moving_shapes_reconstruction"],
        examples=12,
        stored_frames=12,
        windows=2,
        judged_size=16,
        measures=("psnr",),
    )
    measures = protocol.measures
    halved = dataclasses.replace(evaluation, protocol=protocol, measures=measures, networks={}, layout=alone())
    drawn_as(monkeypatch, halved)
    numbers = told(evaluate(halved))
    assert [number["name"] for number in numbers] == ["psnr_11f_16_n12"]
    # Nothing is compared with real clips.
    assert not [*evaluation.real_folder.glob("*/*.npz")]
    assert (numbers[0]["settings"]["compared_size"], numbers[0]["settings"]["generated_size"]) == (16, 32)
    (turn,) = np.random.SeedSequence((0, 0)).generate_state(1)
    clips = list(read_clips(protocol.task, "test", 12, int(turn), evaluation.data_dir))
    decibels = []
    for number in range(12):
        video = clips[number % 6].video[number // 6 :][:11]
        pair = np.asarray(judged(jnp.stack([video, video // (2 + number % 3)]), 16)) / 255
        decibels.append(np.mean(-10 * np.log10(np.mean((pair[0] - pair[1]) ** 2, axis=(1, 2, 3)))))
    assert numbers[0]["value"] == pytest.approx(np.mean(decibels), abs=1e-3)


def test_real_clips_may_be_of_another_split_and_are_looked_at_by_what_compares(
    evaluation: Evaluation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What each video is compared with its own clip by changes nothing of the real ones, which are found again."""
    evaluation = dataclasses.replace(evaluation, layout=alone())
    made = drawn_as(monkeypatch, evaluation)
    protocol = dataclasses.replace(evaluation.protocol, split="train", real_split="test", examples=1, samples=4, real=6)
    other = dataclasses.replace(evaluation, protocol=protocol, measures=("frechet_shapes",))
    assert told(evaluate(other))[0]["settings"]["real"] == 6
    assert len(made) == 1
    seen = next(evaluation.real_folder.glob("*/settings.json"))
    unused = evaluation.networks["shapes"]._replace(sha256="f" * 64)
    more = dataclasses.replace(other, networks={**evaluation.networks, "vgg16": unused}, folder=evaluation.folder / "2")
    assert evaluate_lib._stores(more)[0].missing() == []
    assert [*evaluation.real_folder.glob("*/settings.json")] == [seen]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"real": 1}, "found 1 real clip to compare, expected at least 2 for frechet_shapes: ask for more with --real"),
        ({"examples": 1, "samples": 1}, "found 1 video to compare, expected at least 2 for frechet_shapes"),
        ({"examples": 19, "samples": 1}, "found 6 clips, .*, expected 19 for moving_shapes: ask for 18 "),
    ],
)
def test_what_comes_to_nothing_is_told_before_anything_is_drawn(
    evaluation: Evaluation, monkeypatch: pytest.MonkeyPatch, changes: dict[str, int], message: str
) -> None:
    monkeypatch.setattr(evaluate_lib, "OrderedExamples", None)
    protocol = dataclasses.replace(evaluation.protocol, **changes)
    with pytest.raises(UserError, match=message):
        evaluate(dataclasses.replace(evaluation, protocol=protocol))


def test_windows_that_differ_too_seldom_are_told_before_anything_is_drawn(
    evaluation: Evaluation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three windows of each of six clips, all the same, might have been seven that differ."""
    monkeypatch.setattr(Drawer, "make", None)
    monkeypatch.setattr(
        "phenaki_jax.evaluation.examples.read_clips",
        lambda task, split, frames, seed, data_dir: read_clips(task, split, frames, 0, data_dir),
    )
    protocol = dataclasses.replace(evaluation.protocol, examples=7)
    with pytest.raises(
        UserError, match=r"found 6 clips that differ in the test split .*, expected 8 .* ask for 6 with"
    ):
        evaluate(dataclasses.replace(evaluation, protocol=protocol, measures=("obeyed",), layout=alone()))


def test_few_and_absent_clips_are_told_with_what_to_do(evaluation: Evaluation, data_dir: pathlib.Path) -> None:
    with pytest.raises(UserError, match="found batch_size 6, expected a multiple of 4"):
        evaluate(dataclasses.replace(evaluation, config=dataclasses.replace(evaluation.config, batch_size=6)))
    absent = dataclasses.replace(evaluation.protocol, task="nowhere")
    with pytest.raises(UserError, match=r"found mixture 'nowhere', expected one of"):
        evaluate(dataclasses.replace(evaluation, protocol=absent))
