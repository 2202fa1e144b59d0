"""What JSON made of a configuration becomes that configuration again."""

import dataclasses
import json

import pytest

from phenaki_jax.errors import UserError
from phenaki_jax.inference.plain_data import from_plain
from phenaki_jax.inference.testing import tiny_config
from phenaki_jax.inference.window import PhenakiConfig
from phenaki_jax.tokenizer.config import CViViTConfig, QuantizerConfig


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Some of each kind."""

    count: int
    share: float = 0.5
    names: tuple[str, ...] = ()
    seed: int | None = None


@pytest.mark.parametrize(
    "config", [tiny_config(), CViViTConfig(quantizer=QuantizerConfig(kind="fsq", levels=(8, 5))), Sizes(1, 2.0, ("a",))]
)
def test_configurations_survive_json(config: object) -> None:
    assert from_plain(type(config), json.loads(json.dumps(dataclasses.asdict(config))), "here") == config


def test_whole_numbers_are_numbers() -> None:
    found = from_plain(Sizes, {"count": 1, "share": 2}, "here")
    assert found == Sizes(1, 2.0)
    assert isinstance(found.share, float)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], r"here: found \[\], expected count, share, names, seed"),
        ({}, "here: found no count, expected count"),
        ({"count": 1, "cuont": 2}, "here: found the unknown key 'cuont'"),
        ({"count": True}, "here, count: found True, expected a whole number"),
        ({"count": 1.0}, "here, count: found 1.0, expected a whole number"),
        ({"count": 1, "share": "1"}, "here, share: found '1', expected a number"),
        ({"count": 1, "names": "ab"}, "here, names: found 'ab', expected a list"),
        ({"count": 1, "names": ["a", 2]}, "here, names, item 2: found 2, expected text; put it in quotes"),
    ],
)
def test_what_is_not_declared_is_refused_with_its_place(value: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        from_plain(Sizes, value, "here")


def test_what_a_configuration_refuses_is_told_with_its_place() -> None:
    plain = dataclasses.asdict(tiny_config())
    plain["tokenizer"]["patch"] = 7
    with pytest.raises(UserError, match=r"model\.json, tokenizer: patch 7"):
        from_plain(PhenakiConfig, plain, "model.json")
