"""The summarise agent: a short text about a topic, each sentence with the passage that it rests on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from itertools import groupby
from typing import Literal

import numpy as np
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from pydantic import BaseModel, Field

from agents.asking import Said, ask_if_affordable
from agents.citations import Citation, cite
from agents.context import Context
from agents.progress import report
from agents.prompts import SUMMARISE_PART, SUMMARISE_WHOLE
from agents.spec import AgentOutput, AgentSpec, Assignment, RunView, Usage
from errors import LuminaError
from memory.passages import Passage
from memory.streams import Event
from tools.evidence import Evidence, Sentence
from tools.reader import supported
from tools.splitter import sentences

PART_CHARS = 2_400
"""Length of the text that one call summarises: about 600 tokens, a sixth of the embedded model's context."""
NOTE_TOKENS = 80
"""Length of one note: two short sentences."""
SUMMARY_TOKENS = 220
"""Length of the whole: five sentences."""
EXTRACT_SENTENCES = 5
"""Sentences of an extract; also how many a summary has at most."""
MIN_SENTENCES = 2
"""With fewer supported sentences than this a model's summary is not shown; the extract is."""


class NothingToSummarise(LuminaError):
    """The topic's page has not been read, or has no text."""


class SummariseInput(BaseModel):
    """What to summarise."""

    topic: str = Field(min_length=1, description="Title of an article that has been read.")
    method: Literal["map_reduce", "extract"] = Field(
        "map_reduce", description="map_reduce: the chat model writes; extract: the article's own sentences."
    )
    max_parts: int = Field(6, ge=1, le=64, description="Parts of the article that the model reads at most.")
    owner: str = "local"


class SummariseOutput(AgentOutput):
    """The summary."""

    topic: str
    text: str = Field(description="Sentences, each with the number of its citation in brackets.")
    citations: list[Citation] = Field(default_factory=list)
    method: str = Field(description="What it was made by: map_reduce, or extract when the model's text did not hold.")
    dropped: int = Field(0, description="Sentences of the model that the article does not support.")


def build_summarise(context: Context) -> Runnable[SummariseInput, SummariseOutput]:
    """The summarise agent on these services.

    Raises, when run:
        NothingToSummarise: the topic was never read.
        NoModelAnswers: method ``map_reduce`` and no chat model answers.
    """

    async def summarise(request: SummariseInput, config: RunnableConfig) -> SummariseOutput:
        started = time.perf_counter()
        passages = await _read(context, request)
        usage = Usage()
        candidates: list[str] = []
        if request.method == "map_reduce":
            candidates, usage = await _map_reduce(context, request, passages, config)
        found = await asyncio.to_thread(_resting_on, candidates, passages)
        kept = [(text, passage) for text, passage in found if passage is not None]
        by_model = len(kept) >= MIN_SENTENCES
        if not by_model:
            kept = await extract(context, passages)
        text, citations = cite(kept[:EXTRACT_SENTENCES])
        output = SummariseOutput(
            topic=request.topic,
            text=text,
            citations=citations,
            method="map_reduce" if by_model else "extract",
            dropped=len(found) - len(kept) if by_model else len(found),
            usage=usage,
        )
        await _keep(context, request, output, config, time.perf_counter() - started)
        return output

    return RunnableLambda(summarise, name="summarise").with_types(
        input_type=SummariseInput, output_type=SummariseOutput
    )


async def _read(context: Context, request: SummariseInput) -> list[Passage]:
    if context.vectors is None:
        raise LuminaError("this process has no vectors: run it inside `lumina serve`, or set QDRANT_URL")
    source = context.source.name
    coverage = await context.library.coverage(request.owner, source, request.topic)
    title = coverage.titles[0] if coverage and coverage.titles else request.topic
    ids = await context.library.passage_ids(request.owner, source, title)
    found = {record.id: Passage.from_record(record) for record in await context.vectors.get(ids)}
    passages = [found[id_] for id_ in ids if id_ in found]
    if not passages:
        raise NothingToSummarise(f"«{title}» has no text that was read; crawl it first")
    return passages


async def _map_reduce(
    context: Context, request: SummariseInput, passages: Sequence[Passage], config: RunnableConfig
) -> tuple[list[str], Usage]:
    """Notes on the parts, side by side, then one text out of the notes; its sentences, and the notes' after them."""
    parts = _parts(passages, request.max_parts)
    topic = passages[0].title
    done = 0

    async def note(part: str) -> Said:
        nonlocal done
        messages = SUMMARISE_PART.format_messages(topic=topic, text=part)
        written = await ask_if_affordable(
            context, messages, config, max_tokens=NOTE_TOKENS, agent="summarise", owner=request.owner
        )
        done += 1
        report(
            "progress", agent="summarise", topic=request.topic, text=f"noted {done} of {len(parts)} parts of «{topic}»"
        )
        return written

    notes = await asyncio.gather(*(note(part) for part in parts))
    usage = sum((said.usage for said in notes), Usage())
    noted = [sentence for said in notes for sentence in _sentences(said.text)]
    if len(parts) == 1:
        return noted, usage
    report("progress", agent="summarise", topic=request.topic, text=f"joining {len(parts)} notes on «{topic}»")
    messages = SUMMARISE_WHOLE.format_messages(topic=topic, notes="\n".join(f"- {sentence}" for sentence in noted))
    whole = await ask_if_affordable(
        context, messages, config, max_tokens=SUMMARY_TOKENS, agent="summarise", owner=request.owner
    )
    return list(dict.fromkeys([*_sentences(whole.text), *noted])), usage + whole.usage


def _parts(passages: Sequence[Passage], most: int) -> list[str]:
    """Consecutive passages joined to ``PART_CHARS``; of too many parts the first and evenly spaced others are kept."""
    parts: list[str] = []
    for _, group in groupby(passages, key=lambda passage: passage.section[:1]):
        room = 0
        for passage in group:
            if room < len(passage.text):
                parts.append("")
                room = PART_CHARS
            parts[-1] += passage.text + "\n"
            room -= len(passage.text)
    if len(parts) <= most:
        return parts
    places = np.linspace(0, len(parts) - 1, most).round().astype(int)
    return [parts[place] for place in dict.fromkeys(places.tolist())]


def _resting_on(texts: Sequence[str], passages: Sequence[Passage]) -> list[tuple[str, Passage | None]]:
    """Each sentence with the passage that has all its words, or None."""
    evidence = [_as_evidence(passage) for passage in passages]
    places = [[one.evidence for one in supported(text, evidence).statements] for text in texts]
    return [
        (text, passages[place[0]] if place and place[0] is not None else None)
        for text, place in zip(texts, places, strict=True)
    ]


def _as_evidence(passage: Passage) -> Evidence:
    borders = sentences(passage.text) or [(0, len(passage.text))]
    cut = tuple(Sentence(start, end, passage.text[start:end], 0.0, ()) for start, end in borders)
    return Evidence(passage, 0.0, cut, 0)


def _sentences(text: str) -> list[str]:
    """Whole sentences of a model's text; what the token limit cut off at the end is left out."""
    found = [text[start:end].strip() for start, end in sentences(text)]
    return [sentence for sentence in found if sentence.endswith((".", "!", "?", '"', ")"))]


async def extract(context: Context, passages: Sequence[Passage]) -> list[tuple[str, Passage]]:
    """The article's own sentences: the first two of the lead, then the most central ones of other sections.

    Central is the sentence nearest to the mean of all (the centroid of Radev et al. 2004); one per section.
    """
    pool = [(p.text[start:end].strip(), p) for p in passages for start, end in sentences(p.text)]
    lead = [(text, passage) for text, passage in pool if not passage.section][:2] or pool[:2]
    # A sentence out of its section often says «it» or «this»; those are poor company for the lead.
    rest = [(text, p) for text, p in pool if p.section and 40 <= len(text) <= 300 and text.split()[0].istitle()]
    rest = [(text, p) for text, p in rest if text.split()[0].lower() not in _DANGLING]
    if not rest:
        return [*lead, *[pair for pair in pool if pair not in lead]][:EXTRACT_SENTENCES]
    vectors = await context.embedder.encode([text for text, _ in rest])
    nearness = vectors @ vectors.mean(axis=0)
    chosen: dict[str, int] = {}
    for place in np.argsort(-nearness).tolist():
        chosen.setdefault(rest[place][1].section[0], place)
    best = sorted(list(chosen.values())[: EXTRACT_SENTENCES - len(lead)])
    return [*lead, *(rest[place] for place in best)]


_DANGLING = frozenset(
    "it its this that these those he she his her they their there such thus however also but and so then"
    " therefore hence moreover furthermore one another both here".split()
)


async def _keep(
    context: Context, request: SummariseInput, output: SummariseOutput, config: RunnableConfig, seconds: float
) -> None:
    """Remember the summary, and tell the graph's stream."""
    kept = output.model_dump(mode="json", exclude={"carry", "usage"})
    await context.library.save_summary(request.owner, context.source.name, request.topic, kept)
    task_id = str(config.get("configurable", {}).get("thread_id", ""))
    data = {
        "owner": request.owner,
        "title": output.citations[0].title,
        "revision": output.citations[0].revision,
        "source": context.source.name,
        "text": output.text,
        "citations": [{"title": c.title, "revision": c.revision} for c in output.citations],
        "seconds": round(seconds, 3),
    }
    await context.streams.publish([Event("summary.add", data, agent="summarise", task_id=task_id)])


def _request(assignment: Assignment, run: RunView) -> SummariseInput:
    topic = assignment.topic or run.request.message
    return SummariseInput(topic=topic, owner=run.request.owner, **assignment.params)


async def _summarised(context: Context, run: RunView, topic: str | None) -> bool:
    """There is a summary of the topic, and it rests on the revision that was last read."""
    owner, source = run.request.owner, context.source.name
    summary = await context.library.summary(owner, source, topic or "")
    if summary is None:
        return False
    coverage = await context.library.coverage(owner, source, topic or "")
    if coverage is None or not coverage.titles:
        return False
    current = await context.library.revision(owner, source, coverage.titles[0])
    return any(citation["revision"] == current for citation in summary["citations"])


def _explain(output: SummariseOutput) -> str:
    dropped = f", {output.dropped} unsupported sentences of the model left out" if output.dropped else ""
    return f"summary of «{output.topic}» from {len(output.citations)} passages ({output.method}{dropped})"


SPEC = AgentSpec(
    name="summarise",
    description="Summarises an article that was read; every sentence says which passage it rests on.",
    input_type=SummariseInput,
    output_type=SummariseOutput,
    build=build_summarise,
    request=_request,
    achieves={"summarised": _summarised},
    runs_per_minute=10,
    explain=_explain,
)
