"""Exported programs do what the model does, for any number of videos of any length and size, on every platform."""

import dataclasses
import importlib.util
import json
import os
import pathlib
import resource
import shutil
import struct
import subprocess
import sys
import types
from collections.abc import Callable

import jaxtyping
import numpy as np
import pytest
from jax import export
from safetensors.numpy import load_file, save_file

from phenaki_jax.errors import UserError
from phenaki_jax.inference.decoding import SamplingConfig
from phenaki_jax.inference.export import export_model
from phenaki_jax.inference.phenaki import Phenaki
from phenaki_jax.inference.programs import PLATFORMS, export_program, programs_of
from phenaki_jax.inference.testing import assert_same_pixels, tiny_config
from phenaki_jax.inference.video_reader import read_video
from phenaki_jax.inference.window import PhenakiConfig
from phenaki_jax.text.t5 import T5Config
from phenaki_jax.tokenizer.config import QuantizerConfig

PROMPTS = ["a red circle", "a blue square"]
# A process without them, as where jax and NumPy alone are installed.
WITHOUT = "import sys; sys.modules.update(dict.fromkeys(('flatbuffers', 'phenaki_jax', 'flax', 'safetensors', 'PIL')))"


@pytest.fixture(scope="module")
def exported(model: Phenaki, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The model with its programs; while they are made, lengths are no whole numbers, and types not checked."""
    folder = tmp_path_factory.mktemp("programs") / "model"
    jaxtyping.config.update("jaxtyping_disable", True)
    export_model(folder, model.config, model.params, model.metadata, stablehlo=True)
    jaxtyping.config.update("jaxtyping_disable", False)
    return folder


@pytest.fixture(scope="module")
def run(exported: pathlib.Path) -> types.ModuleType:
    """The exported run.py as a module."""
    spec = importlib.util.spec_from_file_location("run", exported / "stablehlo" / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def programs(run: types.ModuleType, exported: pathlib.Path) -> object:
    """The exported model as run.py reads it."""
    return run.Model(exported)


def noise(*shape: int) -> np.ndarray:
    """Pixels."""
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("shape", [(1, 1, 32, 32, 3), (3, 7, 40, 24, 3)], ids=["an image", "three long, oblong videos"])
def test_videos_become_the_models_tokens_and_come_back(model: Phenaki, programs: object, shape: tuple) -> None:
    video = noise(*shape)
    tokens = programs.encode(video)
    np.testing.assert_array_equal(tokens, model.encode(video))
    assert_same_pixels(programs.decode(tokens), model.decode(tokens))


def test_windows_are_drawn_as_the_model_draws_them(model: Phenaki, programs: object) -> None:
    """Two prompts, 5 frames and then 2 more, of which the second window is given 3."""
    drawn = programs.generate(PROMPTS, seed=3, windows=2)
    assert drawn.shape == (2, 7, 32, 32, 3)
    assert_same_pixels(drawn, model.generate(PROMPTS, seed=3, frames=7))


def test_guidance_is_asked_for_when_a_program_runs(model: Phenaki, programs: object) -> None:
    sampling = dataclasses.replace(model.metadata.sampling, guidance=0.0)
    unguided = programs.generate(PROMPTS, seed=1, guidance=0.0)
    assert_same_pixels(unguided, model.generate(PROMPTS, seed=1, sampling=sampling))
    assert (unguided != programs.generate(PROMPTS, seed=1)).any()


def test_one_file_is_for_all_platforms_and_holds_no_kernel_of_one(exported: pathlib.Path) -> None:
    files = sorted((exported / "stablehlo").glob("*.jax_export"))
    assert [file.stem for file in files] == ["continue_window", "decode", "encode", "generate_window"]
    for file in files:
        program = export.deserialize(bytearray(file.read_bytes()))
        assert program.platforms == PLATFORMS
        assert not [kernel for kernel in ("tpu_custom_call", "cudnn") if kernel in program.mlir_module()]


def test_nothing_but_jax_and_numpy_is_needed(model: Phenaki, exported: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """The script as a process of its own, which cannot import what else is installed here."""
    script = exported / "stablehlo" / "run.py"
    words = ["run.py", *(f"--prompt={prompt}" for prompt in PROMPTS), "--seed", "3", "--out", f"{tmp_path}/a.npy"]
    program = f"{WITHOUT}; import runpy; sys.path.insert(0, {str(script.parent)!r}); sys.argv = {words!r}; "
    program += f"runpy.run_path({str(script)!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr
    drawn = np.stack([np.load(tmp_path / f"a-{number}.npy") for number in (1, 2)])
    assert_same_pixels(drawn, model.generate(PROMPTS, seed=3))


def test_frames_are_written_as_an_animation(run: types.ModuleType, tmp_path: pathlib.Path) -> None:
    frames = noise(4, 6, 5, 3)
    run.write_video(tmp_path / "a.png", frames, 8.0)
    found, fps = read_video(tmp_path / "a.png")
    np.testing.assert_array_equal(found, frames)
    assert fps == pytest.approx(8.0)


@pytest.mark.parametrize("name", ["a.npy", "a.png"])
def test_a_video_that_cannot_be_written_leaves_the_old_one(
    run: types.ModuleType, tmp_path: pathlib.Path, name: str
) -> None:
    """Where a file may have no more than 64 bytes, as where a disk is full."""
    (tmp_path / name).write_bytes(b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, limits[1]))
    try:
        with pytest.raises(OSError, match=r"File too large|written"):
            run.write_video(tmp_path / name, noise(4, 6, 5, 3), 8.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [(name, b"old")]


def test_an_older_folder_is_not_compared(
    run: types.ModuleType, exported: pathlib.Path, tmp_path: pathlib.Path, programs: object
) -> None:
    """In format 5, model.json tells the fingerprint of no network."""
    copy = shutil.copytree(exported, tmp_path / "model")
    content = json.loads((copy / "model.json").read_text())
    del content["networks"]
    (copy / "model.json").write_text(json.dumps(content | {"format": 5}))
    edit(
        copy / "stablehlo/programs.json", model_json=run.hashlib.sha256((copy / "model.json").read_bytes()).hexdigest()
    )
    tokens = np.zeros((1, 1, 4, 4), np.int32)
    np.testing.assert_array_equal(run.Model(copy).decode(tokens), programs.decode(tokens))


def cut(file: pathlib.Path) -> None:
    """Loses the second half."""
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def zero(file: pathlib.Path) -> None:
    """Loses the values of a tensor."""
    tensors = load_file(file)
    tensors["first_stem"] = np.zeros_like(tensors["first_stem"])
    save_file(tensors, file)


def edit(file: pathlib.Path, **changes: object) -> None:
    """Changes entries of JSON."""
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "model.json").unlink(), "found no .*model.json, expected the folder of an exported"),
        (lambda folder: edit(folder / "model.json", phenaki_jax="9"), "model.json was changed after the programs were"),
        (lambda folder: edit(folder / "stablehlo/programs.json", format=2), "found format 2, expected 1"),
        (lambda folder: cut(folder / "stablehlo/programs.json"), "programs.json is no JSON"),
        (lambda folder: (folder / "stablehlo/encode.jax_export").unlink(), "found no .*encode.jax_export"),
        (lambda folder: cut(folder / "stablehlo/encode.jax_export"), r"encode.jax_export is damaged \(\d+ bytes, exp"),
        (lambda folder: (folder / "tokenizer.safetensors").unlink(), "found no .*tokenizer.safetensors, expected it"),
        (lambda folder: cut(folder / "tokenizer.safetensors"), "tokenizer.safetensors is damaged"),
        (lambda folder: (folder / "tokenizer.safetensors").write_bytes(b""), "tokenizer.safetensors is damaged"),
        (
            lambda folder: (folder / "tokenizer.safetensors").write_bytes(struct.pack("<Q", 2**63) + b"{}"),
            "tokenizer.safetensors is damaged",
        ),
        (
            lambda folder: zero(folder / "tokenizer.safetensors"),
            "safetensors: found parameters [0-9a-f]{16}, expected ",
        ),
    ],
)
def test_a_damaged_folder_is_refused_in_one_line(
    run: types.ModuleType,
    exported: pathlib.Path,
    tmp_path: pathlib.Path,
    damage: Callable[[pathlib.Path], object],
    message: str,
) -> None:
    copy = shutil.copytree(exported, tmp_path / "model")
    damage(copy)
    with pytest.raises(run.RefusedError, match=message) as error:
        run.Model(copy).encode(noise(1, 1, 32, 32, 3))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda programs: programs.generate([" "]), "found an empty prompt ' ', expected words: say what the video"),
        (lambda programs: programs.generate(["\udcff"]), "with bytes that are no UTF-8 text, expected UTF-8"),
        (lambda programs: programs.encode(noise(1, 4, 32, 32, 3)), "encode: .*it takes"),
        (lambda programs: programs.generate(PROMPTS, windows=0), "found windows 0, expected at least 1"),
        (lambda programs: programs.generate(PROMPTS, guidance=float("nan")), "found guidance nan, expected a finite"),
        (lambda programs: programs.generate(PROMPTS, seed=-1), "found seed -1, expected 0 to 4294967294"),
        (lambda programs: programs.generate(PROMPTS, seed=2**32 - 1), "found seed 4294967295, expected 0 to"),
        (lambda programs: programs.call("decode", {}), "decode: found , expected tokens"),
        (lambda programs: programs.call("draw", {}), "found program 'draw', expected one of encode"),
    ],
)
def test_what_programs_do_not_take_is_refused_in_one_line(
    run: types.ModuleType, programs: object, call: Callable[[object], object], message: str
) -> None:
    with pytest.raises(run.RefusedError, match=message) as error:
        call(programs)
    assert "\n" not in str(error.value)


def test_a_prompt_that_is_too_long_is_told_as_the_model_tells_it(
    run: types.ModuleType, programs: object, model: Phenaki
) -> None:
    prompt = "a circle that moves on and on"
    with pytest.raises(UserError, match=r"found a prompt of 30 tokens \(its bytes .*\), expected at most 24:") as told:
        model.check_prompts([prompt])
    with pytest.raises(run.RefusedError) as error:
        programs.text_tokens([prompt])
    assert str(told.value).startswith(str(error.value))


def changed(config: PhenakiConfig, **changes: dict) -> PhenakiConfig:
    """The tiny config with other parts."""
    parts = {name: dataclasses.replace(getattr(config, name), **fields) for name, fields in changes.items()}
    return dataclasses.replace(config, **parts)


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "config",
    [
        changed(tiny_config(), tokenizer={"quantizer": QuantizerConfig("fsq", levels=(4, 4))}),
        changed(tiny_config(), tokenizer={"quantizer": QuantizerConfig("lfq", bits=4)}),
        changed(tiny_config(), transformer={"predicts": "codes_and_scores"}),
        dataclasses.replace(tiny_config(), text=T5Config(64, 24, 1, 16, 2, 8, 32)),
        dataclasses.replace(
            tiny_config(), text=None, transformer=dataclasses.replace(tiny_config().transformer, text_width=0)
        ),
    ],
    ids=["fsq", "lfq", "its own critic", "T5", "no text"],
)
def test_every_kind_of_model_becomes_programs(config: PhenakiConfig) -> None:
    """With the critic's sampler where there is one, whose network is then in the program."""
    sampler = "critic" if config.transformer.predicts_scores else "halton"
    made = programs_of(config, SamplingConfig(steps=2, sampler=sampler, top_k=3, top_p=0.9))
    assert list(made) == ["encode", "decode", "generate_window", "continue_window"]
    assert ("guidance" in made["generate_window"].inputs) == (config.text is not None)
    for program in made.values():
        assert export.deserialize(bytearray(export_program(program, config))).platforms == PLATFORMS
