"""phenaki reconstruct: shows what a tokenizer keeps of a video."""

from __future__ import annotations

import argparse
import json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.description = (
        "Writes a video, cropped and resized to the model's frames, beside its reconstruction through the tokens, and\n"
        "prints the peak signal-to-noise ratio. Frames at the end that fill no token are dropped."
    )
    parser.epilog = "example:\n  phenaki reconstruct --model model --video clip.mp4 --out both.mp4"
    parser.add_argument("--model", required=True, metavar="DIR", help="an exported model, or an exported tokenizer")
    parser.add_argument("--video", required=True, metavar="FILE", help="a video, an animation or a picture")
    parser.add_argument("--out", required=True, metavar="FILE", help=".mp4, .gif or .png")
    parser.add_argument("--json", action="store_true", help="print the result as one line of JSON")


def run(args: argparse.Namespace) -> int:
    """Reconstructs; returns 0."""
    from phenaki_jax.files import check_output
    from phenaki_jax.inference.video_files import OUTPUT_SUFFIXES, fit_frames, read_video, write_video

    check_output(args.out, OUTPUT_SUFFIXES)
    frames, fps = read_video(args.video)

    import jax.numpy as jnp
    import numpy as np

    from phenaki_jax.evaluation.metrics import psnr
    from phenaki_jax.inference import Phenaki
    from phenaki_jax.layers import pixels

    model = Phenaki.load(args.model)
    video = fit_frames(frames, model.tokenizer, trim=True)
    reconstruction = model.reconstruct(video)
    original, shown = (pixels.to_float(jnp.asarray(each[None])) for each in (video, reconstruction))
    decibels = float(psnr(original, shown, jnp.ones((1, len(video)), bool))[0])
    write_video(args.out, np.concatenate([video, reconstruction], axis=2), fps or model.metadata.fps)
    found = {"file": args.out, "frames": len(video), "frames_found": len(frames), "psnr_db": decibels}
    if args.json:
        print(json.dumps({**found, "model": args.model}))
    else:
        dropped = "" if len(video) == len(frames) else f" of {len(frames)}, as the others fill no token"
        print(f"{args.out}: {len(video)} frames{dropped}, PSNR {decibels:.2f} dB")
    return 0
