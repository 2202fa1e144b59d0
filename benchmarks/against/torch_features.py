"""Public implementations in torch of the networks in phenaki_jax.features, on given weights and in float64."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from against import torchvision_alone
from phenaki_jax.features.i3d import LOGITS
from phenaki_jax.features.inception import CLASSES
from phenaki_jax.features.inception_weights import inception_tensors
from phenaki_jax.features.random_weights import random_tensors
from phenaki_jax.features.testing import WEIGHTS, cotangents
from phenaki_jax.features.vgg16 import ACTIVATIONS

Network = Callable[[Any], dict[str, Any]]
Tensors = Mapping[str, np.ndarray]


def import_torchvision() -> None:
    """Imports torchvision, which then says nothing of weights that it is not asked for."""
    torchvision_alone.import_torchvision()
    warnings.filterwarnings("ignore", message=".*weights.*", category=UserWarning, module="torchvision")


def load(module: torch.nn.Module, tensors: Tensors) -> None:
    module.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in tensors.items()})
    module.eval().requires_grad_(False).double()


def torch_vgg16(tensors: Tensors) -> Network:
    """torchvision's convolutions, with the scaling of the lpips package in front."""
    from lpips import ScalingLayer
    from torchvision.models import vgg16

    layers = vgg16().features[:30]
    load(layers, {name.removeprefix("features."): array for name, array in tensors.items()})
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
    load(distance.net, {name: tensors[f"features.{name.partition('.')[2]}"] for name in names})
    return lambda images: {"distance": distance(channels_first(first), images).reshape(-1)}


def torch_i3d(tensors: Tensors, epsilon: float, endpoints: tuple[str, ...]) -> Network:
    """cd-fvd's I3D with another epsilon of its batch norms, which is 1e-5 there."""
    from cdfvd.third_party.i3d.pytorch_i3d import InceptionI3d

    i3d = InceptionI3d(400, in_channels=3)
    counts = {name: array.numpy() for name, array in i3d.state_dict().items() if name.endswith("num_batches_tracked")}
    load(i3d, {**tensors, **counts})
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
        feature_extractor_weights_path=as_file(tensors),
        feature_extractor_internal_dtype="float64",
    )
    return lambda images: dict(zip(("pool3", "logits"), extractor(images.to(torch.uint8)), strict=True))


def pytorch_fid_inception(tensors: Tensors) -> Network:
    """pytorch-fid's features of images of 299 x 299 pixels."""
    import pytorch_fid.inception as package

    package.load_state_dict_from_url = lambda *_, **__: torch.load(as_file(tensors))
    network = package.InceptionV3([3], resize_input=False, normalize_input=False).eval().double()
    return lambda images: {"pool3": network(images)[0].reshape(-1, 2048)}


def clean_fid_inception(tensors: Tensors) -> Network:
    """pytorch-fid's features of images as clean-fid resizes them; its own network is a download."""
    from cleanfid.resize import build_resizer

    resize, network = build_resizer("clean"), pytorch_fid_inception(tensors)

    def resized(image: torch.Tensor) -> torch.Tensor:
        return channels_first(resize(image.permute(1, 2, 0).to(torch.uint8).numpy())[None])[0]

    return lambda images: network((torch.stack([resized(image) for image in images]) - 128) / 128)


def cd_fvd_features(tensors: Tensors) -> Network:
    """What cd-fvd computes FVD of, for videos of whole colours."""
    from cdfvd.third_party.i3d.utils import preprocess_i3d

    network = torch_i3d(tensors, 1e-5, (LOGITS,))

    def features(video: torch.Tensor) -> dict[str, torch.Tensor]:
        pixels = preprocess_i3d(video.permute(0, 2, 3, 4, 1).to(torch.uint8).numpy())
        return {"logits": network(pixels.double())[LOGITS]}

    return features


def channels_first(array: np.ndarray) -> torch.Tensor:
    array = array.astype(np.float64)
    return torch.from_numpy(np.moveaxis(array, -1, 1).copy() if array.ndim > 2 else array)


def _channels_last(tensor: torch.Tensor) -> np.ndarray:
    return np.moveaxis(tensor.detach().numpy(), 1, -1) if tensor.ndim > 2 else tensor.detach().numpy()


def evaluate_in_torch(network: Network, inputs: np.ndarray, gradient: bool) -> dict[str, np.ndarray]:
    """What `phenaki_jax.features.testing.evaluate` computes, in torch."""
    leaf = channels_first(inputs).requires_grad_(gradient)
    outputs = network(leaf)
    found = {name: _channels_last(output) for name, output in outputs.items()}
    if gradient:
        weights = cotangents({name: array.shape for name, array in found.items()})
        sum((outputs[name] * channels_first(weights[name])).sum() for name in outputs).backward()
        found["gradient"] = _channels_last(leaf.grad)
    return found


def inception_file_tensors() -> dict[str, np.ndarray]:
    """Random tensors of all that the file of Inception has."""
    return with_counts(random_tensors(inception_tensors(), WEIGHTS)) | {"fc.bias": np.ones(CLASSES, np.float32)}


def with_counts(tensors: Tensors) -> dict[str, np.ndarray]:
    """With the counts of batches that torch's own files have."""
    counts = {name.replace("running_var", "num_batches_tracked"): np.array(0) for name in tensors if "_var" in name}
    return {**tensors, **counts}


def as_file(tensors: Tensors) -> str:
    """A file that torch.save wrote."""
    path = Path(tempfile.mkdtemp()) / "tensors.pt"
    torch.save({name: torch.from_numpy(np.array(array)) for name, array in tensors.items()}, path)
    return str(path)
