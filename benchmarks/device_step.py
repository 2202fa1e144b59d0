"""A configured training step on the devices that are here: seconds, and model FLOPs utilization.

    make bench BENCH=device_step ARGS="--gin_file gin_configs/runs/phenaki_900m.gin"

The step is the one that `phenaki train` runs, compiled for all devices, on random data in the shapes of its feed;
no file is read. Useful FLOPs are those of the model and its gradients, each once, counted as `phenaki compile` counts
them; the peak is what the maker names for dense bfloat16 products.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from phenaki_jax.errors import UserError
from phenaki_jax.training import state as state_lib
from phenaki_jax.training.learner import Learner
from phenaki_jax.training.pods import programs
from phenaki_jax.training.pods.topology import CHIPS
from phenaki_jax.training.sharding import MeshConfig
from phenaki_jax.training.train import settings_of

# Dense bfloat16, as NVIDIA's data sheets say; and how JAX calls TPUs.
_GPUS = {"H100": 989.4e12, "H200": 989.4e12, "A100": 312e12, "B200": 2250e12, "L4": 121e12}
_TPUS = {"v4": "v4", "v5 lite": "v5e", "v5": "v5p", "v6 lite": "v6e", "TPU7x": "tpu7x"}
_WARM_UP = 3
_AIMS = {"mfu": ">= 0.45"}


def peak_of(device: Any) -> float:
    """FLOP/s of a device in bfloat16; nan of one that is not known."""
    for name, flops in _GPUS.items():
        if name in device.device_kind:
            return flops
    for name, chip in _TPUS.items():
        if device.device_kind in (f"TPU {name}", name):
            return CHIPS[chip].flops / CHIPS[chip].devices
    return float("nan")


def measure(settings: dict[str, Any], rows: int, steps: int, trace: str) -> dict[str, Any]:
    """Figures of a step.

    Args:
      settings: arguments of `loop.train`.
      rows: of a batch, over all devices.
      steps: that are timed.
      trace: folder for a profile of three more; empty for none.
    """
    learner = settings["learner"]
    layout = (settings.get("mesh_config") or MeshConfig()).make()
    program = programs.make_program("train", settings, layout, rows)
    spec, batch_spec = program.arguments
    transform = state_lib.transform_of(learner, settings["optimizer"])
    began = time.perf_counter()
    step = programs.compile_program(program, layout)
    compiled_in = time.perf_counter() - began
    rng = np.random.default_rng(0)
    with layout.applied():
        begin = functools.partial(begun_state, learner, transform, spec)
        state = jax.jit(begin, out_shardings=jax.tree.map(lambda leaf: leaf.sharding, spec))()
        batch = {
            name: jax.device_put(random_array(name, each, rng), each.sharding)
            for name, each in sorted(batch_spec.items())
        }
        seconds = []
        for number in range(_WARM_UP + steps):
            began = time.perf_counter()
            state, seen = step(state, batch)
            jax.block_until_ready((state, seen))
            if number >= _WARM_UP:
                seconds.append(time.perf_counter() - began)
        profile = jax.profiler.trace(trace) if trace else contextlib.nullcontext()
        with profile:
            for _ in range(3 if trace else 0):
                state, seen = step(state, batch)
                jax.block_until_ready((state, seen))
    device, median = jax.devices()[0], statistics.median(seconds)
    peak = peak_of(device) * jax.device_count()
    memory = device.memory_stats() or {}
    values = {name: float(value) for name, value in seen.compute().items() if np.ndim(value) == 0}
    return {
        "device": device.device_kind,
        "devices": jax.device_count(),
        "rows": rows,
        "median_ms": 1000 * median,
        "fastest_ms": 1000 * min(seconds),
        "compile_s": compiled_in,
        "useful_tflop": program.useful_flops / 1e12,
        "tflop_per_s": program.useful_flops / median / 1e12,
        "mfu": program.useful_flops / median / peak,
        "peak_memory_gib": memory.get("peak_bytes_in_use", float("nan")) / 2**30,
        "loss": values["loss"],
    }


def begun_state(learner: Learner, transform: optax.GradientTransformation, spec: state_lib.TrainState) -> Any:
    """A state at step 0, whose frozen parameters are zeros."""
    params = nn.unbox(learner.init_params(jax.random.key(0)))
    scalar = jnp.zeros((), jnp.int32)
    return state_lib.TrainState(
        step=scalar,
        params=params,
        average={name: jax.tree.map(jnp.copy, params[name]) for name in spec.average},
        statistics=learner.initial_statistics(),
        frozen=jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), spec.frozen),
        optimizer=transform.init(params),
        seed=scalar,
    )


def random_array(name: str, spec: jax.ShapeDtypeStruct, rng: np.random.Generator) -> np.ndarray:
    """Of no meaning, but nothing is padding."""
    if "segment_ids" in name or name == "filled":
        return np.ones(spec.shape, spec.dtype)
    if spec.dtype == np.bool_:
        return np.zeros(spec.shape, bool) if name == "known" else np.ones(spec.shape, bool)
    if np.issubdtype(spec.dtype, np.integer):
        return rng.integers(0, 256, spec.shape).astype(spec.dtype)
    return rng.standard_normal(spec.shape, np.float32).astype(spec.dtype)


def main() -> int:
    """Prints a line of JSON with the figures; 1 where an aim is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gin_file", action="append", required=True, metavar="FILE")
    parser.add_argument("--batch", type=int, help="rows, over all devices; as in the run file unless given")
    parser.add_argument("--steps", type=int, default=10, help="timed")
    parser.add_argument("--trace", default="", metavar="FOLDER", help="writes a profile of three steps there")
    args, rest = parser.parse_known_args()
    bindings = [each.removeprefix("--gin.") for each in rest]
    try:
        settings = settings_of(args.gin_file, bindings, stand_ins=True)
        figures = measure(settings, args.batch or settings["data"].batch_size, args.steps, args.trace)
    except (UserError, programs.DoesNotFitError) as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps({"benchmark": Path(__file__).stem, **figures, "aims": _AIMS}))
    return 0 if figures["mfu"] >= 0.45 else 1


if __name__ == "__main__":
    sys.exit(main())
