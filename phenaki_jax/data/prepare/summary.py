"""What is told of a prepared dataset, to people and to programs."""

from __future__ import annotations

import collections
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from phenaki_jax.data.prepare import sheets
from phenaki_jax.data.prepare.journal import Journal
from phenaki_jax.data.prepare.metadata import STATISTICS_FILE
from phenaki_jax.data.prepare.settings import PrepareSettings
from phenaki_jax.files import whole_file, write_text

REPORT_FILE = "report.jsonl"
SUMMARY_FILE = "report.txt"
_NUMBERS = re.compile(r"\d+(\.\d+)?")
_EXAMPLES_OF_A_REASON = 3


def write_report(journal: Journal, folder: Path) -> dict[str, int]:
    """Writes a line of JSON for all that was set aside or cut, and a summary of it.

    Returns:
      How often each reason came; numbers in it are those of its first time.
    """
    groups: dict[str, list[tuple[str, str]]] = collections.defaultdict(list)
    with whole_file(folder / REPORT_FILE) as unfinished, unfinished.open("w") as file:
        for line in _report(journal):
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            if "reason" in line:
                groups[_NUMBERS.sub("#", line["reason"])].append((line["source"], line["reason"]))
    ranked = sorted(groups.values(), key=len, reverse=True)
    lines = [f"{sum(map(len, ranked))} set aside; {REPORT_FILE} has a line for each."]
    for group in ranked:
        lines += ["", f"{len(group)}: {group[0][1]}", *(f"    {key}" for key, _ in group[:_EXAMPLES_OF_A_REASON])]
        lines += [f"    and {len(group) - _EXAMPLES_OF_A_REASON} more"] * (len(group) > _EXAMPLES_OF_A_REASON)
    write_text(folder / SUMMARY_FILE, "\n".join(lines) + "\n")
    return {group[0][1]: len(group) for group in ranked}


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
    values: dict[str, list[int | float]] = collections.defaultdict(list)
    splits: dict[str, dict[str, int]] = {}
    for each in journal.sources():
        if each.result is None or "split" not in each.result:
            continue
        split = splits.setdefault(names[each.result["split"]], {"sources": 0, "examples": 0})
        split["sources"] += 1
        split["examples"] += each.result["clips"]
        values["seconds"].append(each.result["frames"] / settings.fps)
        values["clips_per_source"].append(each.result["clips"])
        values["height"].append(each.result["size"][0])
        values["width"].append(each.result["size"][1])
        values["caption_characters"] += map(len, each.source.captions)
        values["captions_per_source"].append(len(each.source.captions))
    found = {
        "name": settings.name,
        "version": settings.version,
        "splits": dict(sorted(splits.items())),
        "set_aside": sum(reasons.values()),
        "reasons": reasons,
        **{name: _in_short(numbers) for name, numbers in values.items() if numbers},
    }
    write_text(folder / STATISTICS_FILE, json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    sheets.write_histograms(folder / "histograms.png", values)
    sheets.write_contact_sheet(folder / "contact_sheet.png", folder, settings.name, list(splits))


def _in_short(numbers: Sequence[int | float]) -> dict[str, int | float]:
    low, middle, high = np.percentile(numbers, (5, 50, 95)).round(3).tolist()
    return {"least": min(numbers), "p5": low, "median": middle, "p95": high, "most": max(numbers)}
