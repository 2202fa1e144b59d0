"""What a model does as StableHLO programs, which jax alone runs: on CPU, GPU and TPU, for any number of videos.

Parameters are arguments, by the names that they have in the safetensors files, so that programs stay small. No kernel
of one platform alone is in them, and they are as exact as the platform's own products (`jax.default_matmul_precision`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import export
from jaxtyping import Array

from phenaki_jax.inference import standalone
from phenaki_jax.inference.decoding import SamplingConfig
from phenaki_jax.inference.model_file import MODEL_FILE, PROGRAMS_FILE
from phenaki_jax.inference.parameters import parameter_shapes
from phenaki_jax.inference.window import PhenakiConfig, WindowTexts, encode_text, generate_window, single_texts
from phenaki_jax.layers import pixels
from phenaki_jax.layers.layout import any_platform
from phenaki_jax.layers.module import apply
from phenaki_jax.tokenizer.config import CViViTConfig
from phenaki_jax.tokenizer.cvivit import CViViT

PLATFORMS = ("cpu", "cuda", "tpu")
# What jax.export does not find out by itself: that the time steps after the first may be none, but not less.
_STEPS = ("batch*rows*columns*times >= batch*rows*columns",)


@dataclasses.dataclass(frozen=True)
class Program:
    """One function of a model, as it is called when it is exported: `call(params, inputs)`.

    Attributes:
      networks: whose parameters it takes, each a mapping from a tensor's name to the tensor.
      inputs: the axes and type of each input; axes that are no numbers are expressions of such as may have any length.
      limits: what holds of those lengths, as `jax.export.symbolic_shape` reads it.
      output: what comes out, in words.
      function: what is computed of parameters, as trees, and inputs.
    """

    networks: tuple[str, ...]
    inputs: Mapping[str, tuple[str, str]]
    output: str
    function: Callable[[Any, Mapping[str, Array]], Array]
    limits: tuple[str, ...] = ()


def programs_of(config: PhenakiConfig | CViViTConfig, sampling: SamplingConfig) -> dict[str, Program]:
    """The programs of a model: `encode` and `decode`, and of a whole model `generate_window` and `continue_window`.

    Args:
      config: of all three models, or of a tokenizer alone.
      sampling: how tokens are drawn; its guidance alone is asked for anew when a program runs.
    """
    tokenizer = config if isinstance(config, CViViTConfig) else config.tokenizer
    tokens, video = "batch, times, rows, columns", _video_axes(tokenizer)
    programs = {
        "encode": Program(
            ("tokenizer",),
            {"video": (video, "uint8")},
            f"tokens int32 [{tokens}]",
            lambda params, inputs: _encode(tokenizer, params["tokenizer"], inputs["video"]),
            _STEPS,
        ),
        "decode": Program(
            ("tokenizer",),
            {"tokens": (tokens, "int32")},
            f"video uint8 [{video}]",
            lambda params, inputs: _decode(tokenizer, params["tokenizer"], inputs["tokens"]),
            _STEPS,
        ),
    }
    if isinstance(config, PhenakiConfig):
        programs |= _window_programs(config, sampling)
    return programs


def export_program(program: Program, config: PhenakiConfig | CViViTConfig) -> bytes:
    """A program in the format of `jax.export`, for all of `PLATFORMS`.

    Args:
      program: of `programs_of`.
      config: of the model.
    """
    shapes = parameter_shapes(config)
    params = {name: flatten_dict(shapes[name], sep="/") for name in program.networks}
    scope = export.SymbolicScope(program.limits)
    inputs = {
        name: jax.ShapeDtypeStruct(export.symbolic_shape(axes, scope=scope), kind)
        for name, (axes, kind) in program.inputs.items()
    }

    def function(params: Any, inputs: Any) -> Array:
        trees = {name: unflatten_dict(tensors, sep="/") for name, tensors in params.items()}
        return program.function(trees, inputs)

    with any_platform():
        return bytes(export.export(jax.jit(function), platforms=PLATFORMS)(params, inputs).serialize())


def write_programs(folder: Path, config: PhenakiConfig | CViViTConfig, sampling: SamplingConfig) -> None:
    """Writes a model's programs, what they take, and run.py, which calls them, to a folder beside model.json.

    Args:
      folder: stablehlo/ of an exported model.
      config: of the model.
      sampling: how tokens are drawn.
    """
    folder.mkdir()
    told = {}
    for name, program in programs_of(config, sampling).items():
        content = export_program(program, config)
        file = folder / f"{name}.jax_export"
        file.write_bytes(content)
        told[name] = {
            "file": file.name,
            "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
            "networks": program.networks,
            "inputs": {input: f"{kind} [{axes}]" for input, (axes, kind) in program.inputs.items()},
            "limits": program.limits,
            "output": program.output,
        }
    about = {
        "format": standalone.FORMAT,
        "jax": jax.__version__,
        "platforms": PLATFORMS,
        "model_json": hashlib.sha256((folder.parent / MODEL_FILE).read_bytes()).hexdigest(),
        "programs": told,
    }
    (folder / PROGRAMS_FILE).write_text(json.dumps(about, indent=2) + "\n")
    for file in standalone.FILES:
        shutil.copyfile(file, folder / file.name)


def _video_axes(config: CViViTConfig) -> str:
    """Axes of videos of any number of time steps, from 1: 1 + (times - 1) * temporal_patch frames."""
    patch, spans = config.patch, config.temporal_patch
    return f"batch, {spans}*times - {spans - 1}, {patch}*rows, {patch}*columns, 3"


def _window_programs(config: PhenakiConfig, sampling: SamplingConfig) -> dict[str, Program]:
    tokenizer, length, texts = config.tokenizer, config.text_length, {}
    if config.text is not None:
        texts = {
            "text_tokens": (f"batch, {length}", "int32"),
            "text_mask": (f"batch, {length}", "bool"),
            "guidance": ("", "float32"),
        }
    # The key of a row is that of its seed, folded with the number of the window: as in a story.
    drawn = {**texts, "seeds": ("batch", "uint32"), "window": ("", "uint32")}
    side, spans = tokenizer.frame_size, tokenizer.temporal_patch
    networks = tuple(parameter_shapes(config))
    output = f"video uint8 [batch, {tokenizer.frames}, {side}, {side}, 3]"

    def draw(params: Any, inputs: Mapping[str, Array]) -> Array:
        return _draw(config, sampling, params, inputs)

    given = {"prefix": (f"batch, {spans}*given - {spans - 1}, {side}, {side}, 3", "uint8")}
    programs = {"generate_window": Program(networks, drawn, output, draw)}
    if (times := config.token_shape[0]) > 1:
        limits = ("batch*given >= batch", f"given <= {times - 1}")
        programs["continue_window"] = Program(networks, {**drawn, **given}, output, draw, limits)
    return programs


def _encode(config: CViViTConfig, params: Any, video: Array) -> Array:
    return apply(CViViT(config), params, pixels.to_float(video), method="encode")


def _decode(config: CViViTConfig, params: Any, tokens: Array) -> Array:
    return pixels.to_uint8(apply(CViViT(config), params, tokens, method="decode"))


def _draw(config: PhenakiConfig, sampling: SamplingConfig, params: Any, inputs: Mapping[str, Array]) -> Array:
    seeds, side = inputs["seeds"], config.tokenizer.frame_size
    rngs = jax.vmap(lambda seed: jax.random.fold_in(jax.random.key(seed), inputs["window"]))(seeds)
    texts: WindowTexts | None = None
    if config.text is not None:
        tokens, mask = inputs["text_tokens"], inputs["text_mask"]
        texts = single_texts(encode_text(config, params["text"], tokens, mask), mask)
    nothing = jnp.zeros((seeds.shape[0], 0, side, side, 3), jnp.uint8)
    prefix = inputs.get("prefix", nothing)
    return generate_window(config, sampling, params, texts, prefix, rngs, guidance=inputs.get("guidance"))
