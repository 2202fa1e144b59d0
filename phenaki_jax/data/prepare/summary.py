"""What is told of a prepared dataset, to people and to programs."""

from __future__ import annotations

import collections
import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from phenaki_jax.data.prepare import sheets
from phenaki_jax.data.prepare.journal import Journal
from phenaki_jax.data.prepare.metadata import IMAGES, STATISTICS_FILE
from phenaki_jax.data.prepare.report import write_report
from phenaki_jax.data.prepare.settings import PrepareSettings
from phenaki_jax.files import write_text

Counts = collections.Counter[int | float]


def write_summary(journal: Journal, folder: Path, settings: PrepareSettings, names: Mapping[str, str]) -> None:
    """Writes the report, the statistics, the contact sheet and the histograms of a dataset.

    Args:
      journal: of what was done.
      folder: of the dataset.
      settings: of it.
      names: its splits by what they were called while it was made.
    """
    report = write_report(journal, folder)
    # How often each value came: few differ, however many sources there are.
    values: dict[str, Counts] = {name: collections.Counter() for name in sheets.HISTOGRAMS}
    splits: dict[str, dict[str, int]] = {}
    for each in journal.sources():
        if each.result is None or "split" not in each.result:
            continue
        split = splits.setdefault(names[each.result["split"]], {"sources": 0, "examples": 0})
        split["sources"] += 1
        split["examples"] += each.result["clips"]
        if not each.result["split"].endswith(IMAGES):
            values["seconds"][each.result["frames"] / settings.fps] += 1
        values["clips_per_source"][each.result["clips"]] += 1
        values["height"][each.result["size"][0]] += 1
        values["width"][each.result["size"][1]] += 1
        values["caption_characters"].update(map(len, each.source.captions))
        values["captions_per_source"][len(each.source.captions)] += 1
    found = {
        "name": settings.name,
        "version": settings.version,
        "splits": dict(sorted(splits.items())),
        "set_aside": sum(report.reasons.values()),
        **report._asdict(),
        **{name: _in_short(counts) for name, counts in values.items() if counts},
    }
    write_text(folder / STATISTICS_FILE, json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    sheets.write_histograms(folder / "histograms.png", values)
    sheets.write_contact_sheet(folder / "contact_sheet.png", folder, settings.name, list(splits))


def _in_short(counts: Counts) -> dict[str, int | float]:
    """Of values and how often each came; percentiles lie between neighbours as NumPy's do."""
    values = sorted(counts)
    ends = np.cumsum([counts[value] for value in values])

    def percentile(share: float) -> float:
        place = share * (int(ends[-1]) - 1)
        low, high = (values[int(np.searchsorted(ends, index, "right"))] for index in (int(place), math.ceil(place)))
        return round(low + (high - low) * (place - int(place)), 3)

    low, middle, high = map(percentile, (0.05, 0.5, 0.95))
    return {"least": values[0], "p5": low, "median": middle, "p95": high, "most": values[-1]}
