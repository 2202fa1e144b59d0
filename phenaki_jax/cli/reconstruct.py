"""phenaki reconstruct: shows what a tokenizer keeps of a video."""

from __future__ import annotations

import argparse
import json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.description = (
        "Writes a video, cropped and resized to the model's frames, beside its reconstruction through the tokens, and\n"
        "prints the peak signal-to-noise ratio. The video may have any length: a few frames at a time are in memory\n"
        "(all of them where a .gif or .png is written). Frames at the end that fill no token are dropped."
    )
    parser.epilog = "example:\n  phenaki reconstruct --model model --video clip.mp4 --out both.mp4"
    parser.add_argument("--model", required=True, metavar="DIR", help="an exported model, or an exported tokenizer")
    parser.add_argument("--video", required=True, metavar="FILE", help="a video, an animation or a picture")
    parser.add_argument("--out", required=True, metavar="FILE", help=".mp4, .gif or .png")
    parser.add_argument(
        "--fps", type=float, metavar="N", help="frames per second of the file (the video's; of a picture the model's)"
    )
    parser.add_argument("--json", action="store_true", help="print the result as one line of JSON")


def run(args: argparse.Namespace) -> int:
    """Reconstructs, a few frames at a time; returns 0."""
    import sys

    from phenaki_jax.errors import counted
    from phenaki_jax.files import check_kept, check_output
    from phenaki_jax.inference.video_files import OUTPUT_SUFFIXES, VideoWriter, check_fps, square_frames
    from phenaki_jax.inference.video_reader import chunks_of, open_video

    check_kept(args.video, check_output(args.out, OUTPUT_SUFFIXES))
    with open_video(args.video) as source:
        fps = source.fps if args.fps is None else args.fps
        if fps is not None:
            check_fps(fps)
        import numpy as np
        from tqdm import tqdm

        from phenaki_jax.inference import Phenaki
        from phenaki_jax.inference.streaming import StreamDecoder, StreamEncoder

        model = Phenaki.load(args.model)
        config, params = model.tokenizer, model.params["tokenizer"]
        encoder, decoder = StreamEncoder(config, params), StreamDecoder(config, params)
        later = max(config.frames - 1, config.temporal_patch)
        found, error = 0, 0.0
        with (
            VideoWriter(args.out, fps or model.metadata.fps) as writer,
            tqdm(unit="frame", disable=not sys.stderr.isatty()) as progress,
        ):
            for frames in chunks_of(source.frames, 1 + later, later):
                found += len(frames)
                whole = config.whole_part(len(frames), begins=not encoder.frames)
                if not whole:
                    continue
                video = square_frames(frames[:whole], config.frame_size)
                reconstruction = decoder.decode(encoder.encode(video[None]))[0]
                error += float(np.mean(np.square(video.astype(np.float64) - reconstruction), axis=(1, 2, 3)).sum())
                writer.append(np.concatenate([video, reconstruction], axis=2))
                progress.update(whole)
    decibels = 10 * float(np.log10(255**2 / max(error / encoder.frames, 1e-10 * 255**2)))
    told = {"file": args.out, "frames": encoder.frames, "frames_found": found, "psnr_db": decibels}
    if args.json:
        print(json.dumps({**told, "model": args.model}))
    else:
        dropped = "" if encoder.frames == found else f" of {found}, as the others fill no token"
        print(f"{args.out}: {counted(encoder.frames, 'frame')}{dropped}, PSNR {decibels:.2f} dB")
    return 0
