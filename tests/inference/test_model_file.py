"""model.json gives back what a model is, and is refused where it does not fit itself."""

import dataclasses
import json
import pathlib
from collections.abc import Callable

import pytest

from phenaki_jax import __version__
from phenaki_jax.errors import UserError
from phenaki_jax.inference.decoding import SamplingConfig
from phenaki_jax.inference.model_file import (
    ModelMetadata,
    make_model_file,
    read_model_file,
    usual_metadata,
    write_model_file,
)
from phenaki_jax.inference.testing import tiny_config, tiny_metadata
from phenaki_jax.inference.window import PhenakiConfig
from phenaki_jax.text.t5 import T5Config
from phenaki_jax.tokenizer.config import CViViTConfig, QuantizerConfig

NETWORKS = {"tokenizer": "c187b26bfb14e7e1", "text": "bc73f96d9c4251d2", "transformer": "0123456789abcdef"}


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """That of a model without its tensors."""
    write_model_file(tmp_path, make_model_file(tiny_config(), tiny_metadata(), "", NETWORKS))
    return tmp_path


def edit(folder: pathlib.Path, **changes: object) -> None:
    """Changes entries."""
    file = folder / "model.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize(
    "config",
    [
        tiny_config(),
        dataclasses.replace(tiny_config(), text=T5Config(64, 24, 1, 16, 2, 8, 32)),
        dataclasses.replace(tiny_config().tokenizer, quantizer=QuantizerConfig("fsq", levels=(4, 4))),
    ],
    ids=["a whole model", "with a T5", "a tokenizer"],
)
def test_what_was_written_is_read(config: PhenakiConfig | CViViTConfig, tmp_path: pathlib.Path) -> None:
    metadata = ModelMetadata(SamplingConfig(steps=3, guidance=2.5), 3, 12.5, {"step": 7, "note": "späte"})
    content = make_model_file(config, metadata, "", NETWORKS)
    write_model_file(tmp_path, content)
    found, found_config = read_model_file(tmp_path)
    assert found_config == config
    assert found.metadata == metadata
    assert (found.phenaki_jax, found.vocabulary, found.codebook_size) == (__version__, "bytes", 16)
    assert (found.networks, found.fingerprint) == (NETWORKS, content.fingerprint)


@pytest.mark.parametrize("version", [4, 5])
def test_older_versions_tell_of_no_network(folder: pathlib.Path, version: int) -> None:
    assert read_model_file(folder)[0].tells_networks
    edit(folder, format=version, fingerprint="as it was then", networks={})
    assert not read_model_file(folder)[0].tells_networks


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "model.json").unlink(), "found no model.json"),
        (lambda folder: (folder / "model.json").write_text("{"), "is no JSON"),
        (lambda folder: (folder / "model.json").write_bytes(b"\xff"), "is no JSON"),
        (lambda folder: (folder / "model.json").write_text("[]"), "found format None, expected 4 or 5 or 6"),
        (lambda folder: edit(folder, format=1), r"format 1, expected 4 or 5 or 6, .* the phenaki_jax that wrote it"),
        (lambda folder: edit(folder, format=7), r"format 7, expected 4 or 5 or 6, .* a newer phenaki_jax"),
        (lambda folder: edit(folder, more=1), "found the unknown key 'more'"),
        (lambda folder: edit(folder, codebook_size=17), "codebook_size 17, expected 16"),
        (lambda folder: edit(folder, config={"tokenizer": {"heads": "two"}}), "heads: found 'two', expected a whole"),
        (lambda folder: edit(folder, metadata={"prefix_frames": 5}), "at most 3"),
        (
            lambda folder: edit(folder, fingerprint="0"),
            "found fingerprint '0', expected '[0-9a-f]{16}' as its networks",
        ),
        (lambda folder: edit(folder, networks={}), "found fingerprint '[0-9a-f]{16}', expected '[0-9a-f]{16}' as its"),
        (lambda folder: edit(folder, networks=3), "found fingerprint '[0-9a-f]{16}', expected '' as its networks say"),
    ],
)
def test_a_damaged_one_is_refused(folder: pathlib.Path, damage: Callable[[pathlib.Path], object], message: str) -> None:
    damage(folder)
    with pytest.raises(UserError, match=message) as error:
        read_model_file(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none", "found nothing at .*none, expected the folder of an exported model: check the path"),
        ("run", "found a training in .*run, .* phenaki export --workdir .*run --out MODEL"),
        ("run/checkpoints", "found a training in .*checkpoints, .* phenaki export --workdir .*run --out MODEL"),
        ("run/checkpoints/7", "found a training in .*7, .* phenaki export --workdir .*run --out MODEL"),
        ("demo", "found no model.json in .*demo, expected the folder of an exported model: name .*demo/model"),
        (
            "demo/model/model.json/",
            "found a file .*model.json, expected the folder of an exported model: name .*model$",
        ),
        ("two", "found no model.json in .*two, expected the folder of an exported model: name one in it, such as a"),
        ("empty", "found no model.json in .*empty, .*: name one, or make it with phenaki export"),
        ("notes.txt", "found a file .*notes.txt, expected the folder of an exported model: name one"),
    ],
)
def test_what_is_no_model_is_told_with_what_to_name(tmp_path: pathlib.Path, name: str, message: str) -> None:
    for each in ("run/checkpoints/7", "demo/model", "two/a", "two/b", "empty"):
        (tmp_path / each).mkdir(parents=True)
    for each in ("demo/model/model.json", "two/a/model.json", "two/b/model.json", "notes.txt"):
        (tmp_path / each).touch()
    with pytest.raises(UserError, match=message):
        read_model_file(tmp_path / name)


@pytest.mark.parametrize(
    ("frames", "patch", "prefix"), [(11, 2, 5), (5, 2, 3), (9, 4, 5), (13, 3, 4), (5, 4, 1), (1, 2, 0)]
)
def test_windows_are_usually_given_up_to_five_frames(frames: int, patch: int, prefix: int) -> None:
    config = CViViTConfig(frames=frames, temporal_patch=patch)
    metadata = usual_metadata(config)
    metadata.check(config)
    assert metadata.prefix_frames == prefix
