"""What every test runs under: four CPU devices, warnings as errors, and types, shapes and promotions checked."""

import gc
import os
import pathlib
from collections.abc import Iterator

TESTS = pathlib.Path(__file__).parent

# The environment, not jax.config, so that the processes which tests start run under the same.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Devices that share busy cores may come to where they meet later than the 40 seconds after which XLA ends a process.
PATIENT = "--xla_cpu_collective_call_terminate_timeout_seconds=600"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {PATIENT} --xla_force_host_platform_device_count=4"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(TESTS.parent / ".pytest_cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import jaxtyping

jaxtyping.install_import_hook("phenaki_jax", "beartype.beartype")

import hypothesis
import jax
import pytest

hypothesis.settings.register_profile("repeatable", deadline=None, derandomize=True)
hypothesis.settings.load_profile("repeatable")

# Elsewhere optax and clu run, whose own arithmetic mixes types.
ROOMS_OF_STRICT_PROMOTION = {"layers", "features", "text", "tokenizer", "transformer", "inference"}
# Products, or what goes on around a step, are tested here; kernels as users compile them are tested elsewhere.
ROOMS_COMPILED_QUICKLY = {"training", "cli", "tokenizer", "transformer", "inference", "evaluation", "features"}


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Types and shapes are not checked, as users run it."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="module", autouse=True)
def programs_let_go() -> Iterator[None]:
    """Each compiled program holds memory maps, of which Linux gives a process 65530; LLVM crashes at the next."""
    yield
    jax.clear_caches()
    gc.collect()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Implicit promotion of dtypes is an error in the rooms where all arithmetic is ours, fixtures included."""
    room = item.path.relative_to(TESTS).parts[0]
    quickly = room in ROOMS_COMPILED_QUICKLY and item.get_closest_marker("slow") is None
    jax.config.update("jax_disable_most_optimizations", quickly)
    with jax.numpy_dtype_promotion("strict" if room in ROOMS_OF_STRICT_PROMOTION else "standard"):
        return (yield)
