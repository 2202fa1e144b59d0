"""What a demo tells when it is done: `report.json` for machines, `report.html` and curves for people."""

from __future__ import annotations

import html
import json
import platform
from pathlib import Path
from typing import Any

from phenaki_jax import __version__
from phenaki_jax.files import whole_file, write_text
from phenaki_jax.training.log import read_metrics

# The figures a reader asks for first: name, what it says, the least that is good.
_AT_LEAST = (
    ("tokenizer.psnr", "dB between held-out clips and their reconstructions", 26.0),
    ("tokenizer.codebook_usage", "of the codebook is in use", 0.3),
    ("generation.color_accuracy", "of clips of unseen combinations have the prompt's colour", 0.95),
    ("generation.shape_accuracy", "have its shape", 0.90),
    ("generation.motion_accuracy", "have its motion", 0.90),
    ("generation.all_correct", "have all three", 0.80),
    ("transfer.color_accuracy", "of videos have the right colour where only images ever showed it", 0.70),
    ("story.prompt_accuracy", "of the windows of stories do what their prompt says", 0.80),
    ("story.identity_kept", "of colours and shapes stay where the prompt keeps them", 0.90),
)
# The same of what it costs, with the most that is good.
_AT_MOST = (
    ("long_story.time_last_over_first", "times as long take the last ten of 100 windows as the first ten", 1.1),
    ("long_story.memory_growth_gib", "GiB more are held during the last ten than during the first", 0.1),
    ("demo.minutes", "minutes from the start to this page", 20.0),
    ("demo.peak_memory_gib", "GiB at most were held", 8.0),
)

# What `phenaki evaluate` leaves.
EVALUATION = "evaluated/moving_shapes.json"

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
h1 { font-size: 1.8rem } h2 { font-size: 1.2rem; margin-top: 2.5rem }
img { image-rendering: pixelated; max-width: 100%; border-radius: 4px }
.story { width: 20rem } .curve { image-rendering: auto }
table { border-collapse: collapse } td, th { padding: .25rem .8rem; text-align: left; border-bottom: 1px solid #ddd }
td.figure { font-variant-numeric: tabular-nums; text-align: right; font-weight: 600 }
.good { color: #17803d } .short { color: #b45309 } .note { color: #666 }
"""


def write(out: Path, settings: dict[str, Any]) -> None:
    """Writes report.json and report.html from what the stages have left."""
    figures = {
        f"{file.stem}.{name}": value
        for file in sorted((out / "measures").glob("*.json"))
        for name, value in json.loads(file.read_text()).items()
    }
    evaluated = json.loads((out / EVALUATION).read_text())["numbers"]
    figures |= {f"evaluation.{number['name']}": number["value"] for number in evaluated}
    times = json.loads((out / "times.json").read_text())
    figures["demo.minutes"] = sum(entry["seconds"] for entry in times.values()) / 60
    figures["demo.peak_memory_gib"] = max(entry["peak_memory_gib"] for entry in times.values())
    for name, entry in times.items():
        figures[f"demo.{name}_minutes"] = entry["seconds"] / 60
    write_text(out / "report.json", json.dumps({**figures, "settings": settings, "phenaki_jax": __version__}, indent=2))
    write_text(out / "report.html", _page(out, figures, evaluated))


def _page(out: Path, figures: dict[str, float], evaluated: list[dict[str, Any]]) -> str:
    rows = "".join(_row(says, figures[name], least, figures[name] >= least) for name, says, least in _AT_LEAST)
    costs = "".join(_row(says, figures[name], most, figures[name] <= most) for name, says, most in _AT_MOST)
    numbers = "".join(map(_number_row, evaluated))
    images = {
        "Reconstructions": ("reconstruction", "Each clip above what its tokens keep of it."),
        "Samples while training": ("sample", "Drawn from the captions of one batch."),
    }
    grids = ""
    for title, (prefix, says) in images.items():
        pictures = sorted(out.glob(f"*/images/{prefix}_*.png"))
        if pictures:
            place = pictures[-1].relative_to(out)
            grids += f'<h2>{title}</h2><p class="note">{says}</p><img src="{place}" width="704" alt="{title}">'
    story = html.escape((out / "story.yaml").read_text())
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Phenaki on one machine</title><style>{_STYLE}</style>
<h1>Phenaki, from nothing to a story, on one machine</h1>
<p>{figures["demo.minutes"]:.1f} minutes and {figures["demo.peak_memory_gib"]:.1f} GiB
on {html.escape(platform.machine())}: a dataset was made,
a tokenizer and a masked transformer were trained on it, and the model told this story.</p>
<img class="story" src="story.gif" alt="the story"><pre>{story}</pre>
<h2>What it can do</h2><table>{rows}</table>
<h2>What it costs</h2><table>{costs}</table>
<p class="note">Colour, shape and motion are read from pixels alone. Seeds were fixed beforehand.
All figures: <a href="report.json">report.json</a>.</p>
<h2>As papers measure it</h2><table>{numbers}</table>
<p class="note">The protocol moving_shapes: Fréchet and kernel distances between videos of test captions and real
clips, smaller is better, and how many are what their captions say, by a small classifier; with 95 % intervals where
they have any.</p>
<h2>Prompts of combinations that no training clip showed</h2><img src="generation_samples.gif" alt="samples">
<h2>Videos in orange and white, which only images showed</h2><img src="transfer_samples.gif" alt="samples">
<h2>Stories of four prompts</h2><img src="story_samples.gif" alt="stories">
<h2>How it learned</h2><img class="curve" src="curves.png" alt="loss curves">
{grids}
<h2>Go on</h2><pre>phenaki generate --model {out}/model --prompt "a green triangle moves up" --out mine.gif
phenaki generate --model {out}/model --story {out}/story.yaml --out story.mp4
phenaki reconstruct --model {out}/model --video {out}/story.mp4 --out reconstruction.mp4
phenaki evaluate --model {out}/model --data_dir {out}/data --out {out}/evaluation
phenaki inspect {out}/model</pre>
</html>
"""


def _row(says: str, value: float, aim: float, good: bool) -> str:
    # Shares are those whose aim is below 1, but for the memory that should not grow.
    shown, aimed = (f"{100 * each:.0f} %" if 0.2 < aim < 1 else f"{each:.3g}" for each in (value, aim))
    kind = "good" if good else "short"
    return f'<tr><td class="figure {kind}">{shown}</td><td>{says}</td><td class="note">aim {aimed}</td></tr>'


def _number_row(number: dict[str, Any]) -> str:
    interval = number.get("interval")
    within = f"{interval['low']:.3g} to {interval['high']:.3g}" if interval else ""
    name = html.escape(number["name"])
    row = f'<tr><td class="figure">{number["value"]:.3g}</td><td class="note">{within}</td><td>{name}</td></tr>'
    caution = f'<tr><td></td><td class="note" colspan="2">{html.escape(number.get("caution", ""))}</td></tr>'
    return row + caution * ("caution" in number)


def draw_curves(out: Path) -> None:
    """Writes curves.png, from the metrics of the trainings."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = (
        ("tokenizer", "psnr", "reconstruction, dB"),
        ("tokenizer", "codebook_usage", "codebook in use"),
        ("images", "loss", "masked loss on images, nats per token"),
        ("transformer", "loss", "masked loss, nats per token"),
        ("transformer", "accuracy", "masked tokens guessed right"),
    )
    figure, axes = pyplot.subplots(1, len(panels), figsize=(20, 3.2), layout="constrained")
    for axis, (run, name, title) in zip(axes, panels, strict=True):
        entries = read_metrics(out / run)
        for kind, marker in (("train", "-"), ("eval", "o")):
            points = [(entry["step"], entry[name]) for entry in entries if entry["kind"] == kind and name in entry]
            if points:
                axis.plot(*zip(*points, strict=True), marker, label=kind)
        axis.set_title(title)
        axis.set_xlabel("step")
        axis.legend()
    with whole_file(out / "curves.png") as unfinished:
        figure.savefig(unfinished, dpi=80)
    pyplot.close(figure)
