"""Equality of phenaki_jax.text.t5 with transformers' T5 and umT5 encoders, same random weights, on CPU.

    make bench BENCH=t5_oracle
    make bench BENCH=t5_oracle ARGS=--write-fixtures

Compared are the embeddings of padded texts, where there is text, in float32; an error is the largest absolute
difference. Sizes are T5 1.1 small, which flan-T5 small shares, umT5 small with its whole vocabulary, and one with the
layers and heads of XXL but narrower. Models that transformers wrote to safetensors, in one file and in several, with
the decoder and without, are read and compared tensor by tensor.

With `--write-fixtures`, what tests/text reads is written instead: a checkpoint and outputs of transformers. Those of
t5x come from `python benchmarks/t5_oracle.py --write-t5x-fixtures`, in an environment that has t5x
(https://github.com/google-research/t5x, which is not on PyPI): small checkpoints that its own two checkpointers wrote
of its T5 1.1 and of its scanned T5, as umT5 is released, and outputs of both.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import shutil
import sys
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np

from phenaki_jax import __version__
from phenaki_jax.layers.module import apply
from phenaki_jax.text.t5 import T5Config, T5Encoder
from phenaki_jax.text.t5_checkpoints import load_t5, t5_config_of
from phenaki_jax.text.testing import TINY, TINY_UMT5, random_t5, random_texts

_AIM = 1e-5
_FIXTURES = Path(__file__).parent.parent / "tests" / "text" / "fixtures"
_NARROW_XXL = T5Config.named("xxl", vocabulary_size=1000, width=256, mlp_width=512)
_CONFIGS = {"small": T5Config.named("small"), "narrow_xxl": _NARROW_XXL, "umt5_small": T5Config.named("umt5_small")}
# One text as long as the window of pretraining.
_LENGTHS = (64, 512, 1, 200)


def state_dict(config: T5Config, params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The tensors of a T5EncoderModel or UMT5EncoderModel."""
    tensors = {"shared.weight": params["embedding"], "encoder.embed_tokens.weight": params["embedding"]}
    tensors["encoder.final_layer_norm.weight"] = params["final_norm"]["scale"]
    for index in range(config.layers):
        layer = jax.tree.map(lambda stacked, index=index: stacked[index], params["layers"])
        attention, mlp = f"encoder.block.{index}.layer.0", f"encoder.block.{index}.layer.1"
        for name, kernel in (("q", "query"), ("k", "key"), ("v", "value")):
            tensors[f"{attention}.SelfAttention.{name}.weight"] = layer[kernel].reshape(config.width, -1).T
        tensors[f"{attention}.SelfAttention.o.weight"] = layer["attention_out"].reshape(-1, config.width).T
        tensors[f"{attention}.layer_norm.weight"] = layer["attention_norm"]["scale"]
        for name, kernel in (("wi_0", "mlp_gate"), ("wi_1", "mlp_into"), ("wo", "mlp_out")):
            tensors[f"{mlp}.DenseReluDense.{name}.weight"] = layer[kernel].T
        tensors[f"{mlp}.layer_norm.weight"] = layer["mlp_norm"]["scale"]
        if config.bias_per_layer or index == 0:
            bias = layer["position_bias"] if config.bias_per_layer else params["position_bias"]
            tensors[f"{attention}.SelfAttention.relative_attention_bias.weight"] = bias.T
    return tensors


def transformers_model(config: T5Config, params: Mapping[str, Any], with_decoder: bool = False) -> Any:
    """A model of transformers whose encoder has these parameters."""
    import torch
    import transformers

    kind = "UMT5" if config.bias_per_layer else "T5"
    sizes = getattr(transformers, f"{kind}Config")(
        vocab_size=config.vocabulary_size,
        d_model=config.width,
        d_kv=config.head_width,
        d_ff=config.mlp_width,
        num_layers=config.layers,
        num_heads=config.heads,
        relative_attention_num_buckets=config.buckets,
        relative_attention_max_distance=config.longest_distance,
        num_decoder_layers=1,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
    )
    model = getattr(transformers, f"{kind}{'ForConditionalGeneration' if with_decoder else 'EncoderModel'}")(sizes)
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in state_dict(config, params).items()}
    found = model.load_state_dict(tensors, strict=False)
    assert not found.unexpected_keys
    assert all(name.startswith(("decoder.", "lm_head.")) for name in found.missing_keys)
    return model.eval().requires_grad_(False)


def transformers_outputs(model: Any, tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """What the encoder of a model makes of texts."""
    import torch

    inputs = {"input_ids": torch.from_numpy(tokens.astype(np.int64)), "attention_mask": torch.from_numpy(mask)}
    return model.encoder(**inputs).last_hidden_state.numpy()


def compare() -> dict[str, float]:
    """The largest absolute difference where there is text, by the name of the size."""
    errors = {}
    for name, config in _CONFIGS.items():
        params, (tokens, mask) = random_t5(config), random_texts(config, _LENGTHS)
        expected = transformers_outputs(transformers_model(config, params), tokens, mask)
        found = np.asarray(jax.jit(functools.partial(apply, T5Encoder(config)))(params, tokens, mask))
        assert not found[~mask].any()
        errors[name] = float(np.abs(found - expected)[mask].max())
        print(f"{name}: largest difference {errors[name]:.2g}", file=sys.stderr)
    return errors


def compare_files() -> dict[str, int]:
    """How many of the parameters differ in any value after transformers wrote and `load_t5` read them."""
    differing = {}
    for name, config, with_decoder, shard in (
        ("small", T5Config.named("small"), False, "5GB"),
        ("small_in_shards", T5Config.named("small"), False, "20MB"),
        ("flan_small", T5Config.named("small"), True, "5GB"),
        ("umt5", dataclasses.replace(TINY_UMT5, layers=3), True, "5GB"),
    ):
        params = random_t5(config)
        with tempfile.TemporaryDirectory() as folder:
            transformers_model(config, params, with_decoder).save_pretrained(folder, max_shard_size=shard)
            files = sorted(file.name for file in Path(folder).glob("*.safetensors"))
            assert (len(files) > 1) == (shard == "20MB"), files
            found_config = dataclasses.replace(t5_config_of(folder), length=config.length)
            assert found_config == config, found_config
            found = load_t5(folder, config)
        equal = jax.tree.map(np.array_equal, found, params)
        differing[name] = sum(not each for each in jax.tree.leaves(equal))
        print(f"{name}: {len(files)} files, {differing[name]} tensors differ", file=sys.stderr)
    return differing


def write_fixtures(folder: Path) -> None:
    """Writes a small model as transformers does, and what two of its models make of texts."""
    folder.mkdir(parents=True, exist_ok=True)
    models = {
        name: transformers_model(config, random_t5(config), with_decoder=True)
        for name, config in (("t5", TINY), ("umt5", TINY_UMT5))
    }
    outputs = {name: transformers_outputs(model, *random_texts(TINY)) for name, model in models.items()}
    with tempfile.TemporaryDirectory() as written:
        models["t5"].save_pretrained(written)
        shutil.copyfile(Path(written) / "model.safetensors", folder / "transformers_t5.safetensors")
    np.savez_compressed(folder / "transformers.npz", **outputs)
    _tell_sizes(folder)


def write_t5x_fixtures(folder: Path) -> None:
    """Writes small checkpoints of t5x, as archives, and what its networks make of texts."""
    import jax.numpy as jnp
    from flax.core import unfreeze
    from t5x import checkpoints, models, optimizers, partitioning, utils
    from t5x.adafactor import Adafactor
    from t5x.examples.scalable_t5 import network as scanned_network
    from t5x.examples.t5 import network

    folder.mkdir(parents=True, exist_ok=True)
    outputs = {}
    for name, config, library in (("t5", TINY, network), ("umt5", TINY_UMT5, scanned_network)):
        sizes = library.T5Config(
            vocab_size=config.vocabulary_size,
            emb_dim=config.width,
            num_heads=config.heads,
            num_encoder_layers=config.layers,
            num_decoder_layers=1,
            head_dim=config.head_width,
            mlp_dim=config.mlp_width,
            mlp_activations=("gelu", "linear"),
            dropout_rate=0.0,
        )
        module = library.Transformer(sizes)
        optimizer = optimizers.sgd(0.1) if config.bias_per_layer else Adafactor(0.1)  # which knows no kernels of layers
        model = models.EncoderDecoderModel(module, None, None, optimizer)
        shapes = {"encoder_input_tokens": (1, 4), "decoder_input_tokens": (1, 4)}
        partitioner = partitioning.PjitPartitioner(num_partitions=1)
        initializer = utils.TrainStateInitializer(model.optimizer_def, model.get_initial_variables, shapes, partitioner)
        state = initializer.from_scratch(jax.random.key(0))
        target = unfreeze(state.params)
        (_scanned_tree if config.bias_per_layer else _tree)(target, config, random_t5(config))
        state = state.replace_params(jax.tree.map(jnp.asarray, target))
        tokens, mask = random_texts(config)
        assert (mask == (tokens > 0)).all()
        outputs[name] = np.asarray(module.apply({"params": target}, tokens, enable_dropout=False, method=module.encode))
        options = {"train_state": state, "partitioner": partitioner}
        with tempfile.TemporaryDirectory() as written:
            checkpoints.Checkpointer(checkpoints_dir=written, **options).save(state)
            shutil.make_archive(str(folder / f"t5x_legacy_{name}"), "xztar", written)
        if config.bias_per_layer:
            continue  # released in the older form alone
        with tempfile.TemporaryDirectory() as written:
            writer = checkpoints.OrbaxCheckpointManagerInterface(directory=written, **options)
            writer.save(state)
            writer.wait_until_finished()
            shutil.make_archive(str(folder / f"t5x_orbax_{name}"), "xztar", written)
    np.savez_compressed(folder / "t5x.npz", **outputs)
    _tell_sizes(folder)


def _tree(target: dict[str, Any], config: T5Config, params: Mapping[str, Any]) -> None:
    """Puts parameters where t5x's examples/t5 has them."""
    target["token_embedder"]["embedding"] = params["embedding"]
    target["encoder"]["relpos_bias"]["rel_embedding"] = params["position_bias"]
    target["encoder"]["encoder_norm"]["scale"] = params["final_norm"]["scale"]
    for index in range(config.layers):
        layer, found = target["encoder"][f"layers_{index}"], params["layers"]
        for kernel in ("query", "key", "value"):
            layer["attention"][kernel]["kernel"] = found[kernel][index].reshape(config.width, -1)
        layer["attention"]["out"]["kernel"] = found["attention_out"][index].reshape(-1, config.width)
        for name, kernel in (("wi_0", "mlp_gate"), ("wi_1", "mlp_into"), ("wo", "mlp_out")):
            layer["mlp"][name]["kernel"] = found[kernel][index]
        layer["pre_attention_layer_norm"]["scale"] = found["attention_norm"]["scale"][index]
        layer["pre_mlp_layer_norm"]["scale"] = found["mlp_norm"]["scale"][index]


def _scanned_tree(target: dict[str, Any], config: T5Config, params: Mapping[str, Any]) -> None:
    """Puts parameters where t5x's examples/scalable_t5 has them, layers along the second axis."""
    layers = jax.tree.map(lambda stacked: np.moveaxis(stacked, 0, 1), params["layers"])
    target["token_embedder"]["embedding"] = params["embedding"]
    target["encoder"]["encoder_norm"]["scale"] = params["final_norm"]["scale"]
    encoder = target["encoder"]["encoder"]
    encoder["relpos_bias"]["rel_embedding"] = layers["position_bias"]
    for name, kernel in (("query", "query"), ("key", "key"), ("value", "value"), ("out", "attention_out")):
        encoder["attention"][name]["kernel"] = layers[kernel]
    for name, kernel in (("wi_0", "mlp_gate"), ("wi_1", "mlp_into"), ("wo", "mlp_out")):
        encoder["mlp"][name]["kernel"] = layers[kernel]
    encoder["pre_attention_layer_norm"]["scale"] = layers["attention_norm"]["scale"]
    encoder["pre_mlp_layer_norm"]["scale"] = layers["mlp_norm"]["scale"]


def _tell_sizes(folder: Path) -> None:
    for path in sorted(folder.iterdir()):
        print(f"{path.name}: {path.stat().st_size} bytes", file=sys.stderr)


def _report() -> dict[str, Any]:
    errors, differing = compare(), compare_files()
    versions = {name: version(name) for name in ("torch", "transformers", "jax", "flax", "numpy", "safetensors")}
    return {
        "name": "t5_oracle",
        "unit": "largest absolute difference; tensors that differ after reading",
        "aims": {"largest": f"<= {_AIM}", "differing_tensors": "0"},
        "largest": max(errors.values()),
        "errors": {name: float(f"{error:.3g}") for name, error in errors.items()},
        "differing_tensors": sum(differing.values()),
        "files": differing,
        "lengths": _LENGTHS,
        "versions": {"phenaki_jax": __version__, **versions},
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write-fixtures", action="store_true", help=f"write {_FIXTURES} instead of comparing")
    parser.add_argument("--write-t5x-fixtures", action="store_true", help="write those of t5x, which has to be there")
    return parser.parse_args()


if __name__ == "__main__":
    arguments = _arguments()
    if arguments.write_fixtures:
        write_fixtures(_FIXTURES)
    elif arguments.write_t5x_fixtures:
        write_t5x_fixtures(_FIXTURES)
    else:
        report = _report()
        print(json.dumps(report))
        sys.exit(not (report["largest"] <= _AIM and not report["differing_tensors"]))
