"""A trained model as a folder that needs this package and jax alone.

model.json                     configuration, vocabulary, how to sample, what it was trained on
tokenizer.safetensors          float32 parameters, named by their path in the module, joined by "/"
transformer.safetensors        absent, with the next, where a tokenizer alone was exported
text_encoder.safetensors
sentencepiece.model            only of a frozen T5: its vocabulary
critic.safetensors             only where the token critic is a network of its own
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from phenaki_jax import __version__
from phenaki_jax.errors import UserError, counted, half_written
from phenaki_jax.files import check_parent, told_unwritable
from phenaki_jax.inference.decoding import SamplingConfig
from phenaki_jax.inference.parameters import parameter_shapes
from phenaki_jax.inference.plain_data import from_plain
from phenaki_jax.inference.video_files import check_fps
from phenaki_jax.inference.window import PhenakiConfig
from phenaki_jax.text.sentencepiece_tokenizer import SentencePieceTokenizer, fingerprint_of
from phenaki_jax.text.t5 import T5Config
from phenaki_jax.tokenizer.config import CViViTConfig

FORMAT_VERSION = 4
MODEL_FILE = "model.json"
VOCABULARY_FILE = "sentencepiece.model"
_BYTES = "bytes"
TENSOR_FILES = {
    "tokenizer": "tokenizer.safetensors",
    "text": "text_encoder.safetensors",
    "transformer": "transformer.safetensors",
    "critic": "critic.safetensors",
}


@dataclasses.dataclass(frozen=True)
class ModelMetadata:
    """What is known of a model besides its sizes.

    Attributes:
      sampling: how tokens are drawn where nothing else is asked for.
      prefix_frames: frames that a window is given of the one before it, 0 or 1 + k * temporal_patch.
      fps: frames per second of the videos it was trained on.
      trained_on: whatever tells where it comes from, as JSON.
    """

    sampling: SamplingConfig = dataclasses.field(default_factory=SamplingConfig)
    prefix_frames: int = 5
    fps: float = 8.0
    trained_on: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def check(self, tokenizer: CViViTConfig) -> None:
        """Refuses given frames that leave nothing of a window to draw.

        Raises:
          UserError: says what was found and what is possible.
        """
        check_fps(self.fps)
        if self.prefix_frames:
            tokenizer.times(self.prefix_frames)
        if self.prefix_frames >= tokenizer.frames:
            raise UserError(
                f"prefix_frames {self.prefix_frames} leaves no new frame in windows of {tokenizer.frames} frames; "
                f"expected at most {max(0, tokenizer.frames - tokenizer.temporal_patch)}"
            )


def usual_metadata(config: PhenakiConfig | CViViTConfig, **known: Any) -> ModelMetadata:
    """The defaults of `ModelMetadata`, with as many given frames, up to 5, as the windows allow."""
    tokenizer = tokenizer_config(config)
    most = min(ModelMetadata.prefix_frames, tokenizer.frames - 1)
    return ModelMetadata(**{"prefix_frames": tokenizer.whole_part(most), **known})


@dataclasses.dataclass(frozen=True)
class _ModelFile:
    """What model.json holds; `vocabulary` is a file's fingerprint, or "bytes"."""

    format: int
    phenaki_jax: str
    config: Mapping[str, Any]
    codebook_size: int
    vocabulary: str
    metadata: ModelMetadata


class ExportedModel(NamedTuple):
    """What an exported folder holds.

    Attributes:
      config: of all three models, or of the tokenizer where that was exported alone.
      params: float32 NumPy arrays of "tokenizer" and, for all models, "text", "transformer" and any "critic".
      metadata: what else is known.
      vocabulary: file of a frozen text encoder's vocabulary; None for bytes.
    """

    config: PhenakiConfig | CViViTConfig
    params: dict[str, Any]
    metadata: ModelMetadata
    vocabulary: Path | None


def tokenizer_config(config: PhenakiConfig | CViViTConfig) -> CViViTConfig:
    """The part of a configuration that every model has."""
    return config if isinstance(config, CViViTConfig) else config.tokenizer


def config_from_plain(plain: Mapping[str, Any], place: str) -> PhenakiConfig | CViViTConfig:
    """Turns {"tokenizer": {...}}, or that with "text" and "transformer", into what `dataclasses.asdict` made it of.

    Raises:
      UserError: names the place and what is wrong there.
    """
    if set(plain) == {"tokenizer"}:
        return from_plain(CViViTConfig, plain["tokenizer"], f"{place}, tokenizer")
    return from_plain(PhenakiConfig, plain, place)


def export_model(
    folder: str | Path,
    config: PhenakiConfig | CViViTConfig,
    params: Mapping[str, Any],
    metadata: ModelMetadata | None = None,
    vocabulary: str | Path | None = None,
) -> None:
    """Writes a model to a folder, which appears, or replaces an exported model, when it is complete.

    Args:
      folder: a new name, or an exported model to replace.
      config: of all three models, or of a tokenizer alone.
      params: trees of arrays for "tokenizer" and, for all models, "text", "transformer" and "critic" if there is one.
      metadata: what else is known; `usual_metadata` where None.
      vocabulary: file of a frozen text encoder's vocabulary, which is copied; None for bytes.

    Raises:
      UserError: the folder holds something else, cannot be written, or the parameters are not those of the config or
        not finite.
    """
    folder = Path(folder).absolute()
    metadata = metadata or usual_metadata(config)
    if isinstance(config, PhenakiConfig):
        metadata.check(config.tokenizer)
    _check_vocabulary(config, vocabulary)
    check_export_folder(folder)
    tensors = {name: _flat(tree) for name, tree in params.items()}
    _check_tensors(tensors, config, {name: f"parameters of {name}" for name in TENSOR_FILES})
    with told_unwritable(folder), half_written():
        unfinished = folder.with_name(f".{folder.name}.{os.getpid()}.incomplete")
        try:
            unfinished.mkdir()
            (unfinished / MODEL_FILE).write_text(_model_json(config, metadata, vocabulary))
            if vocabulary is not None:
                shutil.copyfile(vocabulary, unfinished / VOCABULARY_FILE)
            for name, arrays in tensors.items():
                try:
                    save_file(arrays, unfinished / TENSOR_FILES[name])
                    # It makes files that their owner alone can read.
                    shutil.copymode(unfinished / MODEL_FILE, unfinished / TENSOR_FILES[name])
                except SafetensorError as error:  # so it tells of a full disk
                    raise OSError(str(error)) from error
            _replace(unfinished, folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)


def check_export_folder(folder: str | Path) -> None:
    """Refuses a folder that a model cannot be exported to.

    Raises:
      UserError: it holds anything else than an exported model, or has no folder to stand in.
    """
    folder = Path(folder).absolute()
    check_parent(folder)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: found a file, expected a new name or an exported model; choose another name")
    held = {path.name for path in folder.iterdir()} if folder.exists() else set()
    if foreign := sorted(held - {MODEL_FILE, VOCABULARY_FILE, *TENSOR_FILES.values()}):
        raise UserError(
            f"{folder}: found {foreign[0]!r}, which is no part of an exported model, and will not delete it; "
            "choose another name"
        )


def load_exported(folder: str | Path) -> ExportedModel:
    """Reads what `export_model` wrote, and checks it against its own configuration.

    Raises:
      UserError: a file is not there, damaged, of a newer version, does not fit the configuration, or holds parameters
        that are not finite.
    """
    folder = Path(folder)
    config, metadata, fingerprint = _read_model_json(folder / MODEL_FILE)
    vocabulary = None if fingerprint == _BYTES else folder / VOCABULARY_FILE
    _check_vocabulary(config, vocabulary)
    if vocabulary is not None and (found := fingerprint_of(vocabulary)) != fingerprint:
        raise UserError(
            f"{vocabulary}: found the vocabulary {found}, expected {fingerprint}, as {MODEL_FILE} says: copy or export "
            "the model again"
        )
    files = {name: folder / TENSOR_FILES[name] for name in parameter_shapes(config)}
    tensors = {name: _read_tensors(file) for name, file in files.items()}
    _check_tensors(tensors, config, {name: str(file) for name, file in files.items()})
    params = {name: unflatten_dict(arrays, sep="/") for name, arrays in tensors.items()}
    return ExportedModel(config, params, metadata, vocabulary)


def _check_vocabulary(config: PhenakiConfig | CViViTConfig, vocabulary: str | Path | None) -> None:
    """Refuses a vocabulary that is not the text encoder's."""
    text = config.text if isinstance(config, PhenakiConfig) else None
    if isinstance(text, T5Config) != (vocabulary is not None):
        found = "no vocabulary" if vocabulary is None else f"the vocabulary {vocabulary}"
        raise UserError(f"found {found}, expected one with a T5, and with nothing else")
    if isinstance(text, T5Config) and vocabulary is not None:
        SentencePieceTokenizer(vocabulary, text.vocabulary_size)


def _model_json(config: PhenakiConfig | CViViTConfig, metadata: ModelMetadata, vocabulary: str | Path | None) -> str:
    plain = dataclasses.asdict(config)
    content = _ModelFile(
        format=FORMAT_VERSION,
        phenaki_jax=__version__,
        config=plain if isinstance(config, PhenakiConfig) else {"tokenizer": plain},
        codebook_size=tokenizer_config(config).quantizer.codebook_size,
        vocabulary=_BYTES if vocabulary is None else fingerprint_of(vocabulary),
        metadata=metadata,
    )
    return json.dumps(dataclasses.asdict(content), indent=2) + "\n"


def _read_model_json(file: Path) -> tuple[PhenakiConfig | CViViTConfig, ModelMetadata, str]:
    if not file.is_file():
        raise UserError(
            f"found no {file.name} in {file.parent}, expected the folder of an exported model: "
            "name one, or make it with phenaki export"
        )
    try:
        plain = json.loads(file.read_text())
    except ValueError as error:
        raise UserError(f"{file} is no JSON ({error}): export the model again") from error
    version = plain.get("format") if isinstance(plain, dict) else None
    if version != FORMAT_VERSION:
        raise UserError(
            f"{file}: found format {version!r}, expected {FORMAT_VERSION}, which phenaki_jax {__version__} reads; "
            "install the phenaki_jax that wrote it, or train and export the model with this one"
        )
    content = from_plain(_ModelFile, plain, str(file))
    config = config_from_plain(content.config, f"{file}, config")
    codebook_size = tokenizer_config(config).quantizer.codebook_size
    if content.codebook_size != codebook_size:
        raise UserError(
            f"{file}: found codebook_size {content.codebook_size}, expected {codebook_size} as its tokenizer's "
            "quantizer says; the file was changed by hand: export the model again"
        )
    if isinstance(config, PhenakiConfig):
        content.metadata.check(config.tokenizer)
    return config, content.metadata, content.vocabulary


def _read_tensors(file: Path) -> dict[str, np.ndarray]:
    if not file.is_file():
        raise UserError(
            f"found no {file.name} in {file.parent}, expected it beside {MODEL_FILE}: export the model again"
        )
    try:
        return load_file(file)
    except SafetensorError as error:
        raise UserError(f"{file} is damaged ({error}): copy or export it again") from error


def _flat(tree: Any) -> dict[str, np.ndarray]:
    flat = flatten_dict(tree, sep="/")
    return {name: np.ascontiguousarray(array, dtype=np.float32) for name, array in flat.items()}


def _check_tensors(
    tensors: Mapping[str, Mapping[str, np.ndarray]], config: PhenakiConfig | CViViTConfig, places: Mapping[str, str]
) -> None:
    """Refuses parameters that are absent, too many, of another shape or type than the modules ask for, or NaN."""
    for model, tree in parameter_shapes(config).items():
        wanted: dict[str, jax.ShapeDtypeStruct] = flatten_dict(tree, sep="/")
        found = tensors.get(model, {})
        if absent := sorted(wanted.keys() - found.keys()):
            raise UserError(
                f"{places[model]}: found no {absent[0]}, expected {counted(len(absent), 'tensor')} more; export again"
            )
        if surplus := sorted(found.keys() - wanted.keys()):
            raise UserError(
                f"{places[model]}: found {surplus[0]}, expected {counted(len(surplus), 'tensor')} less; export again"
            )
        for name, leaf in wanted.items():
            if found[name].shape != leaf.shape or found[name].dtype != leaf.dtype:
                raise UserError(
                    f"{places[model]}: found {name} as {found[name].dtype}{list(found[name].shape)}, expected "
                    f"{leaf.dtype}{list(leaf.shape)} as the configuration says; export again"
                )
            if not np.isfinite(found[name]).all():
                raise UserError(
                    f"{places[model]}: found NaN or infinite values in {name}, expected finite ones; export another "
                    "checkpoint"
                )


def _replace(new: Path, folder: Path) -> None:
    """Puts a folder in another's place; the old one is there until the new one is."""
    if not folder.exists():
        new.rename(folder)
        return
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    try:
        folder.rename(old)
        new.rename(folder)
    finally:
        if old.exists() and not folder.exists():
            old.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
