"""What is told of a prepared dataset, to people and to programs."""

from __future__ import annotations

import collections
import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from phenaki_jax.data.prepare import sheets
from phenaki_jax.data.prepare.journal import Journal
from phenaki_jax.data.prepare.metadata import STATISTICS_FILE
from phenaki_jax.data.prepare.settings import PrepareSettings
from phenaki_jax.files import whole_file, write_text

REPORT_FILE = "report.jsonl"
SUMMARY_FILE = "report.txt"

Counts = collections.Counter[int | float]

_EXAMPLES_OF_A_REASON = 3
# Libraries word their reasons as they like.
_MOST_REASONS = 100
_OTHERS = "other reasons"
# What differs between files that are set aside for one reason: names, in quotes, and numbers.
_DIFFERS = re.compile(r"""'(?:[^'\\]|\\.)*+'|"(?:[^"\\]|\\.)*+"|\d+(?:\.\d+)?""")


class _Reason:
    """How often a reason came, in the words of its first time, and whose it was the first times."""

    def __init__(self, text: str) -> None:
        self.text, self.count = text, 0
        self.sources: list[str] = []

    def add(self, source: str) -> None:
        """Counts it."""
        self.count += 1
        if self.count <= _EXAMPLES_OF_A_REASON:
            self.sources.append(source)

    def lines(self) -> list[str]:
        """What is told of it."""
        more = self.count - len(self.sources)
        return [f"{self.count}: {self.text}", *(f"    {key}" for key in self.sources), *[f"    and {more} more"][:more]]


def write_report(journal: Journal, folder: Path) -> dict[str, int]:
    """Writes a line of JSON for all that was set aside or cut, and a summary of it.

    Returns:
      How often each reason came; numbers and names in it are those of its first time.
    """
    reasons: dict[str, _Reason] = {}
    with whole_file(folder / REPORT_FILE) as unfinished, unfinished.open("w") as file:
        for line in _report(journal):
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            if "reason" in line:
                kind, text = _DIFFERS.sub("#", line["reason"]), line["reason"]
                if kind not in reasons and len(reasons) >= _MOST_REASONS:
                    kind = text = _OTHERS
                reasons.setdefault(kind, _Reason(text)).add(line["source"])
    ranked = sorted(reasons.values(), key=lambda reason: reason.count, reverse=True)
    lines = [f"{sum(reason.count for reason in ranked)} set aside; {REPORT_FILE} has a line for each."]
    for reason in ranked:
        lines += ["", *reason.lines()]
    write_text(folder / SUMMARY_FILE, "\n".join(lines) + "\n")
    return {reason.text: reason.count for reason in ranked}


def _report(journal: Journal) -> Iterator[dict[str, str]]:
    for problem in journal.problems():
        yield {"source": problem.key, "reason": problem.reason}
    for each in journal.sources():
        name = {"source": each.source.key}
        if each.source.start > 0 or each.source.end >= 0:
            name["part"] = f"{each.source.start:g} s to {each.source.end:g} s"
        if each.result and "reason" in each.result:
            yield {**name, "reason": each.result["reason"]}
        for note in each.source.notes:
            yield {**name, "note": note}


def write_summary(journal: Journal, folder: Path, settings: PrepareSettings, names: Mapping[str, str]) -> None:
    """Writes the report, the statistics, the contact sheet and the histograms of a dataset.

    Args:
      journal: of what was done.
      folder: of the dataset.
      settings: of it.
      names: its splits by what they were called while it was made.
    """
    reasons = write_report(journal, folder)
    # How often each value came: few differ, however many sources there are.
    values: dict[str, Counts] = {name: collections.Counter() for name in sheets.HISTOGRAMS}
    splits: dict[str, dict[str, int]] = {}
    for each in journal.sources():
        if each.result is None or "split" not in each.result:
            continue
        split = splits.setdefault(names[each.result["split"]], {"sources": 0, "examples": 0})
        split["sources"] += 1
        split["examples"] += each.result["clips"]
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
        "set_aside": sum(reasons.values()),
        "reasons": reasons,
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
