"""Equality of phenaki_jax.evaluation with public implementations of the same measures, on CPU.

    make bench BENCH=metric_oracles
    make bench BENCH=metric_oracles ARGS=--write-fixtures

Fréchet distances are compared with those of torch-fidelity, clean-fid and cd-fvd (its class and the function that TATS
shares), kernel distances with those of torch-fidelity and clean-fid, Inception scores with torch-fidelity's: of equal
features, drawn at random with the width and about the spectrum that those of Inception-v3 and I3D have. Ours come from
moments that stream by in uneven batches. PSNR and SSIM are compared with scikit-image, frame by frame. cd-fvd's class
divides covariances by the number of samples where all others divide by one less, which is told apart (`biased`).

With `--write-fixtures`, what tests/evaluation compares with where there is no scikit-image is written instead.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from against.statistics import biased
from against.torchvision_alone import import_torchvision
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from phenaki_jax import __version__
from phenaki_jax.evaluation.frechet import FeatureStatistics, frechet_of_moments
from phenaki_jax.evaluation.inception_score import InceptionScore, inception_score
from phenaki_jax.evaluation.kernel import kernel_distance, kernel_distance_of_subsets
from phenaki_jax.evaluation.moments import statistics_of_parts
from phenaki_jax.evaluation.quality import frames_psnr, frames_ssim
from phenaki_jax.evaluation.testing import example_clips, example_features
from phenaki_jax.layers.pixels import to_float

_DISTANCES, _PIXELS = 1e-3, 1e-5
_FIXTURES = Path(__file__).parent.parent / "tests" / "evaluation" / "fixtures"
_BATCH = 300
# Rows, width and decades of the spectrum: as FID is computed, as FVD is, and with fewer rows than features.
_SETS = {"fid": (10000, 2048, 3.0), "fvd": (2048, 400, 2.0), "fvd_few": (256, 400, 2.0)}

Sets = tuple[np.ndarray, np.ndarray]


def _streamed(features: np.ndarray) -> FeatureStatistics:
    return statistics_of_parts((features[at : at + _BATCH] for at in range(0, len(features), _BATCH)), _BATCH)


def frechet_distances(first: np.ndarray, second: np.ndarray) -> dict[str, float]:
    """By other implementations, each from the same features."""
    from cdfvd.fvd import cdfvd
    from cdfvd.third_party.i3d.utils import frechet_distance as of_tats
    from cdfvd.utils.metric_utils import FeatureStats
    from cleanfid.fid import fid_from_feats
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    statistics = [fid_features_to_statistics(torch.from_numpy(rows.astype(np.float64))) for rows in (first, second)]
    gathered = []
    for rows in (first, second):
        gathered.append(FeatureStats(capture_mean_cov=True))
        gathered[-1].append(rows)
    doubles = [torch.from_numpy(rows).double() for rows in (first, second)]
    return {
        "torch_fidelity": fid_statistics_to_metric(*statistics, False)["frechet_inception_distance"],
        "clean_fid": float(fid_from_feats(first, second)),
        "cd_fvd_function": float(of_tats(*doubles)),
        "cd_fvd_biased": float(cdfvd.compute_fvd_from_stats(None, gathered[1], gathered[0])),
    }


def _frechet_errors(name: str, sets: Sets) -> Iterator[tuple[str, float]]:
    ours = [_streamed(rows) for rows in sets]
    for oracle, expected in frechet_distances(*sets).items():
        statistics = [biased(each) for each in ours] if oracle.endswith("biased") else ours
        found = frechet_of_moments(*statistics)
        print(f"{name} {oracle}: {found:.9g}, expected {expected:.9g}", file=sys.stderr)
        yield f"{name}.{oracle}", abs(found / expected - 1)
        if oracle.endswith("biased"):
            yield f"{name}.{oracle}.unbiased_beside_it", abs(frechet_of_moments(*ours) / expected - 1)


def _kernel_errors(name: str, sets: Sets) -> Iterator[tuple[str, float]]:
    """Of whole sets, whose order does not matter; and of published subsets, in deviations of their mean."""
    from cleanfid.fid import kernel_distance as of_clean_fid
    from torch_fidelity.metric_kid import kid_features_to_metric

    doubles = [rows.astype(np.float64) for rows in sets]
    rows = len(doubles[0])
    tensors = [torch.from_numpy(each) for each in doubles]
    found = kernel_distance(*sets)
    whole = kid_features_to_metric(*tensors, kid_subsets=1, kid_subset_size=rows, verbose=False)
    yield f"{name}.torch_fidelity", abs(found / whole["kernel_inception_distance_mean"] - 1)
    yield f"{name}.clean_fid", abs(found / of_clean_fid(*doubles, num_subsets=1, max_subset_size=rows) - 1)
    subsets = kernel_distance_of_subsets(*sets, subsets=100, size=rows // 4, seed=0)
    theirs = kid_features_to_metric(*tensors, kid_subsets=100, kid_subset_size=rows // 4, verbose=False)
    difference = subsets.mean - theirs["kernel_inception_distance_mean"]
    yield f"{name}.torch_fidelity.subsets_in_deviations", abs(difference) / (subsets.deviation * (2 / 100) ** 0.5)


def _score_errors() -> Iterator[tuple[str, float]]:
    from torch_fidelity.metric_isc import isc_features_to_metric

    logits = 3 * np.random.default_rng(0).standard_normal((5000, 1008)).astype(np.float32)
    expected = isc_features_to_metric(torch.from_numpy(logits), splits=10, shuffle=False)
    found = inception_score(logits)
    yield "inception_score.mean", abs(found.mean / expected["inception_score_mean"] - 1)
    yield "inception_score.deviation", abs(found.deviation / expected["inception_score_std"] - 1)
    metric = InceptionScore.from_outputs(splits=10, samples=len(logits))
    total = metric.empty()
    for at in range(0, len(logits), 500):
        total = total.merge(metric.from_model_output(logits=logits[at : at + 500], index=jnp.arange(at, at + 500)))
    yield "inception_score.streamed", abs(total.compute() / expected["inception_score_mean"] - 1)


def scikit_image_measures(first: np.ndarray, second: np.ndarray) -> dict[str, list[float]]:
    """PSNR and SSIM of each frame of two clips in uint8, in float64."""
    pairs = [(one / 255.0, other / 255.0) for one, other in zip(first, second, strict=True)]
    windows = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    return {
        "psnr": [float(peak_signal_noise_ratio(*pair, data_range=1.0)) for pair in pairs],
        "ssim": [float(structural_similarity(*pair, data_range=1.0, channel_axis=-1, **windows)) for pair in pairs],
    }


def _pixel_errors() -> Iterator[tuple[str, float]]:
    for name, clips in example_clips().items():
        first, second = (to_float(jnp.asarray(clip))[:, None] for clip in clips)
        mask = jnp.ones((len(first), 1), bool)
        expected = scikit_image_measures(*clips)
        for measure, compute in (("psnr", frames_psnr), ("ssim", frames_ssim)):
            error = np.abs(np.asarray(jax.jit(compute)(first, second, mask)) - expected[measure])
            yield f"{measure}.{name}", float(error.max())


def _report() -> dict[str, Any]:
    distances: dict[str, float] = {}
    for name, (rows, width, steepness) in _SETS.items():
        sets = tuple(
            example_features(rows, width, seed, steepness=steepness, shift=shift)
            for seed, shift in ((1, 0.0), (2, 1.0))
        )
        distances |= dict(_frechet_errors(name, sets))
        if name == "fvd":
            distances |= dict(_kernel_errors("kernel", sets))
    distances |= dict(_score_errors())
    told = {name: distances.pop(name) for name in list(distances) if "beside" in name or "deviations" in name}
    pixels = dict(_pixel_errors())
    packages = ("torch", "torch-fidelity", "clean-fid", "cd-fvd", "scikit-image", "scipy", "jax", "numpy")
    return {
        "name": "metric_oracles",
        "aims": {"distances": f"<= {_DISTANCES} relative", "pixels": f"<= {_PIXELS}"},
        "distances": max(distances.values()),
        "pixels": max(pixels.values()),
        "errors": {name: float(f"{error:.3g}") for name, error in (distances | pixels).items()},
        "beside": {name: float(f"{error:.3g}") for name, error in told.items()},
        "versions": {"phenaki_jax": __version__, **{name: version(name) for name in packages}},
    }


def write_fixtures(folder: Path) -> None:
    """Writes what tests/evaluation reads: scikit-image's measures of each frame of the example clips."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {name: scikit_image_measures(*clips) for name, clips in example_clips().items()}
    (folder / "scikit_image.json").write_text(json.dumps(found, indent=2) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write-fixtures", action="store_true", help=f"write {_FIXTURES} instead of comparing")
    return parser.parse_args()


if __name__ == "__main__":
    # scipy's sqrtm(disp=False), which clean-fid and cd-fvd call, is deprecated.
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    import_torchvision()
    if _arguments().write_fixtures:
        write_fixtures(_FIXTURES)
    else:
        report = _report()
        print(json.dumps(report))
        sys.exit(not (report["distances"] <= _DISTANCES and report["pixels"] <= _PIXELS))
