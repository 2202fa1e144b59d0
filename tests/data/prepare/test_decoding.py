"""Frames are told by their numbers: those that a video shows at the moments, in every container, whole and in parts."""

import pathlib

import av
import numpy as np
import pytest

from phenaki_jax.data.prepare.decoding import UnorderedTimesError
from phenaki_jax.data.prepare.frames import open_frames, sampled
from phenaki_jax.data.prepare.moments import Moments
from phenaki_jax.data.prepare.sources import Place
from phenaki_jax.errors import UserError
from tests.data.prepare.files import H264, VP9, ffmpeg, make_numbered, make_video, numbers_of

B_FRAMES = (*H264, "-bf", "3", "-b_strategy", "0")
OPEN_GROUPS = (*B_FRAMES, "-x264-params", "open-gop=1:keyint=12:scenecut=0")
MPEG4 = ("-c:v", "mpeg4", "-q:v", "2")


def numbers(path: pathlib.Path, moments: Moments, *, by_order: bool = False) -> list[int]:
    with open_frames(Place.whole(path), 32, moments, by_order=by_order) as opened:
        return numbers_of(np.stack(list(sampled(opened.shown, moments))))


@pytest.mark.parametrize("name", ["a.avi", "a.mkv", "a.mov"])
@pytest.mark.parametrize(
    "coded",
    [B_FRAMES, (*MPEG4, "-bf", "2"), MPEG4, ("-c:v", "mjpeg", "-q:v", "2")],
    ids=["h264", "xvid", "mpeg4", "mjpeg"],
)
def test_frames_are_in_the_order_in_which_they_are_shown(
    tmp_path: pathlib.Path, name: str, coded: tuple[str, ...]
) -> None:
    path = make_numbered(tmp_path / name, rate=24, seconds=2, coded=coded)
    assert numbers(path, Moments(24.0)) == list(range(48))
    assert numbers(path, Moments(8.0)) == list(range(0, 48, 3))
    assert numbers(path, Moments(8.0, 1.0, 1.5)) == [24, 27, 30, 33]


def test_what_is_left_undecoded_changes_nothing(tmp_path: pathlib.Path) -> None:
    """Of 30 frames a second 4 are taken; those that others are decoded from are decoded too."""
    path = make_numbered(tmp_path / "a.mp4", rate=30, seconds=3, coded=B_FRAMES)
    assert numbers(path, Moments(4.0)) == [7.5 * k // 1 for k in range(12)]


def test_damage_of_a_frame_that_is_not_needed_costs_nothing(tmp_path: pathlib.Path) -> None:
    path = make_video(tmp_path / "a.mp4", size="64x64", rate=24, seconds=2, coded=B_FRAMES)
    moments = Moments(8.0)

    def frames() -> list[np.ndarray]:
        with open_frames(Place.whole(path), 32, moments) as opened:
            return list(sampled(opened.shown, moments))

    whole = frames()
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        tick = packets[0].stream.average_rate * packets[0].time_base
        unneeded = [each for each in packets[8:-8] if round(each.pts * tick) % 3]
        # Of a NAL unit, after its length: the bits that are 0 where nothing is decoded from it.
        places = [(each.pos, each.size) for each in unneeded if not bytes(each)[4] & 0x60]
    assert len(places) > 10
    data = bytearray(path.read_bytes())
    for at, size in places:
        # After what says how long it is and that nothing is decoded from it.
        data[at + 5 : at + size] = bytes(size - 5)
    path.write_bytes(data)
    np.testing.assert_array_equal(frames(), whole)
    with pytest.raises(UserError, match=r"is damaged|cannot be decoded"):
        numbers(path, Moments(24.0))


@pytest.mark.parametrize(
    ("name", "coded"),
    [
        ("open.mp4", OPEN_GROUPS),
        ("open.mkv", OPEN_GROUPS),
        ("closed.mp4", (*B_FRAMES, "-g", "12")),
        ("vp9.webm", (*VP9, "-g", "12")),
        ("mpeg4.mp4", (*MPEG4, "-bf", "2", "-g", "12")),
    ],
)
def test_a_part_begins_with_the_frame_that_is_shown_then(
    tmp_path: pathlib.Path, name: str, coded: tuple[str, ...]
) -> None:
    path = make_numbered(tmp_path / name, rate=24, seconds=3, coded=coded)
    for start in range(1, 68):
        assert numbers(path, Moments(24.0, start / 24, (start + 4) / 24)) == list(range(start, start + 4))


def test_a_part_of_an_animation_is_no_image(tmp_path: pathlib.Path) -> None:
    path = make_numbered(tmp_path / "a.gif", rate=10, seconds=2, coded=())
    moments = Moments(10.0, 1.9)
    with open_frames(Place.whole(path), 32, moments) as opened:
        assert not opened.is_image
        assert numbers_of(np.stack(list(sampled(opened.shown, moments)))) == [19]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_times_that_are_not_in_the_order_of_frames_are_told(tmp_path: pathlib.Path, name: str) -> None:
    """Written as if frames were shown in the order of decoding."""
    right = make_numbered(tmp_path / "right.mp4", rate=24, seconds=2, coded=B_FRAMES)
    ffmpeg("-i", right, "-c", "copy", "-bsf:v", "setts=ts=512*N", tmp_path / name)
    with pytest.raises(UnorderedTimesError):
        numbers(tmp_path / name, Moments(8.0))
    assert numbers(tmp_path / name, Moments(8.0), by_order=True) == list(range(0, 48, 3))
    assert numbers(tmp_path / name, Moments(8.0, 1.0, 1.5), by_order=True) == [24, 27, 30, 33]


def test_a_video_that_begins_late_is_not_cut_off(tmp_path: pathlib.Path) -> None:
    make_numbered(tmp_path / "a.mkv", rate=8, seconds=2)
    ffmpeg(
        "-itsoffset",
        3,
        "-i",
        tmp_path / "a.mkv",
        "-f",
        "lavfi",
        "-i",
        "sine=duration=5",
        "-c:v",
        "copy",
        tmp_path / "b.mkv",
    )
    assert numbers(tmp_path / "b.mkv", Moments(8.0)) == list(range(16))


def test_a_video_that_is_cut_off_is_refused_where_it_ends(tmp_path: pathlib.Path) -> None:
    path = make_video(tmp_path / "a.mkv", seconds=4, coded=(*H264, "-g", "1"))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=r"is cut off: its frames end at [12]\.\d\d s of 4\.00 s"):
        numbers(path, Moments(8.0))


@pytest.mark.parametrize("rate", [8, 24, 25, 29.97, 30, 60])
def test_no_frame_is_taken_twice_or_left_out_where_containers_round_times(tmp_path: pathlib.Path, rate: float) -> None:
    path = make_numbered(tmp_path / "a.webm", rate=rate, seconds=1, coded=VP9)
    assert numbers(path, Moments(float(rate))) == list(range(round(rate)))


def test_uneven_frames_are_taken_by_their_times(tmp_path: pathlib.Path) -> None:
    """Frames 0, 1, 2 and 12 of 24 a second are kept."""
    uneven = "select='lt(n,3)+eq(n,12)'"
    path = make_numbered(tmp_path / "a.mkv", rate=24, seconds=1, filters=uneven, coded=(*H264, "-fps_mode", "vfr"))
    assert numbers(path, Moments(12.0))[:7] == [0, 2, 2, 2, 2, 2, 12]
