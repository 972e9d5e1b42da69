"""The figures as a table, a JSON file and a picture."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from errors import LuminaError
from evaluation.outcomes import FIGURES

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Figures = Mapping[str, float | None]
SHARES = [name for name in FIGURES if name not in ("p50_s", "p95_s", "tokens_in", "tokens_out")]
"""Figures between 0 and 1."""
AMOUNTS = ("tokens_in", "tokens_out", "words", "sentences", "dropped", "replaced")
"""Figures that are counts."""


class NoPlot(LuminaError):
    """The picture cannot be drawn."""


def table(systems: Mapping[str, Figures], meanings: Mapping[str, str] = FIGURES) -> Table:
    """One row a figure that any system has, one column a system; ``meanings`` says what each figure counts."""
    drawn = Table(box=None, pad_edge=False)
    drawn.add_column("figure")
    for name in systems:
        drawn.add_column(name, justify="right")
    drawn.add_column("what it counts", style="dim")
    for figure, meaning in meanings.items():
        if any(values[figure] is not None for values in systems.values()):
            drawn.add_row(figure, *(shown(figure, values[figure]) for values in systems.values()), meaning)
    return drawn


def shown(figure: str, value: float | None) -> str:
    """A figure in few digits."""
    if value is None:
        return "-"
    return f"{value:.1f}" if figure in AMOUNTS else f"{value:.3f}"


def write_json(
    file: Path,
    about: Mapping[str, Any],
    systems: Mapping[str, Figures],
    outcomes: Mapping[str, Sequence[DataclassInstance]],
) -> None:
    """The figures, how they came about, and every single outcome."""
    content = {
        **about,
        "figures": systems,
        "outcomes": {name: [asdict(one) for one in each] for name, each in outcomes.items()},
    }
    file.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def check_plot() -> None:
    """Raises NoPlot where matplotlib is missing: better before the questions than after them."""
    from importlib.util import find_spec

    if find_spec("matplotlib") is None:
        raise NoPlot("the picture needs matplotlib: pip install matplotlib, or do without one: --no-plot")


def write_plot(file: Path, systems: Mapping[str, Figures], title: str, shares: Sequence[str] = SHARES) -> None:
    """Bars of the ``shares``, figures between 0 and 1, the systems side by side."""
    import matplotlib.figure  # a second of imports

    names = [name for name in shares if any(values[name] is not None for values in systems.values())]
    figure = matplotlib.figure.Figure(figsize=(9, 0.42 * len(names) + 1.2), layout="constrained")
    axes = figure.subplots()
    height = 0.8 / len(systems)
    for number, (system, values) in enumerate(systems.items()):
        places = [place + number * height for place in range(len(names))]
        bars = axes.barh(places, [values[name] or 0 for name in names], height, label=system)
        axes.bar_label(bars, [shown(name, values[name]) for name in names], padding=2, fontsize=8)
    axes.set_yticks([place + 0.4 - height / 2 for place in range(len(names))], names)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.08)
    axes.set_title(title, fontsize=10)
    axes.legend(loc="lower right")
    figure.savefig(file, dpi=120)
