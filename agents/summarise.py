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
from tools.extract import extract, reads_alone
from tools.grounding import Grounded, ground, own_sentences
from tools.reader import without_marks
from tools.splitter import sentences

PART_CHARS = 2_400
"""Length of the text that one call summarises: about 600 tokens, a sixth of the embedded model's context."""
NOTE_TOKENS = 80
"""Length of one note: two short sentences."""
SUMMARY_TOKENS = 220
"""Length of the whole: five sentences."""
SENTENCES = 5
"""Sentences that a summary has at most, unless it is asked for another number."""
MIN_SENTENCES = 2
"""With fewer supported sentences than this a model's summary is not shown; the extract is."""
ALIKE = 0.7
"""Cosine from which the article's nearest sentence stands in for a model's sentence that is not supported."""


class NothingToSummarise(LuminaError):
    """The topic's page has not been read, or has no text."""


class SummariseInput(BaseModel):
    """What to summarise."""

    topic: str = Field(min_length=1, description="Title of an article that has been read.")
    method: Literal["map_reduce", "extract"] = Field(
        "map_reduce", description="map_reduce: the chat model writes; extract: the article's own sentences."
    )
    max_parts: int = Field(6, ge=1, le=64, description="Parts of the article that the model reads at most.")
    max_sentences: int = Field(SENTENCES, ge=1, le=20, description="Sentences of the summary at most.")
    owner: str = "local"


class SummariseOutput(AgentOutput):
    """The summary."""

    topic: str
    text: str = Field(description="Sentences, each with the number of its citation in brackets.")
    citations: list[Citation] = Field(default_factory=list)
    method: str = Field(description="What it was made by: map_reduce, or extract when the model's text did not hold.")
    dropped: int = Field(0, description="Sentences of the model that are not shown: the article does not support them.")
    replaced: int = Field(0, description="Of these: where the article's own sentence that is nearest is shown instead.")


def build_summarise(context: Context) -> Runnable[SummariseInput, SummariseOutput]:
    """The summarise agent on these services.

    Raises, when run:
        NothingToSummarise: the topic was never read.
        NoModelAnswers: method ``map_reduce`` and no chat model answers.
    """

    async def summarise(request: SummariseInput, config: RunnableConfig) -> SummariseOutput:
        started = time.perf_counter()
        output = await write_summary(context, request, await _read(context, request), config)
        await _keep(context, request, output, config, time.perf_counter() - started)
        return output

    return RunnableLambda(summarise, name="summarise").with_types(
        input_type=SummariseInput, output_type=SummariseOutput
    )


async def write_summary(
    context: Context, request: SummariseInput, passages: Sequence[Passage], config: RunnableConfig
) -> SummariseOutput:
    """The summary of an article's passages, which must not be empty; nothing is kept.

    No sentence is shown that the article does not support: what the model wrote is looked up in it (``ground``), and
    what is not found gives way to the article's own sentence, where one is near enough, or is left out.

    Raises:
        NoModelAnswers: method ``map_reduce`` and no chat model answers.
    """
    usage = Usage()
    own = await asyncio.to_thread(own_sentences, passages)
    shown: list[tuple[str, Passage]] = []
    refused = replaced = 0
    if request.method == "map_reduce":
        candidates, usage = await _map_reduce(context, request, passages, config)
        found = await ground(list(dict.fromkeys(candidates)), own, context.embedder)
        shown, replaced = _supported(found, request.max_sentences)
        refused = sum(one.passage is None for one in found)
    by_model = len(shown) - replaced >= min(MIN_SENTENCES, request.max_sentences)
    if not by_model:
        shown, replaced = await extract(own, request.max_sentences, context.embedder), 0
    text, citations = cite(shown)
    return SummariseOutput(
        topic=request.topic,
        text=text,
        citations=citations,
        method="map_reduce" if by_model else "extract",
        dropped=refused,
        replaced=replaced,
        usage=usage,
    )


def _supported(found: Sequence[Grounded], most: int) -> tuple[list[tuple[str, Passage]], int]:
    """The sentences to show in the model's order, each with what it rests on; how many of them are the article's own.

    The model's supported sentences come first; where there is room left, the article's stand in for the others.
    """
    places = {at: (one.text, one.passage) for at, one in enumerate(found) if one.passage is not None}
    kept = dict(list(places.items())[:most])
    texts = {text for text, _ in kept.values()}
    by_model = len(kept)
    for at, one in enumerate(found):
        own = one.nearest
        near = one.passage is None and one.nearness >= ALIKE and reads_alone(own.text)
        if near and own.text not in texts and len(kept) < most:
            kept[at] = own.text, own.passage
            texts.add(own.text)
    return [kept[at] for at in sorted(kept)], len(kept) - by_model


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
    return [*_sentences(whole.text), *noted], usage + whole.usage


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


def _sentences(text: str) -> list[str]:
    """Whole sentences of a model's text; what the token limit cut off at the end is left out."""
    text = without_marks(text)
    found = [text[start:end].strip() for start, end in sentences(text)]
    return [sentence for sentence in found if sentence.endswith((".", "!", "?", '"', ")"))]


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
    dropped = f", {output.dropped} unsupported sentences of the model not shown" if output.dropped else ""
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
