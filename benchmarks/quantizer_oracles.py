"""Quantizers beside those of vector-quantize-pytorch, on the same features, projections and codebooks.

    make bench BENCH=quantizer_oracles

Theirs see the valid tokens alone, ours all of them with a mask. Indices are equal: both count the first bit of lfq
and bsq as the highest and the first dimension of fsq as the one that changes fastest, and shift even levels of fsq by
half a step. Values and gradients are equal to 1e-5 after this mapping, which is all that differs:

- the commitment term of cosine_vq and bsq is a squared distance here and a mean over dimensions there;
- they learn no codebook that is compared by angles, so that the codebook term of cosine_vq is that of one compared by
  distances, which gives vectors and codes of length 1 the same indices;
- they turn gradients from codes to vectors by default, and are told to hand them straight through;
- their entropies of lfq and bsq take no logarithm below that of 1e-5; in the case with a low temperature, where
  probabilities are smaller than that, the floor is lowered to 1e-30;
- they begin moving averages with one vector of each code, ours begin with none; both are begun with one here.

Gradients, of features and of the codebook, are those of the loss plus a random linear function of the quantized
features. `ARGS=--write-fixtures` also writes the file that tests/tokenizer/test_quantizers.py checks without torch.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np

from phenaki_jax import __version__
from phenaki_jax.tokenizer.config import QuantizerConfig
from phenaki_jax.tokenizer.quantizers import CodebookAverages, make_quantizer, update_codebook

FIXTURES = Path(__file__).parent.parent / "tests" / "tokenizer" / "fixtures" / "quantizer_oracles.npz"
TOLERANCE = 1e-5
WIDTH = 6
CASES = {
    "cosine_vq": QuantizerConfig("cosine_vq", codes=16, code_width=4),
    "cosine_vq_ema": QuantizerConfig("cosine_vq_ema", codes=16, code_width=4, decay=0.8, restart=0.0),
    "fsq": QuantizerConfig("fsq", levels=(4, 5, 3)),
    "fsq_even": QuantizerConfig("fsq", levels=(8, 6)),
    "lfq": QuantizerConfig("lfq", bits=5, temperature=4.0),
    "lfq_sharp": QuantizerConfig("lfq", bits=5, temperature=0.1),
    "bsq": QuantizerConfig("bsq", bits=5, temperature=1.0),
}

Arrays = dict[str, np.ndarray]


def ask_oracle(name: str, tokens: np.ndarray, slopes: np.ndarray) -> Arrays:
    """The oracle's parameters by our names, and what it makes of tokens [tokens, WIDTH], in our units.

    The linear function that is part of its gradients is the sum of what comes out times `slopes`.
    """
    import torch
    from torch.nn.functional import normalize
    from vector_quantize_pytorch import FSQ, LFQ, VectorQuantize, lookup_free_quantization

    config, expected = CASES[name], {}
    torch.manual_seed(0)
    features = torch.from_numpy(tokens)[None].requires_grad_()
    differentiated = {"gradient": features}
    if config.kind == "fsq":
        oracle = FSQ(list(config.levels), dim=WIDTH)
        quantized, indices = oracle(features)
        looked_up = oracle.indices_to_codes(torch.arange(config.codebook_size)[None])
    elif config.kind in ("lfq", "bsq"):
        floor = 1e-30 if name == "lfq_sharp" else 1e-5
        lookup_free_quantization.log = lambda shares: shares.clamp(min=floor).log()
        oracle = LFQ(
            dim=WIDTH,
            codebook_size=config.codebook_size,
            entropy_loss_weight=config.entropy,
            commitment_loss_weight=config.commitment,
            spherical=config.kind == "bsq",
        )
        found, terms = oracle(features, inv_temperature=1 / config.temperature, return_loss_breakdown=True)
        quantized, indices, loss = found
        distances = config.bits if config.kind == "bsq" else 1
        expected["commitment"] = distances * terms.commitment
        expected["loss"] = loss + (distances - 1) * config.commitment * terms.commitment
        expected |= {"token_entropy": terms.per_sample_entropy, "code_entropy": terms.batch_entropy}
        looked_up = oracle.indices_to_codes(torch.arange(config.codebook_size)[None])
    else:
        oracle = VectorQuantize(
            WIDTH,
            codebook_size=config.codes,
            codebook_dim=config.code_width,
            decay=config.decay,
            commitment_weight=config.commitment,
            use_cosine_sim=True,
            rotation_trick=False,
        )
        codebook = oracle.codebook.clone()
        looked_up = oracle.get_output_from_indices(torch.arange(config.codebook_size)[None])
        quantized, indices, loss = oracle(features)
        expected |= {"loss": config.code_width * loss, "commitment": config.code_width / config.commitment * loss}
        if config.kind == "cosine_vq_ema":
            expected["new_codebook"] = normalize(oracle.codebook, dim=-1)
        else:
            codebook = (codebook * (torch.rand(config.codes, 1) + 0.5)).requires_grad_()
            learner = VectorQuantize(config.code_width, config.codes, learnable_codebook=True, ema_update=False)
            vectors = normalize(oracle.project_in(features.detach()), dim=-1)
            codes = {"_codebook.embed": normalize(codebook, dim=-1)[None]}
            *_, distance = torch.func.functional_call(learner, codes, (vectors,))
            expected["codebook"] = config.code_width * distance
            expected["loss"] = expected["loss"] + expected["codebook"]
            differentiated["codebook_gradient"] = codebook
    objective = torch.sum(quantized[0] * torch.from_numpy(slopes)) + expected.get("loss", 0.0)
    gradients = torch.autograd.grad(objective, list(differentiated.values()))
    expected |= dict(zip(differentiated, gradients, strict=True))
    expected["gradient"] = expected["gradient"][0]
    arrays = {"expected.features": quantized[0], "expected.indices": indices[0]}
    for ours, theirs in (("into_code", oracle.project_in), ("out_of_code", oracle.project_out)):
        layer = theirs[0] if isinstance(theirs, torch.nn.Sequential) else theirs
        arrays |= {f"params.{ours}.kernel": layer.weight.T, f"params.{ours}.bias": layer.bias}
    if "cosine" in config.kind:
        arrays["params.codebook"] = codebook
    arrays |= {"expected.lookup": looked_up[0]} | {f"expected.{key}": value for key, value in expected.items()}
    return {key: value.detach().numpy() for key, value in arrays.items()}


def differences(name: str, features: np.ndarray, valid: np.ndarray, arrays: Arrays) -> dict[str, float]:
    """What our quantizer makes of features [batch, tokens, WIDTH], where valid, beside the oracle's answers.

    Returns:
      the largest absolute difference of each thing the oracle was asked for; of indices, how many differ.
    """
    config = CASES[name]
    apply = jax.jit(make_quantizer(config, WIDTH).apply, static_argnames="method")
    slopes = np.where(valid[..., None], _slopes(features.shape), np.float32(0))
    parts = {tuple(key.split(".")): value for key, value in arrays.items() if key.startswith("params.")}
    params = flax.traverse_util.unflatten_dict(parts)

    def objective(params: Any, features: jax.Array) -> tuple[jax.Array, Any]:
        quantized = apply(params, features, valid, rngs={"restart": jax.random.key(0)})
        return jnp.sum(quantized.features * slopes) + quantized.loss, quantized

    gradients, quantized = jax.jit(jax.grad(objective, (0, 1), has_aux=True))(params, features)
    quantized = jax.tree.map(np.asarray, quantized)
    everything = np.arange(config.codebook_size, dtype=np.int32)
    found = {
        "features": quantized.features[valid],
        "indices": quantized.indices[valid],
        "lookup": apply(params, everything, method="lookup"),
        "gradient": gradients[1][valid],
        "codebook_gradient": gradients[0]["params"].get("codebook"),
        "loss": quantized.loss,
        **quantized.terms,
    }
    if config.kind == "cosine_vq_ema":
        codebook = params["params"]["codebook"]
        begun = CodebookAverages(np.ones(config.codes, np.float32), codebook)
        update = jax.jit(update_codebook, static_argnums=0)
        found["new_codebook"], *_ = update(config, codebook, begun, quantized.statistics, jax.random.key(0))
    compared = {}
    for key in (key.removeprefix("expected.") for key in arrays if key.startswith("expected.")):
        theirs = arrays[f"expected.{key}"]
        if key == "indices":
            compared[key] = float(np.sum(theirs != np.asarray(found[key])))
        else:
            compared[key] = float(np.max(np.abs(theirs - np.asarray(found[key]))))
    return compared


def compare(fixtures: Path | None) -> dict[str, Any]:
    """All differences, by case and by what is compared; the oracle's answers go to `fixtures` if that is a path."""
    features = np.random.default_rng(0).normal(size=(2, 12, WIDTH)).astype(np.float32)
    valid = np.arange(12) < np.array([[12], [7]])
    answers = {name: ask_oracle(name, features[valid], _slopes(features.shape)[valid]) for name in CASES}
    if fixtures:
        fixtures.parent.mkdir(parents=True, exist_ok=True)
        flat = {f"{name}.{key}": value for name, arrays in answers.items() for key, value in arrays.items()}
        np.savez_compressed(fixtures, features=features, valid=valid, **flat)
    figures = {
        f"{name}.{key}": value
        for name, arrays in answers.items()
        for key, value in differences(name, features, valid, arrays).items()
    }
    return {
        "ratio": float(np.max(list(figures.values()))) / TOLERANCE,
        "ratio_of": f"the largest difference, over {TOLERANCE}",
        "unit": "absolute difference; of indices the number of tokens",
        "aims": {"ratio": "<= 1"},
    } | figures


def _slopes(shape: tuple[int, ...]) -> np.ndarray:
    """Of the linear function in the gradients."""
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write-fixtures", action="store_true", help=f"also write {FIXTURES.name} for the tests")
    return parser.parse_args()


if __name__ == "__main__":
    from importlib.metadata import version

    try:
        compared = compare(FIXTURES if _arguments().write_fixtures else None)
        versions = {name: version(name) for name in ("jax", "flax", "torch", "vector-quantize-pytorch")}
        print(
            json.dumps({"name": "quantizer_oracles", **compared, "versions": {"phenaki_jax": __version__} | versions})
        )
        sys.exit(not compared["ratio"] <= 1)
    except KeyboardInterrupt:
        sys.exit(130)
