"""Equality of phenaki_jax.features with public implementations in torch, same random weights, on CPU.

    make bench BENCH=feature_oracles
    make bench BENCH=feature_oracles ARGS=--write-fixtures

VGG16 is compared with torchvision's; LPIPS with that of the lpips package, also with the heads that the package ships
and without heads; I3D with cd-fvd's copy of pytorch-i3d, whose batch norms' epsilon is taken as it stands there (1e-5)
and as the original has it (1e-3). It is every activation and the gradient with respect to the input, at several sizes;
an error is the largest difference over the largest value. Torch computes in float64, as the gradient of a maximum jumps
where two values are almost equal: at 11 frames of 64 x 64, one such pair makes torch's own gradients of I3D in float32
and in float64 differ by a tenth. I3D's gradient is compared at one size, which has no such pair.

With `--write-fixtures`, what tests/features compares with where there is no torch is written instead: samples of the
same implementations' outputs and gradients, and small files that torch.save wrote in both of its formats.
"""

from __future__ import annotations

import argparse
import collections
import functools
import json
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch

from phenaki_jax import __version__
from phenaki_jax.features.i3d import ENDPOINTS, I3D, LOGITS
from phenaki_jax.features.i3d_weights import I3D_EPSILON, i3d_params, i3d_tensors
from phenaki_jax.features.inception import CLASSES, Inception, inception_features
from phenaki_jax.features.inception_weights import inception_params, inception_tensors
from phenaki_jax.features.lpips import lpips
from phenaki_jax.features.lpips_weights import head_params, vgg16_params, vgg16_tensors
from phenaki_jax.features.random_weights import random_lpips, random_tensors
from phenaki_jax.features.testing import (
    FIXTURE_BYTES,
    FIXTURE_ENDPOINTS,
    FIXTURE_IMAGES,
    FIXTURE_VIDEO,
    FIXTURE_VIDEO_OF_LOGITS,
    OTHER_PIXELS,
    WEIGHTS,
    cotangents,
    evaluate,
    example_tensors,
    random_bytes,
    random_heads,
    random_pixels,
    relative_error,
    sample,
)
from phenaki_jax.features.torch_files import read_torch_file
from phenaki_jax.features.vgg16 import ACTIVATIONS, VGG16
from phenaki_jax.layers.module import apply

_AIM = 1e-4
_FIXTURES = Path(__file__).parent.parent / "tests" / "features" / "fixtures"
_IMAGES = (*FIXTURE_IMAGES, (3, 16, 16, 3), (1, 128, 128, 3))
_VIDEOS = (FIXTURE_VIDEO, (2, 5, 37, 50, 3), (1, 1, 32, 32, 3))
_BYTES = (FIXTURE_BYTES, (1, 128, 160, 3), (1, 299, 512, 3))
_VIDEOS_OF_LOGITS = (FIXTURE_VIDEO_OF_LOGITS, (1, 16, 224, 224, 3))

Network = Callable[[Any], dict[str, Any]]
Tensors = Mapping[str, np.ndarray]


def _import_torchvision() -> None:
    """Imports torchvision where its compiled part does not fit torch: its VGG needs none of it.

    The wheels of PyPI are compiled for CUDA, and without their operators nothing but two declarations is missed.
    """
    try:
        import torchvision
    except RuntimeError:
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "FRAGMENT")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision  # noqa: F401
    warnings.filterwarnings("ignore", message=".*weights.*", category=UserWarning, module="torchvision")


def _load(module: torch.nn.Module, tensors: Tensors) -> None:
    module.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in tensors.items()})
    module.eval().requires_grad_(False).double()


def torch_vgg16(tensors: Tensors) -> Network:
    """torchvision's convolutions, with the scaling of the lpips package in front."""
    from lpips import ScalingLayer
    from torchvision.models import vgg16

    layers = vgg16().features[:30]
    _load(layers, {name.removeprefix("features."): array for name, array in tensors.items()})
    scale = ScalingLayer().double()
    # Where each block's last ReLU stands.
    names = dict(zip((3, 8, 15, 22, 29), ACTIVATIONS, strict=True))

    def network(images: torch.Tensor) -> dict[str, torch.Tensor]:
        hidden, outputs = scale(images), {}
        for place, layer in enumerate(layers):
            hidden = layer(hidden)
            if place in names:
                outputs[names[place]] = hidden
        return outputs

    return network


def torch_lpips(tensors: Tensors, first: np.ndarray, **options: Any) -> Network:
    """The lpips package's distance to fixed images, with the heads that the options, those of its class, name."""
    from lpips import LPIPS

    distance = LPIPS(net="vgg", pnet_rand=True, verbose=False, **options)
    # Its net's layers are called slice1.0 and so on, with torchvision's numbers.
    names = distance.net.state_dict()
    distance.double()
    _load(distance.net, {name: tensors[f"features.{name.partition('.')[2]}"] for name in names})
    return lambda images: {"distance": distance(_channels_first(first), images).reshape(-1)}


def torch_i3d(tensors: Tensors, epsilon: float, endpoints: tuple[str, ...]) -> Network:
    """cd-fvd's I3D with another epsilon of its batch norms, which is 1e-5 there."""
    from cdfvd.third_party.i3d.pytorch_i3d import InceptionI3d

    i3d = InceptionI3d(400, in_channels=3)
    counts = {name: array.numpy() for name, array in i3d.state_dict().items() if name.endswith("num_batches_tracked")}
    _load(i3d, {**tensors, **counts})
    for module in i3d.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            assert module.eps == 1e-5
            module.eps = epsilon

    def network(video: torch.Tensor) -> dict[str, torch.Tensor]:
        outputs, hidden = {}, video
        for name in endpoints:
            hidden = outputs[name] = i3d(video) if name == LOGITS else i3d._modules[name](hidden)
        return outputs

    return network


def torch_fidelity_inception(tensors: Tensors) -> Network:
    """torch-fidelity's features of images of any size, of whole colours."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    extractor = FeatureExtractorInceptionV3(
        "inception",
        ["2048", "logits_unbiased"],
        feature_extractor_weights_path=_as_file(tensors),
        feature_extractor_internal_dtype="float64",
    )
    return lambda images: dict(zip(("pool3", "logits"), extractor(images.to(torch.uint8)), strict=True))


def pytorch_fid_inception(tensors: Tensors) -> Network:
    """pytorch-fid's features of images of 299 x 299 pixels."""
    import pytorch_fid.inception as package

    package.load_state_dict_from_url = lambda *_, **__: torch.load(_as_file(tensors))
    network = package.InceptionV3([3], resize_input=False, normalize_input=False).eval().double()
    return lambda images: {"pool3": network(images)[0].reshape(-1, 2048)}


def _channels_first(array: np.ndarray) -> torch.Tensor:
    array = array.astype(np.float64)
    return torch.from_numpy(np.moveaxis(array, -1, 1).copy() if array.ndim > 2 else array)


def _channels_last(tensor: torch.Tensor) -> np.ndarray:
    return np.moveaxis(tensor.detach().numpy(), 1, -1) if tensor.ndim > 2 else tensor.detach().numpy()


def evaluate_in_torch(network: Network, inputs: np.ndarray, gradient: bool) -> dict[str, np.ndarray]:
    """What `phenaki_jax.features.testing.evaluate` computes, in torch."""
    leaf = _channels_first(inputs).requires_grad_(gradient)
    outputs = network(leaf)
    found = {name: _channels_last(output) for name, output in outputs.items()}
    if gradient:
        weights = cotangents({name: array.shape for name, array in found.items()})
        sum((outputs[name] * _channels_first(weights[name])).sum() for name in outputs).backward()
        found["gradient"] = _channels_last(leaf.grad)
    return found


def compare() -> dict[str, float]:
    """The error of every output and gradient, by network, size and name."""
    figures: dict[str, float] = {}
    tensors, heads = random_tensors(vgg16_tensors(), WEIGHTS), random_heads()
    vgg16 = vgg16_params(tensors)
    of_lpips = {
        "lpips": (head_params(heads), {"model_path": _as_file(heads)}),
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
    tensors = random_tensors(i3d_tensors(), WEIGHTS)
    for title, epsilon in (("i3d", I3D_EPSILON), ("i3d_epsilon_1e-5", 1e-5)):
        params = i3d_params(tensors, epsilon)
        for endpoints, shapes in ((ENDPOINTS[:-1], _VIDEOS), (ENDPOINTS, _VIDEOS_OF_LOGITS)):
            network, oracle = functools.partial(_i3d, endpoints), torch_i3d(tensors, epsilon, endpoints)
            for shape in shapes:
                gradient = epsilon == I3D_EPSILON and shape == FIXTURE_VIDEO
                figures |= _errors(title, network, params, oracle, random_pixels(shape), gradient)
    return figures | _compare_inception()


def _compare_inception() -> dict[str, float]:
    tensors = with_counts(inception_tensors())
    params = inception_params(tensors)
    figures: dict[str, float] = {}
    oracle = torch_fidelity_inception(tensors)
    for shape in _BYTES:
        figures |= _errors("inception", inception_features, params, oracle, random_bytes(shape), gradient=False)

    def of_floats(params: Any, images: jax.Array) -> dict[str, jax.Array]:
        return {"pool3": apply(Inception(), params, images)["pool3"]}

    pixels = random_pixels((2, 299, 299, 3))
    return figures | _errors(
        "inception_of_pytorch_fid", of_floats, params, pytorch_fid_inception(tensors), pixels, False
    )


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


def write_fixtures(folder: Path) -> None:
    """Writes what tests/features reads: samples of outputs by size and name, and files of torch.save."""
    folder.mkdir(parents=True, exist_ok=True)

    def write(name: str, runs: Mapping[str, tuple[Network, tuple[int, ...], bool]]) -> None:
        samples = {}
        for key, (network, shape, gradient) in runs.items():
            inputs = random_bytes(shape) if shape == FIXTURE_BYTES else random_pixels(shape)
            outputs = evaluate_in_torch(network, inputs, gradient)
            samples.update({f"{key}/{output}": sample(array) for output, array in outputs.items()})
        np.savez_compressed(folder / f"{name}.npz", **samples)

    tensors, heads = random_tensors(vgg16_tensors(), WEIGHTS), _as_file(random_heads())
    sizes = {f"{shape[1]}x{shape[2]}": shape for shape in FIXTURE_IMAGES}
    write("vgg16", {size: (torch_vgg16(tensors), shape, True) for size, shape in sizes.items()})
    distance = torch_lpips(tensors, random_pixels(sizes["32x32"], OTHER_PIXELS), model_path=heads)
    write("lpips", {"32x32": (distance, sizes["32x32"], True)})
    tensors = random_tensors(i3d_tensors(), WEIGHTS)
    first_layers = torch_i3d(tensors, I3D_EPSILON, FIXTURE_ENDPOINTS)
    runs = {
        "first_layers": (first_layers, FIXTURE_VIDEO, True),
        "all": (torch_i3d(tensors, I3D_EPSILON, ENDPOINTS), FIXTURE_VIDEO_OF_LOGITS, False),
    }
    write("i3d", runs)
    write("inception", {"all": (torch_fidelity_inception(with_counts(inception_tensors())), FIXTURE_BYTES, False)})
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
    for path in sorted(folder.iterdir()):
        print(f"{path.name}: {path.stat().st_size} bytes", file=sys.stderr)


def with_counts(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Random tensors of Inception, with what else its file has."""
    counts = {
        name.replace("running_var", "num_batches_tracked"): np.array(0) for name in shapes if name.endswith("_var")
    }
    return random_tensors(shapes, WEIGHTS) | {"fc.bias": np.ones(CLASSES, np.float32)} | counts


def _as_file(tensors: Tensors) -> str:
    """A file that torch.save wrote."""
    path = Path(tempfile.mkdtemp()) / "tensors.pt"
    torch.save({name: torch.from_numpy(np.array(array)) for name, array in tensors.items()}, path)
    return str(path)


def _published_heads() -> Path:
    import lpips as package

    return Path(package.__file__).parent / "weights" / "v0.1" / "vgg.pth"


def _report() -> dict[str, Any]:
    figures = compare()
    worst = max(figures, key=figures.__getitem__)
    versions = {name: version(name) for name in ("torch", "torchvision", "lpips", "cd-fvd", "jax", "flax", "numpy")}
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
    return parser.parse_args()


if __name__ == "__main__":
    _import_torchvision()
    if _arguments().write_fixtures:
        write_fixtures(_FIXTURES)
    else:
        report = _report()
        print(json.dumps(report))
        sys.exit(not report["largest"] <= _AIM)
