"""FID and FVD of two fixed sets, from files to numbers, against public implementations with the same random weights.

    make bench BENCH=set_oracles
    make bench BENCH=set_oracles ARGS="--images 410 --videos 410"

Theirs are called as their users call them: torch-fidelity and clean-fid with two folders of pictures, cd-fvd with two
arrays of videos, each in its own precision. clean-fid is given pytorch-fid's network. Ours come from the files of
weights through `phenaki_jax.evaluation.networks`, batches and streamed moments, as `phenaki evaluate` makes them. The
sets are drifting waves of colour; those of the second are paler and grainy.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import jax
import numpy as np
import torch
from against.statistics import biased
from against.torch_features import (
    as_file,
    import_torchvision,
    inception_file_tensors,
    pytorch_fid_inception,
    with_counts,
)
from PIL import Image
from tqdm import tqdm

from phenaki_jax import __version__
from phenaki_jax.evaluation.frechet import FeatureStatistics, frechet_of_moments
from phenaki_jax.evaluation.measures import MEASURES
from phenaki_jax.evaluation.moments import statistics_of_parts
from phenaki_jax.evaluation.networks import NetworkFiles, load_networks, rows_of
from phenaki_jax.features.i3d_weights import i3d_tensors
from phenaki_jax.features.random_weights import random_tensors
from phenaki_jax.features.testing import WEIGHTS

_AIM = 1e-3
_FRAMES, _SIZE, _BATCH = 10, 64, 8
_VERSIONS = ("torch", "torch-fidelity", "clean-fid", "pytorch-fid", "cd-fvd", "scipy", "jax", "numpy")


def videos(count: int, seed: int, *, other: bool) -> np.ndarray:
    """Waves of three colours, each video with its own directions, lengths and speeds."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:_SIZE, :_SIZE] / _SIZE
    time = np.arange(_FRAMES)[:, None, None] / _FRAMES
    found = np.empty((count, _FRAMES, _SIZE, _SIZE, 3), np.uint8)
    for video in found:
        for color in range(3):
            across, down, speed, phase = rng.normal(0, (9, 9, 6, 9))
            wave = np.sin(across * x + down * y + speed * time + phase)
            contrast, grain = (90, 12) if other else (120, 0)
            noisy = 128 + contrast * wave + grain * rng.standard_normal(wave.shape)
            video[..., color] = np.clip(np.round(noisy), 0, 255)
    return found


def fid_of_torch_fidelity(folders: list[str], weights: str) -> float:
    from torch_fidelity import calculate_metrics

    found = calculate_metrics(
        input1=folders[0],
        input2=folders[1],
        fid=True,
        feature_extractor_weights_path=weights,
        cuda=False,
        cache=False,
        verbose=False,
        batch_size=_BATCH,
    )
    return float(found["frechet_inception_distance"])


def fid_of_clean_fid(folders: list[str], tensors: dict[str, np.ndarray]) -> float:
    from cleanfid.fid import compute_fid

    network = pytorch_fid_inception(tensors)
    return float(
        compute_fid(
            *folders,
            mode="clean",
            custom_feat_extractor=lambda images: network(((images - 128) / 128).double())["pool3"],
            device=torch.device("cpu"),
            num_workers=0,
            batch_size=_BATCH,
            verbose=False,
        )
    )


def fvd_of_cd_fvd(sets: list[np.ndarray], weights: str) -> float:
    from cdfvd.fvd import cdfvd

    with torch.no_grad():
        counts = {"n_real": len(sets[0]), "n_fake": len(sets[1])}
        return float(cdfvd("i3d", **counts, ckpt_path=weights, device="cpu").compute_fvd(*sets))


def ours(measure: str, sets: list[np.ndarray], files: NetworkFiles) -> list[FeatureStatistics]:
    """Of the features of sets of videos, as `phenaki evaluate` has them; "fid" or "fvd" says of which network."""
    networks = load_networks([measure], files)
    params = {name: network.params for name, network in networks.items()}
    look = jax.jit(lambda params, batch: rows_of(networks, params, batch, {})[MEASURES[measure].rows])

    def rows(of_set: np.ndarray) -> Iterator[np.ndarray]:
        for at in tqdm(range(0, len(of_set), _BATCH), desc=measure):
            batch = of_set[at : at + _BATCH]
            padded = np.pad(batch, [(0, _BATCH - len(batch)), *[(0, 0)] * 4])
            yield np.asarray(look(params, padded)[: len(batch)]).reshape(len(batch), -1)

    return [statistics_of_parts(rows(of_set), _BATCH) for of_set in sets]


def measure_all(images: int, clips: int, folder: Path) -> dict[str, tuple[float, float]]:
    """Ours and theirs of each."""
    inception, i3d = inception_file_tensors(), with_counts(random_tensors(i3d_tensors(), WEIGHTS))
    inception_file, i3d_file = as_file(inception), as_file(i3d)
    pictures = [videos(images, seed, other=other)[:, :1] for seed, other in ((1, False), (2, True))]
    folders = []
    for name, of_set in zip(("first", "second"), pictures, strict=True):
        (folder / name).mkdir()
        folders.append(str(folder / name))
        for index, picture in enumerate(of_set):
            Image.fromarray(picture[0]).save(folder / name / f"{index:05d}.png")
    films = [videos(clips, seed, other=other) for seed, other in ((3, False), (4, True))]
    weights = {"inception_file": inception_file, "i3d_file": i3d_file, "fvd": "cd-fvd"}
    found = {}
    for oracle, resize, theirs in (
        ("fid.torch_fidelity", "tensorflow1", lambda: fid_of_torch_fidelity(folders, inception_file)),
        ("fid.clean_fid", "clean", lambda: fid_of_clean_fid(folders, inception)),
        ("fvd.cd_fvd", "tensorflow1", lambda: fvd_of_cd_fvd(films, i3d_file)),
    ):
        measure, files = oracle.partition(".")[0], NetworkFiles(**weights, inception_resize=resize)
        statistics = ours(measure, pictures if measure == "fid" else films, files)
        if measure == "fvd":
            statistics = list(map(biased, statistics))
        found[oracle] = frechet_of_moments(*statistics), theirs()
        print(f"{oracle}: {found[oracle][0]:.9g}, theirs {found[oracle][1]:.9g}", file=sys.stderr)
    return found


def main() -> int:
    """Prints a line of JSON; 1 where the aim is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=24, help="of each set (default: 24)")
    parser.add_argument("--videos", type=int, default=12, help="of each set (default: 12)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure_all(args.images, args.videos, Path(folder))
    errors = {name: abs(of_ours / theirs - 1) for name, (of_ours, theirs) in found.items()}
    report = {
        "name": "set_oracles",
        "aims": {"largest": f"<= {_AIM} relative"},
        "largest": max(errors.values()),
        "errors": {name: float(f"{error:.3g}") for name, error in errors.items()},
        "values": {name: theirs for name, (_, theirs) in found.items()},
        "images": args.images,
        "videos": args.videos,
        "versions": {"phenaki_jax": __version__, **{name: version(name) for name in _VERSIONS}},
    }
    print(json.dumps(report))
    return int(not report["largest"] <= _AIM)


if __name__ == "__main__":
    # scipy's sqrtm(disp=False), which clean-fid and cd-fvd call, is deprecated.
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    import_torchvision()
    sys.exit(main())
