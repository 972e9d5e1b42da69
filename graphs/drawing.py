"""Pictures of goals and of the lattice of states: Mermaid text and SVG, made without any other program."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

from graphs.lattice import Lattice, State, TooManyStates
from graphs.search import Plan

DRAWN_STATES = 120
"""States up to which the whole lattice is drawn; more are no picture any more."""

_WALKED = "#0b7285"
_PALE = "#adb5bd"
_COLUMN, _ROW, _MARGIN = 180, 84, 100
"""Pixels between states of a level, between levels, and around the picture."""
_LONGEST = 20
"""Characters of a goal's name before it is cut in a picture; the whole name is in the tooltip."""


def goals_mermaid(lattice: Lattice, walked: Sequence[Collection[str]] = ()) -> str:
    """Goals and what they require, as a Mermaid flowchart.

    A goal with several ways shows each as a hexagon: all arrows into a hexagon are needed, one hexagon is enough. Goals
    of the last walked state are filled.

    Args:
        lattice: Goals and ways.
        walked: The states that a run went through.
    """
    held = frozenset(walked[-1]) if walked else frozenset[str]()
    lines = ["flowchart BT"]
    for number, (goal, own) in enumerate(zip(lattice.order, lattice.ways, strict=True)):
        lines.append(f'  g{number}["{_mermaid_text(goal)}"]')
        for place, way in enumerate(own):
            node, arrow = f"g{number}", "-->"
            if len(own) > 1:
                node = f"w{number}_{place}"
                lines.append(f'  {node}{{{{"{_mermaid_text(_short_way(way.id, goal))}<br/>{way.cost:.4g} s"}}}}')
                lines.append(f"  {node} --> g{number}")
                arrow = "-.->"
            lines += [f"  g{lattice.index[required]} {arrow} {node}" for required in sorted(way.requires)]
    lines.append(f"  classDef held fill:{_WALKED},color:#fff,stroke:{_WALKED}")
    if drawn := [f"g{number}" for number, goal in enumerate(lattice.order) if goal in held]:
        lines.append(f"  class {','.join(drawn)} held")
    return "\n".join(lines) + "\n"


def plan_mermaid(plan: Plan) -> str:
    """A plan as a Mermaid flowchart from left to right: what holds already is filled, what runs now has a thick border.

    An arrow leads from what is required to the step that requires it; the numbers are the plan's order.
    """
    needed = sorted({goal for step in plan.steps for goal in step.requires & plan.start})
    node = {goal: f"h{number}" for number, goal in enumerate(needed)}
    node |= {step.goal: f"s{number}" for number, step in enumerate(plan.steps, 1)}
    lines = ["flowchart LR", *[f'  {node[goal]}(["{_mermaid_text(goal)}"])' for goal in needed]]
    for number, step in enumerate(plan.steps, 1):
        way = _mermaid_text(f"{_short_way(step.way, step.goal)}, {step.cost:.4g} s")
        lines.append(f'  s{number}["{number} {_mermaid_text(step.goal)}<br/>{way}"]')
        lines += [f"  {node[goal]} --> s{number}" for goal in sorted(step.requires) if goal in node]
    lines += [
        f"  classDef held fill:{_WALKED},color:#fff,stroke:{_WALKED}",
        f"  classDef now stroke:{_WALKED},stroke-width:3px",
    ]
    lines += [f"  class {','.join(node[goal] for goal in needed)} held"] if needed else []
    if now := [node[step.goal] for step in plan.frontier(plan.start)]:
        lines.append(f"  class {','.join(now)} now")
    return "\n".join(lines) + "\n"


def hasse_mermaid(lattice: Lattice, walked: Sequence[Collection[str]] = (), limit: int = DRAWN_STATES) -> str:
    """The lattice of states as a Mermaid flowchart, ∅ at the bottom, the walked chain thick.

    Args:
        lattice: Goals and ways.
        walked: The states that a run went through; several goals may be added at once.
        limit: With more feasible states only the walked chain (or, without one, some chain to the top) and the states
            directly above it are drawn, and a comment and a note say so.
    """
    diagram = _diagram(lattice, walked, limit)
    name = {state: f"s{number}" for number, state in enumerate(diagram.states)}
    lines = [f"%% {diagram.note}", "flowchart BT"]
    lines += [f'  {name[state]}(["{_state_text(state, _mermaid_text)}"])' for state in diagram.states]
    walk = set(diagram.walk)
    lines += [
        f'  {name[lower]} ---|"{_mermaid_text(_change(lower, upper))}"| {name[upper]}'
        for lower, upper in diagram.covers
        if (lower, upper) not in walk
    ]
    lines += [
        f'  {name[lower]} ==>|"{_mermaid_text(_change(lower, upper))}"| {name[upper]}' for lower, upper in diagram.walk
    ]
    if diagram.partial:
        lines.append(f'  note["{_mermaid_text(diagram.note)}"]')
    lines.append(f"  classDef walked fill:{_WALKED},color:#fff,stroke:{_WALKED}")
    if drawn := [name[state] for state in diagram.states if state in diagram.walked]:
        lines.append(f"  class {','.join(drawn)} walked")
    return "\n".join(lines) + "\n"


def hasse_svg(lattice: Lattice, walked: Sequence[Collection[str]] = (), limit: int = DRAWN_STATES) -> str:
    """The lattice of states as an SVG document, ∅ at the bottom, one level for each number of goals.

    Arguments as for ``hasse_mermaid``. Each state has its goals as a tooltip.
    """
    diagram = _diagram(lattice, walked, limit)
    levels = _levels(diagram)
    columns = max(len(level) for level in levels)
    width = max(2 * _MARGIN + _COLUMN * columns, 12 * len(diagram.note) // 2 + 2 * _MARGIN)
    height = 2 * _MARGIN + _ROW * (len(levels) - 1) + 40
    at: dict[State, tuple[float, float]] = {}
    for row, level in enumerate(levels):
        for column, state in enumerate(level):
            at[state] = (width / 2 + (column - (len(level) - 1) / 2) * _COLUMN, height - 40 - _MARGIN - row * _ROW)
    walk = set(diagram.walk)
    below: dict[State, list[State]] = {}
    for lower, upper in (*diagram.covers, *diagram.walk):
        below.setdefault(upper, []).append(lower)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        ' role="img" font-family="system-ui, sans-serif" font-size="11">',
        f"<title>Lattice of goals</title><desc>{escape(diagram.note)}</desc>",
        '<rect width="100%" height="100%" fill="#fff"/>',
        *[_svg_edge(edge, at) for edge in diagram.covers if edge not in walk],
        *[_svg_walk(edge, at) for edge in diagram.walk],
        *[
            _svg_state(state, at[state], _label(state, below, lattice.goals), state in diagram.walked)
            for state in diagram.states
        ],
        *[_svg_change(edge, at) for edge in diagram.walk],
        f'<text x="{width / 2}" y="{height - 24}" text-anchor="middle" fill="#495057">{escape(diagram.note)}</text>',
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


@dataclass(frozen=True)
class _Diagram:
    states: tuple[State, ...]
    covers: tuple[tuple[State, State], ...]
    walk: tuple[tuple[State, State], ...]
    note: str
    partial: bool

    @property
    def walked(self) -> frozenset[State]:
        return frozenset(state for edge in self.walk for state in edge)


def _diagram(lattice: Lattice, walked: Sequence[Collection[str]], limit: int) -> _Diagram:
    chain = [frozenset(state) & lattice.goals for state in walked]
    walk = tuple(dict.fromkeys((one, next_) for one, next_ in pairwise(chain) if one != next_))
    try:
        states, partial = lattice.states(limit), False
        note = f"{len(states)} feasible states of {len(lattice.goals)} goals"
    except TooManyStates:
        spine = chain or list(_some_chain(lattice))
        states, partial = tuple(above for state in spine for above in (state, *lattice.covers(state))), True
        shown = "the walked chain" if chain else "one chain from the bottom to the top"
        note = (
            f"more than {limit} feasible states of {len(lattice.goals)} goals; drawn: {shown} and the states above it"
        )
    everything = tuple(sorted({*states, *chain}, key=lambda state: (len(state), sorted(state))))
    drawn = frozenset(everything)
    covers = tuple((state, above) for state in everything for above in lattice.covers(state) if above in drawn)
    return _Diagram(everything, covers, walk, note + ("; thick: walked" if walk else ""), partial)


def _some_chain(lattice: Lattice) -> Iterable[State]:
    """A maximal chain that always adds the goal with the smallest id."""
    state: State = frozenset()
    yield state
    while fringe := lattice.fringe(state):
        state = state | {min(fringe)}
        yield state


def _levels(diagram: _Diagram) -> list[list[State]]:
    """States by number of goals; within a level near the states below (barycentre rule of Sugiyama et al. 1981)."""
    levels: dict[int, list[State]] = {}
    for state in diagram.states:
        levels.setdefault(len(state), []).append(state)
    below: dict[State, list[State]] = {}
    for lower, upper in (*diagram.covers, *diagram.walk):
        below.setdefault(upper, []).append(lower)
    place: dict[State, float] = {}
    rows = [levels[size] for size in sorted(levels)]
    for row in rows:

        def centre(state: State) -> float:
            under = [place[one] for one in below.get(state, ()) if one in place]
            return sum(under) / len(under) if under else 0.0

        row.sort(key=lambda state: (centre(state), sorted(state)))
        place.update({state: column - (len(row) - 1) / 2 for column, state in enumerate(row)})
    return rows


def _svg_edge(edge: tuple[State, State], at: dict[State, tuple[float, float]]) -> str:
    (x1, y1), (x2, y2) = at[edge[0]], at[edge[1]]
    return f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" stroke="{_PALE}"/>'


def _bend(edge: tuple[State, State], at: dict[State, tuple[float, float]]) -> tuple[float, float]:
    """Control point of a walked edge (quadratic Bézier): straight to the next level, else round what is there."""
    (x1, y1), (x2, y2) = at[edge[0]], at[edge[1]]
    aside = _COLUMN if abs(y2 - y1) > _ROW else 0
    return (x1 + x2) / 2 - aside, (y1 + y2) / 2


def _svg_walk(edge: tuple[State, State], at: dict[State, tuple[float, float]]) -> str:
    (x1, y1), (x, y), (x2, y2) = at[edge[0]], _bend(edge, at), at[edge[1]]
    d = f"M {x1:g} {y1:g} Q {x:g} {y:g} {x2:g} {y2:g}"
    return f'<path d="{d}" fill="none" stroke="{_WALKED}" stroke-width="3"/>'


def _svg_change(edge: tuple[State, State], at: dict[State, tuple[float, float]]) -> str:
    """What a walked edge changed, on the edge, half a level below its upper end."""
    (x1, y1), (x, _), (x2, y2) = at[edge[0]], _bend(edge, at), at[edge[1]]
    t = max(0.5, 1 - _ROW / 2 / (abs(y2 - y1) or _ROW))
    middle, high = (1 - t) ** 2 * x1 + 2 * t * (1 - t) * x + t**2 * x2, y1 + (y2 - y1) * t
    changes = [_cut(change) for change in _changes(*edge)]
    lines = changes if len(changes) <= 2 else [*changes[:1], f"and {len(changes) - 1} more"]
    style = f'text-anchor="middle" fill="{_WALKED}" stroke="#fff" stroke-width="4" paint-order="stroke"'
    return f"<text {style}>{_spans(lines, middle, high)}</text>"


def _spans(lines: Sequence[str], x: float, y: float) -> str:
    """Lines of text around a point."""
    return "".join(
        f'<tspan x="{x:g}" y="{y + 4 + 13 * (number - (len(lines) - 1) / 2):g}">{escape(line)}</tspan>'
        for number, line in enumerate(lines)
    )


def _label(state: State, below: Mapping[State, Sequence[State]], everything: State) -> list[str]:
    """Lines that tell a state from its neighbours: its goals, what it lacks, or what it adds to the one below."""
    if len(state) <= 2:
        return [_cut(goal) for goal in sorted(state)] or ["∅"]
    if len(lacking := everything - state) <= 2:
        return ["all but", *[_cut(goal) for goal in sorted(lacking)]] if lacking else [f"all {len(state)} goals"]
    under = set(below.get(state, ()))
    added = state - next(iter(under)) if len(under) == 1 else frozenset[str]()
    return [f"{len(state)} goals", *([f"+{_cut(min(added))}"] if len(added) == 1 else [])]


def _svg_state(state: State, place: tuple[float, float], label: list[str], walked: bool) -> str:
    x, y = place
    fill, text = (_WALKED, "#fff") if walked else ("#f1f3f5", "#212529")
    wide, high = min(_COLUMN - 10, 16 + 6.4 * max(len(line) for line in label)), 10 + 13 * len(label)
    return (
        f"<g><title>{escape(', '.join(sorted(state)) or 'nothing holds')}</title>"
        f'<rect x="{x - wide / 2:g}" y="{y - high / 2:g}" width="{wide}" height="{high}" rx="8" fill="{fill}"'
        f' stroke="{_WALKED if walked else _PALE}"/>'
        f'<text text-anchor="middle" fill="{text}">{_spans(label, x, y)}</text></g>'
    )


def _change(before: State, after: State) -> str:
    return ", ".join(_changes(before, after))


def _changes(before: State, after: State) -> list[str]:
    """What a step of the walk added, and what was retracted."""
    return [*[f"+{goal}" for goal in sorted(after - before)], *[f"−{goal}" for goal in sorted(before - after)]]


def _state_text(state: State, spelled: Callable[[str], str]) -> str:
    if not state:
        return "∅"
    return "<br/>".join(spelled(goal) for goal in sorted(state)) if len(state) <= 4 else f"{len(state)} goals"


def _mermaid_text(text: str) -> str:
    """Text for a quoted Mermaid label: what would end the label or start markup becomes an entity code."""
    return "".join(f"#{ord(character)};" if character in '"#<>&`\\{}|\n\r' else character for character in text)


def _short_way(way: str, goal: str) -> str:
    """A way's id without what its goal's id says already: crawled.links[Fractal] → links."""
    name, bracket, topic = goal.partition("[")
    return way.removeprefix(f"{name}.").removesuffix(bracket + topic) or way


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
