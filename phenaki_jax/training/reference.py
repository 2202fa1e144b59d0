"""What metrics were at the same step of another training, recorded: what is to be expected of this one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from phenaki_jax.errors import UserError, reason_of
from phenaki_jax.training.log import METRICS_FILE

_ROOT = Path(__file__).parents[2]


class Reference:
    """Curves of metrics over steps.

    Args:
      entries: what a training logged, each with its "kind" ("train" or "eval"), "step" and metrics.
    """

    def __init__(self, entries: list[dict]) -> None:
        self._curves: dict[tuple[str, str], list[tuple[int, float]]] = {}
        for entry in sorted(entries, key=lambda entry: entry["step"]):
            for name, value in entry.items():
                if name not in ("kind", "step"):
                    self._curves.setdefault((entry["kind"], name), []).append((entry["step"], value))

    @classmethod
    def read(cls, path: str) -> Reference:
        """The curves of a file, as `metrics.jsonl` of a training, or of a training's folder; none where empty.

        Args:
          path: from the working directory or the repository's root.

        Raises:
          UserError: there is no such file, or it is damaged.
        """
        if not path:
            return cls([])
        places = [Path(path) / METRICS_FILE, Path(path), _ROOT / path]
        file = next((place for place in places if place.is_file()), None)
        if file is None:
            raise UserError(
                f"found no reference curves at {path}, expected a training's folder or its {METRICS_FILE}: name one, "
                "or leave reference empty"
            )
        try:
            entries = [json.loads(line) for line in file.read_text().splitlines()]
            return cls(
                [{"kind": str(entry["kind"]), "step": int(entry["step"]), **_numbers(entry)} for entry in entries]
            )
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise UserError(
                f"{file} is damaged ({reason_of(error)}), expected a line of JSON for each log of a training: copy it "
                "again, or leave reference empty"
            ) from error

    def expected(self, kind: str, step: int) -> dict[str, float]:
        """Metrics of a step, on a line between those that were logged; nothing before the first or after the last."""
        found = {}
        for (of_kind, name), curve in self._curves.items():
            if of_kind == kind and curve[0][0] <= step <= curve[-1][0]:
                steps, values = np.array(curve, np.float64).T
                found[name] = float(np.interp(step, steps, values))
        return found


def _numbers(entry: dict) -> dict[str, float]:
    return {name: float(value) for name, value in entry.items() if name not in ("kind", "step")}
