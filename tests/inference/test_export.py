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
from phenaki_jax.inference.phenaki import Phenaki


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
    config, params, metadata, _, _ = load_exported(folder)
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


@pytest.mark.parametrize(
    ("version", "absent"), [(4, ("fingerprint", "networks")), (5, ("networks",))], ids=["format 4", "format 5"]
)
def test_older_folders_are_read_without_comparing(
    folder: pathlib.Path, tmp_path: pathlib.Path, model: Phenaki, version: int, absent: tuple[str, ...]
) -> None:
    """They tell no fingerprint, or one that was computed otherwise."""
    copy = shutil.copytree(folder, tmp_path / "model")
    content = json.loads((copy / "model.json").read_text())
    left = {name: value for name, value in content.items() if name not in absent}
    (copy / "model.json").write_text(json.dumps({**left, "format": version}))
    loaded = load_exported(copy)
    assert loaded.config == model.config
    assert loaded.fingerprint == content["fingerprint"]


def test_a_fingerprint_tells_parameters_from_others(
    folder: pathlib.Path, tmp_path: pathlib.Path, model: Phenaki
) -> None:
    """The same in model.json and of a model in use."""
    export_model(tmp_path / "same", model.config, model.params, model.metadata)
    others = jax.tree.map(lambda array: array + 1, model.params)
    export_model(tmp_path / "others", model.config, others, model.metadata)
    folders = (folder, tmp_path / "same", tmp_path / "others")
    found = [Phenaki.load(each).fingerprint for each in folders]
    assert found == [json.loads((each / "model.json").read_text())["fingerprint"] for each in folders]
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize("network", ["tokenizer", "text_encoder", "transformer"])
def test_another_models_file_is_refused(
    folder: pathlib.Path, tmp_path: pathlib.Path, model: Phenaki, network: str
) -> None:
    """Of the same shapes; with the fingerprints of both."""
    export_model(tmp_path / "other", model.config, jax.tree.map(lambda array: array + 1, model.params))
    copy, name = shutil.copytree(folder, tmp_path / "model"), f"{network}.safetensors"
    shutil.copy(tmp_path / "other" / name, copy / name)
    networks = [json.loads((each / "model.json").read_text())["networks"] for each in (tmp_path / "other", copy)]
    found, expected = (each[network.removesuffix("_encoder")] for each in networks)
    with pytest.raises(UserError) as error:
        load_exported(copy)
    assert f"{copy / name}: found parameters {found}, expected {expected} as model.json says" in str(error.value)


def test_a_file_that_cannot_be_read_is_told(
    folder: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(path: pathlib.Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("phenaki_jax.features.safetensors_files.load_file", denied)
    with pytest.raises(UserError, match=r"cannot be read \(Permission denied\), .*; copy or export it again"):
        load_exported(folder)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, "found nothing at"),
        (
            lambda folder: edit_json(folder, vocabulary="t5"),
            "found the vocabulary .*sentencepiece.model, expected one with a T5",
        ),
        (lambda folder: (folder / "transformer.safetensors").unlink(), "found no transformer.safetensors"),
        (lambda folder: truncate(folder / "text_encoder.safetensors"), "text_encoder.safetensors is damaged"),
        (
            lambda folder: shutil.copy(folder / "tokenizer.safetensors", folder / "transformer.safetensors"),
            "transformer.safetensors: found parameters [0-9a-f]{16}, expected [0-9a-f]{16} as model.json says: they "
            "are another network's or model's, or damaged; copy or export the model again",
        ),
        (
            lambda folder: edit_tensors(folder, lambda tensors: tensors["first_stem"].fill(0)),
            "tokenizer.safetensors: found parameters [0-9a-f]{16}, expected [0-9a-f]{16} as model.json says",
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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop("first_stem"), r"found \d+ tensors without first_stem, expected the \d+ of the "),
        (
            lambda tensors: tensors.update(more=tensors.pop("first_stem")),
            "tensors without first_stem and with more, expected the .* of the configuration's tokenizer: they are",
        ),
        (
            lambda tensors: tensors.update(first_stem=np.zeros((2, 3), np.float32)),
            r"first_stem as float32\[2, 3\], expected float32\[192, 16\] as the configuration says: they are another",
        ),
        (lambda tensors: tensors["first_stem"].fill(np.nan), "found NaN or infinite values in first_stem"),
    ],
)
def test_parameters_of_a_folder_without_fingerprints_are_told_by_what_does_not_fit(
    folder: pathlib.Path, tmp_path: pathlib.Path, change: Callable[[dict[str, np.ndarray]], object], message: str
) -> None:
    copy = shutil.copytree(folder, tmp_path / "model")
    edit_json(copy, format=5)
    edit_tensors(copy, change)
    with pytest.raises(UserError, match=message) as error:
        load_exported(copy)
    assert str(copy) in str(error.value)
    assert "\n" not in str(error.value)
