"""phenaki evaluate: how good a model is by a published protocol, in numbers with all that they depend on."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phenaki_jax.errors import UserError

if TYPE_CHECKING:
    from phenaki_jax.evaluation.evaluate import Evaluation
    from phenaki_jax.evaluation.measured import Measured
    from phenaki_jax.evaluation.networks import NetworkFiles
    from phenaki_jax.evaluation.numbers import Found
    from phenaki_jax.evaluation.protocols import Protocol
    from phenaki_jax.inference import Phenaki

_FILES = {
    "inception_file": "of FID's Inception-v3",
    "i3d_file": "of I3D, for FVD",
    "clip_file": "of a CLIP",
    "clip_vocabulary": "its vocab.json",
    "clip_merges": "its merges.txt",
    "vgg16_file": "of VGG16, for LPIPS",
    "lpips_file": "of LPIPS's heads",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.description = (
        "Draws or reconstructs the videos of a protocol and compares them with real ones. The same command goes on\n"
        "where it was interrupted, to the same numbers; several processes share the work. Protocols and the files of\n"
        "weights are told in docs/evaluation.md."
    )
    parser.epilog = (
        "examples:\n"
        "  phenaki evaluate --model demo/model --data_dir demo/data --out demo/evaluation\n"
        "  phenaki evaluate --model model --protocol bair --data_dir data --out bair.json \\\n"
        "    --i3d_file i3d_pretrained_400.pt\n"
        "  phenaki evaluate --model model --protocol text_to_video --task my_videos_video_text --data_dir data \\\n"
        "    --out numbers --i3d_file i3d_pretrained_400.pt"
    )
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--model", metavar="DIR", help="an exported model, or an exported tokenizer")
    model.add_argument("--workdir", metavar="DIR", help="the folder of a training, whose checkpoint is exported")
    parser.add_argument("--step", type=int, metavar="N", help="the checkpoint of this step instead of the last one")
    parser.add_argument(
        "--ema", action=argparse.BooleanOptionalAction, help="which parameters of a --workdir, as phenaki export has it"
    )
    parser.add_argument(
        "--t5_checkpoint", metavar="PATH", help="of a frozen T5 of a --workdir, as phenaki export has it"
    )
    parser.add_argument("--t5_vocabulary", metavar="FILE", help="the same of its vocabulary")
    parser.add_argument(
        "--protocol", default="moving_shapes", metavar="NAME", help="see docs/evaluation.md (moving_shapes)"
    )
    parser.add_argument(
        "--task",
        metavar="NAME",
        help="of your own dataset, such as my_videos_video_text; the protocol is reconstruction, prediction or "
        "text_to_video then",
    )
    parser.add_argument("--data_dir", required=True, metavar="DIR", help="the folder of datasets")
    parser.add_argument("--out", required=True, metavar="PATH", help="a .json file, or a folder for it")
    parser.add_argument(
        "--cache", metavar="DIR", help="where what is known of real clips is kept (DATA_DIR/evaluation)"
    )
    parser.add_argument(
        "--examples", type=int, metavar="N", help="clips to draw from (the protocol's; of a --task all)"
    )
    parser.add_argument("--samples", type=int, metavar="N", help="videos to draw from each (the protocol's)")
    parser.add_argument("--folds", type=int, metavar="N", help="times to do so (the protocol's)")
    parser.add_argument("--real", type=int, metavar="N", help="real clips to compare with (the protocol's)")
    for name, what in _FILES.items():
        parser.add_argument(f"--{name}", metavar="FILE", help=what)
    parser.add_argument(
        "--inception_resize", default="tensorflow1", metavar="NAME", help="tensorflow1, or clean (tensorflow1)"
    )
    parser.add_argument(
        "--clip_model", default="clip-vit-base-patch32", metavar="NAME", help="its name (clip-vit-base-patch32)"
    )
    parser.add_argument(
        "--fvd", default="original", metavar="NAME", help="how I3D sees videos: original, or cd-fvd as TATS (original)"
    )
    parser.add_argument("--batch_size", type=int, default=16, metavar="N", help="videos made at once (16)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of all that is drawn (0)")
    parser.add_argument("--process", type=int, default=0, metavar="I", help="which of the processes this is (0)")
    parser.add_argument("--processes", type=int, default=1, metavar="N", help="how many share the work (1)")
    parser.add_argument("--json", action="store_true", help="print the result as one line of JSON")


def run(args: argparse.Namespace) -> int:
    """Evaluates and writes; returns 0.

    Raises:
      UserError: see `evaluation.evaluate.evaluate`; or what is asked for is not there.
    """
    from phenaki_jax.evaluation.networks import NetworkFiles, usable_measures
    from phenaki_jax.evaluation.rows import FOLDER
    from phenaki_jax.files import check_folder

    of_workdir = ("step", "ema", "t5_checkpoint", "t5_vocabulary")
    if asked := [name for name in of_workdir if getattr(args, name) is not None and args.workdir is None]:
        raise UserError(f"found --{asked[0]} without --workdir, expected both: an exported model is as it was exported")
    name, of_protocol = _asked(args)
    result, work = _places(args.out, name)
    check_folder(work)
    files = NetworkFiles(
        **{name: getattr(args, name) or "" for name in (*_FILES, "inception_resize", "clip_model", "fvd")}
    )
    lacking = usable_measures(name, of_protocol, files)
    measures = tuple(measure for measure, absent in lacking.items() if not absent)
    left_out = {
        measure: f"needs {', '.join('--' + file for file in absent)}" for measure, absent in lacking.items() if absent
    }
    _tell_left_out(left_out)
    if left_out and not (work / FOLDER).exists():
        print(
            "what is left out can be measured later only by making all videos anew, under another --out, as only what "
            "networks see of them is kept: name its files now to spare that",
            file=sys.stderr,
        )
    return _evaluate(args, measures, left_out, files, result, work)


def _asked(args: argparse.Namespace) -> tuple[str, tuple[str, ...]]:
    """The name of the protocol that is asked for, and its measures."""
    from phenaki_jax.evaluation.own_data import OWN_MEASURES, check_asked, check_own, own_name
    from phenaki_jax.evaluation.protocols import protocol_named

    check_own(args.protocol, args.task)
    if args.task:
        check_asked(args.protocol, args.task, args.data_dir, _counts(args))
        return own_name(args.protocol, args.task), OWN_MEASURES[args.protocol]
    protocol = protocol_named(args.protocol, **_counts(args))
    return protocol.name, protocol.measures


def _protocol(args: argparse.Namespace, model: Phenaki) -> Protocol:
    from phenaki_jax.evaluation.own_data import own_protocol
    from phenaki_jax.evaluation.protocols import protocol_named

    if args.task:
        return own_protocol(args.protocol, args.task, model, args.data_dir, _counts(args))
    return protocol_named(args.protocol, **_counts(args))


def _counts(args: argparse.Namespace) -> dict[str, int | None]:
    return {name: getattr(args, name) for name in ("examples", "samples", "folds", "real")}


def _evaluate(
    args: argparse.Namespace,
    measures: tuple[str, ...],
    left_out: dict[str, str],
    files: NetworkFiles,
    result: Path,
    work: Path,
) -> int:
    import jax

    from phenaki_jax.evaluation.evaluate import Evaluation, EvaluationConfig, evaluate
    from phenaki_jax.evaluation.measures import MEASURES
    from phenaki_jax.evaluation.networks import load_networks
    from phenaki_jax.evaluation.own_data import left_out_of_short
    from phenaki_jax.files import write_text
    from phenaki_jax.training.sharding import MeshConfig

    config = EvaluationConfig(args.batch_size, args.seed, args.process, args.processes)
    layout = MeshConfig().over(jax.local_devices())
    networks = load_networks(measures, files)
    model, of = _model(args, work)
    protocol = _protocol(args, model)
    short = left_out_of_short(measures, protocol.frames)
    _tell_left_out(short)
    left_out = left_out | short
    measures = tuple(name for name in measures if name not in short)
    if not measures:
        raise UserError(f"found windows of {protocol.frames} frames, too few for all measures of {protocol.name}")
    needed = {MEASURES[name].network for name in measures}
    data_dir = Path(args.data_dir)
    evaluation = Evaluation(
        protocol,
        measures,
        {name: network for name, network in networks.items() if name in needed},
        model,
        layout,
        data_dir,
        work,
        Path(args.cache) if args.cache else data_dir / "evaluation",
        config,
    )
    found = evaluate(evaluation)
    if found is None:
        waits = {"process": args.process, "processes": args.processes, "done": True, "file": None}
        told = f"process {args.process} of {args.processes} is done; the last one writes {result}"
        print(json.dumps(waits) if args.json else told)
        return 0
    _tell_left_out(found.left_out)
    content = _content(evaluation, found, left_out, of, result)
    write_text(result, json.dumps(content, indent=2) + "\n")
    for caution in filter(None, (number.caution for number in found.numbers)):
        print(caution, file=sys.stderr)
    print(json.dumps({"file": str(result), **content}) if args.json else _table(protocol, found.numbers, result))
    return 0


def _content(
    evaluation: Evaluation, found: Found, left_out: Mapping[str, str], of: Mapping[str, Any], result: Path
) -> dict[str, Any]:
    """What is written, as JSON knows it."""
    from phenaki_jax.evaluation.evaluate import PICTURE

    described = evaluation.described
    return {
        "numbers": [number.as_json() for number in found.numbers],
        "left_out": {**left_out, **found.left_out},
        "reported": list(map(dataclasses.asdict, evaluation.protocol.reported)),
        **described,
        "model": {"parameters": described["model"], **of},
        "picture": str((evaluation.folder / PICTURE).relative_to(result.parent)),
    }


def _tell_left_out(left_out: dict[str, str]) -> None:
    for reason in dict.fromkeys(left_out.values()):
        names = [name for name in left_out if left_out[name] == reason]
        print(f"left out: {', '.join(names)} ({reason})", file=sys.stderr)


def _places(path: str, name: str) -> tuple[Path, Path]:
    """The result, and the folder of what it is made from."""
    out = Path(path)
    if out.suffix not in ("", ".json") and not out.is_dir():
        raise UserError(f"{out}: found suffix {out.suffix!r}, expected .json, or a folder without any; change the name")
    is_file = out.suffix == ".json"
    result = out if is_file else out / f"{name}.json"
    if result.is_dir():
        raise UserError(f"{result}: found a folder, expected the name of a file to write; choose another --out")
    return result, out.with_suffix("") if is_file else out / name


def _model(args: argparse.Namespace, work: Path) -> tuple[Phenaki, dict[str, Any]]:
    """What is evaluated, and what it is called; a checkpoint is exported into the work's folder, where it stays."""
    from phenaki_jax.inference import Phenaki

    if args.model is not None:
        model = Phenaki.load(args.model, truncate_prompts=True)
        return model, {"folder": str(args.model), "averaged": model.metadata.trained_on.get("averaged")}
    from phenaki_jax.cli.export import export_checkpoint
    from phenaki_jax.files import locked
    from phenaki_jax.text.sentencepiece_tokenizer import fingerprint_of
    from phenaki_jax.training.checkpoints import latest_checkpoint
    from phenaki_jax.training.checksums import checkpoint_identity

    checkpoint = latest_checkpoint(args.workdir, args.step)
    step, text_files = int(checkpoint.name), {"checkpoint": args.t5_checkpoint, "vocabulary": args.t5_vocabulary}
    text_files = {name: path for name, path in text_files.items() if path}
    # A training in the same folder may have come to this step again, and a vocabulary's file may hold another one.
    chosen = [checkpoint_identity(args.workdir, step), args.ema, text_files]
    if args.t5_vocabulary:
        chosen.append(fingerprint_of(args.t5_vocabulary))
    folder = work / f"model-{step}-{hashlib.sha256(json.dumps(chosen).encode()).hexdigest()[:16]}"
    with locked(work):
        if not folder.exists():
            export_checkpoint(args.workdir, folder, step, average=args.ema, text_files=text_files)
    model = Phenaki.load(folder, truncate_prompts=True)
    return model, {"workdir": str(args.workdir), "step": step, "averaged": model.metadata.trained_on.get("averaged")}


def _table(protocol: Protocol, numbers: list[Measured], result: Path) -> str:
    """The numbers with their intervals, and below them what papers report."""
    from phenaki_jax.evaluation.measures import MEASURES

    lines = [f"{protocol.name}: {protocol.videos} videos, {protocol.real_clips} real clips"]
    width = max(len(number.name) for number in numbers)
    for number in numbers:
        interval = f"  [{number.interval.low:.4g}, {number.interval.high:.4g}]" if number.interval else ""
        lines.append(f"  {number.name:<{width}}  {number.value:.4g}{interval}")
    for each in protocol.reported:
        note = f"; {each.note}" if each.note else ""
        lines.append(f"  reported: {MEASURES[each.measure].metric} {each.value:g} of {each.of} ({each.source}{note})")
    return "\n".join([*lines, str(result)])
