"""Programs of a training, compiled for devices that need not be there."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from phenaki_jax.errors import UserError
from phenaki_jax.inference.window import encode_text, generate_window, single_texts
from phenaki_jax.layers import pixels
from phenaki_jax.layers.module import apply
from phenaki_jax.tokenizer.cvivit import CViViT
from phenaki_jax.training import state as state_lib
from phenaki_jax.training.learner import Learner
from phenaki_jax.training.pods.flops import count_flops, with_remat
from phenaki_jax.training.sharding import Layout
from phenaki_jax.training.transformer_learner import TransformerLearner

PROGRAMS = ("train", "sample", "tokens", "texts")
# The compiler says it in two ways, of which the second leaves out what the program is given.
_RAN_OUT = re.compile(
    r"(?:Used |temporaries \()([0-9.]+)([KMGT])\)?(?: of | exceeds available HBM \()([0-9.]+)([KMGT])"
)
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


class Program(NamedTuple):
    """What a pod is to run.

    Attributes:
      function: of the arguments.
      arguments: shapes, with shardings.
      kinds: the arguments by what they are, for a person to read.
      donated: which argument is used up.
      out_shardings: of what comes out; None for whatever the compiler likes.
      useful_flops: that the program asks for on all devices together, nothing computed a second time.
    """

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    kinds: dict[str, Any]
    donated: tuple[int, ...]
    out_shardings: Any
    useful_flops: float


class DoesNotFitError(Exception):
    """The compiler needs more memory than a chip has.

    Args:
      needed: bytes of a device.
      there: bytes that it has.
    """

    def __init__(self, needed: float, there: float) -> None:
        super().__init__(f"needs {needed / 2**30:.1f} GiB of {there / 2**30:.1f} GiB")
        self.needed, self.there = needed, there


def make_program(name: str, settings: dict[str, Any], layout: Layout, rows: int) -> Program:
    """A program of `PROGRAMS`.

    "train" is a step of the training, "sample" draws a window of video for each row, "tokens" encodes clips, and
    "texts" captions, as `phenaki precompute` does.

    Args:
      name: of the program.
      settings: arguments of `loop.train`.
      layout: of the devices.
      rows: of a batch, over all devices.

    Raises:
      UserError: the training has no such program, or its batch or its parameters cannot be divided as the layout asks.
    """
    config = settings.get("step_config") or state_lib.StepConfig()
    parts = layout.batch_parts * (config.microbatches if name == "train" else 1)
    if rows % parts:
        raise UserError(
            f"found a batch of {rows}, expected a multiple of {parts}, the parts that {layout.rules} and microbatches "
            f"make of it on {layout.mesh.size} devices"
        )
    return _train(settings, layout, rows) if name == "train" else _draw_or_encode(name, settings, layout, rows)


def _train(settings: dict[str, Any], layout: Layout, rows: int) -> Program:
    learner: Learner = settings["learner"]
    config = settings.get("step_config") or state_lib.StepConfig()
    data = settings["data"]
    transform = state_lib.transform_of(learner, settings["optimizer"])
    spec = state_lib.state_spec(learner, transform, layout, config)
    images = 1 + (learner.frames - 1) // learner.temporal_patch if data.pack_images else 1
    batch = _batch(learner, rows, images, layout)
    step = functools.partial(state_lib.train_step, learner, transform, config)
    once = with_remat(learner, "none")
    if isinstance(once, TransformerLearner):
        once = dataclasses.replace(once, loss_parts=1)
    plain = functools.partial(state_lib.train_step, once, transform, state_lib.StepConfig())
    kinds = {
        "parameters": spec.params,
        "averages": spec.average,
        "optimizer": spec.optimizer,
        "frozen parameters": spec.frozen,
        "statistics": spec.statistics,
        "batch": batch,
    }
    places = (jax.tree.map(lambda leaf: leaf.sharding, spec), None)
    return Program(step, (spec, batch), kinds, (0,), places, _count(plain, spec, batch))


def _draw_or_encode(name: str, settings: dict[str, Any], layout: Layout, rows: int) -> Program:
    learner = settings["learner"]
    if not isinstance(learner, TransformerLearner):
        raise UserError(
            f"found program {name!r} of a tokenizer's training, expected train, or a transformer's run file"
        )
    model, dtype = learner.model, jnp.dtype(learner.dtype)
    if name == "texts" and not model.has_frozen_text:
        raise UserError("found program 'texts' of a model without a frozen text encoder, expected one with a T5")
    raw = dataclasses.replace(learner, precomputed="") if name != "sample" else learner
    # What is used, in the type it is computed in.
    boxed = {**raw.frozen_spec(), **jax.eval_shape(learner.init_params, jax.random.key(0))}
    wanted = {"texts": ("text",), "tokens": ("tokenizer",)}.get(name, ("tokenizer", "transformer", "critic"))
    params = _placed({part: tree for part, tree in boxed.items() if part in wanted}, layout)
    batch = _batch(raw, rows, 1, layout)
    if name == "tokens":

        def encode(params: Any, video: Any) -> Any:
            return apply(CViViT(model.tokenizer), params["tokenizer"], pixels.to_float(video), method="encode")

        return _forward(encode, params, (batch["video"],))
    if name == "texts":

        def embed(params: Any, tokens: Any, mask: Any) -> Any:
            return encode_text(model, params["text"], tokens, mask, dtype)

        return _forward(embed, params, (batch["text_tokens"], batch["text_mask"]))
    side, length, width = model.tokenizer.frame_size, model.text_length, model.transformer.text_width
    texts = _on((rows, length, width), dtype, layout), _on((rows, length), jnp.bool_, layout)
    seeds = _on((rows,), jnp.int32, layout)

    def draw(params: Any, embeddings: Any, mask: Any, seeds: Any) -> Any:
        shown = single_texts(embeddings, mask) if width else None
        nothing = jnp.zeros((rows, 0, side, side, 3), jnp.uint8)
        rngs = jax.vmap(jax.random.key)(seeds)
        return generate_window(model, learner.sampling, params, shown, nothing, rngs, dtype)

    return _forward(draw, params, (*texts, seeds))


def _forward(function: Callable[..., Any], params: Any, inputs: tuple[Any, ...]) -> Program:
    arguments = (params, *inputs)
    return Program(function, arguments, {"parameters": params, "batch": inputs}, (), None, _count(function, *arguments))


def _batch(learner: Learner, rows: int, images: int, layout: Layout) -> dict[str, jax.ShapeDtypeStruct]:
    return {name: _on(each.shape, each.dtype, layout) for name, each in learner.batch_spec(rows, images).items()}


def _on(shape: tuple[int, ...], dtype: Any, layout: Layout) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype, sharding=layout.batch)


def _placed(boxed: Any, layout: Layout) -> Any:
    place = lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where)  # noqa: E731
    return jax.tree.map(place, nn.unbox(boxed), layout.parameters(boxed))


def _count(function: Callable[..., Any], *arguments: Any) -> float:
    """Traced as on one device, where attention is plain products."""
    bare = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), arguments)
    return count_flops(jax.make_jaxpr(function)(*bare).jaxpr)


def compile_program(program: Program, layout: Layout, options: dict[str, Any] | None = None) -> jax.stages.Compiled:
    """The program as the devices of the layout would run it.

    Raises:
      DoesNotFitError: it needs more memory than there is.
    """
    jitted = jax.jit(
        program.function,
        donate_argnums=program.donated,
        out_shardings=program.out_shardings,
        compiler_options={**layout.compiler_options, **(options or {})},
    )
    with layout.applied():
        lowered = jitted.lower(*program.arguments)
        try:
            return lowered.compile()
        except jax.errors.JaxRuntimeError as error:
            if found := _RAN_OUT.search(str(error)):
                used, used_unit, there, there_unit = found.groups()
                sizes = (float(used) * _UNITS[used_unit], float(there) * _UNITS[there_unit])
                raise DoesNotFitError(*sizes) from error
            raise
