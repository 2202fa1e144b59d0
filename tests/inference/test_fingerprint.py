"""Parameters are told by their names and values, the same wherever they are."""

import hashlib

import jax.numpy as jnp
import numpy as np
import pytest

from phenaki_jax.inference.fingerprint import fingerprint, model_fingerprint, network_fingerprints

PARAMS = {"b": np.array([0.5], np.float32), "a": {"kernel": np.array([[1, 2]], np.float32)}}


def test_it_is_of_names_and_values_in_the_order_of_names() -> None:
    """As data that was precomputed long ago tells of its tokenizer: it has to stay."""
    content = b"a/kernel" + np.array([1, 2], "<f4").tobytes() + b"b" + np.array([0.5], "<f4").tobytes()
    assert fingerprint(PARAMS) == hashlib.sha256(content).hexdigest()[:16]


@pytest.mark.parametrize(
    "same",
    [
        {"a/kernel": PARAMS["a"]["kernel"], "b": PARAMS["b"]},
        {"a": {"kernel": jnp.array([[1, 2]], jnp.bfloat16)}, "b": jnp.array([0.5])},
        {"a": {"kernel": np.array([[1, 9, 2]], np.float32)[:, ::2]}, "b": PARAMS["b"]},
    ],
    ids=["named by paths", "on a device, in half precision", "not beside each other in memory"],
)
def test_it_is_the_same_wherever_the_values_are(same: dict) -> None:
    assert fingerprint(same) == fingerprint(PARAMS)


@pytest.mark.parametrize("other", [{"b": np.array([0.25], np.float32)}, {"a": {"bias": PARAMS["a"]["kernel"]}}])
def test_another_value_or_name_makes_another(other: dict) -> None:
    assert fingerprint({**PARAMS, **other}) != fingerprint(PARAMS)


def test_a_models_is_that_of_its_networks() -> None:
    networks = network_fingerprints({"tokenizer": PARAMS, "text": {"b": PARAMS["b"]}})
    assert networks["tokenizer"] == fingerprint(PARAMS)
    told = f"text {networks['text']}\ntokenizer {networks['tokenizer']}\n"
    assert model_fingerprint(networks) == hashlib.sha256(told.encode()).hexdigest()[:16]
