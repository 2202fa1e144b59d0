"""Networks of protocols: read from published files, and what is absent or of another network is told."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from phenaki_jax.errors import UserError
from phenaki_jax.evaluation.networks import (
    NetworkFiles,
    judged,
    load_networks,
    rows_of,
    told_of,
    usable_measures,
)
from phenaki_jax.evaluation.protocols import PROTOCOLS
from phenaki_jax.features.clip import ClipConfig
from phenaki_jax.features.clip_weights import clip_tensors
from phenaki_jax.features.i3d import fvd_features
from phenaki_jax.features.i3d_weights import i3d_tensors, load_i3d
from phenaki_jax.features.inception import inception_features
from phenaki_jax.features.inception_weights import inception_tensors
from phenaki_jax.features.lpips_weights import vgg16_tensors
from phenaki_jax.features.random_weights import random_tensors
from phenaki_jax.features.testing import example_vocabulary, random_heads, write_vocabulary
from phenaki_jax.features.weights import sha256_of


def test_measures_without_files_are_told() -> None:
    measures = PROTOCOLS["kinetics400"].measures
    lacking = usable_measures("kinetics400", measures, NetworkFiles(i3d_file="i3d.pt"))
    assert lacking == {
        **{key: ["inception_file"] for key in ("fid", "kid", "fid_infinity", "inception_score")},
        **{key: [] for key in ("fvd", "kvd", "fvd_infinity")},
        "clipsim": ["clip_file", "clip_vocabulary", "clip_merges"],
    }
    with pytest.raises(
        UserError,
        match="found no weights for any measure of kinetics400, expected --inception_file for fid, kid, fid_infinity, "
        "inception_score; --i3d_file for fvd, kvd, fvd_infinity; --clip_file, --clip_vocabulary, --clip_merges for cl",
    ):
        usable_measures("kinetics400", measures, NetworkFiles())
    # What pixels alone tell needs none.
    assert usable_measures("moments_in_time", PROTOCOLS["moments_in_time"].measures, NetworkFiles())["psnr"] == []


def test_a_file_without_those_that_are_read_with_it_is_refused() -> None:
    """It would be left out after hours, of which nobody thinks who has named it."""
    measures = PROTOCOLS["kinetics400"].measures
    with pytest.raises(UserError, match="found --clip_file without --clip_vocabulary, expected both"):
        usable_measures("kinetics400", measures, NetworkFiles(i3d_file="i3d.pt", clip_file="clip.bin"))


def test_a_file_that_no_measure_reads_is_refused() -> None:
    with pytest.raises(UserError, match="found --clip_file, which no measure of bair reads; leave it out"):
        usable_measures("bair", PROTOCOLS["bair"].measures, NetworkFiles(i3d_file="i3d.pt", clip_file="clip.bin"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"fvd": "best"}, "found fvd 'best'"), ({"inception_resize": "lanczos"}, "found inception_resize 'lanczos'")],
)
def test_unknown_variants_are_refused(changes: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        NetworkFiles(**changes)


def test_weights_of_another_network_are_refused(tmp_path: pathlib.Path) -> None:
    """With what is in the file, its hash, and where the right one comes from."""
    file = tmp_path / "i3d.safetensors"
    save_file({"fc.weight": np.zeros((3, 2), np.float32)}, file)
    with pytest.raises(UserError, match=rf"SHA-256 {sha256_of(file)[:16]}.*expected I3D weights; download https://git"):
        load_networks(["fvd"], NetworkFiles(i3d_file=str(file)))


def test_half_the_size_is_the_mean_of_four_pixels() -> None:
    """As bilinear sampling between pixels has it, rounded."""
    videos = np.random.default_rng(0).integers(0, 256, (1, 2, 8, 8, 3), np.uint8)
    means = videos.reshape(1, 2, 4, 2, 4, 2, 3).mean(axis=(3, 5))
    np.testing.assert_array_equal(np.asarray(judged(jnp.asarray(videos), 4)), np.round(means).astype(np.uint8))
    assert judged(jnp.asarray(videos), 8).shape == videos.shape


@pytest.mark.slow
def test_every_network_gives_its_rows(tmp_path: pathlib.Path) -> None:
    """Of random weights in files as they are published, in bytes as they are drawn."""
    clip = ClipConfig.named("clip-vit-base-patch32")
    tensors = {
        "i3d_file": random_tensors(i3d_tensors(), 0),
        "inception_file": random_tensors(inception_tensors(), 1),
        "clip_file": random_tensors(clip_tensors(clip), 2),
        "vgg16_file": random_tensors(vgg16_tensors(), 3),
        "lpips_file": random_heads(),
    }
    paths = {name: str(tmp_path / f"{name}.safetensors") for name in tensors}
    for name, path in paths.items():
        save_file(tensors[name], path)
    vocabulary, merges = write_vocabulary(tmp_path, *example_vocabulary())
    files = NetworkFiles(**paths, clip_vocabulary=str(vocabulary), clip_merges=str(merges), fvd="cd-fvd")
    networks = load_networks(["fvd", "fid", "clipsim", "lpips", "psnr"], files)
    assert {network.sha256 for network in networks.values()} >= {sha256_of(paths["i3d_file"])}
    rng = np.random.default_rng(5)
    videos, original = rng.integers(0, 256, (2, 2, 9, 32, 32, 3), np.uint8)
    original[1] = videos[1]  # measures of two clips of noise hardly differ
    params = {name: network.params for name, network in networks.items()}
    look = jax.jit(lambda *inputs: rows_of(networks, *inputs))

    def rows(start: int, stop: int) -> dict[str, jax.Array]:
        texts = ["a red circle", "a blue square turns"][start:stop]
        return look(params, videos[start:stop], {**told_of(networks, texts), "original": original[start:stop]})

    both = rows(0, 2)
    assert {name: values.shape for name, values in both.items()} == {
        "i3d": (2, 400),
        "inception": (2, 9, 2048),
        "inception_logits": (2, 9, 1008),
        **dict.fromkeys(("clip", "psnr", "ssim", "lpips"), (2,)),
    }
    # Each is of its own video, text and clip.
    for name, values in rows(1, 2).items():
        np.testing.assert_allclose(both[name][1:], values, rtol=1e-4, atol=1e-4, err_msg=name)
        assert np.abs(both[name][0] - both[name][1]).max() > 1e-3, name
    of_i3d = jax.jit(fvd_features, static_argnames="resize")
    expected = of_i3d(load_i3d(paths["i3d_file"], epsilon=1e-5), videos, resize="torch")
    np.testing.assert_allclose(both["i3d"], expected, rtol=1e-4, atol=1e-5)
    of_frames = jax.jit(lambda params, images: inception_features(params, images, "tensorflow1")["pool3"])
    np.testing.assert_allclose(
        both["inception"][1, 3:5], of_frames(params["inception"], videos[1, 3:5]), rtol=1e-4, atol=1e-4
    )
