"""torchvision where its compiled part does not fit torch."""

from __future__ import annotations

import sys


def import_torchvision() -> None:
    """Imports torchvision without its compiled operators, which nothing that is compared here needs.

    The wheels of PyPI are compiled for CUDA, and without their operators nothing but two declarations is missed.
    """
    try:
        import torchvision
    except RuntimeError:
        import torch

        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "FRAGMENT")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision  # noqa: F401
