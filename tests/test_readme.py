"""What the README and the page on data give to copy works as it stands."""

import importlib
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator

import gin
import numpy as np
import pytest

from phenaki_jax.data.feed import Feed, make_feed
from phenaki_jax.data.prepare.manifests import read_manifest
from phenaki_jax.data.prepare.settings import PrepareSettings
from phenaki_jax.data.tensorflow_stack import seqio, tf, tfds
from phenaki_jax.inference.video_reader import open_video
from phenaki_jax.training import loop, run_files
from phenaki_jax.training.sharding import MeshConfig
from tests.data.prepare.files import make_image, make_video

ROOT = pathlib.Path(__file__).parent.parent
PAGES = (ROOT / "README.md", ROOT / "docs" / "data.md")
EVALUATION = ROOT / "docs" / "evaluation.md"
TEXT_LENGTH = 40
# By split, the captions of its clips; the last is longer than a text.
CAPTIONS = {
    "train": ["a dog", "zwei Bären", "a red ball", "a very long walk along the very long beach of the sea"],
    "test": ["a cat", "ein Fuß", "a blue ball", "the sea at night, and the moon above it, and the stars"],
}


def _code_that_begins_with(first_line: str) -> str:
    """The one block of code of the pages with this first line."""
    text = "".join(page.read_text() for page in PAGES)
    blocks = re.findall(r"^```\w*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    [found] = [block for block in blocks if block.startswith(f"{first_line}\n")]
    return found


def _clip(split: str, index: int) -> np.ndarray:
    """Noise of its own for every clip."""
    rng = np.random.default_rng([len(split), index])
    return rng.integers(0, 256, (11, 32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The TFDS data set that the example reads."""
    folder = tmp_path_factory.mktemp("tfds")
    tfds.dataset_builders.store_as_tfds_dataset(
        name="my_clips",
        version="1.0.0",
        features=tfds.features.FeaturesDict(
            {"video": tfds.features.Tensor(shape=(11, 32, 32, 3), dtype=np.uint8), "caption": tfds.features.Text()}
        ),
        split_datasets={
            split: tf.data.Dataset.from_tensor_slices(
                {"video": [_clip(split, index) for index in range(len(captions))], "caption": captions}
            )
            for split, captions in CAPTIONS.items()
        },
        data_dir=folder,
    )
    return folder


@pytest.fixture
def my_files(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pathlib.Path]:
    """A folder on Python's path with the files of the example."""
    for name in ("my_tasks.py", "my_tokenizer.gin"):
        (tmp_path / name).write_text(_code_that_begins_with(f"# {name}"))
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("my_tasks", None)
    seqio.TaskRegistry.remove("my_clips")


def _feed(data_dir: pathlib.Path, split: str) -> Feed:
    return make_feed(
        mixture="my_clips",
        split=split,
        batch_size=4,
        frames=11,
        text_length=TEXT_LENGTH,
        converter="transformer",
        seed=0,
        sharding=MeshConfig().make().batch,
        data_dir=data_dir,
        repeat=False,
    )


@pytest.mark.parametrize("split", ["train", "test"])
def test_clips_of_ones_own_reach_the_transformer(data_dir: pathlib.Path, my_files: pathlib.Path, split: str) -> None:
    importlib.import_module("my_tasks")
    [batch] = [{name: np.asarray(array) for name, array in batch.items()} for batch in _feed(data_dir, split)]
    assert {name: (array.shape, array.dtype) for name, array in batch.items()} == {
        "video": ((4, 11, 32, 32, 3), np.uint8),
        "frame_mask": ((4, 11), np.bool_),
        "text_tokens": ((4, TEXT_LENGTH), np.int32),
        "text_mask": ((4, TEXT_LENGTH), np.bool_),
        "prefix_frames": ((4,), np.int32),
    }
    assert batch["frame_mask"].all()
    assert not batch["prefix_frames"].any()
    found = {}
    for video, tokens, mask in zip(batch["video"], batch["text_tokens"], batch["text_mask"], strict=True):
        *ids, end = tokens[mask].tolist()
        assert end == 1
        found[video.tobytes()] = bytes(token - 3 for token in ids)
    assert found == {
        _clip(split, index).tobytes(): caption.encode()[: TEXT_LENGTH - 1]
        for index, caption in enumerate(CAPTIONS[split])
    }


def test_a_run_file_of_ones_own_registers_and_names_the_task(data_dir: pathlib.Path, my_files: pathlib.Path) -> None:
    run_files.configure([str(my_files / "my_tokenizer.gin")], [f"DATA_DIR={str(data_dir)!r}"])
    data = gin.get_bindings(loop.train)["data"]
    gin.clear_config()
    assert (data.mixture, data.eval_mixture) == ("my_clips", "my_clips")
    assert _feed(data.data_dir, "train").batch_spec["video"].shape == (4, 11, 32, 32, 3)


def _commands_of(section: str, page: pathlib.Path = PAGES[0]) -> list[list[str]]:
    """The commands of a section of a page, as a shell would split them."""
    text = page.read_text().partition(f"## {section}\n")[2].partition("\n## ")[0]
    lines = "\n".join(re.findall(r"^    (.*)$", text, re.MULTILINE)).replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines]


# What makes the README's trainings as small as a test must be.
SMALL = ("--gin_file", str(ROOT / "gin_configs" / "shrink.gin"))
DATA = (
    "--gin.MIXTURE='my_videos'",
    "--gin.EVAL_MIXTURE='my_videos_video_text'",
    "--gin.FRAME_SIZE=64",
    "--gin.PATCH=16",
)
STEPS = ("--gin.STEPS=4", "--gin.WARMUP_STEPS=1", "--gin.BATCH_SIZE=4", "--gin.loop.Schedule.eval_every=4")


def _make_videos(folder: pathlib.Path) -> None:
    folder.mkdir()
    for index in range(6):
        make_video(folder / f"{index}.mp4", seconds=9, filters=f"hue=h={60 * index}")
        (folder / f"{index}.txt").write_text(f"a caption of video {index}")
    make_image(folder / "picture.png")
    (folder / "picture.txt").write_text("a caption of a picture")


def _run(words: list[str]) -> None:
    """The command as users run it, who have no four devices on two cores."""
    usual = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    subprocess.run([sys.executable, "-m", "phenaki_jax.cli.main", *words], check=True, env=usual)


@pytest.mark.slow
def test_the_small_trainings_of_own_videos_go_in_the_commands_of_the_docs(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commands as they stand, but for the number of steps."""
    commands = _commands_of("Tasks", PAGES[1])
    assert [words[:2] for words in commands] == [["phenaki", name] for name in ("prepare", "train", "train")]
    _make_videos(tmp_path / "my_videos")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gin_configs").symlink_to(ROOT / "gin_configs")
    for _, *words in commands:
        if words[0] == "train":
            words += STEPS
        _run(words)


@pytest.mark.slow
def test_own_videos_become_own_samples_in_the_commands_of_the_readme(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commands as they stand, but for settings that make the trainings small; and what measures the result."""
    commands = _commands_of("Your own videos")
    assert [words[:2] for words in commands] == [
        ["phenaki", name] for name in ("prepare", "train", "train", "export", "generate")
    ]
    _make_videos(tmp_path / "my_videos")
    monkeypatch.chdir(tmp_path)
    for _, *words in commands:
        if words[0] == "train":
            words += [*SMALL, *DATA, *STEPS]
        _run(words)
    with open_video(tmp_path / "mine.mp4") as video:
        assert len(list(video.frames)) == 7
    [measured] = [words for words in _commands_of("Protocols", EVALUATION) if "reconstruction" in words]
    _run(measured[1:])
    told = json.loads(pathlib.Path("runs", "numbers", "my_videos_video_text_reconstruction.json").read_text())
    assert [number["metric"] for number in told["numbers"]] == ["psnr", "ssim"]


def test_the_table_of_a_published_dataset_keeps_its_splits(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("train/arm_wrestling/a.mp4", "val/zumba/b.mp4", "test/c.mp4"):
        (tmp_path / "kinetics600" / name).parent.mkdir(parents=True)
        (tmp_path / "kinetics600" / name).touch()
    monkeypatch.chdir(tmp_path)
    exec(_code_that_begins_with("import csv, pathlib"))
    found = read_manifest(tmp_path / "kinetics600.csv", PrepareSettings())
    assert [(each.key, each.captions, each.split) for each in found] == [
        ("kinetics600/train/arm_wrestling/a.mp4", ("arm wrestling",), "train"),
        ("kinetics600/val/zumba/b.mp4", ("zumba",), "test"),
    ]
