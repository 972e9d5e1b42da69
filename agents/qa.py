"""The QA agent: answers from what was read, with citations, or says that it does not know."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from pydantic import BaseModel, Field

from agents.asking import is_small, writer_in_use
from agents.bridges import Bridge, Crossing, ask_for, cross, find_bridge
from agents.citations import Citation, citation
from agents.context import Context
from agents.phrasing import in_context, phrase, renumber
from agents.progress import report
from agents.replying import Recalled, reply
from agents.spec import AgentOutput, AgentSpec, Assignment, Check, RunView, Usage
from errors import LuminaError
from memory.streams import Event
from tools.evidence import Evidence
from tools.reader import Reading, read

PASSAGES = 5
"""Passages that an answer may rest on."""
UNKNOWN = "I don't know."


class QAInput(BaseModel):
    """A question, or a message that needs no evidence."""

    question: str = Field(min_length=1, max_length=20_000)
    grounded: bool = Field(True, description="Answer from what was read; False: plain conversation.")
    phrase: bool = Field(True, description="Let the chat model phrase the answer; False: the sentence as it was found.")
    titles: list[str] = Field(default_factory=list, description="Only passages of these pages; empty: of all.")
    topics: list[str] = Field(default_factory=list, description="What the question is about; their pages go first.")
    conversation_id: str | None = None
    owner: str = "local"
    max_links: int = Field(0, ge=0, le=10, description="Linked articles that it may ask for; the planner reads them.")
    carry: dict[str, Any] | None = None


class Step(BaseModel):
    """One of the steps that an answer took."""

    question: str
    title: str = Field(description="Article that the step rests on.")
    sentence: str


class QAOutput(AgentOutput):
    """The answer."""

    answer: str = Field(description="With the numbers of its citations in brackets; empty while there is a `carry`.")
    short_answer: str = Field("", description="The span of the evidence that answers, where the question asks for one.")
    citations: list[Citation] = Field(default_factory=list)
    steps: list[Step] = Field(default_factory=list, description="How it was found, where that took two articles.")
    abstained: bool = False
    confidence: float = Field(0.0, ge=0, le=1, description="How sure it is that the evidence answers the question.")
    phrased_by: str = Field("quote", description="quote, or the model whose words were found in the evidence.")
    looked_at: list[str] = Field(default_factory=list, description="What was read to answer, best first.")
    recalled: list[Recalled] = Field(default_factory=list, description="Earlier messages that the model was given.")


def build_qa(context: Context) -> Runnable[QAInput, QAOutput]:
    """The QA agent on these services.

    Raises, when run:
        LuminaError: this process has no vectors.
        NoModelAnswers: a plain conversation, and no chat model answers. A grounded answer does not need one.
    """

    async def qa(request: QAInput, config: RunnableConfig) -> QAOutput:
        started = time.perf_counter()
        if request.grounded:
            output = await _answer(context, request, config)
            if output.carry:
                report("progress", agent="qa", text=" ".join(link["why"] for link in output.carry["links"].values()))
                return output
            for piece in re.findall(r"\S+\s*", output.answer):
                report("token", agent="qa", text=piece)
        else:
            output = await _reply(context, request, config)
        for cited in output.citations:
            report("citation", **cited.model_dump())
        data = {
            "owner": request.owner,
            "question": request.question,
            "answer": output.answer,
            "abstained": output.abstained,
            "confidence": round(output.confidence, 4),
            "citations": [{"title": c.title, "revision": c.revision} for c in output.citations],
            "seconds": round(time.perf_counter() - started, 3),
            "conversation_id": request.conversation_id,
        }
        task_id = str(config.get("configurable", {}).get("thread_id", ""))
        await context.streams.publish([Event("answer.add", data, agent="qa", task_id=task_id)])
        return output

    return RunnableLambda(qa, name="qa").with_types(input_type=QAInput, output_type=QAOutput)


async def _answer(context: Context, request: QAInput, config: RunnableConfig) -> QAOutput:
    """Retrieve, read, let the model phrase it, and show its words only where they stand in the evidence."""
    if context.recall is None:
        raise LuminaError("this process has no vectors: run it inside `lumina serve`, or set QDRANT_URL")
    prefer = await _pages_of(context, request)
    evidence = await context.recall.search(
        request.question, owner=request.owner, limit=PASSAGES, titles=request.titles or None, prefer=prefer
    )
    reading = read(request.question, evidence)
    if request.carry:
        bridge: Bridge | None = Bridge.from_json(request.carry["bridge"])
    elif request.titles:  # whoever names the pages wants no others
        bridge = None
    else:
        bridge = await find_bridge(context, request.question, evidence, reading, owner=request.owner, prefer=prefer)
    if bridge is not None:
        crossing = await cross(context, bridge, owner=request.owner, limit=PASSAGES)
        if crossing.reading is not None:
            return await _answer_in_two_steps(context, request, config, bridge, crossing, crossing.reading)
        if crossing.missing and len(bridge.asked_for) < request.max_links:
            return QAOutput(answer="", carry=ask_for(bridge, crossing.missing))
        if reading is not None and bridge.asked_for and bridge.rival == 0:
            # What was found says which thing is meant, and not what is asked of it.
            return QAOutput(answer=UNKNOWN, abstained=True, looked_at=_looked_at([*evidence, *crossing.evidence]))
    return await _answer_from(context, request, config, reading, evidence)


def _looked_at(evidence: Sequence[Evidence]) -> list[str]:
    return list(dict.fromkeys(" > ".join((one.passage.title, *one.passage.section)) for one in evidence))


async def _answer_from(
    context: Context,
    request: QAInput,
    config: RunnableConfig,
    reading: Reading | None,
    evidence: Sequence[Evidence],
) -> QAOutput:
    """The answer that one sentence gives, or that it is not known."""
    if reading is None or not reading.known:
        sure = reading.confidence if reading else 0.0
        return QAOutput(answer=UNKNOWN, abstained=True, confidence=sure, looked_at=_looked_at(evidence))
    best = evidence[reading.evidence]
    text, usage, model = None, Usage(), "quote"
    if request.phrase:
        report("progress", agent="qa", text=f"found in «{best.passage.title}»; asking the model to phrase it")
        text, usage, model = await phrase(context, request.question, reading, evidence, config, owner=request.owner)
    if text is None:
        text, used = f"{in_context(reading.sentence, best)} [1]", [reading.evidence]
    else:
        text, used = renumber(text, evidence)
    quotes = {reading.evidence: reading.sentence}
    return QAOutput(
        answer=text,
        short_answer=reading.answer if reading.answer != reading.sentence else "",
        citations=[
            citation(number, evidence[place].passage, quotes.get(place, evidence[place].best_sentence.text))
            for number, place in enumerate(used, 1)
        ],
        confidence=reading.confidence,
        phrased_by=model,
        looked_at=_looked_at(evidence),
        usage=usage,
    )


async def _answer_in_two_steps(
    context: Context,
    request: QAInput,
    config: RunnableConfig,
    bridge: Bridge,
    crossing: Crossing,
    reading: Reading,
) -> QAOutput:
    """The answer that two sentences give, each cited; a good model may phrase it from both."""
    first, second = bridge.evidence(), crossing.evidence[reading.evidence]
    evidence = [second, first]
    text, usage, model = None, Usage(), "quote"
    used = [1, 0]
    if request.phrase and not is_small(writer_in_use(context)):
        said, usage, writer = await phrase(context, request.question, reading, evidence, config, owner=request.owner)
        words, places = renumber(said, evidence) if said else ("", [])
        if len(places) == len(evidence):
            text, used, model = words, places, writer
    if text is None:
        text = f"{in_context(bridge.sentence, first)} [1] {in_context(reading.sentence, second)} [2]"
    quotes = {0: reading.sentence, 1: bridge.sentence}
    return QAOutput(
        answer=text,
        short_answer=reading.answer if reading.answer != reading.sentence else "",
        citations=[citation(number, evidence[place].passage, quotes[place]) for number, place in enumerate(used, 1)],
        steps=[
            Step(question=bridge.first, title=bridge.passage.title, sentence=bridge.sentence),
            Step(question=crossing.question, title=second.passage.title, sentence=reading.sentence),
        ],
        confidence=reading.confidence * bridge.coverage,
        phrased_by=model,
        looked_at=_looked_at([first, *crossing.evidence]),
        usage=usage,
    )


async def _pages_of(context: Context, request: QAInput) -> list[str]:
    """The pages of the topics, redirects followed."""
    found = [await context.library.coverage(request.owner, context.source.name, topic) for topic in request.topics]
    return [coverage.titles[0] for coverage in found if coverage and coverage.titles]


async def _reply(context: Context, request: QAInput, config: RunnableConfig) -> QAOutput:
    said, recalled = await reply(
        context,
        request.question,
        config,
        owner=request.owner,
        conversation_id=request.conversation_id,
        heard=lambda piece: report("token", agent="qa", text=piece),
    )
    return QAOutput(answer=said.text, phrased_by=said.model, usage=said.usage, recalled=recalled)


def _request(assignment: Assignment, run: RunView) -> QAInput:
    return QAInput(
        question=run.request.message or assignment.topic or "",
        topics=run.topics,
        conversation_id=run.request.conversation_id,
        owner=run.request.owner,
        carry=dict(assignment.carry) if assignment.carry else None,
        **assignment.params,
    )


def _has(goal: str) -> Check:
    async def check(context: Context, run: RunView, topic: str | None) -> bool:
        return bool(run.results.get(goal, {}).get("answer"))

    return check


def _explain(output: QAOutput) -> str:
    if output.abstained:
        return f"nothing that was read answers this (confidence {output.confidence:.2f})"
    if not output.citations:
        return "replied"
    cited = ", ".join(dict.fromkeys(c.title for c in output.citations))
    if output.steps:
        cited = " → ".join(dict.fromkeys(step.title for step in output.steps))
    return f"answered from {cited} (confidence {output.confidence:.2f}, words: {output.phrased_by})"


SPEC = AgentSpec(
    name="qa",
    description="Answers questions from what was read, with citations pinned to a revision, or says it does not know.",
    input_type=QAInput,
    output_type=QAOutput,
    build=build_qa,
    request=_request,
    achieves={"answered": _has("answered"), "replied": _has("replied")},
    runs_per_minute=20,
    explain=_explain,
)
