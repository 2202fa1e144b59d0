"""Why files were set aside and what was lost of captions: a line of JSON for each, and a summary by reasons."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from phenaki_jax.data.prepare.journal import Journal
from phenaki_jax.files import whole_file, write_text

REPORT_FILE = "report.jsonl"
SUMMARY_FILE = "report.txt"

_EXAMPLES_OF_A_REASON = 3
# Libraries word their reasons as they like.
_MOST_REASONS = 100
_OTHERS = "other reasons"
_QUOTED = r"""(?:(?<!\w)'(?:[^'\\]|\\.)*+'|"(?:[^"\\]|\\.)*+")"""
# What differs between files that are set aside for one reason: names and texts, in quotes, and numbers.
_PARTICULARS = re.compile(rf"({_QUOTED}(?:, {_QUOTED})*|\d+(?:\.\d+)?)")


class Report(NamedTuple):
    """How often each reason came, in words that are true of all its files.

    Attributes:
      reasons: why something was set aside.
      notes: what was lost of captions.
      passed_over: files of each ending that is not read.
    """

    reasons: Mapping[str, int]
    notes: Mapping[str, int]
    passed_over: Mapping[str, int]


class _Reason:
    """How often a reason came, whose it was the first times, and of its words those that all its files share."""

    def __init__(self) -> None:
        self.count = 0
        self._sources: list[str] = []
        self._words: list[str] = []

    def add(self, words: list[str], source: str) -> None:
        """Counts it; words of one reason are as many, every other one a particular."""
        before = self._words or words
        self._words = [one if one == other else "..." for one, other in zip(before, words, strict=True)]
        self.count += 1
        if self.count <= _EXAMPLES_OF_A_REASON:
            self._sources.append(source)

    @property
    def text(self) -> str:
        """It in words."""
        return "".join(self._words)

    def lines(self) -> list[str]:
        """What is told of it."""
        more = self.count - len(self._sources)
        return [
            f"{self.count}: {self.text}",
            *(f"    {key}" for key in self._sources),
            *[f"    and {more} more"][:more],
        ]


class _Reasons:
    """The reasons that came, of which so many are told."""

    def __init__(self) -> None:
        self._by_kind: dict[tuple[str, ...], _Reason] = {}

    def add(self, text: str, source: str) -> None:
        """Counts one."""
        words = _PARTICULARS.split(text)
        if tuple(words[::2]) not in self._by_kind and len(self._by_kind) >= _MOST_REASONS:
            words = [_OTHERS]
        self._by_kind.setdefault(tuple(words[::2]), _Reason()).add(words, source)

    @property
    def ranked(self) -> list[_Reason]:
        """The most frequent first."""
        return sorted(self._by_kind.values(), key=lambda reason: reason.count, reverse=True)

    def counts(self) -> dict[str, int]:
        """How often each came."""
        return {reason.text: reason.count for reason in self.ranked}


def write_report(journal: Journal, folder: Path) -> Report:
    """Writes a line of JSON for all that was set aside or cut, and a summary of it.

    Returns:
      What was told.
    """
    reasons, notes = _Reasons(), _Reasons()
    with whole_file(folder / REPORT_FILE) as unfinished, unfinished.open("w") as file:
        for line in _lines(journal):
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            if "reason" in line:
                reasons.add(line["reason"], line["source"])
            else:
                notes.add(line["note"], line["source"])
    told = Report(reasons.counts(), notes.counts(), journal.fact("passed_over") or {})
    lines = _section("set aside", reasons) if told.reasons else ["Nothing was set aside."]
    if told.notes:
        lines += ["", *_section("notes on captions", notes)]
    if told.passed_over:
        lines += ["", f"Passed over, of endings that are not read: {in_words(told.passed_over)}."]
    write_text(folder / SUMMARY_FILE, "\n".join(lines) + "\n")
    return told


def in_words(passed_over: Mapping[str, int]) -> str:
    """How many files of which endings, the most frequent first: "3 .wmv, 1 without ending"."""
    ranked = sorted(passed_over.items(), key=lambda each: each[1], reverse=True)
    return ", ".join(f"{count} {ending or 'without ending'}" for ending, count in ranked)


def _section(what: str, reasons: _Reasons) -> list[str]:
    lines = [f"{sum(reason.count for reason in reasons.ranked)} {what}; {REPORT_FILE} has a line for each."]
    for reason in reasons.ranked:
        lines += ["", *reason.lines()]
    return lines


def _lines(journal: Journal) -> Iterator[dict[str, str]]:
    for problem in journal.problems():
        yield {"source": problem.key, "reason": problem.reason}
    for each in journal.sources():
        name = {"source": each.source.key}
        if each.source.start > 0 or each.source.end >= 0:
            end = f"{each.source.end:g} s" if each.source.end >= 0 else "its end"
            name["part"] = f"{each.source.start:g} s to {end}"
        if each.result and "reason" in each.result:
            yield {**name, "reason": each.result["reason"]}
        for note in each.source.notes:
            yield {**name, "note": note}
