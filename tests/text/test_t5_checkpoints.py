"""Every form of a released checkpoint gives the same parameters, whole or in parts, and flaws are told in one line."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
import tensorstore
from flax import serialization
from safetensors.numpy import save_file

from phenaki_jax.errors import UserError
from phenaki_jax.text import t5_checkpoints
from phenaki_jax.text.stored_arrays import StoredArray, open_arrays
from phenaki_jax.text.t5 import T5Config
from phenaki_jax.text.t5_checkpoints import load_t5, t5_config_of
from phenaki_jax.text.testing import TINY, TINY_UMT5, random_t5
from phenaki_jax.training.sharding import MeshConfig

PARAMS = random_t5(TINY)
Unpack = Callable[[str], pathlib.Path]


def assert_equal(found: Any, expected: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def refusal(path: pathlib.Path, config: T5Config = TINY, told: pathlib.Path | None = None) -> str:
    """The one line that a checkpoint is refused with; it begins with, or names, what is refused."""
    with pytest.raises(UserError) as error:
        load_t5(path, config)
    assert str(told or path) in str(error.value)
    assert "\n" not in str(error.value)
    return str(error.value).replace(str(told or path), "PATH")


def t5x_tree(tensors: dict[str, np.ndarray]) -> dict[str, Any]:
    """The encoder as t5x has it, from transformers' tensors."""

    def layer(index: int) -> dict[str, Any]:
        attention, mlp = (f"encoder.block.{index}.layer.{part}" for part in (0, 1))
        projections = {"query": "q", "key": "k", "value": "v", "out": "o"}
        return {
            "attention": {
                name: {"kernel": tensors[f"{attention}.SelfAttention.{letter}.weight"].T}
                for name, letter in projections.items()
            },
            "mlp": {
                name: {"kernel": tensors[f"{mlp}.DenseReluDense.{name}.weight"].T} for name in ("wi_0", "wi_1", "wo")
            },
            "pre_attention_layer_norm": {"scale": tensors[f"{attention}.layer_norm.weight"]},
            "pre_mlp_layer_norm": {"scale": tensors[f"{mlp}.layer_norm.weight"]},
        }

    bias = tensors["encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"].T
    encoder = {
        "encoder_norm": {"scale": tensors["encoder.final_layer_norm.weight"]},
        "relpos_bias": {"rel_embedding": bias},
        **{f"layers_{index}": layer(index) for index in range(2)},
    }
    tree = {"encoder": encoder, "token_embedder": {"embedding": tensors["shared.weight"]}}
    return jax.tree.map(np.ascontiguousarray, tree)


def write_shards(folder: pathlib.Path, tensors: dict[str, np.ndarray]) -> None:
    """In two files, every other tensor in the second."""
    folder.mkdir()
    files = {name: f"model-0000{1 + place % 2}-of-00002.safetensors" for place, name in enumerate(sorted(tensors))}
    for file in set(files.values()):
        save_file({name: tensors[name] for name in tensors if files[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))


def write_orbax(folder: pathlib.Path, tree: Any, **options: bool) -> None:
    with ocp.PyTreeCheckpointer(**options) as checkpointer:
        checkpointer.save(folder.absolute(), tree)


def write_msgpack(folder: pathlib.Path, tree: Any) -> None:
    """As t5x writes what is small."""
    folder.mkdir()
    content = {"version": 3, "optimizer": {"target": tree, "state": {"step": np.int32(7)}}}
    (folder / "checkpoint").write_bytes(serialization.msgpack_serialize(content))


def write_shapes(folder: pathlib.Path, config: T5Config) -> None:
    """A checkpoint of t5x without a value in it: zarr tells the shapes before any is read."""
    heads = config.heads * config.head_width
    shapes = {"encoder_norm/scale": (config.width,), "relpos_bias/rel_embedding": (config.heads, config.buckets)}
    for layer in range(config.layers):
        of_layer = {f"attention/{name}/kernel": (config.width, heads) for name in ("query", "key", "value")}
        of_layer |= {f"mlp/{name}/kernel": (config.width, config.mlp_width) for name in ("wi_0", "wi_1")}
        of_layer |= {f"{name}/scale": (config.width,) for name in ("pre_attention_layer_norm", "pre_mlp_layer_norm")}
        of_layer |= {"attention/out/kernel": (heads, config.width), "mlp/wo/kernel": (config.mlp_width, config.width)}
        shapes |= {f"layers_{layer}/{name}": shape for name, shape in of_layer.items()}
    named = {f"target/encoder/{name}": shape for name, shape in shapes.items()}
    named["target/token_embedder/embedding"] = (config.vocabulary_size, config.width)
    write_msgpack(folder, {})
    for name, shape in named.items():
        spec = {"driver": "zarr", "kvstore": {"driver": "file", "path": f"{folder}/{name.replace('/', '.')}"}}
        tensorstore.open(spec, create=True, dtype=tensorstore.float32, shape=shape).result()


def test_checkpoints_of_t5x_are_read(t5x_checkpoint: Unpack) -> None:
    """Of both of its checkpointers; with an optimizer's state and a decoder beside."""
    for name in ("t5x_legacy_t5", "t5x_orbax_t5"):
        folder = t5x_checkpoint(name)
        assert_equal(load_t5(folder, TINY), PARAMS)
        assert t5_config_of(folder) == dataclasses.replace(TINY, length=512)


def test_scanned_checkpoints_of_t5x_are_read(t5x_checkpoint: Unpack) -> None:
    folder = t5x_checkpoint("t5x_legacy_umt5")
    assert_equal(load_t5(folder, TINY_UMT5), random_t5(TINY_UMT5))
    assert t5_config_of(folder) == dataclasses.replace(TINY_UMT5, length=512)


def test_small_arrays_in_the_file_are_read(tmp_path: pathlib.Path, tensors: dict[str, np.ndarray]) -> None:
    write_msgpack(tmp_path / "checkpoint_7", t5x_tree(tensors))
    assert_equal(load_t5(tmp_path / "checkpoint_7", TINY), PARAMS)


def test_safetensors_are_read(fixtures: pathlib.Path) -> None:
    assert_equal(load_t5(fixtures / "transformers_t5.safetensors", TINY), PARAMS)
    assert t5_config_of(fixtures / "transformers_t5.safetensors") == dataclasses.replace(TINY, length=512)


def test_safetensors_in_several_files_are_read(tmp_path: pathlib.Path, tensors: dict[str, np.ndarray]) -> None:
    write_shards(tmp_path / "model", tensors)
    assert_equal(load_t5(tmp_path / "model", TINY), PARAMS)
    assert_equal(load_t5(tmp_path / "model" / "model.safetensors.index.json", TINY), PARAMS)


@pytest.mark.parametrize("form", ["embed_tokens", "both", "encoder_alone"])
def test_other_names_of_safetensors_are_read(tmp_path: pathlib.Path, tensors: dict[str, np.ndarray], form: str) -> None:
    """An encoder's own table is the one that it reads, where the model's beside it differs."""
    tensors["encoder.embed_tokens.weight"] = tensors["shared.weight"]
    tensors["shared.weight"] = tensors["shared.weight"] + np.float32(1)
    if form != "both":
        del tensors["shared.weight"]
    if form == "encoder_alone":
        tensors = {
            name.removeprefix("encoder."): array for name, array in tensors.items() if name.startswith("encoder.")
        }
    save_file(tensors, tmp_path / "model.safetensors")
    assert_equal(load_t5(tmp_path, TINY), PARAMS)


def test_a_bias_of_each_layer_is_read_from_safetensors(tmp_path: pathlib.Path, tensors: dict[str, np.ndarray]) -> None:
    name = "encoder.block.{}.layer.0.SelfAttention.relative_attention_bias.weight"
    biases = np.stack([tensors[name.format(0)], 2 * tensors[name.format(0)]])
    save_file(tensors | {name.format(layer): biases[layer] for layer in range(2)}, tmp_path / "model.safetensors")
    found = load_t5(tmp_path, t5_config_of(tmp_path))
    np.testing.assert_array_equal(found["layers"]["position_bias"], biases.transpose(0, 2, 1))
    assert_equal(found["layers"]["query"], PARAMS["layers"]["query"])


@pytest.mark.parametrize("options", [{}, {"use_ocdbt": False}, {"use_zarr3": True}], ids=str)
@pytest.mark.parametrize("root", ["target", "params", ""])
def test_trees_of_orbax_are_read(
    tmp_path: pathlib.Path, tensors: dict[str, np.ndarray], root: str, options: dict[str, bool]
) -> None:
    tree = t5x_tree(tensors)
    write_orbax(tmp_path / "tree", {root: tree} if root else tree, **options)
    assert_equal(load_t5(tmp_path / "tree", TINY), PARAMS)


def test_half_precision_is_cast(tmp_path: pathlib.Path, tensors: dict[str, np.ndarray]) -> None:
    """To bfloat16 what products are made with; scales and biases stay whole. From it back, without another loss."""
    save_file(tensors, tmp_path / "model.safetensors")
    found = load_t5(tmp_path, TINY, dtype=jnp.bfloat16)
    assert found["layers"]["query"].dtype == found["embedding"].dtype == jnp.bfloat16
    assert found["position_bias"].dtype == found["final_norm"]["scale"].dtype == np.float32
    np.testing.assert_array_equal(found["layers"]["mlp_out"], PARAMS["layers"]["mlp_out"].astype(jnp.bfloat16))
    save_file({name: array.astype(jnp.bfloat16) for name, array in tensors.items()}, tmp_path / "model.safetensors")
    whole = load_t5(tmp_path, TINY)
    assert whole["embedding"].dtype == np.float32
    np.testing.assert_array_equal(whole["embedding"], found["embedding"].astype(np.float32))


@pytest.fixture
def read_sizes(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[int]]:
    """How many values were read at a time, by the array's name."""
    sizes: dict[str, list[int]] = {}

    def recorded(name: str, array: StoredArray) -> StoredArray:
        def read(index: tuple[slice, ...]) -> np.ndarray:
            values = array.read(index)
            sizes.setdefault(name, []).append(values.size)
            return values

        return StoredArray(array.shape, read)

    def recording(path: pathlib.Path) -> dict[str, Callable[[], StoredArray]]:
        opened = open_arrays(path).items()
        return {name: lambda name=name, opener=opener: recorded(name, opener()) for name, opener in opened}

    monkeypatch.setattr(t5_checkpoints, "open_arrays", recording)
    return sizes


@pytest.mark.parametrize("form", ["t5x_legacy_t5", "t5x_legacy_umt5", "t5x_orbax_t5", "transformers"])
def test_every_device_gets_its_own_part(
    t5x_checkpoint: Unpack, fixtures: pathlib.Path, read_sizes: dict[str, list[int]], form: str
) -> None:
    """On 2 x 2 devices a kernel is read in quarters, and layer by layer where they are apart."""
    config = TINY_UMT5 if form.endswith("umt5") else TINY
    path = fixtures / "transformers_t5.safetensors" if form == "transformers" else t5x_checkpoint(form)
    layout = MeshConfig(data=2, model=2, rules="fully_sharded").make()
    trees: list[Any] = []

    def shardings(boxed: Any) -> Any:
        trees.append(layout.parameters(boxed))
        return trees[-1]

    found = load_t5(path, config, shardings)
    assert_equal(found, random_t5(config))
    assert jax.tree.map(lambda leaf: leaf.sharding, found) == trees[0]
    queries = [sizes for name, sizes in read_sizes.items() if "query" in name or "SelfAttention.q." in name]
    quarter = 16 * 4 * 8 // 4
    assert queries == ([[2 * quarter] * 4] if config.bias_per_layer else [[quarter] * 4] * 2)
    assert_equal(load_t5(path, config, trees[0]), found)


def test_what_several_devices_hold_is_read_once(fixtures: pathlib.Path, read_sizes: dict[str, list[int]]) -> None:
    layout = MeshConfig(replica=2, data=2, rules="fully_sharded").make()
    path = fixtures / "transformers_t5.safetensors"
    found = load_t5(path, TINY, layout.parameters)
    assert_equal(found, PARAMS)
    assert len(found["layers"]["query"].addressable_shards) == 4
    assert read_sizes["encoder.block.0.layer.0.SelfAttention.q.weight"] == [16 * 4 * 8 // 2] * 2


EIGHT_DEVICES = """
import jax, numpy as np, sys
from phenaki_jax.layers.module import apply
from phenaki_jax.text.t5 import T5Encoder
from phenaki_jax.text.t5_checkpoints import load_t5
from phenaki_jax.text.testing import TINY, random_texts
from phenaki_jax.training.sharding import MeshConfig

layout = MeshConfig(data=2, model=4, rules="fully_sharded").make()
whole = load_t5(sys.argv[1], TINY)
cut = load_t5(sys.argv[1], TINY, layout.parameters)
jax.tree.map(np.testing.assert_array_equal, cut, whole)
assert len(cut["layers"]["query"].addressable_shards) == 8
assert cut["layers"]["query"].addressable_shards[0].data.shape == (2, 8, 1, 8)
encode = jax.jit(lambda params, *text: apply(T5Encoder(TINY), params, *text))
texts = random_texts(TINY)
with layout.applied():
    np.testing.assert_allclose(encode(cut, *texts), encode(whole, *texts), atol=1e-5)
print("equal")
"""


def test_eight_devices_hold_what_one_does(t5x_checkpoint: Unpack) -> None:
    environment = os.environ | {"XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=8"}
    command = [sys.executable, "-c", EIGHT_DEVICES, str(t5x_checkpoint("t5x_legacy_t5"))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.stdout == "equal\n", done.stderr


def test_a_missing_checkpoint_is_told(tmp_path: pathlib.Path) -> None:
    assert refusal(tmp_path / "absent") == "found nothing at PATH, expected a T5 checkpoint: download one and name it"


def test_what_is_no_checkpoint_is_told_by_what_is_there(tmp_path: pathlib.Path) -> None:
    wanted = "expected a T5 checkpoint: a folder of t5x or orbax, or safetensors ("
    assert f"PATH: found nothing, {wanted}" in refusal(tmp_path)
    for name in ("config.json", "pytorch_model.bin"):
        (tmp_path / name).write_bytes(b"\0")
    assert f"PATH: found config.json, pytorch_model.bin, {wanted}" in refusal(tmp_path)
    assert f"PATH: found a file, {wanted}" in refusal(tmp_path / "pytorch_model.bin")


def test_another_released_size_is_told_by_its_name(tmp_path: pathlib.Path) -> None:
    """And values that are not there are no zeros."""
    write_shapes(tmp_path / "small", T5Config.named("small"))
    right = "these are the sizes of T5 small: load them with T5Config.named('small'), or choose another checkpoint"
    told = refusal(tmp_path / "small", T5Config.named("xxl"))
    assert told == f"PATH: found token_embedder/embedding as [32128, 512], expected [32128, 4096]; {right}"
    told = refusal(tmp_path / "small", T5Config.named("small", layers=9, length=77))
    assert told.startswith("PATH: found no encoder/layers_8/")
    assert told.endswith(f", expected it in an encoder of this T5Config; {right}")
    assert t5_config_of(tmp_path / "small") == T5Config.named("small")
    assert "is damaged (" in refusal(tmp_path / "small", T5Config.named("small"))


def test_other_sizes_are_told(fixtures: pathlib.Path) -> None:
    told = refusal(fixtures / "transformers_t5.safetensors", dataclasses.replace(TINY, heads=8, mlp_width=32))
    assert told == (
        "PATH: found encoder.block.0.layer.0.SelfAttention.o.weight as [16, 32], expected [16, 64]; these are other "
        "sizes: load them with heads=4, mlp_width=24, or choose another checkpoint"
    )


def test_fewer_layers_than_there_are_is_told(fixtures: pathlib.Path) -> None:
    told = refusal(fixtures / "transformers_t5.safetensors", dataclasses.replace(TINY, layers=1))
    assert "found encoder.block.1." in told
    assert told.endswith(
        "expected none in an encoder of this T5Config; these are other sizes: load them with layers=2, or choose "
        "another checkpoint"
    )


def test_a_bias_of_each_layer_where_there_is_none_is_told(fixtures: pathlib.Path) -> None:
    told = refusal(fixtures / "transformers_t5.safetensors", TINY_UMT5)
    assert "found no encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight, expected it" in told
    assert "load them with bias_per_layer=False" in told


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "encoder.block.1.layer.1.DenseReluDense.wo.weight",
            None,
            "found no encoder.block.1.layer.1.DenseReluDense.wo",
        ),
        ("encoder.block.0.layer.0.SelfAttention.q.bias", np.zeros(32), "SelfAttention.q.bias, expected none in an"),
        ("encoder.final_layer_norm.weight", np.full(16, np.nan, np.float32), "found NaN or infinity in encoder.final"),
        ("shared.weight", np.full((64, 16), -np.inf, np.float32), "found NaN or infinity in shared.weight, expected"),
        ("shared.weight", np.zeros((64, 16), np.int8), "found shared.weight of type I8, expected one of bfloat16, "),
        ("encoder.block.0.layer.1.DenseReluDense.wi.weight", np.zeros(3), "of an MLP without a gate as T5 1.0 has it"),
        ("shared.weight", np.zeros(16), "found encoder.embed_tokens.weight as [16], expected [64, 16]; copy or"),
    ],
)
def test_the_first_flaw_is_told(
    tmp_path: pathlib.Path, tensors: dict[str, np.ndarray], name: str, value: np.ndarray | None, message: str
) -> None:
    changed = {**tensors, name: value}
    save_file({name: array for name, array in changed.items() if array is not None}, tmp_path / "model.safetensors")
    told = refusal(tmp_path)
    assert message in told
    assert "copy or download it again" in told or "take a checkpoint of one of these" in told or "I8" in told


def test_a_checkpoint_without_an_encoder_is_told(tmp_path: pathlib.Path, tensors: dict[str, np.ndarray]) -> None:
    decoder = {name: array for name, array in tensors.items() if not name.startswith("encoder.")}
    save_file(decoder, tmp_path / "model.safetensors")
    told = refusal(tmp_path)
    assert told.startswith("PATH: found no T5 encoder but decoder.block.0.layer.0.SelfAttention.k.weight, ")
    assert told.endswith("expected that of T5 1.1, flan-T5 or umT5; name another checkpoint")
    write_orbax(tmp_path / "tree", {"params": {"kernel": np.zeros(3)}})
    assert "found no T5 encoder but params/kernel, expected" in refusal(tmp_path / "tree")
    with pytest.raises(UserError, match="found no T5 encoder"):
        t5_config_of(tmp_path)


def test_a_part_of_an_encoder_has_no_sizes(tmp_path: pathlib.Path, tensors: dict[str, np.ndarray]) -> None:
    kept = {name: array for name, array in tensors.items() if "wi_0" not in name}
    save_file(kept, tmp_path / "model.safetensors")
    with pytest.raises(
        UserError, match="found a part of a T5 encoder, expected a whole one; copy or download it again"
    ):
        t5_config_of(tmp_path)
