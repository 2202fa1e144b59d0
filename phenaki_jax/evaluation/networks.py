"""The networks that protocols look through, loaded from files, and what each video has by them.

i3d [batch, 400]; inception [batch, frames, 2048]; inception_logits [batch, frames, 1008]; shapes [batch, 64]
clip, psnr, ssim, lpips, obeyed_all, obeyed_color, obeyed_shape, obeyed_motion [batch]
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from phenaki_jax.errors import UserError, check_types
from phenaki_jax.evaluation import shapes_classifier as shapes
from phenaki_jax.evaluation.measures import MEASURES
from phenaki_jax.evaluation.quality import frames_lpips, frames_psnr, frames_ssim
from phenaki_jax.evaluation.similarity import clip_similarity
from phenaki_jax.features import clip, i3d, inception, resizing
from phenaki_jax.features.clip_tokenizer import ClipTokenizer
from phenaki_jax.features.clip_weights import load_clip
from phenaki_jax.features.i3d_weights import load_i3d
from phenaki_jax.features.inception_weights import load_inception
from phenaki_jax.features.lpips import lpips
from phenaki_jax.features.lpips_weights import load_lpips
from phenaki_jax.features.weights import sha256_of
from phenaki_jax.layers.pixels import to_float

FVD_VARIANTS = {"original": ("tensorflow1", 1e-3), "cd-fvd": ("torch", 1e-5)}
"""How frames are resized for I3D and what is added to its variances: as in the first FVD, or as in TATS and cd-fvd."""


@dataclasses.dataclass(frozen=True)
class NetworkFiles:
    """Where the published weights are, see docs/evaluation.md; empty where they are not.

    Attributes:
      inception_file: of FID's Inception-v3.
      inception_resize: a name in `features.inception.RESIZES`.
      i3d_file: of I3D.
      fvd: a name in `FVD_VARIANTS`.
      clip_file: of a CLIP.
      clip_vocabulary: its vocab.json.
      clip_merges: its merges.txt.
      clip_model: its name.
      vgg16_file: of LPIPS's VGG16.
      lpips_file: of LPIPS's heads.
    """

    inception_file: str = ""
    inception_resize: str = "tensorflow1"
    i3d_file: str = ""
    fvd: str = "original"
    clip_file: str = ""
    clip_vocabulary: str = ""
    clip_merges: str = ""
    clip_model: str = "clip-vit-base-patch32"
    vgg16_file: str = ""
    lpips_file: str = ""

    def __post_init__(self) -> None:
        check_types(self)
        if self.fvd not in FVD_VARIANTS:
            raise UserError(f"found fvd {self.fvd!r}, expected one of {', '.join(FVD_VARIANTS)}")
        if self.inception_resize not in inception.RESIZES:
            raise UserError(
                f"found inception_resize {self.inception_resize!r}, expected one of {', '.join(inception.RESIZES)}"
            )

    def absent(self, network: str) -> list[str]:
        """Names of the files that a network needs and that are not given."""
        return [name for name in _FILES[network] if not getattr(self, name)]


_FILES: dict[str, tuple[str, ...]] = {
    "i3d": ("i3d_file",),
    "inception": ("inception_file",),
    "clip": ("clip_file", "clip_vocabulary", "clip_merges"),
    "vgg16": ("vgg16_file", "lpips_file"),
    "shapes": (),
}

# Of parameters and videos, and of what else is known of them, the rows by name.
_Rows = Callable[[Any, UInt8[Array, "batch frames size size 3"], Mapping[str, Array]], dict[str, Array]]


class Network(NamedTuple):
    """A network with its weights.

    Attributes:
      params: to be handed to `rows_of`.
      sha256: of the files of weights, joined by "+".
      size: pixels along a side that it sees frames in; 0 for those they have.
      features: of a row; 0 where the row is a number.
      resize: how frames get to that size.
      rows: see `rows_of`.
      more: what else a number depends on.
      tokenizer: of the texts that it reads.
    """

    params: Any
    sha256: str
    size: int
    features: int
    resize: str
    rows: _Rows
    more: tuple[tuple[str, Any], ...] = ()
    tokenizer: ClipTokenizer | None = None


def usable_measures(name: str, measures: Sequence[str], files: NetworkFiles) -> dict[str, list[str]]:
    """The measures of a protocol of this name, each with the files that it lacks.

    Raises:
      UserError: all lack some; or a file is given that none reads, or without those that are read with it.
    """
    networks = {measure: MEASURES[measure].network for measure in measures}
    read = {file for network in networks.values() if network for file in _FILES[network]}
    if idle := [file for files_of in _FILES.values() for file in files_of if getattr(files, file) and file not in read]:
        raise UserError(f"found --{idle[0]}, which no measure of {name} reads; leave it out, or name another protocol")
    for network in filter(None, dict.fromkeys(networks.values())):
        absent = files.absent(network)
        if absent and (alone := [file for file in _FILES[network] if file not in absent]):
            raise UserError(f"found --{alone[0]} without --{absent[0]}, expected both: name the other, or neither")
    lacking = {measure: files.absent(network) if network else [] for measure, network in networks.items()}
    if all(lacking.values()):
        # Several measures are of one network.
        wanting = {tuple(names): [each for each in lacking if lacking[each] == names] for names in lacking.values()}
        wanted = "; ".join(
            f"{', '.join('--' + file for file in names)} for {', '.join(each)}" for names, each in wanting.items()
        )
        raise UserError(
            f"found no weights for any measure of {name}, expected {wanted}: docs/evaluation.md tells which "
            "files to download"
        )
    return lacking


def load_networks(measures: Sequence[str], files: NetworkFiles) -> dict[str, Network]:
    """The networks of some measures by name.

    Raises:
      UserError: a file is missing, damaged, or of another network.
    """
    loaders = {"i3d": _i3d, "inception": _inception, "clip": _clip, "vgg16": _vgg16, "shapes": _shapes}
    wanted = dict.fromkeys(MEASURES[measure].network for measure in measures)
    return {name: loaders[name](files) for name in wanted if name}


def told_of(networks: Mapping[str, Network], texts: Sequence[str]) -> dict[str, np.ndarray]:
    """What the networks need to know of videos besides their pixels, from their texts."""
    known = {}
    if "clip" in networks:
        tokenizer = networks["clip"].tokenizer
        assert tokenizer is not None
        known["clip_tokens"] = np.asarray(tokenizer.encode_batch(texts))
    if "shapes" in networks:
        known |= {f"expected_{name}": values for name, values in shapes.expected_answers(texts).items()}
    return known


def rows_of(
    networks: Mapping[str, Network],
    params: Mapping[str, Any],
    videos: UInt8[Array, "batch frames size size 3"],
    known: Mapping[str, Array],
) -> dict[str, Array]:
    """What each video has, by name; to be compiled.

    Args:
      networks: that look at it.
      params: theirs, by name.
      videos: RGB, of the size in which they are compared.
      known: see `told_of`; also "original", clips of the same shape, where videos are compared with their own.
    """
    rows: dict[str, Array] = {}
    for name, network in networks.items():
        if name != "vgg16" or "original" in known:
            rows |= network.rows(params[name], videos, known)
    if "original" in known:
        pair = to_float(videos), to_float(known["original"]), jnp.ones(videos.shape[:2], bool)
        rows |= {"psnr": frames_psnr(*pair), "ssim": frames_ssim(*pair)}
    return rows


def judged(videos: UInt8[Array, "batch frames _ _ 3"], size: int) -> UInt8[Array, "batch frames {size} {size} 3"]:
    """Frames brought to the size in which they are compared, bilinearly, and to whole colours again."""
    if videos.shape[2] == size:
        return videos
    return jnp.round(resizing.like_torch(videos, size, size)).astype(jnp.uint8)


def _i3d(files: NetworkFiles) -> Network:
    resize, epsilon = FVD_VARIANTS[files.fvd]

    def rows(params: Any, videos: Array, known: Mapping[str, Array]) -> dict[str, Array]:
        return {"i3d": i3d.fvd_features(params, videos, resize)}

    params = load_i3d(files.i3d_file, epsilon=epsilon)
    more = (("i3d_epsilon", epsilon),)
    return Network(params, sha256_of(files.i3d_file), i3d.SIZE, i3d.CLASSES, resize, rows, more)


def _inception(files: NetworkFiles) -> Network:
    def rows(params: Any, videos: Array, known: Mapping[str, Array]) -> dict[str, Array]:
        images = videos.reshape(-1, *videos.shape[2:])
        found = inception.inception_features(params, images, files.inception_resize)
        names = {"inception": "pool3", "inception_logits": "logits"}
        return {row: found[name].reshape(*videos.shape[:2], -1) for row, name in names.items()}

    path, resize = files.inception_file, files.inception_resize
    return Network(load_inception(path), sha256_of(path), inception.SIZE, inception.FEATURES, resize, rows)


def _clip(files: NetworkFiles) -> Network:
    config = clip.ClipConfig.named(files.clip_model)

    def rows(params: Any, videos: Array, known: Mapping[str, Array]) -> dict[str, Array]:
        images = clip.embed_images(config, params, videos.reshape(-1, *videos.shape[2:]))
        texts = clip.embed_texts(config, params, known["clip_tokens"])
        frames = images.reshape(*videos.shape[:2], -1)
        return {"clip": clip_similarity(frames, texts, jnp.ones(videos.shape[:2], bool))}

    tokenizer = ClipTokenizer(files.clip_vocabulary, files.clip_merges)
    texts = {f"{name}_sha256": sha256_of(getattr(files, name)) for name in ("clip_vocabulary", "clip_merges")}
    sha256, more = sha256_of(files.clip_file), (("clip_model", files.clip_model), *texts.items())
    return Network(load_clip(files.clip_file, config), sha256, config.image_size, 0, "pillow", rows, more, tokenizer)


def _vgg16(files: NetworkFiles) -> Network:
    def rows(params: Any, videos: Array, known: Mapping[str, Array]) -> dict[str, Array]:
        pair = to_float(videos), to_float(known["original"]), jnp.ones(videos.shape[:2], bool)
        with jax.default_matmul_precision("highest"):
            return {"lpips": frames_lpips(functools.partial(lpips, params), *pair)}

    sha256 = f"{sha256_of(files.vgg16_file)}+{sha256_of(files.lpips_file)}"
    return Network(load_lpips(files.vgg16_file, files.lpips_file), sha256, 0, 0, "none", rows)


def _shapes(files: NetworkFiles) -> Network:
    def rows(params: Any, videos: Array, known: Mapping[str, Array]) -> dict[str, Array]:
        answers = shapes.shapes_answers(params, videos)
        right = shapes.obeyed(answers, {name: known[f"expected_{name}"] for name in shapes.ANSWERS})
        told: dict[str, Float[Array, " batch"]] = {f"obeyed_{name}": each * 1.0 for name, each in right.items()}
        return {"shapes": answers["features"], **told}

    return Network(
        shapes.load_shapes_classifier(), sha256_of(shapes.WEIGHTS), shapes.SIZE, shapes.FEATURES, "box", rows
    )
