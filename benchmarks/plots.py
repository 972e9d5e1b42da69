"""Pictures of what benchmarks found: bars for each measure, lines over the sizes for what grows.

``python -m benchmarks --plots docs/pictures/performance`` draws again what ``build/bench`` has as JSON, which is how
the pictures of docs/performance.md are made.
"""

from __future__ import annotations

import io
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.figures import OURS, Figures, number_form

WIDTH = 3
"""Cells beside each other."""
LEAST_BARS, BAR_INCHES = 4, 0.3
"""How high a row of cells is: by the most bars of a cell, but no lower than this many."""
WIDE = 50
"""Values that differ by more than this stand on a logarithmic axis."""
COLOURS = 64
"""Of a picture's palette; it has six, and the shades of its letters and bands."""
DOTS_PER_INCH = 90
MOST_BYTES = 60_000
OUR_COLOUR, THEIR_COLOUR, SPREAD_COLOUR = "#0b7285", "#adb5bd", "#495057"
PEER_LINES = ("#e8590c", "#7048e8", "#868e96")
Bars = Mapping[str, Sequence[float]]


def draw_kept(kept: Path, target: Path) -> list[Path]:
    """A picture of every JSON in a folder, into another; the pictures.

    Raises:
        FileNotFoundError: the folder has no figures.
    """
    found = sorted(kept.glob("*.json"))
    if not found:
        raise FileNotFoundError(f"{kept}: no figures (*.json); run a benchmark first, or name their folder with --out")
    target.mkdir(parents=True, exist_ok=True)
    pictures = [target / f"{path.stem}.png" for path in found]
    for path, picture in zip(found, pictures, strict=True):
        draw(Figures.kept(path), picture)
    return pictures


def draw(figures: Figures, path: Path) -> None:
    """One picture of a benchmark, as PNG."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot
    from PIL import Image

    bars = cells_of(figures)
    cells = len(bars) + len(figures.growth)
    columns = min(WIDTH, cells)
    many = [len(values) for values in bars.values()] + [LEAST_BARS] * len(figures.growth)
    heights = [max(LEAST_BARS, *many[start : start + WIDTH]) for start in range(0, cells, WIDTH)]
    size = (0.6 + 3.6 * columns, 0.6 + sum(0.7 + BAR_INCHES * height for height in heights))
    figure, grid = pyplot.subplots(
        len(heights), columns, squeeze=False, figsize=size, gridspec_kw={"height_ratios": heights}
    )
    for cell in grid.flat[cells:]:
        cell.set_visible(False)
    for cell, (title, values) in zip(grid.flat, bars.items(), strict=False):
        _draw_bars(cell, title, values)
    for cell, measure in zip(grid.flat[len(bars) :], figures.growth, strict=False):
        by_size = {size: figures.found[name] for size, name in sorted(figures.growth[measure].items())}
        _draw_lines(cell, measure, by_size)
    figure.suptitle(figures.bench, fontsize=11)
    figure.tight_layout()
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=DOTS_PER_INCH)
    pyplot.close(figure)
    Image.open(drawn).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)


def cells_of(figures: Figures) -> dict[str, Bars]:
    """Title of a cell → its bars. What Lumina did alone stands together where the unit after the colon is the same."""
    grown = {name for by_size in figures.growth.values() for name in by_size.values()}
    cells: dict[str, Bars] = {}
    alone: dict[str, dict[str, Sequence[float]]] = {}
    for measure, by_who in figures.found.items():
        case, colon, unit = measure.rpartition(": ")
        if measure in grown:
            continue
        if colon and list(by_who) == [OURS]:
            alone.setdefault(unit, {})[case] = by_who[OURS]
        else:
            cells[measure] = by_who
    for unit, by_case in alone.items():
        if len(by_case) > 1:
            cells[unit] = by_case
        else:
            cells |= {f"{case}: {unit}": {OURS: values} for case, values in by_case.items()}
    return cells


def _draw_bars(cell: Any, title: str, by_name: Bars) -> None:
    names = [textwrap.fill(name, 34) for name in by_name]
    every = list(by_name.values())
    medians = [statistics.median(values) for values in every]
    below = [median - min(values) for median, values in zip(medians, every, strict=True)]
    above = [max(values) - median for median, values in zip(medians, every, strict=True)]
    compared = OURS in by_name
    colours = [OUR_COLOUR if not compared or name == OURS else THEIR_COLOUR for name in by_name]
    drawn = cell.barh(names, medians, xerr=[below, above], color=colours, ecolor=SPREAD_COLOUR, capsize=2)
    least, most = min(map(min, every)), max(map(max, every))
    if least > 0 and most > WIDE * least:
        cell.set_xscale("log")
        cell.set_xlim(least / 3, most * 6)
        title += " (log)"
    else:
        cell.margins(x=0.25)
    cell.bar_label(drawn, [number_form([median]).format(median) for median in medians], padding=4, fontsize=7)
    cell.set_ylim(max(len(names), LEAST_BARS) - 0.5, -0.5)  # the first on top
    _finish(cell, title)
    cell.xaxis.set_visible(False)


def _draw_lines(cell: Any, title: str, by_size: Mapping[int, Bars]) -> None:
    from matplotlib.ticker import FuncFormatter, NullLocator

    others = iter(PEER_LINES)
    for who in dict.fromkeys(who for found in by_size.values() for who in found):
        at = {size: found[who] for size, found in by_size.items() if who in found}
        colour = OUR_COLOUR if who == OURS else next(others, None)
        cell.plot(list(at), [statistics.median(values) for values in at.values()], "o-", ms=3, label=who, color=colour)
        cell.fill_between(list(at), [*map(min, at.values())], [*map(max, at.values())], alpha=0.2, color=colour)
    values = [value for found in by_size.values() for rounds in found.values() for value in rounds]
    cell.set_xscale("log")
    cell.set_xticks(list(by_size), [f"{size:,}" for size in by_size], rotation=30)
    cell.xaxis.set_minor_locator(NullLocator())
    if max(values) > WIDE * min(values):
        cell.set_yscale("log")
        title += " (log)"
    else:
        cell.set_ylim(0, 1.15 * max(values))
    cell.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    if any(len(found) > 1 for found in by_size.values()):
        cell.legend(fontsize=7)
    _finish(cell, title)


def _finish(cell: Any, title: str) -> None:
    cell.set_title("\n".join(textwrap.wrap(title, 46)), fontsize=8)
    cell.tick_params(labelsize=7)
    cell.spines[["top", "right"]].set_visible(False)
