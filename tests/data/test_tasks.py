"""What the tasks cut from clips and say of it, in which order, and what they refuse."""

import collections
import dataclasses
import functools
import itertools
import pathlib
import shutil
from collections.abc import Iterator

import numpy as np
import pytest

from phenaki_jax.data import tasks
from phenaki_jax.data.moving_shapes import world
from phenaki_jax.data.moving_shapes.examples import ExampleSet, example_scene
from phenaki_jax.data.tensorflow_stack import seqio, tfds
from phenaki_jax.errors import UserError
from tests.data.conftest import SmallDataset

LENGTHS = {"video": 11, "prefix_frames": 1}


@pytest.fixture(autouse=True)
def data_dir_of_seqio(dataset: SmallDataset) -> Iterator[None]:
    seqio.set_tfds_data_dir_override(str(dataset.data_dir))
    yield
    seqio.set_tfds_data_dir_override(None)


@dataclasses.dataclass(frozen=True)
class Window:
    """A training example traced back to where it was cut from; `segment` and `offset` are of its first new frame."""

    clip: int
    start: int
    frames: int
    prefix_frames: int
    caption: str
    scene: world.Scene

    @property
    def segment(self) -> world.Segment:
        return self.scene.segments[self.segment_index]

    @property
    def segment_index(self) -> int:
        return (self.start + self.prefix_frames) // world.SEGMENT_FRAMES

    @property
    def offset(self) -> int:
        return (self.start + self.prefix_frames) % world.SEGMENT_FRAMES


def is_of_one_segment(window: Window) -> bool:
    """Whether all its new frames are."""
    return window.offset + window.frames - window.prefix_frames <= world.SEGMENT_FRAMES


def read(task: seqio.Task, *, epochs: int = 1, **options: object) -> list[dict[str, np.ndarray]]:
    return list(tfds.as_numpy(task.get_dataset(LENGTHS, num_epochs=epochs, **{"seed": 0, **options})))


@functools.cache
def rendered(videos: ExampleSet, clip: int) -> np.ndarray:
    return world.render(example_scene(videos, clip), videos.size)


@functools.cache
def places(videos: ExampleSet, length: int) -> dict[bytes, list[tuple[int, int, world.Scene]]]:
    """By its pixels, the clip, the first frame and the scene of every window that the rendered clips hold."""
    found = collections.defaultdict(list)
    for clip in range(videos.count):
        scene, frames = example_scene(videos, clip), rendered(videos, clip)
        for start in range(len(frames) - length + 1):
            found[frames[start : start + length].tobytes()].append((clip, start, scene))
    return dict(found)


def candidates(videos: ExampleSet, example: dict[str, np.ndarray]) -> list[Window]:
    """Where a window may have been cut from; raises KeyError where the pixels are not those of a rendered window."""
    frames, given, caption = len(example["video"]), example["prefix_frames"].item(), example["text"].decode()
    return [
        Window(clip, start, frames, given, caption, scene)
        for clip, start, scene in places(videos, frames)[example["video"].tobytes()]
    ]


def trace(videos: ExampleSet, read_examples: list[dict[str, np.ndarray]]) -> list[Window]:
    """Where every window was cut from, if it is long enough to be told from others of its clip."""
    return [candidates(videos, example)[-1] for example in read_examples]


@pytest.fixture(scope="module")
def windows(dataset: SmallDataset) -> list[Window]:
    """Twenty epochs of the video task."""
    seqio.set_tfds_data_dir_override(str(dataset.data_dir))
    return trace(dataset.videos, read(tasks.video_text_task(), epochs=20))


def test_windows_are_rendered_frames_and_their_caption_is_of_the_segment_of_the_new_ones(windows: list[Window]) -> None:
    for window in windows:
        assert window.caption in world.captions(window.segment)


def test_new_frames_are_all_of_one_segment(windows: list[Window]) -> None:
    for window in windows:
        assert is_of_one_segment(window)


def test_half_of_the_windows_are_continuations_of_five_frames(windows: list[Window]) -> None:
    counts = collections.Counter(window.prefix_frames for window in windows)
    assert set(counts) == {0, 5}
    assert 0.45 < counts[5] / len(windows) < 0.55


def test_windows_begin_wherever_they_may_and_nowhere_else(windows: list[Window]) -> None:
    found: dict[tuple[bool, bool], set[tuple[int, int]]] = collections.defaultdict(set)
    for window in windows:
        found[window.prefix_frames > 0, window.segment.motion == "changes color"].add(
            (window.segment_index, window.offset)
        )
    assert found[False, False] == set(itertools.product(range(3), (0, 1)))
    assert found[False, True] == set(itertools.product(range(3), (0,)))
    assert found[True, False] == {(0, 5), (0, 6), *itertools.product((1, 2), range(7))}
    assert found[True, True] == set(itertools.product((1, 2), range(3)))


def test_every_wording_is_used(windows: list[Window]) -> None:
    wordings = collections.Counter(world.captions(window.segment).index(window.caption) for window in windows)
    assert set(wordings) == set(range(12))
    assert max(wordings.values()) < 1.6 * min(wordings.values())


def test_every_epoch_shows_every_clip_once_in_another_order_and_with_other_windows(
    dataset: SmallDataset, windows: list[Window]
) -> None:
    count = dataset.videos.count
    epochs = [windows[start : start + count] for start in range(0, len(windows), count)]
    orders = [[window.clip for window in epoch] for epoch in epochs]
    assert all(sorted(order) == list(range(count)) for order in orders)
    assert len(set(map(tuple, orders))) == len(orders)
    assert len({tuple(sorted((window.clip, window.start) for window in epoch)) for epoch in epochs}) == len(epochs)


@pytest.mark.parametrize(("prefix_probability", "prefix_frames"), [(0.0, 5), (1.0, 3)])
def test_prefixes_are_as_long_and_as_frequent_as_asked(
    dataset: SmallDataset, prefix_probability: float, prefix_frames: int
) -> None:
    task = tasks.video_text_task(prefix_probability=prefix_probability, prefix_frames=prefix_frames)
    windows = trace(dataset.videos, read(task))
    assert {window.prefix_frames for window in windows} == {prefix_frames if prefix_probability else 0}
    assert all(window.caption in world.captions(window.segment) for window in windows)


@pytest.fixture(scope="module")
def any_length(dataset: SmallDataset) -> list[dict[str, np.ndarray]]:
    """Twenty epochs of the video task of any length."""
    seqio.set_tfds_data_dir_override(str(dataset.data_dir))
    return read(tasks.video_text_task(length_step=2), epochs=20)


def test_windows_of_any_length_show_what_their_caption_says(
    dataset: SmallDataset, any_length: list[dict[str, np.ndarray]]
) -> None:
    """A short window may be found at several places of its clip, of which one is right."""
    for example in any_length:
        assert any(
            is_of_one_segment(window) and window.caption in world.captions(window.segment)
            for window in candidates(dataset.videos, example)
        )


def test_all_lengths_are_as_likely_and_leave_something_new(any_length: list[dict[str, np.ndarray]]) -> None:
    counts = collections.Counter((example["prefix_frames"].item(), len(example["video"])) for example in any_length)
    openings, continuations = ({length: n for (given, length), n in counts.items() if given == g} for g in (0, 5))
    assert set(openings) == {3, 5, 7, 9, 11}
    assert set(continuations) == {7, 9, 11}
    for found in (openings, continuations):
        assert max(found.values()) < 1.35 * min(found.values())


def test_short_windows_begin_anywhere_in_their_segment(
    dataset: SmallDataset, any_length: list[dict[str, np.ndarray]]
) -> None:
    openings = (example for example in any_length if len(example["video"]) == 3)
    found = [windows[0] for example in openings if len(windows := candidates(dataset.videos, example)) == 1]
    moving = [window.offset for window in found if window.segment.motion.startswith("moves")]
    assert set(moving) == set(range(world.SEGMENT_FRAMES - 2))


def test_test_split_is_read_in_one_order_where_it_is_not_shuffled(dataset: SmallDataset) -> None:
    first, second = (
        [window.clip for window in trace(dataset.test_videos, read(tasks.video_text_task(), **options))]
        for options in ({"split": "test", "shuffle": False}, {"split": "test", "shuffle": False, "seed": 1})
    )
    assert first == second
    assert sorted(first) == list(range(dataset.test_videos.count))


def test_seed_decides_order_windows_and_wordings(dataset: SmallDataset) -> None:
    first, same, other = (trace(dataset.videos, read(tasks.video_text_task(), seed=seed)) for seed in (0, 0, 1))
    assert first == same
    assert [window.clip for window in first] != [window.clip for window in other]
    by_clip = {window.clip: window for window in other}
    assert any(by_clip[window.clip].start != window.start for window in first)
    assert any(by_clip[window.clip].caption != window.caption for window in first)


def test_images_are_one_frame_with_their_caption(dataset: SmallDataset) -> None:
    scenes = [example_scene(dataset.images, index) for index in range(dataset.images.count)]
    rendered = {world.render(scene, 32).tobytes(): scene for scene in scenes}
    read_examples = read(tasks.image_text_task())
    assert len(read_examples) == len(scenes)
    for example in read_examples:
        assert example["video"].shape == (1, 32, 32, 3)
        assert example["text"].decode() in world.captions(rendered[example["video"].tobytes()].segments[0])
        np.testing.assert_array_equal(example["prefix_frames"], [0])


def test_mixture_is_four_fifths_videos() -> None:
    mixed = seqio.get_mixture_or_task("moving_shapes_joint").get_dataset(LENGTHS, seed=0)
    videos = [len(example["video"]) == LENGTHS["video"] for example in tfds.as_numpy(mixed.take(800))]
    assert 0.76 < np.mean(videos) < 0.84


def test_mixture_of_any_length_holds_images_and_clips_of_all_lengths() -> None:
    mixed = seqio.get_mixture_or_task("moving_shapes_joint_any_length").get_dataset(LENGTHS, seed=0)
    counts = collections.Counter(len(example["video"]) for example in tfds.as_numpy(mixed.take(800)))
    assert set(counts) == {1, 3, 5, 7, 9, 11}
    assert 0.16 < counts[1] / 800 < 0.24


@pytest.mark.parametrize("hosts", [3, 20])
def test_hosts_share_the_clips_of_every_epoch_between_them(dataset: SmallDataset, hosts: int) -> None:
    """With more hosts than files, single records are dealt out."""
    assert len(tasks.video_text_task().source.list_shards("train")) == 16
    seen = [
        window.clip
        for index in range(hosts)
        for window in trace(dataset.videos, read(tasks.video_text_task(), shard_info=seqio.ShardInfo(index, hosts)))
    ]
    assert sorted(seen) == list(range(dataset.videos.count))


def test_all_names_are_registered_and_registering_again_changes_nothing() -> None:
    tasks.register()
    for size in ("", "_64"):
        mixtures = {f"moving_shapes_joint{length}{size}" for length in ("", "_any_length")}
        assert mixtures <= set(seqio.MixtureRegistry.names())
        tasks_of_size = {
            f"moving_shapes_{what}{size}" for what in ("video_text", "video_text_any_length", "image_text")
        }
        assert tasks_of_size <= set(seqio.TaskRegistry.names())


def test_a_dataset_that_is_not_there_is_named_with_the_way_to_make_it(tmp_path: pathlib.Path) -> None:
    seqio.set_tfds_data_dir_override(str(tmp_path))
    with pytest.raises(UserError, match=r"no train files in .*video_64/1.0.0, .* make it with .*size=64") as error:
        tasks.video_text_task(64).get_dataset(LENGTHS)
    assert "\n" not in str(error.value)


def test_no_data_dir_at_all_is_an_error() -> None:
    seqio.set_tfds_data_dir_override(None)
    with pytest.raises(UserError, match="found no data_dir"):
        tasks.video_text_task().get_dataset(LENGTHS)


@pytest.mark.parametrize(
    ("frames", "options", "message"),
    [
        (13, {}, "windows of 13 frames, expected 1 to 12: clips of moving_shapes have 36 frames"),
        (18, {"prefix_probability": 1.0}, "continuations of 18 frames, 5 of them given, expected .* 1 to 12 new"),
        (30, {"prefix_probability": 1.0, "prefix_frames": 25}, "expected 1 to 24 given"),
        (5, {}, "continuations of 5 frames, 5 of them given"),
        (5, {"prefix_frames": 0}, "continuations of 5 frames, 0 of them given"),
        (2, {"length_step": 2}, "any length up to 2 frames with length_step 2, expected .* more frames than it"),
        (11, {"length_step": 0}, "length_step 0, expected a step of at least 1"),
        (14, {"length_step": 2}, "windows of 13 frames, expected 1 to 12: clips of moving_shapes have 36 frames"),
        (6, {"length_step": 2}, "continuations of 5 frames, 5 of them given"),
        (11, {"prefix_probability": 1.5}, "prefix_probability 1.5, expected a share from 0 to 1"),
    ],
)
def test_windows_that_cannot_be_are_refused(frames: int, options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        tasks.video_text_task(**options).get_dataset({**LENGTHS, "video": frames})
    assert "\n" not in str(error.value)


def test_a_dataset_of_which_a_file_is_absent_is_refused(dataset: SmallDataset, tmp_path: pathlib.Path) -> None:
    copy = tmp_path / "tfds"
    shutil.copytree(dataset.data_dir, copy)
    sorted(copy.rglob("*video_32/*/*-train.tfrecord-*"))[1].unlink()
    seqio.set_tfds_data_dir_override(str(copy))
    with pytest.raises(UserError, match=r"found \d+ of \d+ train files in .*: copy the rest"):
        read(tasks.video_text_task())
