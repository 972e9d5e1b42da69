"""The ``lumina`` command. Everything heavy is imported inside the commands, so that ``--help`` is quick."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import time
from collections.abc import Coroutine
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import task_commands
from errors import LuminaError
from evaluation.commands import app as eval_app
from logs import close_logs, open_logs

if TYPE_CHECKING:
    from settings import Settings

app = typer.Typer(
    name="lumina",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Reads Wikipedia, grows a knowledge graph, remembers, and answers with citations.\n\n"
    "Nothing needs to be installed or configured: unset variables mean the embedded engines. "
    "[dim].env.example[/] lists every variable. Start with [bold]lumina demo[/].",
)

graph_app = typer.Typer(no_args_is_help=True, help="The knowledge graph: rebuild it, or write it to a file.")
app.add_typer(graph_app, name="graph")
app.add_typer(task_commands.app, name="tasks")
app.add_typer(eval_app, name="eval")

Topics = Annotated[
    list[str] | None, typer.Option("--topic", "-t", help="Article to start from; give it again for more than one.")
]
Hops = Annotated[int, typer.Option(min=0, max=5, help="How many links away from a topic the crawl goes.")]
MaxNodes = Annotated[int, typer.Option(min=1, max=5000, help="How many pages a crawl reads at most, per topic.")]
Source = Annotated[
    str | None,
    typer.Option(help="URL of a MediaWiki's api.php, or a .zim file. [dim]WIKI_SOURCE[/]", show_default=False),
]
DataDir = Annotated[
    Path | None, typer.Option(help="Where everything is kept. [dim]DATA_DIR[/]", show_default=".lumina")
]
TaskId = Annotated[
    str | None, typer.Option(help="Go on with this task from its last checkpoint, or give the task an id.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]


class RoleName(StrEnum):
    """The roles of `lumina serve`; serving/roles.py says what each is."""

    all = "all"
    hub = "hub"
    graph_api = "graph-api"
    event_mux = "event-mux"
    masterchat = "masterchat"
    indexer = "indexer"


STARTED = time.monotonic()
"""What a user waits begins here, with the imports."""

DEMO_TOPIC = "Mandelbrot set"
DEMO_QUESTION = "Who proved that the Mandelbrot set is connected?"


@app.command()
def demo(
    topic: Annotated[str, typer.Option(help="Article to start from.")] = DEMO_TOPIC,
    question: Annotated[str, typer.Option(help="What you want to know.", show_default=DEMO_QUESTION)] = "",
    hops: Hops = 1,
    max_nodes: MaxNodes = 30,
    wiki_source: Source = None,
    data_dir: DataDir = None,
) -> None:
    """The main job, watched: crawl, index, summarise, answer with citations.

    A second run answers from memory: its plan is shorter.
    """
    print("Lumina: opening the engines …", flush=True)
    topic = topic or DEMO_TOPIC
    question = question or (DEMO_QUESTION if topic == DEMO_TOPIC else f"What is {topic}?")
    asked = {"topics": [topic], "message": question, "hops": hops, "max_nodes": max_nodes}
    from commands import run

    settings = _settings(wiki_source=wiki_source, data_dir=data_dir)
    _run(run(settings, {**asked, "intent": "wiki_qa"}, started=STARTED, details=True))


@app.command()
def ask(
    question: Annotated[str, typer.Argument(help="What you want to know.")],
    topic: Topics = None,
    mode: Annotated[str, typer.Option(help="wiki_qa, chat, summarise, crawl, plan, or auto.")] = "wiki_qa",
    hops: Hops = 1,
    max_nodes: MaxNodes = 30,
    wiki_source: Source = None,
    data_dir: DataDir = None,
    task_id: TaskId = None,
    as_json: AsJson = False,
) -> None:
    """Ask a question: from memory when the topic is known, else after a crawl.

    A running server answers when there is one; otherwise the engines are opened here.
    """
    from commands import run

    settings = _settings(wiki_source=wiki_source, data_dir=data_dir)
    asked = {"topics": topic or [], "message": question, "hops": hops, "max_nodes": max_nodes, "intent": mode}
    _run(run(settings, asked, task_id, started=STARTED, as_json=as_json))


@app.command()
def crawl(
    topic: Annotated[list[str], typer.Argument(help="Articles to start from.")],
    question: Annotated[str, typer.Option(help="What you will want to know; decides which links are read first.")] = "",
    hops: Hops = 1,
    max_nodes: MaxNodes = 30,
    wiki_source: Source = None,
    data_dir: DataDir = None,
    task_id: TaskId = None,
    as_json: AsJson = False,
) -> None:
    """Read articles and what they link to, and grow the graph."""
    from commands import run

    asked = {"topics": topic, "message": question, "hops": hops, "max_nodes": max_nodes, "intent": "crawl"}
    settings = _settings(wiki_source=wiki_source, data_dir=data_dir)
    _run(run(settings, asked, task_id, started=STARTED, as_json=as_json, details=True))


@app.command()
def plan(
    instruction: Annotated[str, typer.Argument(help="What you would ask for.", show_default=False)] = "",
    topic: Topics = None,
    mode: Annotated[str, typer.Option(help="An intent of the goal file, or auto.")] = "auto",
    explain: Annotated[bool, typer.Option("--explain", help="Say why each step, and what others would cost.")] = False,
    replay: Annotated[
        str | None, typer.Option(metavar="TASK_ID", help="Decide again from this task's log; 1 where one differs.")
    ] = None,
    hops: Hops = 1,
    max_nodes: MaxNodes = 30,
    wiki_source: Source = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Show what would be done, in which order and why, without doing it."""
    from planning import replay_task, show_plan

    settings = _settings(wiki_source=wiki_source, data_dir=data_dir)
    if replay is not None:
        _run(replay_task(settings, replay, as_json=as_json))
        return
    asked = {"topics": topic or [], "message": instruction, "hops": hops, "max_nodes": max_nodes, "intent": mode}
    _run(show_plan(settings, asked, explain=explain, as_json=as_json))


@app.command()
def goals(
    file: Annotated[Path | None, typer.Argument(help="Goal file.", show_default="GOAL_FILE")] = None,
    topic: Annotated[list[str] | None, typer.Option("--topic", "-t", help="Topics to draw it for.")] = None,
    states: Annotated[bool, typer.Option(help="Draw the lattice of states instead of the goals.")] = False,
    draw: Annotated[
        Path | None, typer.Option(help="Write the lattice of states to this .svg or .mmd file.", dir_okay=False)
    ] = None,
    task: Annotated[
        str | None, typer.Option(metavar="TASK_ID", help="Draw what this task wanted, and mark the chain it walked.")
    ] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of the file.")] = False,
    import_: Annotated[
        Path | None, typer.Option("--import", metavar="OLD.yml", help="Convert a goal file of the first Lumina.")
    ] = None,
    agent: Annotated[str, typer.Option(help="Agent that an import gives to every way.")] = "orchestrator",
    data_dir: DataDir = None,
) -> None:
    """Check the goal file, and draw it as Mermaid.

    Problems are listed with their line: cycles, unknown ids, duplicates, unreachable goals, unknown agents.
    """
    from planning import draw_goals

    if schema:
        from graphs.goals import schema_text

        print(schema_text(), end="")
    elif import_ is not None:
        from graphs.goal_import import import_goals

        print(import_goals(import_, agent=agent), end="")
    else:
        settings = _settings(data_dir=data_dir)
        path = file or settings.goal_file
        _run(draw_goals(settings, path, topics=topic or [], states=states, file=draw, task_id=task))


@app.command()
def sql(
    query: Annotated[str, typer.Argument(help="One statement that reads; docs/queries.md has many.")],
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Ask the event store, read-only, for example: SELECT type, count(*) FROM events GROUP BY ALL."""
    from commands import run_sql

    _run(run_sql(_settings(data_dir=data_dir), query, as_json=as_json))


@app.command()
def export(
    out: Annotated[Path, typer.Option(help="Folder to write to; made when missing.", file_okay=False)],
    since: Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="First day (UTC).")] = None,
    until: Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Last day (UTC).")] = None,
    data_dir: DataDir = None,
) -> None:
    """Write the events as Parquet, a folder a day; days that are there completely are left alone."""
    from upkeep import export_events

    days = (since.date() if since else None, until.date() if until else None)
    _run(export_events(_settings(data_dir=data_dir), out, *days))


@graph_app.command("rebuild")
def graph_rebuild(data_dir: DataDir = None) -> None:
    """Make the knowledge graph in Redis again from the events; it can be used meanwhile."""
    from upkeep import rebuild_graph

    _run(rebuild_graph(_settings(data_dir=data_dir)))


@graph_app.command("export")
def graph_export(
    file: Annotated[Path, typer.Argument(help="A .graphml or .json file.", dir_okay=False)],
    data_dir: DataDir = None,
) -> None:
    """Write the knowledge graph to a file: GraphML, or node-link JSON."""
    from upkeep import export_graph

    _run(export_graph(_settings(data_dir=data_dir), file))


@app.command()
def prune(
    older_than: Annotated[
        str | None, typer.Option(metavar="AGE", help="Pages last read or checked longer ago: 90m, 12h, 30d, 8w.")
    ] = None,
    max_passages: Annotated[
        int | None, typer.Option(metavar="N", help="More passages than these, those read longest ago first.")
    ] = None,
    superseded: Annotated[bool, typer.Option(help="Passages of a revision when a newer one was read.")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and remove nothing.")] = False,
    owner: Annotated[str, typer.Option(help="Whose passages.")] = "local",
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Forget stored passages that are superseded, old or too many.

    A page goes whole. What a kept answer cites stays. A running server does it as a task.
    """
    from upkeep import prune_passages

    limits = {"older_than": older_than, "max_passages": max_passages}
    asked = {"superseded": superseded, "dry_run": dry_run, **{k: v for k, v in limits.items() if v is not None}}
    _run(prune_passages(_settings(data_dir=data_dir), asked, owner, as_json=as_json))


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address; anything but loopback needs LUMINA_API_KEYS.")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port.", show_default="the role's")] = None,
    role: Annotated[
        RoleName, typer.Option(help="The part to serve; each role runs in a process of its own, beside the others.")
    ] = RoleName.all,
    wiki_source: Source = None,
    data_dir: DataDir = None,
) -> None:
    """Everything over HTTP, until Ctrl-C; or one part of it.

    Ports: hub 8000, graph-api 8001, event-mux 8100 (WS_PORT), masterchat 8300, indexer 8400. The roles share REDIS_URL
    or DATA_DIR. masterchat alone holds the event store. Without QDRANT_URL the hub holds the vectors, indexes, and runs
    tasks; with it indexer indexes, and tasks are for `lumina worker`.
    """
    gc.disable()  # until the server is up: what is imported and opened stays, and is not searched again and again
    from server import serve as run_server
    from serving.roles import ROLES

    settings = _settings(wiki_source=wiki_source, data_dir=data_dir)
    log = "serve.log" if role is RoleName.all else f"serve-{role.value}.log"
    _open_server_logs(settings, settings.data_dir / "logs" / log)
    _run(run_server(settings, host=host, port=port, role=ROLES[role.value]))


@app.command()
def worker(
    kinds: Annotated[
        str, typer.Option(help="Task kinds to take, separated by commas.", show_default="all that it can run")
    ] = "",
    concurrency: Annotated[int, typer.Option(min=1, max=64, help="Tasks at a time, all in this process.")] = 1,
    wiki_source: Source = None,
    data_dir: DataDir = None,
) -> None:
    """Take tasks from the queue and run them, until Ctrl-C or SIGTERM.

    What runs then is handed back at once, and another worker goes on from its last checkpoint; so it is, within 15 s,
    when a worker is killed. Start as many as you like, here on the same DATA_DIR or on other hosts with REDIS_URL set
    to the same Redis. `lumina serve` takes tasks too, one at a time.

    `crawl`, `plan` and `report` need Redis and the encyclopaedia only; `ask` and `summarise` retrieve and need
    QDRANT_URL. What a crawl has read becomes searchable where `lumina serve` runs. `lumina tasks` queues work and
    shows it.
    """
    from worker import work

    wanted = [kind.strip() for kind in kinds.split(",") if kind.strip()]
    settings = _settings(wiki_source=wiki_source, data_dir=data_dir)
    _open_server_logs(settings)
    _run(work(settings, kinds=wanted, concurrency=concurrency))


@app.command()
def top(
    url: Annotated[str | None, typer.Option(help="A server elsewhere.", show_default="the one on DATA_DIR")] = None,
    once: Annotated[bool, typer.Option("--once", help="Show one frame and end.")] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Watch a running server: memory, tasks, agents, streams, cost; again every second, until Ctrl-C."""
    from watching import watch

    _run(watch(_settings(data_dir=data_dir), url, once=once, as_json=as_json))


@app.command()
def doctor(
    url: Annotated[
        str | None, typer.Option(help="Ask a running role instead, such as http://127.0.0.1:8000; quick.")
    ] = None,
    alive: Annotated[bool, typer.Option("--alive", help="With --url: any answer is well.")] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Look at every dependency and setting, and say which is used and why; 1 where one does not work."""
    if url is not None:
        from serving.probe import probe

        if not probe(url, alive=alive, as_json=as_json):
            raise typer.Exit(1)
        return
    from doctor import examine

    _run(examine(_settings(data_dir=data_dir), as_json=as_json))


def _settings(**overrides: Any) -> Settings:
    from settings import load_settings

    settings = load_settings(**overrides)
    chosen = settings.log_level if "log_level" in settings.model_fields_set else "WARNING"
    open_logs(level=chosen, format=settings.log_format, secrets=settings.secrets(), times=False)
    return settings


def _open_server_logs(settings: Settings, file: Path | None = None) -> None:
    """A server tells more than a command that somebody watches."""
    open_logs(level=settings.log_level, format=settings.log_format, secrets=settings.secrets(), file=file)


def _run(work: Coroutine[Any, Any, bool]) -> None:
    """Run a command's coroutine; False means that it did not come to a good end."""
    if not asyncio.run(work):
        raise typer.Exit(1)


def main() -> None:
    """Entry point: an error that Lumina can explain is one line on standard error."""
    code: int | str | None = 0
    try:
        app()
    except SystemExit as end:
        code = end.code
    except LuminaError as error:
        print(f"lumina: {error}", file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        code = 130
    close_logs()
    sys.stdout.flush()
    sys.stderr.flush()
    # Everything that must be closed is; taking torch and DuckDB down module by module would take seconds more.
    os._exit(code if isinstance(code, int) else 1)


if __name__ == "__main__":
    main()
