"""Published datasets and their mixtures by name: prepared ones first, and what to do where one is not there."""

import pathlib
import re

import gin
import jax
import numpy as np
import pytest

from phenaki_jax.data.feed import make_feed
from phenaki_jax.data.published.catalog import CATALOG, MIXTURES
from phenaki_jax.data.published.provider import mixture_of
from phenaki_jax.data.sources import data_dir_of_seqio, provider_of, rates_of
from phenaki_jax.data.tensorflow_stack import seqio, tfds
from phenaki_jax.errors import UserError
from phenaki_jax.training.train import configure
from tests.data.published.files import write_bair, write_coco, write_prepared, write_ucf101

ROOT = pathlib.Path(__file__).parents[3]


def write_joint(data_dir: pathlib.Path) -> None:
    """What the mixtures need."""
    write_prepared(data_dir, "webvid")
    write_prepared(data_dir, "laion", images=True)
    write_coco(data_dir)


@pytest.mark.parametrize(
    ("name", "rates"),
    [
        ("video_image_100_0", {"webvid_video_text": 1.0}),
        ("video_image_80_20", {"webvid_video_text": 0.8, "laion_image_text": 0.2}),
        ("video_image_50_50", {"webvid_video_text": 0.5, "laion_image_text": 0.5}),
        (
            "video_image_laion_80_10_10",
            {"webvid_video_text": 0.8, "coco_captions_image_text": 0.1, "laion_image_text": 0.1},
        ),
    ],
)
def test_mixtures_have_their_rates(name: str, rates: dict[str, float], tmp_path: pathlib.Path) -> None:
    write_joint(tmp_path)
    assert {task.name: rate for task, rate in rates_of(name, tmp_path).items()} == rates
    assert name in MIXTURES


def test_the_papers_mixture_is_read_as_its_rates_say_at_the_size_that_is_prepared(tmp_path: pathlib.Path) -> None:
    write_joint(tmp_path)
    feed = make_feed(
        mixture="video_image_laion_80_10_10",
        split="train",
        batch_size=200,
        frames=11,
        text_length=8,
        converter="transformer",
        temporal_patch=2,
        seed=0,
        sharding=jax.sharding.NamedSharding(jax.make_mesh((1,), ("data",)), jax.sharding.PartitionSpec("data")),
        data_dir=tmp_path,
    )
    batch = next(feed)
    assert batch["video"].shape == (200, 11, 16, 16, 3)
    texts = [bytes(row[row > 0] - 3)[:5] for row in np.asarray(batch["text_tokens"]).astype(np.uint8)]
    shares = {word: texts.count(word) / 200 for word in (b"webvi", b"laion", b"train", b"restv")}
    images = np.asarray(batch["frame_mask"]).sum(1) == 1
    assert 0.7 < shares[b"webvi"] < 0.9
    assert 0.04 < shares[b"laion"] < 0.17
    assert 0.04 < shares[b"train"] + shares[b"restv"] < 0.17
    assert images.mean() == pytest.approx(1 - shares[b"webvi"])


def test_datasets_of_two_sizes_are_refused_in_a_mixture(tmp_path: pathlib.Path) -> None:
    write_prepared(tmp_path, "webvid", size=32)
    write_prepared(tmp_path, "laion", images=True)
    expected = (
        "found laion_image_text of 16 px and webvid_video_text of 32 px in video_image_50_50, expected one size: "
        "prepare one again with --size 32"
    )
    with pytest.raises(UserError, match=re.escape(expected)):
        provider_of("video_image_50_50", tmp_path)
    with pytest.raises(UserError, match="found 'nothing' in mine, expected one of bair_robot_pushing_video_text, "):
        mixture_of("mine", {"nothing": 1.0}, tmp_path)


def test_kinetics600_has_five_given_frames_at_any_size_it_is_prepared_at(tmp_path: pathlib.Path) -> None:
    for name in ("kinetics600", "kinetics600_128"):
        write_prepared(tmp_path, name, fps=25.0, frames=17)
        task = provider_of(f"{name}_video_text", tmp_path)
        examples = list(tfds.as_numpy(task.get_dataset({"video": 17, "prefix_frames": 1}, seed=0)))
        assert {each["prefix_frames"].item() for each in examples} == {5}
        assert {each["text"] for each in examples} == {name.encode()}
        assert isinstance(provider_of(name, tmp_path), seqio.Mixture)


def test_another_rate_is_refused_with_what_to_do(tmp_path: pathlib.Path) -> None:
    folder = write_prepared(tmp_path, "kinetics600", fps=8.0)
    expected = (
        f"found kinetics600 of 8 frames per second in {folder}, expected 25: prepare it again with --fps 25, or under "
        "another --name"
    )
    with pytest.raises(UserError, match=re.escape(expected)):
        provider_of("kinetics600_video_text", tmp_path)


@pytest.mark.parametrize("name", [each.task for each in CATALOG.values() if not each.tfds])
def test_what_is_not_prepared_is_told_with_the_command(name: str, tmp_path: pathlib.Path) -> None:
    dataset = name.removesuffix("_video_text").removesuffix("_image_text")
    with pytest.raises(UserError, match=rf"found no dataset {dataset} in .*: phenaki prepare {dataset}.* --size \d+"):
        provider_of(name, tmp_path)
    with pytest.raises(UserError, match=rf"--name {dataset}_32 --size 32"):
        provider_of(name.replace(dataset, f"{dataset}_32"), tmp_path)


def test_a_prepared_dataset_of_a_name_goes_before_that_of_tfds(tmp_path: pathlib.Path) -> None:
    write_prepared(tmp_path, "ucf101", fps=25.0)
    task = provider_of("ucf101_video_text", tmp_path)
    [each, *_] = tfds.as_numpy(task.get_dataset({"video": 5, "prefix_frames": 1}, seed=0))
    assert (each["video"].shape, each["text"]) == ((5, 16, 16, 3), b"ucf101")


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("coco_captions_video_text", "coco_captions_image_text"),
        ("ucf101_image_text", "ucf101_video_text"),
        ("ucf101_64_video_text", "ucf101_video_text"),
        ("kinetics_60_video_text", "kinetics600_video_text"),
    ],
)
def test_the_error_of_an_unknown_name_tells_the_nearest_and_where_all_are(
    name: str, nearest: str, tmp_path: pathlib.Path
) -> None:
    with pytest.raises(UserError) as error:
        provider_of(name, tmp_path)
    assert str(error.value).startswith(
        f"found mixture '{name}': did you mean {nearest}? expected one of moving_shapes_"
    )
    assert ", or a published one; docs/data.md has all" in str(error.value)


@pytest.mark.parametrize("run", ["bair", "ucf101", "kinetics600"])
def test_the_mixtures_of_run_files_have_their_frames(run: str, tmp_path: pathlib.Path) -> None:
    """Each study's tokenizer and model read one mixture, whose batches fit both."""
    write = {"bair": write_bair, "ucf101": write_ucf101}.get(run)
    if write:
        write(tmp_path)
    else:
        write_prepared(tmp_path, "kinetics600", size=64, fps=25.0)
    shapes = set()
    for kind in ("cvivit", "phenaki"):
        gin.clear_config()
        gin.add_config_file_search_path(str(ROOT))
        configure([f"gin_configs/runs/{kind}_{run}.gin"], [f"DATA_DIR='{tmp_path}'"], stand_ins=True)
        mixture, evaluated, frames, size = map(macro, ("MIXTURE", "EVAL_MIXTURE", "FRAMES", "FRAME_SIZE"))
        assert mixture == evaluated
        for split in ("train", "test"):
            with data_dir_of_seqio(tmp_path):
                lengths = {"video": frames, "prefix_frames": 1}
                dataset = provider_of(mixture, tmp_path).get_dataset(lengths, split, seed=0)
            shapes.add((dataset.element_spec["video"].shape, size))
    assert len(shapes) == 1
    [(shape, size)] = shapes
    assert tuple(shape) == (17, size, size, 3)


def macro(name: str) -> object:
    """The value of a macro, which may be another's."""
    value = gin.query_parameter(f"{name}/gin.macro.value")
    return macro(re.sub(r"^%", "", str(value))) if str(value).startswith("%") else value


def test_of_a_folder_of_one_dataset_that_of_all_is_told(tmp_path: pathlib.Path) -> None:
    folder = write_prepared(tmp_path, "webvid", fps=8.0)
    for place in (folder, folder.parent):
        told = f"expected it for webvid_video_text; {place} is the folder of one dataset: set DATA_DIR to {tmp_path}: "
        with pytest.raises(UserError, match=re.escape(told)):
            provider_of("webvid_video_text", place)


def test_names_that_end_alike_are_not_near_for_it(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match="found mixture 'my_clips_video_text', expected one of"):
        provider_of("my_clips_video_text", tmp_path)
