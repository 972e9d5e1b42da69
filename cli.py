"""The ``lumina`` command. Everything heavy is imported inside the commands, so that ``--help`` is quick."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from commands.options import (
    AsJson,
    DataDir,
    Hops,
    MaxNodes,
    Source,
    TaskId,
    Topics,
    carry_out,
    fill_lines,
    read_settings,
)
from commands.serve_app import app as serve_app
from commands.store_app import app as store_app
from commands.task_app import app as task_app
from errors import LuminaError
from evaluation.commands import app as eval_app
from logs import close_logs

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
    from commands.running import run

    settings = read_settings(wiki_source=wiki_source, data_dir=data_dir)
    carry_out(run(settings, {**asked, "intent": "wiki_qa"}, started=STARTED, details=True))


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
    from commands.running import run

    settings = read_settings(wiki_source=wiki_source, data_dir=data_dir)
    asked = {"topics": topic or [], "message": question, "hops": hops, "max_nodes": max_nodes, "intent": mode}
    carry_out(run(settings, asked, task_id, started=STARTED, as_json=as_json))


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
    from commands.running import run

    asked = {"topics": topic, "message": question, "hops": hops, "max_nodes": max_nodes, "intent": "crawl"}
    settings = read_settings(wiki_source=wiki_source, data_dir=data_dir)
    carry_out(run(settings, asked, task_id, started=STARTED, as_json=as_json, details=True))


@app.command()
def plan(
    instruction: Annotated[str, typer.Argument(help="What you would ask for.", show_default=False)] = "",
    topic: Topics = None,
    mode: Annotated[str, typer.Option(help="An intent of the goal file, or auto.")] = "auto",
    explain: Annotated[bool, typer.Option("--explain", help="Say why each step, and what others would cost.")] = False,
    replay: Annotated[
        str | None,
        typer.Option(metavar="TASK_ID", help="Decide again from this task's log; ends with 1 where one differs."),
    ] = None,
    hops: Hops = 1,
    max_nodes: MaxNodes = 30,
    wiki_source: Source = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Show what would be done, in which order and why, without doing it."""
    from commands.planning import replay_task, show_plan

    settings = read_settings(wiki_source=wiki_source, data_dir=data_dir)
    if replay is not None:
        carry_out(replay_task(settings, replay, explain=explain, as_json=as_json))
        return
    asked = {"topics": topic or [], "message": instruction, "hops": hops, "max_nodes": max_nodes, "intent": mode}
    carry_out(show_plan(settings, asked, explain=explain, as_json=as_json))


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
    from commands.planning import draw_goals

    if schema:
        from graphs.goals import schema_text

        print(schema_text(), end="")
    elif import_ is not None:
        from graphs.goal_import import import_goals

        print(import_goals(import_, agent=agent), end="")
    else:
        settings = read_settings(data_dir=data_dir)
        path = file or settings.goal_file
        carry_out(draw_goals(settings, path, topics=topic or [], states=states, file=draw, task_id=task))


app.add_typer(store_app)
app.add_typer(serve_app)
app.add_typer(task_app, name="tasks")
app.add_typer(eval_app, name="eval")
fill_lines(app)


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
