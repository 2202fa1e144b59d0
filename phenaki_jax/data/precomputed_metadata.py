"""What is said of precomputed data, in `precomputed.json`; see `data.precomputed`."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from phenaki_jax.errors import UserError, reason_of

FORMAT_VERSION = 1
METADATA_FILE = "precomputed.json"


@dataclasses.dataclass(frozen=True)
class Precomputed:
    """What a folder holds.

    Attributes:
      mixtures: of each mixture, the rate of each of its tasks.
      grids: rows and columns of a time step's tokens, of each task.
      splits: of each task, which were computed.
      frames: the most of a video.
      temporal_patch: frames of a token time step after the first frame.
      codebook_size: codes of the tokenizer.
      text_length: tokens that texts were cut to.
      text_width: features of a text's token; 0 where texts are tokens alone.
      tokenizer: fingerprint of its parameters.
      text_encoder: fingerprint of its parameters; empty where texts are tokens alone.
      vocabulary: fingerprint of its file; empty for bytes.
      shards: files of a task's split and pass, if its source has as many.
      passes: how often each example of a source was read, with other windows and wordings each time.
      seed: of windows and wordings.
      format: of the files.
    """

    mixtures: Mapping[str, Mapping[str, float]]
    grids: Mapping[str, Sequence[int]]
    splits: Mapping[str, Sequence[str]]
    frames: int
    temporal_patch: int
    codebook_size: int
    text_length: int
    text_width: int
    tokenizer: str
    text_encoder: str
    vocabulary: str
    shards: int
    passes: int
    seed: int
    format: int = FORMAT_VERSION

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> Precomputed:
        """What a folder says that it holds.

        Raises:
          UserError: it is not there, damaged, or of another version.
        """
        file = Path(folder) / METADATA_FILE
        if not file.is_file():
            raise UserError(
                f"found no {METADATA_FILE} in {folder}, expected a folder of precomputed tokens: make it with phenaki "
                f"precompute --gin_file FILE --out {folder}"
            )
        try:
            found = cls(**json.loads(file.read_text()))
        except (ValueError, TypeError) as error:
            raise UserError(f"{file} is damaged ({reason_of(error)}): precompute again into another folder") from error
        if found.format != FORMAT_VERSION:
            raise UserError(
                f"{file}: found format {found.format}, expected {FORMAT_VERSION}: precompute again into another folder"
            )
        return found

    def text(self) -> str:
        """As it is written."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"
