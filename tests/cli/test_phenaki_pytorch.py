"""What a state dict of phenaki-pytorch holds is told, and that nothing of it can be imported."""

import json
import pathlib

import numpy as np
import pytest

from phenaki_jax.cli.main import main

# Names and axes as CViViT and MaskGit of 0.5.0 have them.
CVIVIT = {
    "to_patch_emb_first_frame.2.weight": (16, 192),
    "to_patch_emb.2.weight": (16, 384),
    "enc_spatial_transformer.layers.0.1.to_q.weight": (32, 16),
    "enc_temporal_transformer.layers.0.0.dsconv.weight": (16, 1, 3, 3, 3),
    "enc_temporal_transformer.layers.1.0.dsconv.weight": (16, 1, 3, 3, 3),
    "vq._codebook.embed": (1, 64, 16),
}
MASKGIT = {
    "token_emb.weight": (65, 16),
    "pos_emb.weight": (48, 16),
    "continuous_pos_bias.net.0.0.weight": (8, 3),
    "transformer.layers.0.0.dsconv.weight": (16, 1, 3, 3, 3),
    "to_logits.weight": (64, 16),
}


@pytest.fixture
def told(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> object:
    """What inspect tells of a file with tensors of these shapes."""

    def tell(shapes: dict[str, tuple]) -> tuple[int, str, str]:
        tensors = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
        monkeypatch.setattr("phenaki_jax.features.torch_files.read_torch_file", lambda path: tensors)
        (tmp_path / "a.pt").touch()
        return main(["inspect", str(tmp_path / "a.pt"), "--json"]), *capsys.readouterr()

    return tell


def test_both_networks_of_a_whole_model_are_told(told: object) -> None:
    whole = {f"cvivit.{name}": shape for name, shape in CVIVIT.items()}
    _, out, _ = told(whole | {f"maskgit.{name}": shape for name, shape in MASKGIT.items()})
    found = json.loads(out)
    assert found["networks"]["C-ViViT"]["temporal patch"] == 2
    assert found["networks"]["C-ViViT"]["temporal layers"] == 2
    assert found["networks"]["C-ViViT"]["quantizer"] == "64 codes by cosine"
    assert found["networks"]["MaskGit"]["codes"] == 64
    assert found["networks"]["MaskGit"]["longest"] == 48
    assert list(found["alike"]) == ["cvivit.vq._codebook.embed", "maskgit.token_emb.weight", "maskgit.to_logits.weight"]
    assert "GEGLU" in found["differs"]["C-ViViT"]
    assert found["import"].startswith("nothing of it can be imported")


def test_one_network_is_told_alone(told: object) -> None:
    code, out, _ = told(MASKGIT)
    assert code == 0
    assert list(json.loads(out)["networks"]) == ["MaskGit"]


def test_other_tensors_are_refused(told: object) -> None:
    code, _, err = told({"weight": (2, 2)})
    assert code == 2
    assert "found tensors such as weight, expected the state dict of a CViViT" in err


@pytest.mark.parametrize(
    ("shapes", "name"),
    [
        (CVIVIT, "to_patch_emb_first_frame.2.weight"),
        (MASKGIT, "pos_emb.weight"),
        (MASKGIT, "to_logits.weight"),
    ],
)
def test_a_part_of_a_network_is_refused_by_what_it_lacks(told: object, shapes: dict[str, tuple], name: str) -> None:
    code, _, err = told({each: shape for each, shape in shapes.items() if each != name})
    assert code == 2
    network = "C-ViViT" if shapes is CVIVIT else "MaskGit"
    assert f"a.pt: found a {network} without {name}, expected the state dict of a CViViT" in err


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("to_patch_emb.2.weight", (16,)),
        ("to_patch_emb_first_frame.2.weight", (16, 0)),
        ("vq._codebook.embed", (64, 16)),
    ],
)
def test_a_tensor_of_other_axes_is_refused(told: object, name: str, shape: tuple) -> None:
    code, _, err = told(CVIVIT | {name: shape})
    assert code == 2
    assert f"a.pt: found {name} of the shape {list(shape)}, expected" in err
