"""The crawl agent: reads articles best-first from a topic, grows the graph and sends passages to be indexed."""

from __future__ import annotations

from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda

from agents.context import Context
from agents.covered import covered, linked_pages
from agents.spec import AgentSpec, Assignment, RunView
from agents.walk import PAGES_PER_STEP, CrawlInput, CrawlOutput, Walk, unchanged_of


def build_crawl(context: Context) -> Runnable[CrawlInput, CrawlOutput]:
    """The crawl agent on these services.

    Raises, when run:
        UnknownTopic: the encyclopaedia has no such article; the error carries suggestions.
        SourceUnavailable: the encyclopaedia does not answer after every retry.
    """

    async def crawl(request: CrawlInput, config: RunnableConfig) -> CrawlOutput:
        work = Walk(context, request, str(config.get("configurable", {}).get("thread_id", "")))
        more = await work.step(request.pages_per_step or PAGES_PER_STEP)
        while more and request.pages_per_step is None:
            more = await work.step(PAGES_PER_STEP)
        return work.output.model_copy(update={"carry": work.carry() if more else None})

    return RunnableLambda(crawl, name="crawl").with_types(input_type=CrawlInput, output_type=CrawlOutput)


def _request(assignment: Assignment, run: RunView) -> CrawlInput:
    request = run.request
    if assignment.base_goal == "linked":
        title, link = next(iter(run.links.items()))
        return CrawlInput(topic=title, linked_from=link["page"], hops=0, max_nodes=1, owner=request.owner)
    return CrawlInput(
        topic=assignment.topic or request.message,
        question=request.message,
        hops=request.hops,
        max_nodes=request.max_nodes,
        owner=request.owner,
        pages_per_step=PAGES_PER_STEP,
        carry=dict(assignment.carry) if assignment.carry else None,
    )


async def _crawled(context: Context, run: RunView, topic: str | None) -> bool:
    return await covered(context, run, topic) is not None


async def _linked(context: Context, run: RunView, topic: str | None) -> bool:
    """Every article that some agent waits for is read; that is so while none waits for one."""
    return all([await linked_pages(context, run.request.owner, title) for title in run.links])


def _explain(output: CrawlOutput) -> str:
    pages = f"{len(output.titles)} pages{unchanged_of(output)}"
    return f"{pages}, {output.edges} links, {output.passages} passages from «{output.title}»"


SPEC = AgentSpec(
    name="crawl",
    description="Reads articles best-first over links from a topic, and grows the knowledge graph.",
    input_type=CrawlInput,
    output_type=CrawlOutput,
    build=build_crawl,
    request=_request,
    achieves={"crawled": _crawled, "linked": _linked},
    runs_per_minute=5,
    explain=_explain,
)
