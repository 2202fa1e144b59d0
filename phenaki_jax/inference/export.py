"""A trained model as a folder that needs this package and jax alone.

model.json                     configuration, vocabulary, how to sample, what it was trained on
tokenizer.safetensors          float32 parameters, named by their path in the module, joined by "/"
transformer.safetensors        absent, with the next, where a tokenizer alone was exported
text_encoder.safetensors
sentencepiece.model            only of a frozen T5: its vocabulary
critic.safetensors             only where the token critic is a network of its own
stablehlo/                     what the model does as programs that jax alone runs, where they are wanted
README.md                      all this for people
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import SafetensorError
from safetensors.numpy import save_file

from phenaki_jax.errors import UserError, counted, half_written
from phenaki_jax.features.safetensors_files import read_safetensors
from phenaki_jax.files import check_parent, told_unwritable
from phenaki_jax.inference.fingerprint import model_fingerprint, network_fingerprints
from phenaki_jax.inference.model_card import CARD_FILE, is_model_card, model_card
from phenaki_jax.inference.model_file import (
    BYTES,
    MODEL_FILE,
    PROGRAMS_FILE,
    PROGRAMS_FOLDER,
    ModelFile,
    ModelMetadata,
    make_model_file,
    read_model_file,
    usual_metadata,
    write_model_file,
)
from phenaki_jax.inference.parameters import parameter_shapes
from phenaki_jax.inference.window import PhenakiConfig
from phenaki_jax.text.sentencepiece_tokenizer import SentencePieceTokenizer, fingerprint_of
from phenaki_jax.text.t5 import T5Config
from phenaki_jax.tokenizer.config import CViViTConfig

VOCABULARY_FILE = "sentencepiece.model"
TENSOR_FILES = {
    "tokenizer": "tokenizer.safetensors",
    "text": "text_encoder.safetensors",
    "transformer": "transformer.safetensors",
    "critic": "critic.safetensors",
}
_OTHERS = "they are another network's or model's, or damaged; copy or export the model again"


class ExportedModel(NamedTuple):
    """What an exported folder holds.

    Attributes:
      config: of all three models, or of the tokenizer where that was exported alone.
      params: float32 NumPy arrays of "tokenizer" and, for all models, "text", "transformer" and any "critic".
      metadata: what else is known.
      vocabulary: file of a frozen text encoder's vocabulary; None for bytes.
      fingerprint: of the parameters, as found.
    """

    config: PhenakiConfig | CViViTConfig
    params: dict[str, Any]
    metadata: ModelMetadata
    vocabulary: Path | None
    fingerprint: str


def export_model(
    folder: str | Path,
    config: PhenakiConfig | CViViTConfig,
    params: Mapping[str, Any],
    metadata: ModelMetadata | None = None,
    vocabulary: str | Path | None = None,
    *,
    stablehlo: bool = False,
) -> None:
    """Writes a model to a folder, which appears, or replaces an exported model, when it is complete.

    Args:
      folder: a new name, or an exported model to replace.
      config: of all three models, or of a tokenizer alone.
      params: trees of arrays for "tokenizer" and, for all models, "text", "transformer" and "critic" if there is one.
      metadata: what else is known; `usual_metadata` where None.
      vocabulary: file of a frozen text encoder's vocabulary, which is copied; None for bytes.
      stablehlo: whether to write programs that jax alone runs beside them, see `programs`.

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
            _write(unfinished, config, tensors, metadata, vocabulary)
            if stablehlo:
                from phenaki_jax.inference.programs import write_programs

                write_programs(unfinished / PROGRAMS_FOLDER, config, metadata.sampling)
            content, _ = read_model_file(unfinished)
            sizes = {name: sum(array.size for array in arrays.values()) for name, arrays in tensors.items()}
            (unfinished / CARD_FILE).write_text(model_card(folder.name, config, content, sizes, stablehlo=stablehlo))
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
    if foreign := [path for path in sorted(folder.glob("*")) if not _is_part(path)]:
        raise UserError(
            f"{folder}: found {foreign[0].name!r}, which is no part of an exported model, and will not delete it; "
            "choose another name"
        )


def _is_part(path: Path) -> bool:
    """Whether something in a folder was written by `export_model`."""
    if path.name == PROGRAMS_FOLDER:
        return path.is_dir() and (path / PROGRAMS_FILE).is_file()
    if path.name == CARD_FILE:
        return is_model_card(path)
    return path.name in {MODEL_FILE, VOCABULARY_FILE, *TENSOR_FILES.values()}


def load_exported(folder: str | Path) -> ExportedModel:
    """Reads what `export_model` wrote, and checks it against its own configuration.

    Raises:
      UserError: a file is not there, damaged, of a newer version, does not fit the configuration, or holds parameters
        that are not finite or another model's.
    """
    folder = Path(folder)
    content, config = read_model_file(folder)
    vocabulary = None if content.vocabulary == BYTES else folder / VOCABULARY_FILE
    _check_vocabulary(config, vocabulary)
    if vocabulary is not None and (found := fingerprint_of(vocabulary)) != content.vocabulary:
        raise UserError(
            f"{vocabulary}: found the vocabulary {found}, expected {content.vocabulary}, as {MODEL_FILE} says: copy or "
            "export the model again"
        )
    files = {name: folder / TENSOR_FILES[name] for name in parameter_shapes(config)}
    tensors = {name: _read_tensors(file) for name, file in files.items()}
    networks = network_fingerprints(tensors)
    # Of another network this says more than which of its tensors do not fit.
    _check_fingerprints(content, networks, files)
    _check_tensors(tensors, config, {name: str(file) for name, file in files.items()})
    params = {name: unflatten_dict(arrays, sep="/") for name, arrays in tensors.items()}
    return ExportedModel(config, params, content.metadata, vocabulary, model_fingerprint(networks))


def _write(
    folder: Path,
    config: PhenakiConfig | CViViTConfig,
    tensors: Mapping[str, dict[str, np.ndarray]],
    metadata: ModelMetadata,
    vocabulary: str | Path | None,
) -> None:
    """Writes model.json, tensors and vocabulary."""
    networks = network_fingerprints(tensors)
    write_model_file(folder, make_model_file(config, metadata, fingerprint_of(vocabulary or ""), networks))
    if vocabulary is not None:
        shutil.copyfile(vocabulary, folder / VOCABULARY_FILE)
    for name, arrays in tensors.items():
        try:
            save_file(arrays, folder / TENSOR_FILES[name])
            # It makes files that their owner alone can read.
            shutil.copymode(folder / MODEL_FILE, folder / TENSOR_FILES[name])
        except SafetensorError as error:  # so it tells of a full disk
            raise OSError(str(error)) from error


def _check_fingerprints(content: ModelFile, found: Mapping[str, str], files: Mapping[str, Path]) -> None:
    """Refuses parameters that model.json, where it tells, does not tell of."""
    if not content.tells_networks:
        return
    for network, file in files.items():
        if found[network] != (wanted := content.networks.get(network)):
            raise UserError(
                f"{file}: found parameters {found[network]}, expected {wanted} as {MODEL_FILE} says: {_OTHERS}"
            )


def _check_vocabulary(config: PhenakiConfig | CViViTConfig, vocabulary: str | Path | None) -> None:
    """Refuses a vocabulary that is not the text encoder's."""
    text = config.text if isinstance(config, PhenakiConfig) else None
    if isinstance(text, T5Config) != (vocabulary is not None):
        found = "no vocabulary" if vocabulary is None else f"the vocabulary {vocabulary}"
        raise UserError(f"found {found}, expected one with a T5, and with nothing else")
    if isinstance(text, T5Config) and vocabulary is not None:
        SentencePieceTokenizer(vocabulary, text.vocabulary_size)


def _read_tensors(file: Path) -> dict[str, np.ndarray]:
    if not file.is_file():
        raise UserError(
            f"found no {file.name} in {file.parent}, expected it beside {MODEL_FILE}: export the model again"
        )
    try:
        return read_safetensors(file)
    except UserError as error:
        raise UserError(f"{error}; copy or export it again") from error


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
        absent, surplus = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
        if absent or surplus:
            told = [*(f"without {name}" for name in absent[:1]), *(f"with {name}" for name in surplus[:1])]
            raise UserError(
                f"{places[model]}: found {counted(len(found), 'tensor')} {' and '.join(told)}, expected the "
                f"{len(wanted)} of the configuration's {model}: {_OTHERS}"
            )
        for name, leaf in wanted.items():
            if found[name].shape != leaf.shape or found[name].dtype != leaf.dtype:
                raise UserError(
                    f"{places[model]}: found {name} as {found[name].dtype}{list(found[name].shape)}, expected "
                    f"{leaf.dtype}{list(leaf.shape)} as the configuration says: {_OTHERS}"
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
