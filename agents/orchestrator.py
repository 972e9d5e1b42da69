"""The orchestrator agent: finds the topics, watches the index, decides on failures, reports."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Literal

from langchain_core.runnables import Runnable, RunnableLambda
from pydantic import BaseModel, Field

from agents.asking import is_small, writer_in_use
from agents.context import Context
from agents.covered import covered, indexed, linked_pages
from agents.frontier import terms
from agents.progress import report
from agents.spec import AgentOutput, AgentSpec, Assignment, FailureDecision, RunView
from errors import LuminaError
from memory.library import IndexProgress

INDEX_PATIENCE_S = 60.0
"""An index that makes no progress for this long is given up on."""
POLL_S = (0.02, 0.5)
"""First and longest wait between two looks at the index."""
BACKOFF_S = 0.5
"""Wait before the first retry; it doubles with every further one."""
MAX_ATTEMPTS = 3
"""A way that failed this often, for reasons that may pass, is ruled out."""


class NoTopic(LuminaError):
    """Nothing in the encyclopaedia seems to be about the question."""


class IndexStalled(LuminaError):
    """Passages were sent, and nobody indexes them."""


class Failure(BaseModel):
    """What is told of a way that failed."""

    way: str
    error: str
    attempts: int = Field(ge=1)
    transient: bool
    exhausted: bool = Field(default=False, description="Whoever failed has tried again already, as often as sensible.")


class OrchestratorInput(BaseModel):
    """What to do, and on what."""

    action: Literal["find_topics", "await_index", "await_links", "do_without", "accept_writer", "decide", "report"] = (
        "find_topics"
    )
    message: str = Field(default="", description="The question or instruction.")
    topic: str | None = None
    phase: Literal["text", "dense"] = "text"
    owner: str = "local"
    topics: list[str] = Field(default_factory=list, description="For `report`: what the run is about.")
    results: dict[str, dict[str, Any]] = Field(default_factory=dict, description="For `report`: what was reached.")
    links: list[str] = Field(default_factory=list, description="For `await_links`, `do_without`: articles waited for.")
    failures: list[Failure] = Field(default_factory=list, description="For `decide`: what failed.")


class OrchestratorOutput(AgentOutput):
    """What came of it; the fields that the action does not concern stay empty."""

    topics: list[str] = Field(default_factory=list)
    writer: str = Field("", description="The chat model that was accepted as good enough to write.")
    given_up: list[str] = Field(default_factory=list, description="Articles that the answer has to do without.")
    indexed: int = 0
    passages: int = 0
    decisions: list[FailureDecision] = Field(default_factory=list)
    report: dict[str, Any] = Field(default_factory=dict)


async def find_topics(context: Context, message: str) -> list[str]:
    """The article that a message is most likely about.

    The encyclopaedia's own search ranks; a title whose every word stands in the message goes first, the longest first.

    Raises:
        NoTopic: the search found nothing.
    """
    found = await context.source.search(message, 10)
    if not found:
        raise NoTopic(f"{context.source.name} has nothing on «{message}»; name a topic to start from")
    named = [title for title in found if _names(message, title)]
    return sorted(named, key=lambda title: -len(terms(title)))[:1] or found[:1]


def _names(message: str, title: str) -> bool:
    """Whether every word of the title stands in the message."""
    return bool(words := terms(title)) and words <= terms(message)


async def await_index(context: Context, owner: str, topic: str, phase: str) -> IndexProgress:
    """Wait until every passage of a topic's crawl has been through a phase.

    Raises:
        IndexStalled: no progress for ``INDEX_PATIENCE_S`` seconds.
    """
    coverage = await context.library.coverage(owner, context.source.name, topic)
    if coverage is None:
        raise IndexStalled(f"«{topic}» has not been crawled")
    return await await_pages(context, owner, topic, coverage.titles, phase)


async def await_pages(
    context: Context, owner: str, topic: str | None, titles: Sequence[str], phase: str
) -> IndexProgress:
    """Wait until every passage of some pages has been through a phase; ``topic`` is what they are for.

    Raises:
        IndexStalled: no progress for ``INDEX_PATIENCE_S`` seconds.
    """
    wait_s, best, since = POLL_S[0], -1, time.monotonic()
    while True:
        progress = await context.library.progress(owner, context.source.name, titles)
        reached = progress.indexed if phase == "text" else progress.embedded
        if reached >= progress.passages:
            return progress
        if reached > best:
            best, since, wait_s = reached, time.monotonic(), POLL_S[0]
            text = f"{reached} of {progress.passages} passages {'searchable' if phase == 'text' else 'embedded'}"
            report("progress", agent="orchestrator", topic=topic, text=text, phase=phase, indexed=reached)
        elif time.monotonic() - since > INDEX_PATIENCE_S:
            left, name = progress.passages - reached, topic or titles[0]
            raise IndexStalled(
                f"{left} passages of «{name}» wait to be indexed and nobody takes them; "
                "start `lumina serve` or `lumina serve --role indexer`"
            )
        await asyncio.sleep(wait_s)
        wait_s = min(2 * wait_s, POLL_S[1])


def decide(failures: Sequence[Failure]) -> list[FailureDecision]:
    """Retry what may pass, up to ``MAX_ATTEMPTS``; use another way for the rest."""
    decisions = []
    for failure in failures:
        passing = failure.transient and not failure.exhausted
        again = passing and failure.attempts < MAX_ATTEMPTS
        reason = failure.error
        if passing:
            reason = f"{reason} (attempt {failure.attempts} of {MAX_ATTEMPTS})"
        decisions.append(FailureDecision(way=failure.way, action="retry" if again else "rule_out", reason=reason))
    return decisions


async def write_report(context: Context, request: OrchestratorInput) -> dict[str, Any]:
    """One document out of the results: the answer, the summaries, what was read. Memory fills in what was known."""
    document: dict[str, Any] = {"topics": request.topics, "summaries": [], "crawls": []}
    for goal, result in request.results.items():
        base = goal.partition("[")[0]
        if base == "answered":
            document["answer"] = result
        elif base == "summarised":
            document["summaries"].append(result)
        elif base == "crawled":
            document["crawls"].append(result)
    told = {summary.get("topic") for summary in document["summaries"]}
    for topic in request.topics:
        if topic not in told and (known := await context.library.summary(request.owner, context.source.name, topic)):
            document["summaries"].append(known)
    if document.get("answer", {}).get("abstained"):
        # The search's first title was a guess, and a wrong one: what it is about would only puzzle who asked.
        found = request.results.get("topics_found", {}).get("topics", ())
        guessed = {title for title in found if not _names(request.message, title)}
        document["summaries"] = [one for one in document["summaries"] if one.get("topic") not in guessed]
    return document


def build_orchestrator(context: Context) -> Runnable[OrchestratorInput, OrchestratorOutput]:
    """The orchestrator on these services."""

    async def orchestrate(request: OrchestratorInput) -> OrchestratorOutput:
        if request.action == "find_topics":
            return OrchestratorOutput(topics=await find_topics(context, request.message))
        if request.action == "await_index":
            progress = await await_index(context, request.owner, request.topic or request.message, request.phase)
            return OrchestratorOutput(indexed=progress.indexed, passages=progress.passages)
        if request.action == "await_links":
            found = [await linked_pages(context, request.owner, title) for title in request.links]
            titles = [title for pages in found for title in pages or ()]
            progress = await await_pages(context, request.owner, None, titles, request.phase)
            return OrchestratorOutput(indexed=progress.indexed, passages=progress.passages)
        if request.action == "do_without":
            return OrchestratorOutput(given_up=request.links)
        if request.action == "accept_writer":
            return OrchestratorOutput(writer=writer_in_use(context).model_id)
        if request.action == "decide":
            decisions = decide(request.failures)
            retried = [f.attempts for f, d in zip(request.failures, decisions, strict=True) if d.action == "retry"]
            if retried:
                await asyncio.sleep(BACKOFF_S * 2 ** (max(retried) - 1))
            return OrchestratorOutput(decisions=decisions)
        return OrchestratorOutput(report=await write_report(context, request))

    return RunnableLambda(orchestrate, name="orchestrator").with_types(
        input_type=OrchestratorInput, output_type=OrchestratorOutput
    )


def _request(assignment: Assignment, run: RunView) -> OrchestratorInput:
    return OrchestratorInput(
        **assignment.params,
        message=run.request.message,
        topic=assignment.topic,
        owner=run.request.owner,
        topics=run.topics,
        links=list(run.links),
        results={goal: dict(result) for goal, result in run.results.items()},
    )


def _on_failure(run: RunView) -> OrchestratorInput:
    return OrchestratorInput(action="decide", owner=run.request.owner, failures=[Failure(**f) for f in run.failures])


async def _topics_found(context: Context, run: RunView, topic: str | None) -> bool:
    return bool(run.topics)


async def _writer(context: Context, run: RunView, topic: str | None) -> bool:
    """Another model than the small embedded one is configured, or the run has accepted the embedded one."""
    return not is_small(writer_in_use(context)) or bool(run.results.get("writer", {}).get("writer"))


async def _indexed(context: Context, run: RunView, topic: str | None, phase: str) -> bool:
    coverage = await covered(context, run, topic)
    if coverage is None:
        return False
    return await indexed(context, run.request.owner, coverage.titles, phase)


async def _searchable(context: Context, run: RunView, topic: str | None) -> bool:
    return await _indexed(context, run, topic, "text")


async def _bridged(context: Context, run: RunView, topic: str | None) -> bool:
    """Every article that some agent waits for can be searched, or is given up; so it is while none waits for one."""
    given_up = run.results.get("bridged", {}).get("given_up", ())
    for title in run.links:
        pages = await linked_pages(context, run.request.owner, title)
        if title not in given_up and (pages is None or not await indexed(context, run.request.owner, pages, "text")):
            return False
    return True


async def _embedded(context: Context, run: RunView, topic: str | None) -> bool:
    return await _indexed(context, run, topic, "dense")


def _reported(goal: str) -> Any:
    async def check(context: Context, run: RunView, topic: str | None) -> bool:
        return bool(run.results.get(goal, {}).get("report"))

    return check


def _explain(output: OrchestratorOutput) -> str:
    if output.topics:
        return f"the question is about {', '.join(output.topics)}"
    if output.given_up:
        return f"going on without {', '.join(output.given_up)}"
    if output.writer:
        return f"{output.writer} writes"
    if output.decisions:
        return "; ".join(f"{d.action.replace('_', ' ')} {d.way}: {d.reason}" for d in output.decisions)
    if output.report:
        return "report written"
    return f"{output.indexed} of {output.passages} passages searchable"


REPORTS = ("answer_reported", "crawl_reported", "summary_reported")

SPEC = AgentSpec(
    name="orchestrator",
    description="Finds the topics of a question, watches the index, decides on failures and reports.",
    input_type=OrchestratorInput,
    output_type=OrchestratorOutput,
    build=build_orchestrator,
    request=_request,
    achieves={
        "topics_found": _topics_found,
        "writer": _writer,
        "searchable": _searchable,
        "bridged": _bridged,
        "embedded": _embedded,
        **{goal: _reported(goal) for goal in REPORTS},
    },
    on_failure=_on_failure,
    explain=_explain,
)
