"""Public implementations of CLIP: transformers' network and tokenizer, OpenAI's own tokenizer and preprocessing."""

from __future__ import annotations

import gzip
import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import transformers
from PIL import Image

from against.torch_features import Network, Tensors
from phenaki_jax.features.clip import ClipConfig, TowerConfig
from phenaki_jax.features.clip_tokenizer import END, START

Encode = Callable[[str], list[int]]
# OpenAI's tokenizer takes as many merges of a file as its own has.
_MERGES = 49152 - 256 - 2


def transformers_clip(config: ClipConfig, tensors: Tensors, folder: Path) -> tuple[Network, Network]:
    """The network for images, preprocessed and channels first, and the one for texts; saved to model.safetensors."""
    model = transformers.CLIPModel(
        transformers.CLIPConfig(
            text_config={
                **_sizes(config.text),
                "vocab_size": config.vocabulary_size,
                "max_position_embeddings": config.text_length,
                "bos_token_id": config.vocabulary_size - 2,
                "eos_token_id": config.vocabulary_size - 1,
            },
            vision_config={
                **_sizes(config.vision),
                "image_size": config.image_size,
                "patch_size": config.patch_size,
            },
            projection_dim=config.width,
            attn_implementation="eager",
        )
    )
    state = {name: torch.from_numpy(np.array(array)) for name, array in tensors.items()}
    report = model.load_state_dict(state, strict=False)
    assert not report.unexpected_keys
    assert all(name.endswith("position_ids") for name in report.missing_keys)
    model.save_pretrained(folder)
    model.eval().requires_grad_(False).double()
    return (
        lambda images: {"images": model.get_image_features(images).pooler_output},
        lambda tokens: {"texts": model.get_text_features(tokens.long()).pooler_output},
    )


def _sizes(tower: TowerConfig) -> dict[str, int]:
    return {
        "hidden_size": tower.width,
        "intermediate_size": 4 * tower.width,
        "num_hidden_layers": tower.layers,
        "num_attention_heads": tower.heads,
    }


def _import_clip() -> None:
    """Imports OpenAI's package, which asks setuptools for a module that it no longer has, to compare versions with."""
    import packaging.version

    stand_in = types.ModuleType("pkg_resources")
    stand_in.__dict__["packaging"] = packaging
    sys.modules.setdefault("pkg_resources", stand_in)


def openai_pixels(image: np.ndarray, size: int) -> np.ndarray:
    """OpenAI's preprocessing of an image [height, width, 3], as [size, size, 3]."""
    _import_clip()
    from clip.clip import _transform

    return np.moveaxis(_transform(size)(Image.fromarray(image)).numpy(), 0, -1)


def openai_vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """The vocabulary of the released models, which OpenAI's package ships, and its merges."""
    _import_clip()
    from clip.simple_tokenizer import SimpleTokenizer, default_bpe

    lines = gzip.decompress(Path(default_bpe()).read_bytes()).decode().split("\n")
    return SimpleTokenizer().encoder, [(one, other) for one, other in map(str.split, lines[1 : _MERGES + 1])]


def openai_encode(merges: list[tuple[str, str]], folder: Path) -> Encode:
    """OpenAI's own tokenizer."""
    _import_clip()
    from clip.simple_tokenizer import SimpleTokenizer

    file = folder / "merges.txt.gz"
    file.write_bytes(gzip.compress("\n".join(["#version: 0.2", *map(" ".join, merges)]).encode()))
    return SimpleTokenizer(str(file)).encode


def transformers_encode(vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> Encode:
    """That of transformers."""
    tokenizer = transformers.CLIPTokenizer(vocabulary, merges)
    assert tokenizer.convert_tokens_to_ids([START, END]) == [vocabulary[START], vocabulary[END]]
    return lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]
