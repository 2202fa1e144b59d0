"""README.md of an exported folder: what a model is and how it is used, as far as that is known, for people."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from phenaki_jax.inference.model_file import MODEL_FILE, PROGRAMS_FOLDER, ModelFile, tokenizer_config
from phenaki_jax.inference.window import PhenakiConfig
from phenaki_jax.tokenizer.config import CViViTConfig

CARD_FILE = "README.md"
_MARK = "<!-- Written by phenaki export, which replaces it with the model; without this line it stays. -->"
_NETWORKS = {
    "tokenizer": "C-ViViT tokenizer",
    "text": "text encoder",
    "transformer": "masked transformer",
    "critic": "token critic",
}
# Of the gin configuration; what a setting of the training is called in the card.
_SETTINGS = {
    "mixture": "DataConfig.mixture",
    "split": "DataConfig.split",
    "batch size": "DataConfig.batch_size",
    "optimizer": "OptimizerConfig.kind",
    "learning rate": "OptimizerConfig.learning_rate",
    "seed": "train.seed",
}


def model_card(
    name: str, config: PhenakiConfig | CViViTConfig, file: ModelFile, sizes: Mapping[str, int], *, stablehlo: bool
) -> str:
    """The text of README.md; what is not known is left out.

    Args:
      name: of the model.
      config: of all three models, or of a tokenizer alone.
      file: what model.json holds.
      sizes: parameters of each network.
      stablehlo: whether there are programs in the folder.
    """
    sections = {
        f"# {name}": _what(config, file),
        "## Sizes": _sizes(config, sizes),
        "## Training": _training(file.metadata.trained_on),
        "## Use": _use(name, config, stablehlo=stablehlo),
        "## Sampling": _sampling(config, file),
        "## Limits": _limits(config, file),
    }
    written = [f"{title}\n\n" + "\n".join(lines) for title, found in sections.items() if (lines := list(found))]
    return "\n\n".join([*written, _MARK]) + "\n"


def is_model_card(path: Path) -> bool:
    """Whether a file was written from `model_card`, and nobody has taken its mark away."""
    return path.is_file() and path.read_text(errors="replace").rstrip().endswith(_MARK)


def _what(config: PhenakiConfig | CViViTConfig, file: ModelFile) -> Iterator[str]:
    tokenizer = tokenizer_config(config)
    side, fps = tokenizer.frame_size, f"{file.metadata.fps:g}"
    if isinstance(config, CViViTConfig):
        yield f"A C-ViViT tokenizer: videos of {side} x {side} pixels to discrete tokens and back."
    elif config.text is None:
        yield f"A Phenaki model without text: it goes on with videos of {side} x {side} pixels, {fps} frames a second."
    else:
        yield f"A Phenaki model: videos of {side} x {side} pixels, {fps} frames a second, from text."
    yield f"Exported by phenaki_jax {file.phenaki_jax}; parameters {file.fingerprint}."
    yield f"{MODEL_FILE} holds every setting."


def _sizes(config: PhenakiConfig | CViViTConfig, sizes: Mapping[str, int]) -> Iterator[str]:
    yield from _table(("network", "parameters"), [(_NETWORKS[name], f"{count:,}") for name, count in sizes.items()])
    tokenizer = tokenizer_config(config)
    times, (rows, columns) = tokenizer.times(tokenizer.frames), tokenizer.grid()
    yield ""
    yield (
        f"A window has {tokenizer.frames} frames, {times} x {rows} x {columns} tokens of {tokenizer.patch} x "
        f"{tokenizer.patch} pixels and {tokenizer.temporal_patch} frames (the first frame has tokens of its own), and "
        f"{tokenizer.quantizer.codebook_size:,} codes ({tokenizer.quantizer.kind})."
    )


def _training(trained_on: Mapping[str, Any]) -> Iterator[str]:
    settings = settings_of(str(trained_on.get("configuration", "")))
    rows = [(name, settings[key]) for name, key in _SETTINGS.items() if settings.get(key)]
    if "step" in trained_on:
        planned = settings.get("Schedule.steps")
        rows.append(("steps", f"{trained_on['step']}" + (f" of {planned}" if planned else "")))
    if "averaged" in trained_on:
        averaged = "averages over the steps" if trained_on["averaged"] else "those of the last step"
        rows.append(("parameters", averaged))
    if trained_on.get("text_encoder"):
        rows.append(("frozen text encoder", str(trained_on["text_encoder"])))
    evaluated = trained_on.get("evaluation", {})
    place = f", step {evaluated['step']}" if "step" in evaluated else ""
    rows += [
        (f"{name} (held-out{place})", f"{value:.4g}")
        for name, value in evaluated.items()
        if name != "step" and isinstance(value, int | float)
    ]
    if rows:
        yield from _table(("what", "value"), rows)


def _use(name: str, config: PhenakiConfig | CViViTConfig, *, stablehlo: bool) -> Iterator[str]:
    draws = isinstance(config, PhenakiConfig) and config.text is not None
    if draws:
        yield f'    phenaki generate --model {name} --prompt "..." --out video.mp4'
    yield f"    phenaki reconstruct --model {name} --video video.mp4 --out both.mp4"
    yield "\n```python\nfrom phenaki_jax.inference import Phenaki\n"
    yield f'model = Phenaki.load("{name}")'
    if draws:
        yield 'video = model.generate("...", seed=1)  # uint8 [1, frames, height, width, 3]'
    yield "tokens = model.encode(video)  # int32 [1, times, rows, columns]"
    yield "video = model.decode(tokens)\n```"
    if stablehlo:
        place = f"{name}/{PROGRAMS_FOLDER}"
        call = f"`python {place}/run.py --help`" if draws else f"`Model` in {place}/run.py"
        yield f"\nWith jax and NumPy alone, without phenaki_jax: {call}."


def _sampling(config: PhenakiConfig | CViViTConfig, file: ModelFile) -> Iterator[str]:
    if isinstance(config, PhenakiConfig):
        rows = [(name, str(value)) for name, value in dataclasses.asdict(file.metadata.sampling).items()]
        yield from _table(("setting", "where nothing else is asked for"), rows)


def _limits(config: PhenakiConfig | CViViTConfig, file: ModelFile) -> Iterator[str]:
    tokenizer = tokenizer_config(config)
    spans = tokenizer.temporal_patch
    lengths = f"1 + k * {spans}" if spans > 1 else "any number of"
    yield f"- Videos that are encoded have {lengths} frames and sides that are multiples of {tokenizer.patch} pixels."
    if isinstance(config, PhenakiConfig) and config.text is not None:
        unit = "bytes" if file.vocabulary == "bytes" else "pieces of the vocabulary"
        yield f"- A prompt has at most {config.text.length - 1} {unit}."
    if isinstance(config, PhenakiConfig) and file.metadata.prefix_frames:
        yield (
            f"- Longer videos are drawn window by window; each is given the last {file.metadata.prefix_frames} frames, "
            "and what came before is forgotten."
        )
    yield "- What it was not trained on it will not draw well; nothing filters what it draws."


def settings_of(configuration: str) -> dict[str, str]:
    """Values of a gin configuration by "Class.parameter", macros put in."""
    lines = re.findall(r"^(?:\w+\.)*?(\w+(?:\.\w+)?) = (.+)$", configuration, re.MULTILINE)
    values = {name: value.strip().strip("'\"") for name, value in lines}
    return {
        name: values.get(value.removeprefix("%"), value) if value[:1] == "%" else value
        for name, value in values.items()
    }


def _table(titles: tuple[str, str], rows: list[tuple[str, str]]) -> Iterator[str]:
    for row in (titles, ("---", "---"), *rows):
        yield f"| {row[0]} | {row[1]} |"
