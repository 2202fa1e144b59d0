"""Runs the StableHLO programs of an exported model with jax and NumPy alone: stablehlo/run.py of its folder.

    python model/stablehlo/run.py --prompt "a red circle moves right" --seed 1 --out circle.png

In Python, with that folder on the path:

    from run import Model

    model = Model("model")
    video = model.generate(["a red circle moves right"], seed=1)  # uint8 [1, frames, height, width, 3]
    tokens = model.encode(video)
    video = model.decode(tokens)
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import os
import struct
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

FORMAT = 1
_TENSORS = {
    "tokenizer": "tokenizer.safetensors",
    "text": "text_encoder.safetensors",
    "transformer": "transformer.safetensors",
    "critic": "critic.safetensors",
}
_TYPES = {"F32": np.float32, "F16": np.float16, "I32": np.int32, "I64": np.int64, "U8": np.uint8, "BOOL": np.bool_}
_AGAIN = "copy or export the model again"
_FIRST_BYTE, _END_OF_TEXT = 3, 1


class RefusedError(ValueError):
    """What cannot be done, in one line: what was found, what was expected and what to do."""


class Model:
    """An exported model.

    Args:
      folder: that of the model; model.json is in it.

    Raises:
      RefusedError: a file is not there, damaged, or of another model than the programs.
    """

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)
        self.about = _read_json(self._folder / "model.json")
        self.programs = _read_json(self._folder / "stablehlo" / "programs.json")
        if (found := self.programs.get("format")) != FORMAT:
            raise RefusedError(
                f"{self._folder / 'stablehlo'}: found format {found!r}, expected {FORMAT}, which this run.py reads; "
                "take the run.py that was exported beside the programs"
            )
        if hashlib.sha256((self._folder / "model.json").read_bytes()).hexdigest() != self.programs["model_json"]:
            raise RefusedError(
                f"{self._folder / 'model.json'} was changed after the programs were made, expected it as exported; "
                "restore it, or export the model again"
            )
        self._params: dict[str, Any] = {}

    def encode(self, video: np.ndarray) -> np.ndarray:
        """Tokens int32 [batch, times, rows, columns] of videos uint8 [batch, frames, height, width, 3]."""
        return self.call("encode", {"video": video})

    def decode(self, tokens: np.ndarray) -> np.ndarray:
        """Videos of tokens int32 [batch, times, rows, columns]."""
        return self.call("decode", {"tokens": np.asarray(tokens, np.int32)})

    def generate(
        self,
        prompts: Sequence[str],
        seed: int = 0,
        windows: int = 1,
        guidance: float | None = None,
        start: np.ndarray | None = None,
    ) -> np.ndarray:
        """Draws a video for each prompt, that at index i with `seed + i`.

        Args:
          prompts: what the videos show.
          seed: the same gives the same videos.
          windows: how long they are; each window but the first is given the last frames of the one before.
          guidance: scale of classifier-free guidance; None for that of model.json.
          start: frames that all begin with, uint8 [frames, height, width, 3] in the model's size.

        Returns:
          uint8 [prompts, frames, height, width, 3].

        Raises:
          RefusedError: see `text_tokens`; a tokenizer alone; or no windows, or seeds that are none.
        """
        if "generate_window" not in self.programs["programs"]:
            raise RefusedError(f"{self._folder}: found a tokenizer alone, expected a model with a transformer")
        if windows < 1:
            raise RefusedError(f"found windows {windows}, expected at least 1")
        if guidance is not None and not 0 <= guidance < float("inf"):
            raise RefusedError(f"found guidance {guidance}, expected a finite number of at least 0")
        if not 0 <= seed <= 2**32 - len(prompts):
            raise RefusedError(f"found seed {seed}, expected 0 to {2**32 - len(prompts)}")
        tokens, mask = self.text_tokens(prompts)
        seeds = np.arange(seed, seed + len(prompts), dtype=np.uint32)
        scale = self.about["metadata"]["sampling"]["guidance"] if guidance is None else guidance
        asked = {"text_tokens": tokens, "text_mask": mask, "guidance": np.float32(scale), "seeds": seeds}
        side, spans = (self._sizes[name] for name in ("frame_size", "temporal_patch"))
        begin = np.zeros((0, side, side, 3), np.uint8) if start is None else start
        shown = np.broadcast_to(begin, (len(prompts), *begin.shape))
        for window in range(windows):
            most = min(shown.shape[1], self.about["metadata"]["prefix_frames"])
            given = 1 + (most - 1) // spans * spans if most else 0
            inputs: dict[str, Any] = {**asked, "window": np.uint32(window)}
            if given:
                inputs["prefix"] = shown[:, shown.shape[1] - given :]
            drawn = self.call("continue_window" if given else "generate_window", inputs)
            shown = np.concatenate([shown, drawn[:, given:]], axis=1)
        return shown

    def text_tokens(self, prompts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Ids int32 [prompts, text_length] and a mask that is True on those of the text and its end.

        Raises:
          RefusedError: a prompt that is empty or too long, or a vocabulary for which sentencepiece is not installed.
        """
        text = self.about["config"]["text"]
        if text is None:
            raise RefusedError(
                f"{self._folder}: found prompts and a model without text; call its programs with `Model.call`"
            )
        tokens = np.zeros((len(prompts), text["length"]), np.int32)
        for row, prompt in zip(tokens, prompts, strict=True):
            if not prompt.strip():
                raise RefusedError(f"found an empty prompt {prompt!r}, expected words: say what the video shows")
            ids = [*self._ids(prompt), _END_OF_TEXT]
            if len(ids) > len(row):
                unit = "bytes" if self.about["vocabulary"] == "bytes" else "pieces"
                raise RefusedError(
                    f"found a prompt of {len(ids)} tokens (its {unit} and the end of text), expected at most "
                    f"{len(row)}: shorten {prompt[:40]!r}"
                )
            row[: len(ids)] = ids
        return tokens, tokens != 0

    def call(self, name: str, inputs: Mapping[str, Any]) -> np.ndarray:
        """Runs a program of programs.json, which says what it takes.

        Raises:
          RefusedError: an unknown program, or inputs that it does not take.
        """
        known = self.programs["programs"]
        if name not in known:
            raise RefusedError(f"found program {name!r}, expected one of {', '.join(known)}")
        if set(inputs) != set(known[name]["inputs"]):
            raise RefusedError(f"{name}: found {', '.join(inputs)}, expected {', '.join(known[name]['inputs'])}")
        params = {network: self._network(network) for network in known[name]["networks"]}
        try:
            return np.asarray(self._program(name)(params, dict(inputs)))
        except ValueError as error:
            raise RefusedError(f"{name}: {str(error).splitlines()[0]}; it takes {known[name]['inputs']}") from error

    @property
    def _sizes(self) -> Mapping[str, Any]:
        return self.about["config"]["tokenizer"]

    def _ids(self, prompt: str) -> list[int]:
        if any("\ud800" <= character <= "\udfff" for character in prompt):
            raise RefusedError(f"found a prompt {prompt!r} with bytes that are no UTF-8 text, expected UTF-8")
        if self.about["vocabulary"] == "bytes":
            return [byte + _FIRST_BYTE for byte in prompt.encode()]
        try:
            import sentencepiece
        except ImportError as error:
            raise RefusedError(
                "this model reads texts through a vocabulary of sentencepiece, which is not installed: pip install "
                "sentencepiece, or give ids to `Model.call`"
            ) from error
        file = str(self._folder / "sentencepiece.model")
        return sentencepiece.SentencePieceProcessor(model_file=file).EncodeAsIds(prompt)

    def _network(self, name: str) -> Any:
        import jax

        if name not in self._params:
            file = self._folder / _TENSORS[name]
            tensors = read_safetensors(file)
            told = self.about.get("networks")  # which folders of older formats do not have
            if told is not None and (found := fingerprint(tensors)) != told.get(name):
                raise RefusedError(
                    f"{file}: found parameters {found}, expected {told.get(name)} as model.json says: they are another "
                    f"network's or model's, or damaged; {_AGAIN}"
                )
            self._params[name] = jax.device_put(tensors)
        return self._params[name]

    @functools.cache  # noqa: B019  (of the few models of a process)
    def _program(self, name: str) -> Callable[[Any, Any], Any]:
        import jax

        told = self.programs["programs"][name]
        file = self._folder / "stablehlo" / told["file"]
        if not file.is_file():
            raise RefusedError(f"found no {file}, expected the program {name} there: {_AGAIN}")
        content = file.read_bytes()
        if hashlib.sha256(content).hexdigest() != told["sha256"]:
            raise RefusedError(f"{file} is damaged ({len(content)} bytes, expected {told['bytes']}): {_AGAIN}")
        try:
            import flatbuffers  # noqa: F401  (jax.export reads programs with it)
        except ImportError:
            import small_flatbuffers

            small_flatbuffers.stand_in()
        from jax import export

        return jax.jit(export.deserialize(bytearray(content)).call)


def read_safetensors(file: Path) -> dict[str, np.ndarray]:
    """Tensors by name: a length in 8 bytes, JSON of that length that says where each lies, and their bytes.

    Raises:
      RefusedError: the file is not there, cannot be read, is cut or no safetensors.
    """
    if not file.is_file():
        raise RefusedError(f"found no {file}, expected it beside model.json: {_AGAIN}")
    try:
        content = np.memmap(file, np.uint8, "r") if file.stat().st_size else np.zeros(0, np.uint8)
    except OSError as error:
        raise RefusedError(f"{file} cannot be read ({error.strerror}), expected a file that can: {_AGAIN}") from error
    try:
        (length,) = struct.unpack("<Q", bytes(content[:8]))
        if length > len(content) - 8:
            raise ValueError("a header that is longer than the file")
        header = json.loads(bytes(content[8 : 8 + length]))
        header.pop("__metadata__", None)
        data, tensors = content[8 + length :], {}
        for name, told in header.items():
            begin, end = told["data_offsets"]
            tensors[name] = data[begin:end].view(_TYPES[told["dtype"]]).reshape(told["shape"])
    except (struct.error, ValueError, LookupError, TypeError, AttributeError) as error:
        raise RefusedError(f"{file} is damaged, or no safetensors ({len(content)} bytes): {_AGAIN}") from error
    return tensors


def fingerprint(tensors: Mapping[str, np.ndarray]) -> str:
    """What tells a network's parameters from others, as model.json has it."""
    told = hashlib.sha256()
    for name, array in sorted(tensors.items()):
        told.update(name.encode())
        told.update(np.ascontiguousarray(array, np.float32).data)
    return told.hexdigest()[:16]


def write_video(file: Path, frames: np.ndarray, fps: float) -> None:
    """Writes frames uint8 [frames, height, width, 3] as .npy, or as an animated .png, which browsers play.

    The file is there once it is whole.
    """
    unfinished = file.with_name(f".{file.stem}.{os.getpid()}{file.suffix}")
    try:
        with open(unfinished, "wb") as out:
            if file.suffix == ".npy":
                np.save(out, frames)
            else:
                out.write(_animated_png(frames, fps))
        unfinished.replace(file)
    finally:
        unfinished.unlink(missing_ok=True)


def _animated_png(frames: np.ndarray, fps: float) -> bytes:
    count, height, width, _ = frames.shape
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"acTL", struct.pack(">II", count, 0))]
    number = 0
    for index, frame in enumerate(frames):
        control = struct.pack(">IIIIIHHBB", number, width, height, 0, 0, round(1000 / fps), 1000, 0, 0)
        rows = np.concatenate([np.zeros((height, 1), np.uint8), frame.reshape(height, -1)], axis=1)
        pixels = zlib.compress(rows.tobytes())
        chunks += [
            (b"fcTL", control),
            (b"fdAT", struct.pack(">I", number + 1) + pixels) if index else (b"IDAT", pixels),
        ]
        number += 2 if index else 1
    parts = [b"\x89PNG\r\n\x1a\n"]
    for kind, content in [*chunks, (b"IEND", b"")]:
        parts += [struct.pack(">I", len(content)), kind, content, struct.pack(">I", zlib.crc32(kind + content))]
    return b"".join(parts)


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(file.read_text())
    except OSError as error:
        raise RefusedError(
            f"found no {file}, expected the folder of an exported model with its programs: {_AGAIN}"
        ) from error
    except ValueError as error:
        raise RefusedError(f"{file} is no JSON ({error}): {_AGAIN}") from error
    return content


def main() -> int:
    """Draws a video; returns 0, or 2 where that cannot be done."""
    parser = argparse.ArgumentParser(description="Draws a video for each prompt, with jax and NumPy alone.")
    parser.add_argument("--prompt", action="append", required=True, metavar="TEXT", help="repeatable")
    parser.add_argument("--out", required=True, metavar="FILE", help=".npy, or an animated .png; FILE-1, FILE-2 ...")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of all randomness (0)")
    parser.add_argument("--windows", type=int, default=1, metavar="N", help="how long the video is (1)")
    parser.add_argument("--guidance", type=float, metavar="S", help="scale of classifier-free guidance (the model's)")
    args = parser.parse_args()
    out = Path(args.out)
    try:
        if out.suffix not in (".npy", ".png"):
            raise RefusedError(f"{out}: found suffix {out.suffix!r}, expected .npy or .png; change the name")
        if not out.absolute().parent.is_dir():
            raise RefusedError(f"{out}: found no folder {out.parent}, expected one to write to; make it first")
        model = Model(Path(__file__).resolve().parents[1])
        videos = model.generate(args.prompt, args.seed, args.windows, args.guidance)
        for index, video in enumerate(videos, start=1):
            file = out if len(videos) == 1 else out.with_name(f"{out.stem}-{index}{out.suffix}")
            write_video(file, video, model.about["metadata"]["fps"])
            print(f"{file}: {len(video)} frames")
    except (RefusedError, OSError) as error:
        print(f"run.py: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
