"""Equality of phenaki_jax.features with public implementations in torch, same random weights, on CPU.

    make bench BENCH=feature_oracles
    make bench BENCH=feature_oracles ARGS="--only inception clip"
    make bench BENCH=feature_oracles ARGS=--write-fixtures

VGG16 is compared with torchvision's; LPIPS with that of the lpips package, also with the heads that the package ships
and without heads; I3D with cd-fvd's copy of pytorch-i3d, whose batch norms' epsilon is taken as it stands there (1e-5)
and as the original has it (1e-3). It is every activation and the gradient with respect to the input, at several sizes;
an error is the largest difference over the largest value.

What metrics are made of goes from images in bytes to features: Inception with torch-fidelity's, and with pytorch-fid's
behind clean-fid's resizing; I3D with cd-fvd's; CLIP with transformers', read from the file that it saves. Of CLIP's
preprocessing it is the largest difference to OpenAI's own, and of its tokenizer the share of texts whose ids are not
those of OpenAI's and of transformers', which does not mend untidy ones.

Torch computes in float64, as the gradient of a maximum jumps where two values are almost equal: at 11 frames of 64 x
64, one such pair makes torch's own gradients of I3D in float32 and in float64 differ by a tenth. I3D's gradient is
compared at one size, which has no such pair.

With `--write-fixtures`, what tests/features compares with where there is no torch is written instead: samples of the
same implementations' outputs and gradients, and small files that torch.save wrote in both of its formats.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import functools
import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from against.torch_clip import (
    openai_encode,
    openai_pixels,
    openai_vocabulary,
    transformers_clip,
    transformers_encode,
)
from against.torch_features import (
    Network,
    as_file,
    cd_fvd_features,
    clean_fid_inception,
    evaluate_in_torch,
    import_torchvision,
    inception_file_tensors,
    pytorch_fid_inception,
    torch_fidelity_inception,
    torch_i3d,
    torch_lpips,
    torch_vgg16,
)
from PIL import Image

from phenaki_jax import __version__
from phenaki_jax.features.clip import SIZES, ClipConfig, TextTower, VisionTower, preprocess
from phenaki_jax.features.clip_tokenizer import ClipTokenizer
from phenaki_jax.features.clip_weights import clip_tensors, load_clip
from phenaki_jax.features.i3d import ENDPOINTS, I3D, fvd_features
from phenaki_jax.features.i3d_weights import I3D_EPSILON, i3d_params, i3d_tensors
from phenaki_jax.features.inception import Inception, inception_features
from phenaki_jax.features.inception_weights import inception_params
from phenaki_jax.features.lpips import lpips
from phenaki_jax.features.lpips_weights import head_params, vgg16_params, vgg16_tensors
from phenaki_jax.features.random_weights import random_lpips, random_tensors
from phenaki_jax.features.testing import (
    FIXTURE_BYTES,
    FIXTURE_CLIP,
    FIXTURE_ENDPOINTS,
    FIXTURE_IMAGES,
    FIXTURE_VIDEO,
    FIXTURE_VIDEO_OF_LOGITS,
    OTHER_PIXELS,
    PLAIN_TEXTS,
    UNTIDY_TEXTS,
    WEIGHTS,
    evaluate,
    example_tensors,
    example_vocabulary,
    random_bytes,
    random_clip_tokens,
    random_heads,
    random_pixels,
    relative_error,
    sample,
    write_vocabulary,
)
from phenaki_jax.features.torch_files import read_torch_file
from phenaki_jax.features.vgg16 import VGG16
from phenaki_jax.layers.module import apply

_AIM = 1e-4
_VERSIONS = (
    *("torch", "torchvision", "lpips", "cd-fvd", "pytorch-fid", "torch-fidelity", "clean-fid", "transformers"),
    *("clip-anytorch", "pillow", "jax", "flax", "numpy"),
)
_FIXTURES = Path(__file__).parent.parent / "tests" / "features" / "fixtures"
_IMAGES = (*FIXTURE_IMAGES, (3, 16, 16, 3), (1, 128, 128, 3))
_VIDEOS = (FIXTURE_VIDEO, (2, 5, 37, 50, 3), (1, 1, 32, 32, 3))
_BYTES = (FIXTURE_BYTES, (1, 128, 160, 3), (1, 299, 512, 3))
_VIDEOS_OF_BYTES = ((2, 9, 64, 64, 3), (1, 12, 128, 160, 3), (1, 10, 256, 256, 3))
_PHOTOS = ((240, 320, 3), (64, 64, 3), (500, 333, 3))
_WHOLE_CLIP = "clip-vit-base-patch32"
_VIDEOS_OF_LOGITS = (FIXTURE_VIDEO_OF_LOGITS, (1, 16, 224, 224, 3))


def _compare_vgg16() -> dict[str, float]:
    """LPIPS too."""
    figures: dict[str, float] = {}
    tensors, heads = random_tensors(vgg16_tensors(), WEIGHTS), random_heads()
    vgg16 = vgg16_params(tensors)
    of_lpips = {
        "lpips": (head_params(heads), {"model_path": as_file(heads)}),
        "lpips_published_heads": (head_params(read_torch_file(_published_heads())), {}),
        "lpips_without_heads": (random_lpips(WEIGHTS)["heads"], {"lpips": False}),
    }
    for shape in _IMAGES:
        first, pixels = random_pixels(shape, OTHER_PIXELS), random_pixels(shape)
        figures |= _errors("vgg16", lambda params, x: apply(VGG16(), params, x), vgg16, torch_vgg16(tensors), pixels)
        for title, (params, options) in of_lpips.items():
            figures |= _errors(
                title,
                lambda params, images: {"distance": lpips(params["lpips"], params["first"], images)},
                {"lpips": {"vgg16": vgg16, "heads": params}, "first": first},
                torch_lpips(tensors, first, **options),
                pixels,
            )
    return figures


def _compare_i3d() -> dict[str, float]:
    figures: dict[str, float] = {}
    tensors = random_tensors(i3d_tensors(), WEIGHTS)
    for title, epsilon in (("i3d", I3D_EPSILON), ("i3d_epsilon_1e-5", 1e-5)):
        params = i3d_params(tensors, epsilon)
        for endpoints, shapes in ((ENDPOINTS[:-1], _VIDEOS), (ENDPOINTS, _VIDEOS_OF_LOGITS)):
            network, oracle = functools.partial(_i3d, endpoints), torch_i3d(tensors, epsilon, endpoints)
            for shape in shapes:
                gradient = epsilon == I3D_EPSILON and shape == FIXTURE_VIDEO
                figures |= _errors(title, network, params, oracle, random_pixels(shape), gradient)
    return figures


def _compare_inception() -> dict[str, float]:
    tensors = inception_file_tensors()
    params = inception_params(tensors)
    figures: dict[str, float] = {}
    oracles = {"tensorflow1": torch_fidelity_inception(tensors), "clean": clean_fid_inception(tensors)}
    for resize, oracle in oracles.items():
        for shape in _BYTES:
            network = functools.partial(inception_features, resize=resize)
            figures |= _errors(f"inception_{resize}", network, params, oracle, random_bytes(shape), gradient=False)

    def of_floats(params: Any, images: jax.Array) -> dict[str, jax.Array]:
        return {"pool3": apply(Inception(), params, images)["pool3"]}

    oracle, pixels = pytorch_fid_inception(tensors), random_pixels((2, 299, 299, 3))
    return figures | _errors("inception_of_pytorch_fid", of_floats, params, oracle, pixels, gradient=False)


def _compare_fvd() -> dict[str, float]:
    """From videos in bytes to logits, with the epsilon of cd-fvd."""
    tensors, figures = random_tensors(i3d_tensors(), WEIGHTS), {}
    oracle, params = cd_fvd_features(tensors), i3d_params(tensors, epsilon=1e-5)
    for shape in _VIDEOS_OF_BYTES:
        figures |= _errors("fvd", _fvd, params, oracle, random_bytes(shape), gradient=False)
    return figures


def _fvd(params: Any, video: jax.Array) -> dict[str, jax.Array]:
    return {"logits": fvd_features(params, video)}


def _compare_clip() -> dict[str, float]:
    """Both towers; the weights go through the file that transformers saves."""
    figures: dict[str, float] = {}
    for name, config in _clips().items():
        with tempfile.TemporaryDirectory() as folder:
            networks = transformers_clip(config, random_tensors(clip_tensors(config), WEIGHTS), Path(folder))
            params = load_clip(Path(folder) / "model.safetensors", config)
        towers = {"images": (VisionTower(config), params["vision"]), "texts": (TextTower(config), params["text"])}
        for shape in _BYTES:
            pixels = np.asarray(preprocess(jnp.asarray(random_bytes(shape)), config.image_size))
            inputs = {"images": pixels, "texts": random_clip_tokens(config, texts=2 + shape[1] // 100)}
            for (kind, (tower, of_tower)), oracle in zip(towers.items(), networks, strict=True):
                network = functools.partial(_embeddings, kind, tower)
                title = f"{name}.of_{shape[1]}x{shape[2]}"
                figures |= _errors(title, network, of_tower, oracle, inputs[kind], gradient=False)
    return figures


def _clips() -> dict[str, ClipConfig]:
    """The released sizes; of the larger two as many layers as are computed in a minute."""
    configs = {name: ClipConfig.named(name) for name in SIZES}
    whole = {_WHOLE_CLIP: configs.pop(_WHOLE_CLIP)}
    few = {
        f"{name}_of_3_layers": dataclasses.replace(
            config,
            vision=dataclasses.replace(config.vision, layers=3),
            text=dataclasses.replace(config.text, layers=3),
        )
        for name, config in configs.items()
    }
    return whole | few


def _embeddings(kind: str, tower: Any, params: Any, inputs: jax.Array) -> dict[str, jax.Array]:
    return {kind: apply(tower, params, inputs)}


def _compare_pixels() -> dict[str, float]:
    """The largest difference of CLIP's preprocessing and OpenAI's, in deviations of colours."""
    figures = {}
    for shape in _PHOTOS:
        image = _smooth_bytes(shape)
        found = np.asarray(preprocess(jnp.asarray(image[None]), 224))[0]
        difference = np.abs(found - openai_pixels(image, 224))
        figures[f"clip_pixels.{shape[0]}x{shape[1]}"] = float(difference.max())
    return figures


def _smooth_bytes(shape: tuple[int, ...]) -> np.ndarray:
    """An image without noise, of which Pillow makes the same whichever side it takes first."""
    coarse = Image.fromarray(random_bytes((9, 9, 3)))
    return np.asarray(coarse.resize((shape[1], shape[0]), Image.Resampling.BICUBIC))


def _compare_tokens() -> dict[str, float]:
    """The share of texts whose tokens differ, by the vocabulary of the released models and by the tests' small one."""
    figures = {}
    for name, (vocabulary, merges) in {"clip": openai_vocabulary(), "small": example_vocabulary()}.items():
        with tempfile.TemporaryDirectory() as folder:
            files = write_vocabulary(Path(folder), vocabulary, merges)
            tokenizer = ClipTokenizer(*files)
            encoders = {
                "transformers": (transformers_encode(vocabulary, merges), PLAIN_TEXTS),
                "openai": (openai_encode(merges, Path(folder)), (*PLAIN_TEXTS, *UNTIDY_TEXTS)),
            }
        for title, (encode, texts) in encoders.items():
            wrong = [text for text in texts if tokenizer.encode(text) != encode(text)]
            for text in wrong:
                print(f"{name} {title} {text!r}: {tokenizer.encode(text)} {encode(text)}", file=sys.stderr)
            figures[f"tokens_{name}_of_{title}"] = len(wrong) / len(texts)
    return figures


def _i3d(endpoints: tuple[str, ...], params: Any, video: jax.Array) -> dict[str, jax.Array]:
    return apply(I3D(), params, video, endpoints)


def _errors(
    title: str,
    network: Callable[..., Any],
    params: Any,
    oracle: Network,
    inputs: np.ndarray,
    gradient: bool = True,
) -> dict[str, float]:
    """How far a network's outputs and gradient are from the oracle's."""
    expected, found = evaluate_in_torch(oracle, inputs, gradient), evaluate(network, params, inputs, gradient)
    size = "x".join(map(str, inputs.shape[:-1]))
    errors = {f"{title}.{size}.{name}": relative_error(found[name], array) for name, array in expected.items()}
    print(f"{title} {size}: largest error {max(errors.values()):.2g}", file=sys.stderr)
    return errors


_PARTS = {
    "vgg16": _compare_vgg16,
    "i3d": _compare_i3d,
    "fvd": _compare_fvd,
    "inception": _compare_inception,
    "clip": _compare_clip,
    "pixels": _compare_pixels,
    "tokens": _compare_tokens,
}


def write_fixtures(folder: Path) -> None:
    """Writes what tests/features reads: samples of outputs by size and name, and files of torch.save."""
    folder.mkdir(parents=True, exist_ok=True)

    def write(name: str, runs: Mapping[str, tuple[Network, np.ndarray, bool]]) -> None:
        samples = {}
        for key, (network, inputs, gradient) in runs.items():
            outputs = evaluate_in_torch(network, inputs, gradient)
            samples.update({f"{key}/{output}": sample(array) for output, array in outputs.items()})
        np.savez_compressed(folder / f"{name}.npz", **samples)

    tensors, heads = random_tensors(vgg16_tensors(), WEIGHTS), as_file(random_heads())
    images = {f"{shape[1]}x{shape[2]}": random_pixels(shape) for shape in FIXTURE_IMAGES}
    write("vgg16", {size: (torch_vgg16(tensors), pixels, True) for size, pixels in images.items()})
    distance = torch_lpips(tensors, random_pixels(FIXTURE_IMAGES[0], OTHER_PIXELS), model_path=heads)
    write("lpips", {"32x32": (distance, images["32x32"], True)})
    tensors = random_tensors(i3d_tensors(), WEIGHTS)
    first_layers = torch_i3d(tensors, I3D_EPSILON, FIXTURE_ENDPOINTS)
    runs = {
        "first_layers": (first_layers, random_pixels(FIXTURE_VIDEO), True),
        "all": (torch_i3d(tensors, I3D_EPSILON, ENDPOINTS), random_pixels(FIXTURE_VIDEO_OF_LOGITS), False),
    }
    write("i3d", runs)
    inception = torch_fidelity_inception(inception_file_tensors())
    write("inception", {"all": (inception, random_bytes(FIXTURE_BYTES), False)})
    write("clip", {kind: (*run, False) for kind, run in _clip_fixtures().items()})
    _, merges = example_vocabulary()
    with tempfile.TemporaryDirectory() as place:
        encode = openai_encode(merges, Path(place))
    tokens = {text: encode(text) for text in (*PLAIN_TEXTS, *UNTIDY_TEXTS)}
    (folder / "clip_tokens.json").write_text(json.dumps(tokens, indent=0) + "\n")
    _write_torch_files(folder)
    for path in sorted(folder.iterdir()):
        print(f"{path.name}: {path.stat().st_size} bytes", file=sys.stderr)


def _clip_fixtures() -> dict[str, tuple[Network, np.ndarray]]:
    """Both towers of a small CLIP, and what each is given."""
    config = FIXTURE_CLIP
    with tempfile.TemporaryDirectory() as folder:
        networks = transformers_clip(config, random_tensors(clip_tensors(config), WEIGHTS), Path(folder))
    pixels = np.asarray(preprocess(jnp.asarray(random_bytes(FIXTURE_BYTES)), config.image_size))
    inputs = pixels, random_clip_tokens(config, 5)
    return dict(zip(("images", "texts"), zip(networks, inputs, strict=True), strict=True))


def _write_torch_files(folder: Path) -> None:
    state = collections.OrderedDict((name, torch.from_numpy(array)) for name, array in example_tensors().items())
    state["transposed"], state["row"] = state["matrix"].T, state["matrix"][1]
    state["parameter"] = torch.nn.Parameter(state["parameter"])
    state["bfloat16"] = state["bfloat16"].to(torch.bfloat16)
    state._metadata = collections.OrderedDict({"": {"version": 1}})  # as Module.state_dict has
    for suffix, new_format in (("zip", True), ("legacy", False)):
        for name, content in (("state", state), ("checkpoint", {"state_dict": state, "epoch": 3})):
            torch.save(content, folder / f"{name}_{suffix}.pt", _use_new_zipfile_serialization=new_format)
    # Not in the old format, which would put torch's own source into it.
    torch.save(torch.nn.Linear(1, 1), folder / "module_zip.pt")


def _published_heads() -> Path:
    import lpips as package

    return Path(package.__file__).parent / "weights" / "v0.1" / "vgg.pth"


def _report(parts: list[str]) -> dict[str, Any]:
    figures = {name: error for part in parts for name, error in _PARTS[part]().items()}
    worst = max(figures, key=figures.__getitem__)
    versions = {name: version(name) for name in _VERSIONS}
    return {
        "name": "feature_oracles",
        "unit": "largest difference over largest value",
        "aims": {"largest": f"<= {_AIM}"},
        "largest": figures[worst],
        "largest_of": worst,
        "errors": {name: float(f"{error:.3g}") for name, error in figures.items()},
        "versions": {"phenaki_jax": __version__, **versions},
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write-fixtures", action="store_true", help=f"write {_FIXTURES} instead of comparing")
    parser.add_argument("--only", nargs="+", choices=_PARTS, default=list(_PARTS), help="what to compare")
    return parser.parse_args()


if __name__ == "__main__":
    import_torchvision()
    arguments = _arguments()
    if arguments.write_fixtures:
        write_fixtures(_FIXTURES)
    else:
        report = _report(arguments.only)
        print(json.dumps(report))
        sys.exit(not report["largest"] <= _AIM)
