"""An exported folder gives back what was put in, and is refused wherever it was damaged."""

import json
import pathlib
import shutil
from collections.abc import Callable

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from phenaki_jax.errors import UserError
from phenaki_jax.inference.export import export_model, load_exported
from phenaki_jax.inference.model_file import fingerprint_of_model, usual_metadata
from phenaki_jax.inference.phenaki import Phenaki
from phenaki_jax.tokenizer.config import CViViTConfig


def edit_json(folder: pathlib.Path, **changes: object) -> None:
    """Changes entries of model.json."""
    file = folder / "model.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def edit_tensors(folder: pathlib.Path, change: Callable[[dict[str, np.ndarray]], object]) -> None:
    """Changes the tokenizer's tensors."""
    file = folder / "tokenizer.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)


def truncate(file: pathlib.Path) -> None:
    """Loses the second half."""
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def test_what_was_exported_is_loaded(model: Phenaki, folder: pathlib.Path) -> None:
    config, params, metadata, _ = load_exported(folder)
    assert config == model.config
    assert metadata == model.metadata
    jax.tree.map(np.testing.assert_array_equal, params, jax.tree.map(np.asarray, model.params))


def test_a_tokenizer_is_exported_alone(model: Phenaki, tmp_path: pathlib.Path) -> None:
    export_model(tmp_path / "tokenizer", model.tokenizer, {"tokenizer": model.params["tokenizer"]})
    assert sorted(path.name for path in (tmp_path / "tokenizer").iterdir()) == [
        *("README.md", "model.json", "tokenizer.safetensors"),
    ]
    loaded = Phenaki.load(tmp_path / "tokenizer")
    video = np.zeros((3, 32, 32, 3), np.uint8)
    np.testing.assert_array_equal(loaded.reconstruct(video), model.reconstruct(video))


def test_an_exported_model_is_replaced(model: Phenaki, folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "model")
    export_model(copy, model.tokenizer, {"tokenizer": model.params["tokenizer"]})
    assert load_exported(copy).config == model.tokenizer
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_nothing_but_an_exported_model_is_replaced(
    model: Phenaki, folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    copy = shutil.copytree(folder, tmp_path / "model")
    (copy / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"'notes.txt'"):
        export_model(copy, model.config, model.params)
    assert (copy / "notes.txt").read_text() == "mine"


def test_an_interrupted_export_leaves_the_old_model(
    model: Phenaki, folder: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = shutil.copytree(folder, tmp_path / "model")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("phenaki_jax.inference.export.save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export_model(copy, model.config, model.params)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert load_exported(copy).config == model.config


@pytest.mark.parametrize("name", ["README.md", "stablehlo"])
def test_what_only_looks_like_a_part_of_a_model_stays(model: Phenaki, tmp_path: pathlib.Path, name: str) -> None:
    """A card that somebody wrote, and a folder without programs."""
    folder = tmp_path / "model"
    (folder / "stablehlo").mkdir(parents=True)
    if name == "README.md":
        (folder / "stablehlo").rmdir()
        (folder / name).write_text("# mine")
    with pytest.raises(UserError, match=f"found '{name}', which is no part of an exported model"):
        export_model(folder, model.config, model.params)


def test_a_folder_of_format_4_is_read(folder: pathlib.Path, tmp_path: pathlib.Path, model: Phenaki) -> None:
    """It has no fingerprint."""
    copy = shutil.copytree(folder, tmp_path / "model")
    content = json.loads((copy / "model.json").read_text())
    del content["fingerprint"]
    (copy / "model.json").write_text(json.dumps({**content, "format": 4}))
    assert load_exported(copy).config == model.config
    assert fingerprint_of_model(copy) == ""


def test_a_fingerprint_tells_parameters_from_others(
    folder: pathlib.Path, tmp_path: pathlib.Path, model: Phenaki
) -> None:
    export_model(tmp_path / "same", model.config, model.params, model.metadata)
    others = jax.tree.map(lambda array: array + 1, model.params)
    export_model(tmp_path / "others", model.config, others, model.metadata)
    found = [fingerprint_of_model(each) for each in (folder, tmp_path / "same", tmp_path / "others")]
    assert found[0] == found[1] != found[2]
    assert len(found[0]) == 16


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, "found no model.json"),
        (lambda folder: (folder / "model.json").unlink(), "found no model.json"),
        (lambda folder: truncate(folder / "model.json"), "is no JSON"),
        (lambda folder: edit_json(folder, format=1), r"format 1, expected 4 or 5, .* the phenaki_jax that wrote it"),
        (lambda folder: edit_json(folder, format=6), r"format 6, expected 4 or 5, .* a newer phenaki_jax"),
        (lambda folder: edit_json(folder, codebook_size=17), "codebook_size 17, expected 16"),
        (
            lambda folder: edit_json(folder, vocabulary="t5"),
            "found the vocabulary .*sentencepiece.model, expected one with a T5",
        ),
        (
            lambda folder: edit_json(folder, config={"tokenizer": {"heads": "two"}}),
            "heads: found 'two', expected a whole",
        ),
        (lambda folder: (folder / "transformer.safetensors").unlink(), "found no transformer.safetensors"),
        (lambda folder: truncate(folder / "text_encoder.safetensors"), "text_encoder.safetensors is damaged"),
        (lambda folder: edit_tensors(folder, lambda tensors: tensors.pop("first_stem")), "found no first_stem"),
        (lambda folder: edit_tensors(folder, lambda tensors: tensors.update(more=np.zeros(1))), "found more, expected"),
        (
            lambda folder: edit_tensors(
                folder, lambda tensors: tensors.update(first_stem=np.zeros((2, 3), np.float32))
            ),
            r"first_stem as float32\[2, 3\], expected float32\[192, 16\]",
        ),
        (
            lambda folder: edit_tensors(folder, lambda tensors: tensors["first_stem"].fill(np.nan)),
            "found NaN or infinite values in first_stem",
        ),
    ],
)
def test_a_damaged_folder_is_refused(
    folder: pathlib.Path, tmp_path: pathlib.Path, damage: Callable[[pathlib.Path], object], message: str
) -> None:
    copy = shutil.copytree(folder, tmp_path / "model")
    damage(copy)
    with pytest.raises(UserError, match=message) as error:
        load_exported(copy)
    assert str(copy) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_prefix_that_fills_the_window_is_refused(
    model: Phenaki, folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    copy = shutil.copytree(folder, tmp_path / "model")
    edit_json(copy, metadata={"prefix_frames": 5})
    with pytest.raises(UserError, match="at most 3"):
        load_exported(copy)


@pytest.mark.parametrize(
    ("frames", "patch", "prefix"), [(11, 2, 5), (5, 2, 3), (9, 4, 5), (13, 3, 4), (5, 4, 1), (1, 2, 0)]
)
def test_windows_are_usually_given_up_to_five_frames(frames: int, patch: int, prefix: int) -> None:
    config = CViViTConfig(frames=frames, temporal_patch=patch)
    metadata = usual_metadata(config)
    metadata.check(config)
    assert metadata.prefix_frames == prefix
