"""Published files become parameters, whichever format they come in, and any other file is refused by its first flaw."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from phenaki_jax.errors import UserError
from phenaki_jax.features import clip_weights, i3d_weights, inception_weights, lpips_weights, testing, weights
from phenaki_jax.features.clip import clip_shapes
from phenaki_jax.features.random_weights import (
    random_clip,
    random_i3d,
    random_inception,
    random_lpips,
    random_tensors,
    random_vgg16,
)
from phenaki_jax.features.vgg16 import ACTIVATIONS


@pytest.fixture(scope="module")
def vgg16_file(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """As torchvision publishes it, with the layers that are not needed, which here are small."""
    spare = {
        f"classifier.{layer}.{kind}": np.zeros(3, np.float32) for layer in (0, 3, 6) for kind in ("weight", "bias")
    }
    file = tmp_path_factory.mktemp("weights") / "vgg16.safetensors"
    save_file(random_tensors(lpips_weights.vgg16_tensors(), 3) | spare, file)
    return file


@pytest.fixture
def heads_file(tmp_path: pathlib.Path) -> pathlib.Path:
    save_file(testing.random_heads(), tmp_path / "heads.safetensors")
    return tmp_path / "heads.safetensors"


def test_names_and_shapes_are_those_of_the_published_files() -> None:
    """VGG16's 13 convolutions; I3D's 57 and Inception's 94, each with a batch norm, and their logits."""
    vgg16, i3d = lpips_weights.vgg16_tensors(), i3d_weights.i3d_tensors()
    assert (len(vgg16), sum(map(np.prod, vgg16.values()))) == (26, 14_714_688)
    assert vgg16["features.28.weight"] == (512, 512, 3, 3)
    assert len(i3d) == 57 * 5 + 2
    assert sum(np.prod(shape) for name, shape in i3d.items() if "running" not in name) == 12_697_264
    assert i3d["Conv3d_1a_7x7.conv3d.weight"] == (64, 3, 7, 7, 7)
    assert i3d["Mixed_4f.b2b.bn.running_var"] == (128,)
    assert i3d["logits.conv3d.bias"] == (400,)
    inception = inception_weights.inception_tensors()
    assert len(inception) == 94 * 5 + 1
    assert inception["fc.weight"] == (1008, 2048)
    assert inception["Mixed_7c.branch3x3dbl_3b.conv.weight"] == (384, 384, 3, 1)
    assert inception["Mixed_6b.branch7x7_2.bn.running_mean"] == (128,)


def test_kernels_are_turned_to_channels_last(vgg16_file: pathlib.Path) -> None:
    tensors = random_tensors(lpips_weights.vgg16_tensors(), 3)
    params = lpips_weights.load_vgg16(vgg16_file)
    jax.tree.map(np.testing.assert_array_equal, params, random_vgg16(3))
    # The third convolution, behind two ReLUs and a pooling.
    assert params["conv2_1"]["kernel"][0, 2, 5, 7] == tensors["features.5.weight"][7, 5, 0, 2]
    np.testing.assert_array_equal(params["conv2_1"]["bias"], tensors["features.5.bias"])


def test_heads_are_one_number_for_each_channel(vgg16_file: pathlib.Path, heads_file: pathlib.Path) -> None:
    params = lpips_weights.load_lpips(vgg16_file, heads_file)
    assert list(params["heads"]) == list(ACTIVATIONS)
    assert params["heads"]["relu3_3"][9] == testing.random_heads()["lin2.model.1.weight"][0, 9, 0, 0]
    assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, random_lpips(0))


def test_batch_norms_go_into_kernels_and_biases(tmp_path: pathlib.Path) -> None:
    """A scale of 6, a shift of 1, a mean of 5 and a variance of 3 + 1: 6 / 2 = 3 times the kernel, 1 - 3 * 5 = -14."""
    tensors = random_tensors(i3d_weights.i3d_tensors(), 0)
    layer = "Mixed_3b.b1b"
    for name, value in (("weight", 6), ("bias", 1), ("running_mean", 5), ("running_var", 3)):
        tensors[f"{layer}.bn.{name}"] = np.full(128, value, np.float32)
    tensors[f"{layer}.bn.num_batches_tracked"] = np.array(7)
    save_file(tensors, tmp_path / "i3d.safetensors")
    params = i3d_weights.load_i3d(tmp_path / "i3d.safetensors", epsilon=1.0)
    found = params["Mixed_3b"]["b1b"]
    assert found["kernel"].dtype == np.float32
    np.testing.assert_array_equal(found["bias"], np.full(128, -14))
    kernel = np.moveaxis(tensors[f"{layer}.conv3d.weight"], (0, 1), (4, 3))
    np.testing.assert_array_equal(found["kernel"], 3 * kernel)
    np.testing.assert_array_equal(params["logits"]["bias"], tensors["logits.conv3d.bias"])


def test_inceptions_file_has_counts_and_a_bias_that_nothing_needs(tmp_path: pathlib.Path) -> None:
    tensors = random_tensors(inception_weights.inception_tensors(), 5)
    spare = {"fc.bias": np.zeros(1008, np.float32), "Mixed_5b.branch1x1.bn.num_batches_tracked": np.array(3)}
    save_file(tensors | spare, tmp_path / "inception.safetensors")
    params = inception_weights.load_inception(tmp_path / "inception.safetensors")
    jax.tree.map(np.testing.assert_array_equal, params, random_inception(5))
    assert params["fc"][7, 9] == tensors["fc.weight"][9, 7]
    names = [f"Conv2d_1a_3x3.{name}" for name in ("bn.weight", "bn.running_var", "conv.weight")]
    scale, variance, kernel = (tensors[name][3] for name in names)
    expected = kernel[2, 0, 1] * scale / np.sqrt(variance + np.float32(1e-3))
    np.testing.assert_allclose(params["Conv2d_1a_3x3"]["kernel"][0, 1, 2, 3], expected, rtol=1e-6)


def test_clips_layers_are_stacked_and_their_heads_apart(tmp_path: pathlib.Path) -> None:
    """Transformers has [out, in], with all heads' features as one axis, and old files also hold position ids."""
    config = testing.FIXTURE_CLIP
    tensors = random_tensors(clip_weights.clip_tensors(config), 5)
    spare = {f"{tower}_model.embeddings.position_ids": np.arange(5)[None] for tower in ("text", "vision")}
    save_file(tensors | spare, tmp_path / "clip.safetensors")
    params = clip_weights.load_clip(tmp_path / "clip.safetensors", config)
    jax.tree.map(np.testing.assert_array_equal, params, random_clip(config, 5))
    assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, clip_shapes(config))
    layer = params["vision"]["layers"]["attention"]
    name = "vision_model.encoder.layers.1.self_attn"
    assert layer["key"]["kernel"][1, 5, 2, 9] == tensors[f"{name}.k_proj.weight"][2 * 16 + 9, 5]
    assert layer["key"]["bias"][1, 2, 9] == tensors[f"{name}.k_proj.bias"][2 * 16 + 9]
    assert layer["out"]["kernel"][1, 2, 9, 5] == tensors[f"{name}.out_proj.weight"][5, 2 * 16 + 9]
    patches = tensors["vision_model.embeddings.patch_embedding.weight"]
    assert params["vision"]["patches"]["kernel"][3, 4, 2, 7] == patches[7, 2, 3, 4]
    assert params["logit_scale"] == tensors["logit_scale"]


def test_a_clip_of_another_size_is_told_by_its_first_shape(tmp_path: pathlib.Path) -> None:
    save_file(random_tensors(clip_weights.clip_tensors(testing.FIXTURE_CLIP), 5), tmp_path / "clip.safetensors")
    other = dataclasses.replace(testing.FIXTURE_CLIP, patch_size=4)
    with pytest.raises(UserError) as error:
        clip_weights.load_clip(tmp_path / "clip.safetensors", other)
    found = "found vision_model.embeddings.patch_embedding.weight as float32[48, 3, 8, 8] (SHA-256 "
    assert found in str(error.value)
    assert "expected float32[48, 3, 4, 4]; download https://huggingface.co/openai/clip-vit-base" in str(error.value)


def test_a_file_is_told_by_its_hash(tmp_path: pathlib.Path) -> None:
    """SHA-256 of "abc", as FIPS 180-2 has it."""
    (tmp_path / "weights.pth").write_bytes(b"abc")
    told = weights.sha256_of(tmp_path / "weights.pth")
    assert told == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    with pytest.raises(UserError, match=r"absent cannot be read \(No such file or directory\)"):
        weights.sha256_of(tmp_path / "absent")


def test_another_networks_file_is_told_with_both_hashes(vgg16_file: pathlib.Path) -> None:
    with pytest.raises(UserError) as error:
        inception_weights.load_inception(vgg16_file)
    told = weights.sha256_of(vgg16_file)[:16]
    assert str(error.value) == (
        f"{vgg16_file}: found no fc.weight (SHA-256 {told}...), expected weights of FID's Inception-v3 (SHA-256 "
        f"6726825d...); download {INCEPTION_URL} to {vgg16_file.parent / 'pt_inception-2015-12-05-6726825d.pth'} and "
        "load that"
    )


def test_random_weights_are_the_seeds() -> None:
    first, again, other = random_i3d(0), random_i3d(0), random_i3d(1)
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert not np.array_equal(first["logits"]["kernel"], other["logits"]["kernel"])


HEADS_URL = "https://github.com/richzhang/PerceptualSimilarity/raw/master/lpips/weights/v0.1/vgg.pth"
I3D_URL = "https://github.com/songweige/TATS/raw/main/tats/fvd/i3d_pretrained_400.pt"
INCEPTION_URL = (
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth"
)
VGG16_URL = "https://download.pytorch.org/models/vgg16-397923af.pth"


@pytest.mark.parametrize(
    ("load", "name", "url", "published", "setting"),
    [
        (lpips_weights.load_vgg16, "VGG16 weights", VGG16_URL, "vgg16-397923af.pth", "vgg16_file"),
        (
            functools.partial(lpips_weights.load_lpips, "vgg16.pth"),
            "LPIPS heads",
            HEADS_URL,
            "lpips_vgg_v0.1.pth",
            "lpips_file",
        ),
        (i3d_weights.load_i3d, "I3D weights", I3D_URL, "i3d_pretrained_400.pt", "i3d_file"),
    ],
)
def test_a_missing_file_is_told_with_where_it_comes_from_and_goes(
    tmp_path: pathlib.Path, load: Callable[..., object], name: str, url: str, published: str, setting: str
) -> None:
    """Under the published file's own name, which says what is in it."""

    def refusal(*arguments: object) -> str:
        with pytest.raises(UserError) as error:
            load(*arguments)
        return str(error.value)

    missing = tmp_path / "absent.safetensors"
    download, without = f"download {url} to", "or set PerceptualConfig.image to 0 to train without this loss"
    elsewhere = f"{download} {tmp_path / published} and set PerceptualConfig.{setting} to that, {without}"
    for path, found in ((missing, f"nothing at {missing}"), (tmp_path, f"a folder at {tmp_path}")):
        assert refusal(path, "PerceptualConfig.image") == f"{name}: found {found}, expected a file; {elsewhere}"
    named = tmp_path / published
    there = f"{name}: found nothing at {named}, expected a file; {download} {named}"
    assert refusal(named, "PerceptualConfig.image") == f"{there}, {without}"
    assert refusal(named) == there
    assert f"{name}: found no name, expected a file; {download} {published} and load that" == refusal("")


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("mine.pt", b"<!DOCTYPE html><html>", "found a file that begins with b'<!DOCTYPE html><', expected one that"),
        ("mine.pt", b"", "found an empty file, expected one that torch.save wrote"),
        ("mine.pt", b"PK\3\4 and nothing else", "is damaged ("),
        ("mine.safetensors", b"<!DOCTYPE html><html>", "begins with b'<!DOCTYPE html><', expected safetensors"),
        ("mine.safetensors", b"", "found an empty file, expected safetensors"),
        ("mine.safetensors", b"\x30\0\0\0\0\0\0\0{}", "is damaged ("),
    ],
)
def test_a_file_of_something_else_is_told_with_where_the_right_one_comes_from(
    tmp_path: pathlib.Path, name: str, content: bytes, found: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as error:
        i3d_weights.load_i3d(tmp_path / name, "PerceptualConfig.video")
    assert found in str(error.value)
    assert str(error.value).endswith(
        f"; download {I3D_URL} to {tmp_path / 'i3d_pretrained_400.pt'} and set PerceptualConfig.i3d_file to that, or "
        "set PerceptualConfig.video to 0 to train without this loss"
    )


def test_half_precision_becomes_whole(vgg16_file: pathlib.Path, tmp_path: pathlib.Path) -> None:
    heads = testing.random_heads()
    save_file({name: array.astype(np.float16) for name, array in heads.items()}, tmp_path / "half.safetensors")
    found = lpips_weights.load_lpips(vgg16_file, tmp_path / "half.safetensors")["heads"]["relu1_2"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, heads["lin0.model.1.weight"].reshape(-1).astype(np.float16))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"lin1.model.1.weight": None, "lin3.model.1.weight": None},
            r"found no lin1.model.1.weight \(SHA-256 [0-9a-f]{16}\.\.\.\), expected LPIPS",
        ),
        (
            {"lin5.model.1.weight": np.zeros(1)},
            r"found lin5.model.1.weight .*, expected LPIPS heads alone \(SHA-256 a78928a0af1e5f0f\.\.\.\)",
        ),
        (
            {"lin2.model.1.weight": np.zeros((1, 2, 1, 1))},
            r"found lin2.model.1.weight as float64\[1, 2, 1, 1\] \(.*\), expected float32\[1, 256, 1, 1\]",
        ),
        (
            {"lin0.model.1.weight": np.zeros((1, 64, 1, 1), np.int32)},
            r"as int32\[1, 64, 1, 1\] \(.*\), expected float32",
        ),
        ({"lin4.model.1.weight": np.full((1, 512, 1, 1), np.nan)}, "found NaN or infinity in lin4.model.1.weight"),
        ({"lin4.model.1.weight": np.full((1, 512, 1, 1), -np.inf)}, "found NaN or infinity in lin4.model.1.weight"),
    ],
)
def test_the_first_flaw_is_told(
    vgg16_file: pathlib.Path, tmp_path: pathlib.Path, change: dict[str, np.ndarray | None], message: str
) -> None:
    tensors = {name: array for name, array in {**testing.random_heads(), **change}.items() if array is not None}
    save_file(tensors, tmp_path / "heads.safetensors")
    with pytest.raises(UserError, match=message) as error:
        lpips_weights.load_lpips(vgg16_file, tmp_path / "heads.safetensors")
    assert str(tmp_path / "heads.safetensors") in str(error.value)


def test_files_of_torch_are_read_too(vgg16_file: pathlib.Path, fixtures: pathlib.Path) -> None:
    with pytest.raises(UserError, match=r"state_legacy.pt: found no lin0.model.1.weight .* expected LPIPS heads"):
        lpips_weights.load_lpips(vgg16_file, fixtures / "state_legacy.pt")


def test_a_damaged_file_is_refused(vgg16_file: pathlib.Path, heads_file: pathlib.Path) -> None:
    heads_file.write_bytes(heads_file.read_bytes()[:500])
    with pytest.raises(UserError, match=r"heads\.safetensors is damaged"):
        lpips_weights.load_lpips(vgg16_file, heads_file)
