"""What a benchmark found: a value a round of each measure and contender, as a table, as JSON, as a picture.

A ratio is the median of the rounds' own ratios, for whatever else the machine does slows a whole round.
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

OURS = "lumina"
_GROWN = re.compile(r"(.+), at (\d[\d,]*)")
"""How ``note_at`` names what was measured at a size."""


class Figures:
    """Collects the values of one benchmark.

    A measure's name says its unit ("puts/s", "ready, s"). Whether more is better is for the reader to see.
    """

    def __init__(self, bench: str, *, expectation: str = "") -> None:
        self.bench = bench
        self.expectation = expectation
        """What was written down before the first measurement."""
        self.found: dict[str, dict[str, list[float]]] = {}
        self.growth: dict[str, dict[int, str]] = {}
        """What grows with a size: its name → size → the measure in ``found``."""
        self.left_out: dict[str, str] = {}
        """Who took no part, and why."""
        self.ran_on: dict[str, str] = {}
        """What it ran on, beside the machine: a browser, a renderer."""

    @classmethod
    def kept(cls, path: Path) -> Figures:
        """The figures that ``save`` wrote as JSON."""
        whole = json.loads(path.read_text())
        figures = cls(whole["bench"], expectation=whole["expectation"])
        figures.left_out = whole["left_out"]
        for measure, by_who in whole["measures"].items():
            grown = _GROWN.fullmatch(measure)
            if grown:
                figures.growth.setdefault(grown[1], {})[int(grown[2].replace(",", ""))] = measure
            figures.found[measure] = {who: summary["rounds"] for who, summary in by_who.items()}
        return figures

    def note(self, measure: str, who: str, value: float) -> None:
        """Keep the value of a round."""
        self.found.setdefault(measure, {}).setdefault(who, []).append(value)

    def note_at(self, size: int, measure: str, who: str, value: float) -> None:
        """Keep the value of a round at a size; the picture is a line over the sizes."""
        name = f"{measure}, at {size:,}"
        self.growth.setdefault(measure, {})[size] = name
        self.note(name, who, value)

    def ratios(self, measure: str, who: str) -> list[float]:
        """Lumina's value over this contender's, round by round; none where one of them took no part in every round."""
        ours, theirs = self.found[measure].get(OURS, []), self.found[measure][who]
        if len(ours) != len(theirs) or who == OURS:
            return []
        return [mine / other for mine, other in zip(ours, theirs, strict=True) if other]

    def table(self) -> str:
        """Markdown: a line for each measure and contender."""
        lines = ["| | | median (min–max) | lumina ÷ this |", "|---|---|---|---|"]
        for measure, by_who in self.found.items():
            for place, (who, values) in enumerate(by_who.items()):
                ratios = self.ratios(measure, who)
                said = spread(ratios, "{:.2f}") if ratios else ""
                lines.append(f"| {'' if place else measure} | {who} | {spread(values, number_form(values))} | {said} |")
        lines += [f"| not measured | {who} | {why} | |" for who, why in self.left_out.items()]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Everything, with the values of every round."""
        summary = {
            measure: {
                who: {
                    "median": statistics.median(values),
                    "min": min(values),
                    "max": max(values),
                    "rounds": values,
                    "lumina_ratio": statistics.median(self.ratios(measure, who)) if self.ratios(measure, who) else None,
                }
                for who, values in by_who.items()
            }
            for measure, by_who in self.found.items()
        }
        return {"bench": self.bench, "expectation": self.expectation, "measures": summary, "left_out": self.left_out}

    def save(self, folder: Path, machine: dict[str, Any]) -> None:
        """Write ``<bench>.json``, ``.md`` and ``.png`` into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        whole = {**self.to_json(), "machine": machine}
        (folder / f"{self.bench}.json").write_text(json.dumps(whole, indent=1) + "\n")
        (folder / f"{self.bench}.md").write_text(self.table() + "\n")
        from benchmarks.plots import draw

        draw(self, folder / f"{self.bench}.png")


def number_form(values: Sequence[float]) -> str:
    """A format with about three digits for numbers of this size."""
    size = abs(statistics.median(values))
    return "{:,.0f}" if size >= 100 else "{:.1f}" if size >= 10 else "{:.2f}" if size >= 0.1 else "{:.4f}"


def spread(values: Sequence[float], form: str) -> str:
    """Median and, where there is more than one value, the least and the greatest."""
    median = form.format(statistics.median(values))
    return f"{median} ({form.format(min(values))}–{form.format(max(values))})" if len(values) > 1 else median
