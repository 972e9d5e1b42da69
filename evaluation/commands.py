"""``lumina eval``: measure the answers. Everything heavy is imported inside, as in ``cli``."""

from __future__ import annotations

import asyncio
import tempfile
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from evaluation.outcomes import Outcome
    from evaluation.squad import Question, Squad
    from memory.vectors import Mode
    from settings import Settings

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Measure the answers on questions whose answers are known.",
)


@app.callback()
def measure() -> None:
    """Keeps ``squad`` a command of its own though it is the only one."""


class Retriever(StrEnum):
    """What finds the passages."""

    HYBRID = "hybrid"
    DENSE = "dense"
    SPARSE = "sparse"


@app.command()
def squad(
    data: Annotated[
        Path,
        typer.Option(help="Folder with paragraphs.jsonl, questions.jsonl and unanswerable.jsonl.", file_okay=False),
    ],
    sample: Annotated[
        int | None, typer.Option(min=1, help="Ask so many questions, drawn at random.", show_default="all")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the draw.")] = 1,
    retriever: Annotated[Retriever, typer.Option(help="What finds the passages.")] = Retriever.HYBRID,
    phrase: Annotated[bool, typer.Option("--phrase", help="Let the chat model phrase the answers; slow.")] = False,
    compare: Annotated[
        bool, typer.Option("--compare", help="Ask a plain LangChain chain the same, side by side.")
    ] = False,
    plot: Annotated[bool, typer.Option(help="Draw the figures too; needs matplotlib.")] = True,
    out: Annotated[Path, typer.Option(help="Folder for the JSON file and the picture.", file_okay=False)] = Path(
        "evaluation-results"
    ),
) -> None:
    """Index the paragraphs of all articles, ask every question, and count.

    It works in a folder of its own: your data are neither read nor changed.
    """
    from evaluation.report import check_plot
    from evaluation.squad import read_squad
    from settings import load_settings

    if plot:
        check_plot()
    read = read_squad(data)
    questions = read.sample(sample, seed)
    with tempfile.TemporaryDirectory(prefix="lumina-eval-", ignore_cleanup_errors=True) as folder:
        settings = load_settings(data_dir=Path(folder), redis_url=None, qdrant_url=None)
        systems = asyncio.run(_ask(settings, read, questions, retriever, phrase=phrase, compare=compare))
    about = {
        "data": data.name,
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "paragraphs": len(read.paragraphs),
        "answerable": sum(bool(one.answers) for one in questions),
        "unanswerable": sum(not one.answers for one in questions),
        "sample": sample,
        "seed": seed,
        "retriever": retriever.value,
        "phrased": phrase,
        "embedding_model": settings.embedding_model,
    }
    _report(about, systems, out, plot=plot)


async def _ask(
    settings: Settings, read: Squad, questions: Sequence[Question], retriever: Retriever, *, phrase: bool, compare: bool
) -> dict[str, list[Outcome]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from evaluation.asking import ask_lumina, index
    from services import open_runner

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    async with open_runner(settings) as runner:
        with Progress(*columns, console=Console(stderr=True)) as progress:

            def counted(what: str, total: int) -> Callable[[int], None]:
                task = progress.add_task(what, total=total)
                return lambda done: progress.update(task, completed=done)

            await index(runner.context, read, counted("indexing paragraphs", len(read.paragraphs)))
            done = counted("asking Lumina", len(questions))
            mode: Mode = retriever.value
            outcomes = await ask_lumina(runner.context, questions, retriever=mode, phrase=phrase, progress=done)
            systems = {f"Lumina, {retriever.value}": outcomes}
            if compare:
                from evaluation.plain_chain import ask_plain_chain

                done = counted("asking the plain chain", len(questions))
                systems["plain chain"] = await ask_plain_chain(
                    runner.context, read, questions, phrase=phrase, progress=done
                )
    return systems


def _report(about: dict[str, object], systems: dict[str, list[Outcome]], out: Path, *, plot: bool) -> None:
    from rich.console import Console

    from evaluation.outcomes import figures
    from evaluation.report import table, write_json, write_plot

    results = {name: figures(outcomes) for name, outcomes in systems.items()}
    console = Console()
    asked = f"{about['answerable']} answerable and {about['unanswerable']} unanswerable questions"
    console.print(f"{asked}, {about['paragraphs']} paragraphs in one pool, {about['date']}")
    console.print(table(results))
    if len(systems) > 1:
        from evaluation.plain_chain import splitter_in_use

        about = {**about, "plain_chain_splitter": splitter_in_use()}
        console.print(f"The plain chain's splitter: {splitter_in_use()}.", highlight=False)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "squad.json", about, results, systems)
    written = "squad.json"
    if plot:
        write_plot(out / "squad.png", results, f"{asked}, {about['date']}")
        written += ", squad.png"
    console.print(f"{out}: {written}", highlight=False)
