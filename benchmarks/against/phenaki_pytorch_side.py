"""phenaki-pytorch's C-ViViT, trained on reconstruction and commitment as its own trainer trains it."""

from __future__ import annotations

import copy
import importlib.metadata
import importlib.util
import os
import sys
import time
import types
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from against import process
from against.sizes import Sizes


def tokenizer_module() -> tuple[Any, Any]:
    """(`cvivit`, `optimizer`) of phenaki-pytorch, without the rest of it.

    The package itself imports text encoders, trainers and torchvision, of which nothing is used here; torchvision's
    usual build does not even load beside a torch for CPU.
    """
    spec = importlib.util.find_spec("phenaki_pytorch")
    assert spec is not None
    package = types.ModuleType("phenaki_pytorch")
    package.__path__ = list(spec.submodule_search_locations or [])
    sys.modules["phenaki_pytorch"] = package
    sys.modules["torchvision"] = types.ModuleType("torchvision")
    return tuple(importlib.import_module(f"phenaki_pytorch.{name}") for name in ("cvivit", "optimizer"))


class PhenakiPytorch:
    """Their side: model, loss, clip, Adam.

    The loss is its reconstruction loss plus the commitment loss of its VectorQuantize. Without VGG and discriminator
    its `forward` returns the first alone, so the second is taken from the quantizer as it passes.
    """

    def __init__(self, sizes: Sizes, learning_rate: float = 3e-4, average: bool = False, seed: int = 0) -> None:
        """Makes the model.

        Args:
          sizes: of the model.
          learning_rate: of Adam; the default is that of its trainer, as are betas .9 and .99 and the clip at .5.
          average: whether to follow the parameters with an average as its trainer does, see `_follow`.
          seed: of the initialisation.
        """
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        torch.manual_seed(seed)
        cvivit, optimizer = tokenizer_module()
        self._model = cvivit.CViViT(
            dim=sizes.width,
            codebook_size=sizes.codes,
            image_size=sizes.frame_size,
            patch_size=sizes.patch,
            temporal_patch_size=sizes.temporal_patch,
            spatial_depth=sizes.layers,
            temporal_depth=sizes.layers,
            dim_head=sizes.head_width,
            heads=sizes.heads,
            use_vgg_and_gan=False,
            lookup_free_quantization=False,
        ).train()
        self._optimizer = optimizer.get_optimizer(self._model.parameters(), lr=learning_rate, wd=0.0)
        self._average = copy.deepcopy(self._model).eval() if average else None
        self._steps = 0
        self.judged = ("parameters", "average") if average else ("parameters",)
        self._quantizer_losses: list[torch.Tensor] = []
        self._model.vq.register_forward_hook(lambda _, __, outputs: self._quantizer_losses.append(outputs[2]))

    def parameters(self) -> int:
        """How many numbers are trained, or follow what is trained: the codebook is a moving average."""
        return sum(each.numel() for each in self._model.parameters()) + self._model.vq.codebook.numel()

    def step(self, videos: UInt8[np.ndarray, "batch frames height width 3"]) -> float:
        """One training step; its loss."""
        self._quantizer_losses.clear()
        loss = self._model(_to_torch(videos)) + self._quantizer_losses[0].sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), 0.5)
        self._optimizer.step()
        self._optimizer.zero_grad()
        if self._average is not None:
            self._follow()
        return loss.item()

    def timed_steps(self, videos: UInt8[np.ndarray, "batch frames height width 3"], count: int) -> dict[str, Any]:
        """See `process.timed_steps`."""
        return process.timed_steps(lambda: self.step(videos), count)

    @torch.no_grad()
    def reconstruct(
        self, videos: UInt8[np.ndarray, "batch frames height width 3"], judged: str = "parameters"
    ) -> UInt8[np.ndarray, "batch frames height width 3"]:
        """Videos through the tokens, by the parameters or by their average."""
        model = self._average if judged == "average" else self._model
        assert model is not None
        # In training mode its codebook would follow what it is shown here.
        model.eval()
        pixels = model(_to_torch(videos), return_recons_only=True).permute(0, 2, 3, 4, 1)
        self._model.train()
        return (pixels * 255).round().clamp(0, 255).to(torch.uint8).numpy()

    def peak_memory_mib(self) -> float:
        """See `process`."""
        return process.peak_memory_mib()

    def forget_peak(self) -> None:
        """See `process`."""
        process.forget_peak()

    def versions(self) -> dict[str, str]:
        """Of what computes."""
        return {
            name: importlib.metadata.version(name) for name in ("phenaki-pytorch", "torch", "vector-quantize-pytorch")
        }

    @torch.no_grad()
    def _follow(self) -> None:
        """The average of its trainer, ema-pytorch's with usual settings: the decay rises from 0 to .9999.

        The trainer takes an `ema_beta` of .995 but does not hand it on.
        """
        decay = min(0.9999, 1 - (1 + self._steps) ** (-2 / 3))
        self._steps += 1
        average = self._average.state_dict()
        for name, value in self._model.state_dict().items():
            if value.dtype.is_floating_point:
                average[name].lerp_(value, 1 - decay)
            else:
                average[name].copy_(value)


class TorchProducts:
    """How fast torch multiplies large matrices."""

    def __init__(self) -> None:
        """Sets the threads of torch."""
        torch.set_num_threads(len(os.sched_getaffinity(0)))

    def best_gflop_per_s(self, side: int) -> float:
        """The fastest of ten products of square float32 matrices of this side."""
        left, right = torch.rand(side, side), torch.rand(side, side)
        best = float("inf")
        for _ in range(10):
            start = time.perf_counter()
            left @ right
            best = min(best, time.perf_counter() - start)
        return 2 * side**3 / best / 1e9


def _to_torch(videos: np.ndarray) -> torch.Tensor:
    """As its data sets give videos: [batch, 3, frames, height, width] in [0, 1]."""
    return torch.from_numpy(videos).permute(0, 4, 1, 2, 3).float() / 255
