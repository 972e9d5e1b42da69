"""How a run looks in a terminal: live while it goes on, a document when it has ended."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.padding import Padding
from rich.panel import Panel
from rich.rule import Rule
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from graphs.runs import RunEvent

MARKS = {"holds": "[green]●[/]", "running": "[yellow]◐[/]", "planned": "[dim]○[/]", "failed": "[red]✗[/]"}


class RunView:
    """Follows a run. On a terminal it redraws in place; into a pipe it writes one line per thing that happened."""

    def __init__(self, console: Console, started: float) -> None:
        self._console = console
        self._started = started
        self._goals: dict[str, str] = {}
        self._ways: dict[str, str] = {}
        self._notes: dict[str, str] = {}
        self._counts: dict[str, dict[str, int]] = {}
        self._why = ""
        self._tokens: list[str] = []
        self._citations: list[dict[str, Any]] = []
        self.answer_shown = False
        """Whether the answer is on the screen already: it is shown when it is there, not when the run ends."""
        self._live = Live(console=console, refresh_per_second=8, transient=True, get_renderable=self._draw)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start(refresh=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._live.stop()

    async def follow(self, events: AsyncIterator[RunEvent]) -> dict[str, Any]:
        """Show a run to its end and return the data of its ``done`` event."""
        outcome: dict[str, Any] = {}
        async for event in events:
            if event.kind == "done":
                outcome = event.data
            else:
                self.take(event)
        return outcome

    def take(self, event: RunEvent) -> None:
        """Show one event."""
        if event.kind == "plan":
            self._take_plan(event.data)
        elif event.kind == "agent":
            self._take_agent(event.data)
        elif event.kind == "progress":
            self._take_progress(event.data)
        elif event.kind == "token":
            self._tokens.append(event.data["text"])
        elif event.kind == "citation":
            self._citations.append(event.data)

    def _take_plan(self, data: Mapping[str, Any]) -> None:
        decision, holding = data["decision"], data["situation"]["holding"]
        goals = dict.fromkeys(holding, "holds")
        for step in decision["plan"]:
            goals[step["goal"]] = "planned"
            self._ways[step["goal"]] = step["way"]
        for step in decision["run"]:
            goals[step["goal"]] = "running"
        changed = set(goals) != set(self._goals)
        self._goals = {**{goal: state for goal, state in self._goals.items() if state == "failed"}, **goals}
        self._why = decision["why"]
        if changed and decision["plan"]:
            steps = escape(" → ".join(step["way"] for step in decision["plan"]))
            self._line("plan", f"{steps}  [dim]({decision['cost']:.4g} s expected)[/]", markup=True)

    def _take_agent(self, data: Mapping[str, Any]) -> None:
        goal, name = data.get("goal", ""), data["agent"]
        if data["state"] == "start":
            self._notes[goal] = ""
            return
        if data["state"] in ("failed", "done") and goal:
            self._goals[goal] = "failed" if data["state"] == "failed" else "holds"
        self._notes[goal] = data.get("text", "")
        if data["state"] != "step":
            took = f"  [dim]{data['seconds']:.1f} s[/]" if "seconds" in data else ""
            colour = "red" if data["state"] == "failed" else "green"
            self._line(name, f"{escape(data.get('text', ''))}{took}", markup=True, colour=colour)
        if data["state"] == "done" and self._tokens and not self.answer_shown:
            self.answer_shown = True
            show_answer(self._console, {"answer": "".join(self._tokens), "citations": self._citations})

    def _take_progress(self, data: Mapping[str, Any]) -> None:
        topic = data.get("topic") or ""
        for goal, state in self._goals.items():
            if state == "running" and (goal.endswith(f"[{topic}]") if topic else "[" not in goal):
                self._notes[goal] = data["text"]
        counts = {name: data[name] for name in ("pages", "nodes", "edges", "passages") if name in data}
        if counts:
            self._counts[topic] = counts
        if not self._console.is_terminal:
            self._line(data["agent"], data["text"])

    def _line(self, who: str, text: str, *, markup: bool = False, colour: str = "bold") -> None:
        """A line that stays: above the live part, or in the pipe."""
        body = text if markup else escape(text)
        seconds = time.monotonic() - self._started
        self._console.print(
            f"[dim]{seconds:5.1f}s[/] [{colour}]{who:<12}[/] {body}",
            highlight=False,
            soft_wrap=not self._console.is_terminal,
        )

    def _draw(self) -> RenderableType:
        table = Table.grid(padding=(0, 1))
        for goal, state in self._goals.items():
            mark: RenderableType = Spinner("dots", style="yellow") if state == "running" else MARKS[state]
            note = self._notes.get(goal, "")
            table.add_row(mark, escape(goal), Text(self._ways.get(goal, ""), style="dim"), Text(note, style="cyan"))
        parts: list[RenderableType] = [Rule(style="dim"), table]
        totals = {
            name: sum(c.get(name, 0) for c in self._counts.values()) for name in ("pages", "nodes", "edges", "passages")
        }
        if any(totals.values()):
            line = "   ".join(f"[bold]{count}[/] {name}" for name, count in totals.items())
            parts.append(Padding(line, (0, 2)))
        if self._why:
            parts.append(Padding(Text(self._why, style="dim italic"), (0, 2)))
        return Group(*parts)


def show_answer(console: Console, reply: Mapping[str, Any]) -> None:
    """Print an answer and its numbered citations."""
    console.print(Panel(Text(reply["answer"]), title="Answer", title_align="left", border_style="green"))
    _show_citations(console, reply.get("citations") or [])


def show_outcome(
    console: Console, outcome: Mapping[str, Any], *, seconds: float, details: bool, answer_shown: bool = False
) -> None:
    """Print what a run left behind: the answer with its sources, the summary, the chain, the counts."""
    report = outcome.get("report") or {}
    reply = outcome.get("reply") or report.get("answer")
    if reply and not answer_shown:
        show_answer(console, reply)
    for notice in (outcome.get("outcome") or {}).get("notices") or []:
        console.print(f"  [yellow]{escape(notice)}[/]", highlight=False, soft_wrap=True)
    for looked in (reply.get("looked_at") or []) if reply and reply.get("abstained") else []:
        console.print(f"  [dim]looked at[/] {escape(looked)}", highlight=False)
    for summary in report.get("summaries") or []:
        title = f"Summary of {summary['topic']}"
        console.print(Panel(Text(summary["text"]), title=escape(title), title_align="left", border_style="blue"))
        _show_citations(console, summary.get("citations") or [])
    for name in report.keys() - {"answer", "summaries", "crawls", "topics"}:
        value = report[name]
        console.print(
            f"[bold]{name}[/]: {escape(', '.join(map(str, value)) if isinstance(value, list) else str(value))}"
        )
    if details:
        _show_chain(console, outcome.get("chain") or [])
        _show_counts(console, outcome, seconds)


def _show_citations(console: Console, citations: Sequence[Mapping[str, Any]]) -> None:
    for citation in citations:
        section = f" § {' > '.join(citation['section'])}" if citation.get("section") else ""
        console.print(
            f"  [bold]\\[{citation['number']}][/] {escape(citation['title'] + section)}, "
            f"revision {citation['revision']}\n      [blue]{escape(citation['url'])}[/]",
            highlight=False,
            soft_wrap=True,
        )
    if citations:
        console.print()


def _show_chain(console: Console, chain: Sequence[Sequence[str]]) -> None:
    console.print("[bold]Lattice states walked[/]")
    before: set[str] = set()
    for number, state in enumerate(chain):
        gained = sorted(set(state) - before)
        lost = sorted(before - set(state))
        change = " ".join([*(f"+{goal}" for goal in gained), *(f"-{goal}" for goal in lost)]) or "∅"
        console.print(f"  S{number}  {escape(change)}", highlight=False, soft_wrap=True)
        before = set(state)
    console.print()


def _show_counts(console: Console, outcome: Mapping[str, Any], seconds: float) -> None:
    report = outcome.get("report") or {}
    usage = outcome.get("usage") or {}
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    crawls = report.get("crawls") or []
    table.add_row("pages read", str(sum(len(crawl.get("titles", ())) for crawl in crawls)))
    for name in ("nodes", "edges", "passages"):
        table.add_row(name, str(sum(crawl.get(name, 0) for crawl in crawls)))
    skipped = {title: why for crawl in crawls for title, why in (crawl.get("skipped") or {}).items()}
    if skipped:
        shown = "; ".join(f"{title}: {why}" for title, why in list(skipped.items())[:3])
        more = f"; and {len(skipped) - 3} more" if len(skipped) > 3 else ""
        table.add_row("skipped", escape(shown + more))
    table.add_row("agent runs", str(len(outcome.get("walked") or [])))
    table.add_row("tokens", f"{usage.get('input_tokens', 0)} in, {usage.get('output_tokens', 0)} out")
    table.add_row("cost", f"{usage.get('usd', 0.0):.4f} USD")
    table.add_row("seconds", f"{seconds:.1f}")
    console.print(table)
