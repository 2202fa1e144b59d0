"""A number with what it depends on, so that two of them are compared only where they may be."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from phenaki_jax.errors import UserError, check_at_least, check_types
from phenaki_jax.evaluation.bootstrap import Interval
from phenaki_jax.evaluation.kernel import SUBSET_SIZE

_COVARIANCES = ("fid", "fvd", "frechet")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a number is of.

    Attributes:
      generated: samples that are judged.
      real: samples that they are compared with; 0 for measures that need none.
      network: whose features they are compared by, as "i3d"; empty for measures of pixels.
      features: how many numbers it gives a sample; 0 for measures of pixels.
      weights_sha256: of the file, or files joined by "+", that its weights come from; empty without a network.
      frames: of a clip; 1 for images.
      size: pixels along each side of what is judged, (height, width), after all resizing.
      resize: how frames were brought to that size, as "bilinear" or "none".
      seed: of all that is drawn at random.
      more: other settings by name, as the splits of an Inception score.
    """

    generated: int
    frames: int
    size: tuple[int, ...]
    seed: int
    real: int = 0
    network: str = ""
    features: int = 0
    weights_sha256: str = ""
    resize: str = "none"
    more: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        check_types(self)
        check_at_least(self, 1, "generated", "frames")
        check_at_least(self, 0, "real", "features")
        if len(self.size) != 2 or min(self.size) < 1:
            raise UserError(f"found size {self.size}, expected (height, width) in pixels, as (224, 224)")
        if self.network and not re.fullmatch(r"[0-9a-f]{64}(\+[0-9a-f]{64})*", self.weights_sha256):
            raise UserError(
                f"found weights_sha256 {self.weights_sha256!r} of {self.network}, expected 64 hexadecimal digits: what "
                "sha256sum says of the weights' file"
            )


@dataclasses.dataclass(frozen=True)
class Measured:
    """A number.

    Attributes:
      metric: what was measured, as "fvd".
      value: the number.
      settings: what it is of.
      interval: in which it would fall with other samples, where that was looked at.
    """

    metric: str
    value: float
    settings: Settings
    interval: Interval | None = None

    def __post_init__(self) -> None:
        check_types(self)

    @property
    def name(self) -> str:
        """Tells numbers apart that are no match, as "fvd_i3d_16f_224_n2048" of 2048 real and generated samples each."""
        settings = self.settings
        height, width = settings.size
        of_real = f"r{settings.real}" if settings.real not in (0, settings.generated) else ""
        parts = (
            self.metric,
            settings.network,
            f"{settings.frames}f" if settings.frames > 1 else "",
            f"{height}" if height == width else f"{height}x{width}",
            of_real,
            f"n{settings.generated}",
        )
        return "_".join(part for part in parts if part)

    @property
    def caution(self) -> str | None:
        """One line on what too few samples mean for a distance of two sets; None where there are enough."""
        features = self.settings.features
        if self.metric.startswith(_COVARIANCES) and (few := self._few(features)):
            return (
                f"{self.name}: found {few} samples for {features} features, expected more samples than features: "
                "covariances are singular and the value is far above that of many samples; compare it only with values "
                "of as many samples, or take the kernel distance"
            )
        if "subset_size_real" in dict(self.settings.more) and (few := self._few(SUBSET_SIZE)):
            return (
                f"{self.name}: found {few} samples, expected more than the {SUBSET_SIZE} of a subset: each subset is "
                "the whole set, and no deviation of subsets tells how much of the value is chance, which is the more "
                "the fewer samples there are; take more"
            )
        return None

    def _few(self, most: int) -> str:
        """The numbers of samples that are no more than so many, in words; empty where all are more."""
        counts = {"real": self.settings.real, "generated": self.settings.generated}
        return " and ".join(f"{count} {kind}" for kind, count in counts.items() if 0 < count <= most)

    def as_json(self) -> dict[str, Any]:
        """Everything, of types that json knows."""
        settings = dataclasses.asdict(self.settings) | {"size": list(self.settings.size)}
        more = settings.pop("more")
        found: dict[str, Any] = {"name": self.name, "metric": self.metric, "value": self.value}
        if self.interval is not None:
            found["interval"] = dataclasses.asdict(self.interval)
        found["settings"] = settings | dict(more)
        if self.caution is not None:
            found["caution"] = self.caution
        return found
