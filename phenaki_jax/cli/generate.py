"""phenaki generate: draws videos from prompts or a story."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phenaki_jax.errors import UserError, counted

if TYPE_CHECKING:
    import numpy as np

    from phenaki_jax.inference import Phenaki, Story
    from phenaki_jax.inference.video_files import VideoWriter
    from phenaki_jax.inference.video_metadata import Making

PREVIEW_FRAMES = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.description = (
        "Draws a video for each prompt, or a story of changing prompts, with an exported model. The file tells how it\n"
        "was made, see phenaki inspect."
    )
    parser.epilog = (
        "examples:\n"
        '  phenaki generate --model model --prompt "a red circle moves right" --out circle.mp4\n'
        "  phenaki generate --model model --story story.yaml --out story.gif\n\n"
        "a story:\n"
        "  seed: 1\n"
        "  scenes:\n"
        "    - prompt: a red circle moves right\n"
        "      seconds: 1.5\n"
        "    - prompt: the red circle grows\n"
        "      windows: 2"
    )
    parser.add_argument("--model", required=True, metavar="DIR", help="an exported model")
    told = parser.add_mutually_exclusive_group(required=True)
    told.add_argument("--prompt", action="append", metavar="TEXT", help="repeatable; each is a video of its own")
    told.add_argument("--story", metavar="FILE.yaml", help="prompts that follow each other in one video")
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--image", metavar="FILE", help="a picture that the video begins with")
    start.add_argument("--video", metavar="FILE", help="a video that goes on, at the rate of frames that is written")
    parser.add_argument(
        "--out",
        required=True,
        metavar="FILE",
        help=".mp4, .gif or .png, small frames enlarged to 256 pixels; with several prompts FILE-1, FILE-2 ...",
    )
    parser.add_argument("--seed", type=int, metavar="N", help="of all randomness; prompt N+1 has the next seed (0)")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--frames", type=int, metavar="N", help="new frames for each prompt (one window of the model)")
    length.add_argument("--seconds", type=float, metavar="S", help="the same as a duration")
    parser.add_argument("--negative_prompt", default="", metavar="TEXT", help="what guidance moves away from (nothing)")
    parser.add_argument("--truncate_prompts", action="store_true", help="cut prompts that are too long")
    parser.add_argument("--steps", type=int, metavar="N", help="rounds of prediction (those of the model)")
    parser.add_argument(
        "--sampler", metavar="NAME", help="confidence, halton, critic or random: what becomes known first (the model's)"
    )
    parser.add_argument("--guidance", type=float, metavar="S", help="scale of classifier-free guidance (the model's)")
    parser.add_argument("--temperature", type=float, metavar="T", help="noise in what is drawn first (the model's)")
    parser.add_argument(
        "--top_k", type=int, metavar="N", help="draw codes among so many likeliest; 0 for all (the model's)"
    )
    parser.add_argument(
        "--top_p", type=float, metavar="P", help="draw codes among this share of probability (the model's)"
    )
    parser.add_argument("--fps", type=float, metavar="N", help="frames per second of the file (the model's)")
    parser.add_argument(
        "--growing", action="store_true", help="an .mp4 that can be played while it is drawn, and stays if interrupted"
    )
    parser.add_argument(
        "--preview", metavar="FILE.png", help=f"also write {PREVIEW_FRAMES} of its frames side by side as a picture"
    )
    parser.add_argument("--json", action="store_true", help="print what was written as one line of JSON")


def run(args: argparse.Namespace) -> int:
    """Draws and writes; returns 0."""
    from phenaki_jax.inference import Phenaki
    from phenaki_jax.inference.story import plan_windows, tell_stories
    from phenaki_jax.inference.video_files import VideoWriter

    paths, previews = _outputs(args)
    stories = _stories(args)
    given, given_fps = _given(args, [*paths, *previews])
    model = Phenaki.load(args.model, truncate_prompts=args.truncate_prompts)
    if args.fps is not None:
        # So that seconds, also those of a story, are seconds of the file.
        model.metadata = dataclasses.replace(model.metadata, fps=args.fps)
    fps = model.metadata.fps
    start = _start(model, None if given is None else _at_rate(given, given_fps, fps), len(stories))
    told = tell_stories(model, stories, start)
    plan = plan_windows(stories[0], model.tokenizer, model.metadata, 0 if start is None else start.shape[1])
    total = (0 if start is None else start.shape[1]) + sum(window.new for window in plan)
    makings = _makings(args, model, stories)
    with contextlib.ExitStack() as files:
        writers, strips = (
            [
                files.enter_context(VideoWriter(path, fps, growing=growing, making=made))
                for path, made in zip(names, makings, strict=False)
            ]
            for names, growing in ((paths, args.growing), (previews, False))
        )
        _write(_with_start(start, _progress(told, len(plan))), writers, strips, preview_frames(total))
    _report(args, model, stories, paths, previews, total, fps)
    return 0


def _write(told: Any, writers: list[VideoWriter], strips: list[VideoWriter], previewed: list[int]) -> None:
    """Writes all frames to the writers, and the previewed ones to the strips, as they come."""
    shown = 0
    for videos in told:
        seen = [frame - shown for frame in previewed if 0 <= frame - shown < videos.shape[1]]
        shown += videos.shape[1]
        for writer, video in zip(writers, videos, strict=True):
            writer.append(video)
        for strip, video in zip(strips, videos, strict=False):
            strip.append(video[seen])


def _outputs(args: argparse.Namespace) -> tuple[list[Path], list[Path]]:
    """Which videos and previews are written."""
    from phenaki_jax.files import check_output
    from phenaki_jax.inference.video_files import OUTPUT_SUFFIXES, check_fps

    count = len(args.prompt or [args.story])
    paths = [check_output(path, OUTPUT_SUFFIXES) for path in _numbered(args.out, count)]
    previews = []
    if args.preview is not None:
        previews = [check_output(path, (".png",)) for path in _numbered(args.preview, count)]
    if same := set(paths) & set(previews):
        raise UserError(f"found {same.pop()} as --out and as --preview, expected two files; change one of the names")
    if args.fps is not None:
        check_fps(args.fps)
    return paths, previews


def _numbered(out: str, count: int) -> list[str]:
    stem, suffix = os.path.splitext(out)
    return [out] if count == 1 else [f"{stem}-{index + 1}{suffix}" for index in range(count)]


def _given(args: argparse.Namespace, outputs: list[Path]) -> tuple[np.ndarray | None, float | None]:
    """Frames that the videos begin with, and their rate."""
    from phenaki_jax.files import check_kept
    from phenaki_jax.inference.video_reader import read_video

    source = args.video if args.image is None else args.image
    if source is None:
        return None, None
    for path in outputs:
        check_kept(source, path)
    frames, fps = read_video(source)
    if args.image is not None and len(frames) != 1:
        raise UserError(f"{args.image}: found {len(frames)} frames, expected a picture; use --video")
    return frames, fps


def preview_frames(total: int) -> list[int]:
    """Which frames of a video are shown in a preview: as evenly spread as can be, the first and the last among them."""
    count = min(total, PREVIEW_FRAMES)
    return [round(index * (total - 1) / max(1, count - 1)) for index in range(count)]


def _makings(args: argparse.Namespace, model: Phenaki, stories: list[Story]) -> list[Making]:
    """What each file tells of how it was made."""
    from phenaki_jax import __version__
    from phenaki_jax.inference.video_metadata import Making

    sampling = dataclasses.asdict(stories[0].sampling(model.metadata.sampling))
    source = args.image or args.video
    return [
        Making(
            prompts=tuple(scene.prompt for scene in story.scenes),
            seed=story.seed,
            model=Path(args.model).absolute().name,
            fingerprint=model.fingerprint,
            sampling=sampling | ({"negative_prompt": story.negative_prompt} if story.negative_prompt else {}),
            phenaki_jax=__version__,
            begins_with=Path(source).name if source else "",
        )
        for story in stories
    ]


def _stories(args: argparse.Namespace) -> list[Story]:
    from phenaki_jax.inference import Scene, Story
    from phenaki_jax.inference.story import asked_sampling
    from phenaki_jax.inference.story_file import read_story

    settings = asked_sampling(args)
    negative = {"negative_prompt": args.negative_prompt} if args.negative_prompt else {}
    if args.story is not None:
        if args.frames is not None or args.seconds is not None:
            raise UserError(
                "found --frames or --seconds with --story, expected lengths in the story: give each scene frames"
            )
        story = read_story(args.story)
        seed = story.seed if args.seed is None else args.seed
        return [dataclasses.replace(story, seed=seed, **negative, **settings)]
    scenes = [Scene(prompt, frames=args.frames, seconds=args.seconds) for prompt in args.prompt]
    return [
        Story((scene,), seed=(args.seed or 0) + index, **negative, **settings) for index, scene in enumerate(scenes)
    ]


def _at_rate(frames: np.ndarray, found: float | None, wanted: float) -> np.ndarray:
    """Leaves frames out, or repeats them, where a video is faster or slower than what it is continued as."""
    import numpy as np

    # A GIF counts time in hundredths of a second, and so has nearly the rate it was written with.
    if found is None or abs(found / wanted - 1) < 0.1:
        return frames
    shown = np.arange(max(1, round(len(frames) * wanted / found))) * found / wanted
    return frames[np.minimum(shown.astype(int), len(frames) - 1)]


def _start(model: Phenaki, given: np.ndarray | None, count: int) -> np.ndarray | None:
    import numpy as np

    from phenaki_jax.inference.video_files import square_frames

    if given is None:
        return None
    start = square_frames(given, model.tokenizer.frame_size)
    return np.broadcast_to(start, (count, *start.shape))


def _progress(told: Any, windows: int) -> Any:
    from tqdm import tqdm

    # Where nobody watches, a line now and then, and none of what is done soon.
    seconds = 0.1 if sys.stderr.isatty() else 30
    return tqdm(told, total=windows, unit="window", leave=False, mininterval=seconds, delay=seconds)


def _with_start(start: np.ndarray | None, told: Any) -> Any:
    if start is not None:
        yield start
    yield from told


def _report(
    args: argparse.Namespace,
    model: Phenaki,
    stories: list[Story],
    paths: list[Path],
    previews: list[Path],
    frames: int,
    fps: float,
) -> None:
    if not args.json:
        print("\n".join(f"{path}: {counted(frames, 'frame')} at {fps:g} per second" for path in paths))
        return
    written = [
        {"file": str(path), "prompts": [scene.prompt for scene in story.scenes], "seed": story.seed}
        for path, story in zip(paths, stories, strict=True)
    ]
    for entry, preview in zip(written, previews, strict=False):
        entry["preview"] = str(preview)
    sampling = dataclasses.asdict(stories[0].sampling(model.metadata.sampling))
    print(json.dumps({"written": written, "frames": frames, "fps": fps, "sampling": sampling, "model": args.model}))
