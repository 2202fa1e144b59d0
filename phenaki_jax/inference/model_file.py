"""model.json of an exported folder: what a model is, apart from its parameters."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phenaki_jax import __version__
from phenaki_jax.errors import UserError
from phenaki_jax.inference.decoding import SamplingConfig
from phenaki_jax.inference.fingerprint import model_fingerprint
from phenaki_jax.inference.plain_data import from_plain
from phenaki_jax.inference.video_files import check_fps
from phenaki_jax.inference.window import PhenakiConfig
from phenaki_jax.tokenizer.config import CViViTConfig

FORMAT_VERSION = 6
# Without a fingerprint, and with another one than is now computed; otherwise as they are now.
_READABLE = (4, 5, FORMAT_VERSION)
_FIRST_OF_NETWORKS = 6
MODEL_FILE = "model.json"
PROGRAMS_FOLDER, PROGRAMS_FILE = "stablehlo", "programs.json"
BYTES = "bytes"


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


@dataclasses.dataclass(frozen=True)
class ModelFile:
    """What model.json holds.

    Attributes:
      format: of the folder.
      phenaki_jax: version of the package that wrote it.
      config: of all three models, or {"tokenizer": ...}, as `dataclasses.asdict` makes it.
      codebook_size: number of codes, for other programs that read the file.
      vocabulary: fingerprint of a frozen text encoder's vocabulary, or `BYTES`.
      metadata: what else is known.
      fingerprint: of the parameters; empty in folders of format 4.
      networks: of each network's; empty in folders of formats 4 and 5.
    """

    format: int
    phenaki_jax: str
    config: Mapping[str, Any]
    codebook_size: int
    vocabulary: str
    metadata: ModelMetadata
    fingerprint: str = ""
    networks: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def tells_networks(self) -> bool:
        """Whether parameters can be compared with `networks`."""
        return self.format >= _FIRST_OF_NETWORKS


def make_model_file(
    config: PhenakiConfig | CViViTConfig, metadata: ModelMetadata, vocabulary: str, networks: Mapping[str, str]
) -> ModelFile:
    """What is told of a model; see `ModelFile`."""
    plain = dataclasses.asdict(config)
    return ModelFile(
        format=FORMAT_VERSION,
        phenaki_jax=__version__,
        config=plain if isinstance(config, PhenakiConfig) else {"tokenizer": plain},
        codebook_size=tokenizer_config(config).quantizer.codebook_size,
        vocabulary=vocabulary or BYTES,
        metadata=metadata,
        fingerprint=model_fingerprint(networks),
        networks=networks,
    )


def write_model_file(folder: Path, content: ModelFile) -> None:
    """Writes model.json to a folder."""
    (folder / MODEL_FILE).write_text(json.dumps(dataclasses.asdict(content), indent=2) + "\n")


def read_model_file(folder: Path) -> tuple[ModelFile, PhenakiConfig | CViViTConfig]:
    """Reads model.json of a folder, and checks it against itself.

    Raises:
      UserError: it is not there, damaged, of another version, or changed so that its parts do not fit each other.
    """
    file = folder / MODEL_FILE
    if not file.is_file():
        raise UserError(_absent(folder))
    try:
        plain = json.loads(file.read_text())
    except ValueError as error:
        raise UserError(f"{file} is no JSON ({error}): export the model again") from error
    version = plain.get("format") if isinstance(plain, dict) else None
    if version not in _READABLE:
        newer = isinstance(version, int) and version > FORMAT_VERSION
        raise UserError(
            f"{file}: found format {version!r}, expected {' or '.join(map(str, _READABLE))}, which phenaki_jax "
            f"{__version__} reads; install {'a newer phenaki_jax, or ' if newer else ''}the phenaki_jax that wrote it, "
            "or train and export the model with this one"
        )
    content = from_plain(ModelFile, plain, str(file))
    config = config_from_plain(content.config, f"{file}, config")
    codebook_size = tokenizer_config(config).quantizer.codebook_size
    if content.codebook_size != codebook_size:
        raise UserError(
            f"{file}: found codebook_size {content.codebook_size}, expected {codebook_size} as its tokenizer's "
            "quantizer says; the file was changed by hand: export the model again"
        )
    if content.tells_networks:
        _check_fingerprint(content, file)
    if isinstance(config, PhenakiConfig):
        content.metadata.check(config.tokenizer)
    return content, config


def _absent(folder: Path) -> str:
    """What is told of something that is no folder of an exported model, and what to name instead."""
    expected = "expected the folder of an exported model"
    if not folder.exists():
        return f"found nothing at {folder}, {expected}: check the path, or make it with phenaki export"
    if folder.is_file():
        meant = f"name {folder.parent}" if (folder.parent / MODEL_FILE).is_file() else "name one"
        return f"found a file {folder}, {expected}: {meant}"
    of_checkpoint = [place.parent for place in (folder, folder.parent) if place.name == "checkpoints"]
    if workdirs := [place for place in (folder, *of_checkpoint) if (place / "checkpoints").is_dir()]:
        export = f"phenaki export --workdir {workdirs[0]} --out MODEL"
        return f"found a training in {folder}, {expected}: make it with {export}"
    inside = [path.parent for path in sorted(folder.glob(f"*/{MODEL_FILE}"))]
    meant = "name one, or make it with phenaki export"
    if inside:
        meant = f"name {inside[0]}" if len(inside) == 1 else f"name one in it, such as {inside[0].name}"
    return f"found no {MODEL_FILE} in {folder}, {expected}: {meant}"


def _check_fingerprint(content: ModelFile, file: Path) -> None:
    """Refuses a fingerprint that is not that of the networks'."""
    told = model_fingerprint(content.networks) if isinstance(content.networks, Mapping) else ""
    if content.fingerprint != told:
        raise UserError(
            f"{file}: found fingerprint {content.fingerprint!r}, expected {told!r} as its networks say; the file was "
            "changed by hand: export the model again"
        )
