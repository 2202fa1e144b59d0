"""phenaki-pytorch's MaskGit over its C-ViViT, with text embeddings that are given: training steps and samples."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import sys
import types
from typing import Any

import numpy as np
import torch

from against import process
from against.phenaki_pytorch_side import tokenizer_module
from against.sizes import TransformerSizes


def _phenaki_module(text_width: int) -> tuple[Any, Any, Any]:
    """(`phenaki_pytorch`, `cvivit`, `optimizer`) of the package; its T5, which would be downloaded, is left out."""
    cvivit, optimizer = tokenizer_module()
    texts = types.ModuleType("phenaki_pytorch.t5")
    vars(texts).update(t5_encode_text=print, get_encoded_dim=lambda _: text_width, DEFAULT_T5_NAME="none")
    sys.modules["phenaki_pytorch.t5"] = texts
    return importlib.import_module("phenaki_pytorch.phenaki_pytorch"), cvivit, optimizer


class PhenakiPytorch:
    """Their side, as its trainer runs it: loss, clip, Adam; and `sample`."""

    def __init__(self, sizes: TransformerSizes, steps: int = 18, seed: int = 0) -> None:
        """Makes the models.

        Args:
          sizes: of them.
          steps: rounds of a sample.
          seed: of the initialisation.
        """
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        torch.manual_seed(seed)
        module, cvivit, optimizer = _phenaki_module(sizes.text_width)
        tokenizer = sizes.tokenizer
        self._frames = tokenizer.frames
        self._model = module.Phenaki(
            cvivit=cvivit.CViViT(
                dim=tokenizer.width,
                codebook_size=tokenizer.codes,
                image_size=tokenizer.frame_size,
                patch_size=tokenizer.patch,
                temporal_patch_size=tokenizer.temporal_patch,
                spatial_depth=tokenizer.layers,
                temporal_depth=tokenizer.layers,
                dim_head=tokenizer.head_width,
                heads=tokenizer.heads,
                use_vgg_and_gan=False,
                lookup_free_quantization=False,
            ),
            maskgit=module.MaskGit(
                dim=tokenizer.width,
                num_tokens=tokenizer.codes,
                max_seq_len=sizes.tokens,
                heads=tokenizer.heads,
                dim_head=tokenizer.head_width,
                depth=sizes.layers,
                dim_context=sizes.text_width,
            ),
            steps=steps,
            text_embed_dim=sizes.text_width,
        ).train()
        self._optimizer = optimizer.get_optimizer(self._model.maskgit.parameters(), lr=1e-4, wd=0.0)

    def parameters(self) -> int:
        """How many numbers are trained."""
        return sum(each.numel() for each in self._model.maskgit.parameters())

    def timed_steps(self, tokens: np.ndarray, texts: np.ndarray, count: int) -> dict[str, Any]:
        """Training steps on tokens [batch, times, rows, columns]; see `process.timed_steps`."""
        ids, embeddings = torch.from_numpy(tokens.astype(np.int64)), torch.from_numpy(texts)

        def step() -> None:
            loss = self._model(video_codebook_ids=ids, text_embeds=embeddings)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self._model.maskgit.parameters(), 0.5)
            self._optimizer.step()
            self._optimizer.zero_grad()
            loss.item()

        return process.timed_steps(step, count)

    def timed_samples(self, texts: np.ndarray, count: int) -> dict[str, Any]:
        """Samples for texts whose embeddings are known; see `process.timed_steps`."""
        embeddings = torch.from_numpy(texts)
        self._model.encode_texts = lambda _, output_device: embeddings
        prompts = ["a text"] * len(texts)

        def sample() -> None:
            self._model.sample(texts=prompts, num_frames=self._frames, cond_scale=3.0).numpy()

        return process.timed_steps(sample, count)

    def versions(self) -> dict[str, str]:
        """Of what computes."""
        return {name: importlib.metadata.version(name) for name in ("phenaki-pytorch", "torch")}
