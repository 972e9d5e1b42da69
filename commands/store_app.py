"""The commands about what is stored: ask it, write it to files, mend it, forget it."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from commands.options import AsJson, DataDir, carry_out, read_settings

app = typer.Typer()
graph_app = typer.Typer(no_args_is_help=True, help="The knowledge graph: rebuild it, or write it to a file.")
app.add_typer(graph_app, name="graph")


@app.command()
def sql(
    query: Annotated[str, typer.Argument(help="One statement that reads; docs/queries.md has many.")],
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Ask the event store, read-only, for example: SELECT type, count(*) FROM events GROUP BY ALL."""
    from commands.running import run_sql

    carry_out(run_sql(read_settings(data_dir=data_dir), query, as_json=as_json))


@app.command()
def export(
    out: Annotated[Path, typer.Option(help="Folder to write to; made when missing.", file_okay=False)],
    since: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], metavar="YYYY-MM-DD", help="First day (UTC).")
    ] = None,
    until: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], metavar="YYYY-MM-DD", help="Last day (UTC).")
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Write the events as Parquet, a folder a day; days that are there completely are left alone."""
    from commands.upkeep import export_events

    days = (since.date() if since else None, until.date() if until else None)
    carry_out(export_events(read_settings(data_dir=data_dir), out, *days))


@graph_app.command()
def rebuild(data_dir: DataDir = None) -> None:
    """Make the knowledge graph in Redis again from the events; it can be used meanwhile."""
    from commands.upkeep import rebuild_graph

    carry_out(rebuild_graph(read_settings(data_dir=data_dir)))


@graph_app.command("export")
def export_graph_file(
    file: Annotated[Path, typer.Argument(help="A .graphml or .json file.", dir_okay=False)],
    data_dir: DataDir = None,
) -> None:
    """Write the knowledge graph to a file: GraphML, or node-link JSON."""
    from commands.upkeep import export_graph

    carry_out(export_graph(read_settings(data_dir=data_dir), file))


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
    from commands.upkeep import prune_passages

    limits = {"older_than": older_than, "max_passages": max_passages}
    asked = {"superseded": superseded, "dry_run": dry_run, **{k: v for k, v in limits.items() if v is not None}}
    carry_out(prune_passages(read_settings(data_dir=data_dir), asked, owner, as_json=as_json))
