"""``lumina eval``: measure the answers. Everything heavy is imported inside, as in ``cli``."""

from __future__ import annotations

import asyncio
import tempfile
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.progress import Progress

    from evaluation.articles import Drawn
    from evaluation.outcomes import Outcome
    from evaluation.squad import Question, Squad
    from evaluation.summaries import SummaryOutcome
    from memory.vectors import Mode
    from settings import Settings

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Measure the answers on questions whose answers are known, and the summaries on the articles' own leads.",
)
RESULTS = Path("evaluation-results")


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
    out: Annotated[Path, typer.Option(help="Folder for the JSON file and the picture.", file_okay=False)] = RESULTS,
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
    from evaluation.asking import ask_lumina, index
    from services import open_runner

    async with open_runner(settings) as runner:
        with _progress() as progress:
            done = _counted(progress, "indexing paragraphs", len(read.paragraphs))
            await index(runner.context, read, done)
            done = _counted(progress, "asking Lumina", len(questions))
            mode: Mode = retriever.value
            outcomes = await ask_lumina(runner.context, questions, retriever=mode, phrase=phrase, progress=done)
            systems = {f"Lumina, {retriever.value}": outcomes}
            if compare:
                from evaluation.plain_chain import ask_plain_chain

                done = _counted(progress, "asking the plain chain", len(questions))
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


class Method(StrEnum):
    """How the summaries are made."""

    EXTRACT = "extract"
    MAP_REDUCE = "map_reduce"


@app.command()
def summaries(
    source: Annotated[
        str | None,
        typer.Option(help="An api.php or a ZIM file.", show_default="WIKI_SOURCE, else the sample encyclopaedia"),
    ] = None,
    titles: Annotated[
        Path | None,
        typer.Option(help="A text file, one title a line.", dir_okay=False, show_default="all the source has"),
    ] = None,
    sample: Annotated[
        int | None, typer.Option(min=1, help="So many articles, drawn at random.", show_default="all")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the draw and of the random sentences.")] = 1,
    sentences: Annotated[int, typer.Option(min=1, max=20, help="Length of every summary.")] = 3,
    method: Annotated[Method, typer.Option(help="map_reduce: the chat model writes; slow.")] = Method.EXTRACT,
    plot: Annotated[bool, typer.Option(help="Draw the figures too; needs matplotlib.")] = True,
    out: Annotated[Path, typer.Option(help="Folder for the JSON file and the picture.", file_okay=False)] = RESULTS,
) -> None:
    """Summarise articles without their lead section, and compare with the lead by ROUGE-L.

    Beside Lumina's: lead-k, the first sentences of what is left; random ones; and sentences chosen with the lead in
    view, a bound. It works in a folder of its own: your data are neither read nor changed.
    """
    from evaluation.articles import read_titles
    from evaluation.report import check_plot
    from settings import load_settings

    if plot:
        check_plot()
    named = read_titles(titles) if titles else None
    with tempfile.TemporaryDirectory(prefix="lumina-eval-", ignore_cleanup_errors=True) as folder:
        given = {"wiki_source": source} if source else {}
        settings = load_settings(data_dir=Path(folder), redis_url=None, qdrant_url=None, **given)
        name, drawn, systems = asyncio.run(
            _summarise(settings, named, size=sample, seed=seed, method=method, length=sentences)
        )
    about = {
        "source": name,
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "articles": len(drawn.articles),
        "left_out": dict(drawn.left_out.most_common()),
        "sample": sample,
        "seed": seed,
        "sentences": sentences,
        "method": method.value,
        "embedding_model": settings.embedding_model,
    }
    _report_summaries(about, systems, out, plot=plot)


async def _summarise(
    settings: Settings, titles: list[str] | None, *, size: int | None, seed: int, method: Method, length: int
) -> tuple[str, Drawn, dict[str, list[SummaryOutcome]]]:
    from evaluation.articles import draw
    from evaluation.summaries import summarise
    from services import open_runner

    async with open_runner(settings) as runner:
        source = runner.context.source
        with _progress() as progress:
            done = _counted(progress, "reading articles", size)
            drawn = await draw(source, titles, size=size, seed=seed, sentences=length, progress=done)
            done = _counted(progress, "summarising", len(drawn.articles))
            systems = await summarise(
                runner.context, drawn.articles, method=method.value, length=length, seed=seed, progress=done
            )
    return source.name, drawn, systems


def _report_summaries(
    about: dict[str, Any], systems: dict[str, list[SummaryOutcome]], out: Path, *, plot: bool
) -> None:
    from rich.console import Console

    from evaluation.report import table, write_json, write_plot
    from evaluation.summaries import FIGURES, SHARES, figures

    lead = list(systems.values())[1]
    results = {name: figures(outcomes, lead) for name, outcomes in systems.items()}
    console = Console()
    what = f"{about['articles']} articles of {about['source']}, summaries of {about['sentences']} sentences"
    console.print(f"{what}, {about['date']}", highlight=False)
    if left_out := about["left_out"]:
        reasons = ", ".join(f"{count} × {why}" for why, count in left_out.items())
        console.print(f"Left out: {reasons}.", highlight=False)
    console.print(table(results, FIGURES))
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "summaries.json", about, results, systems)
    written = "summaries.json"
    if plot:
        write_plot(out / "summaries.png", results, f"{what}, {about['date']}", SHARES)
        written += ", summaries.png"
    console.print(f"{out}: {written}", highlight=False)


def _progress() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True))


def _counted(progress: Progress, what: str, total: int | None) -> Callable[[int], None]:
    task = progress.add_task(what, total=total)
    return lambda done: progress.update(task, completed=done)
