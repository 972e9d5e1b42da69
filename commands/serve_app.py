"""The commands that stay: serve, work, and watch what serves."""

from __future__ import annotations

import gc
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from commands.options import AsJson, DataDir, Source, carry_out, read_settings
from logs import open_logs

if TYPE_CHECKING:
    from settings import Settings

app = typer.Typer()


class RoleName(StrEnum):
    """The roles of `lumina serve`; serving/roles.py says what each is."""

    all = "all"
    hub = "hub"
    graph_api = "graph-api"
    event_mux = "event-mux"
    masterchat = "masterchat"
    indexer = "indexer"


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

    settings = read_settings(wiki_source=wiki_source, data_dir=data_dir)
    _open_server_logs(settings, "serve" if role is RoleName.all else f"serve-{role.value}")
    carry_out(run_server(settings, host=host, port=port, role=ROLES[role.value]))


@app.command()
def console(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port, on 127.0.0.1 only.")] = 3000,
    api: Annotated[str, typer.Option(help="The server that all else comes from.")] = "http://127.0.0.1:8000",
) -> None:
    """The web console alone, for who changes it: `ui/` as it is on the disk, until Ctrl-C.

    `lumina serve` shows the same console; this one lets the browser keep no file, and stays up while the server
    restarts.
    """
    from serving.console_alone import serve as serve_console

    carry_out(serve_console(api, port=port))


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
    settings = read_settings(wiki_source=wiki_source, data_dir=data_dir)
    _open_server_logs(settings, "worker")
    carry_out(work(settings, kinds=wanted, concurrency=concurrency))


@app.command()
def top(
    url: Annotated[str | None, typer.Option(help="A server elsewhere.", show_default="the one on DATA_DIR")] = None,
    once: Annotated[bool, typer.Option("--once", help="Show one frame and end.")] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Watch a running server: memory, tasks, agents, streams, cost; again every second, until Ctrl-C."""
    from commands.watching import watch

    carry_out(watch(read_settings(data_dir=data_dir), url, once=once, as_json=as_json))


@app.command()
def doctor(
    url: Annotated[
        str | None, typer.Option(help="Ask a running role instead, such as http://127.0.0.1:8000; quick.")
    ] = None,
    alive: Annotated[bool, typer.Option("--alive", help="With --url: any answer is well.")] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Look at every dependency and setting, and say which is used and why; ends with 1 if one does not work."""
    if url is not None:
        from serving.probe import probe

        if not probe(url, alive=alive, as_json=as_json):
            raise typer.Exit(1)
        return
    from commands.doctor import examine, print_unreadable
    from settings import InvalidSettings

    try:
        settings = read_settings(data_dir=data_dir)
    except InvalidSettings as error:
        if not as_json:
            raise
        print_unreadable(error)
        raise typer.Exit(1) from error
    carry_out(examine(settings, as_json=as_json))


def _open_server_logs(settings: Settings, name: str) -> None:
    """What stays tells more than a command that somebody watches, and keeps it in a file of its own."""
    file = settings.make_data_dir() / "logs" / f"{name}.log"
    open_logs(level=settings.log_level, format=settings.log_format, secrets=settings.secrets(), file=file)
