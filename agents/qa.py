"""The QA agent: answers from what was read, with citations, or says that it does not know."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import replace

from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from pydantic import BaseModel, Field

from agents.asking import ask_if_affordable, is_small, writer_in_use
from agents.citations import Citation, citation
from agents.context import Context
from agents.progress import report
from agents.prompts import ANSWER
from agents.replying import Recalled, reply
from agents.spec import AgentOutput, AgentSpec, Assignment, Check, RunView, Usage
from errors import LuminaError
from memory.streams import Event
from models.fallback import NoModelAnswers
from tools.evidence import Evidence, describe
from tools.reader import Reading, read, supported

PASSAGES = 5
"""Passages that an answer may rest on."""
PASSAGES_FOR_MODEL = 3
"""Passages that the model is shown: about 700 tokens."""
PASSAGES_FOR_SMALL_MODEL = 1
"""The same for the tiny embedded one, whose words must stand in one sentence anyway: it reads 200 tokens a second."""
ANSWER_TOKENS = 96
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


class QAOutput(AgentOutput):
    """The answer."""

    answer: str = Field(description="With the numbers of its citations in brackets.")
    short_answer: str = Field("", description="The span of the evidence that answers, where the question asks for one.")
    citations: list[Citation] = Field(default_factory=list)
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
    evidence = await context.recall.search(
        request.question,
        owner=request.owner,
        limit=PASSAGES,
        titles=request.titles or None,
        prefer=await _pages_of(context, request),
    )
    reading = read(request.question, evidence)
    looked_at = [" > ".join((one.passage.title, *one.passage.section)) for one in evidence]
    if reading is None or not reading.known:
        sure = reading.confidence if reading else 0.0
        return QAOutput(answer=UNKNOWN, abstained=True, confidence=sure, looked_at=list(dict.fromkeys(looked_at)))
    best = evidence[reading.evidence]
    text, usage, model = None, Usage(), "quote"
    if request.phrase:
        report("progress", agent="qa", text=f"found in «{best.passage.title}»; asking the model to phrase it")
        text, usage, model = await _phrase(context, request, reading, evidence, config)
    if text is None:
        text, used = f"{_in_context(reading.sentence, best)} [1]", [reading.evidence]
    else:
        text, used = _renumber(text, evidence)
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
        looked_at=list(dict.fromkeys(looked_at)),
        usage=usage,
    )


async def _pages_of(context: Context, request: QAInput) -> list[str]:
    """The pages of the topics, redirects followed."""
    found = [await context.library.coverage(request.owner, context.source.name, topic) for topic in request.topics]
    return [coverage.titles[0] for coverage in found if coverage and coverage.titles]


async def _phrase(
    context: Context, request: QAInput, reading: Reading, evidence: Sequence[Evidence], config: RunnableConfig
) -> tuple[str | None, Usage, str]:
    """The model's words, or None when there is no model or its words do not stand in the evidence.

    The best passage goes first, for a small model heeds the beginning most.
    """
    best = evidence[reading.evidence]
    small = is_small(writer_in_use(context))
    shown = [best, *(one for one in evidence if one is not best)]
    shown = shown[: PASSAGES_FOR_SMALL_MODEL if small else PASSAGES_FOR_MODEL]
    messages = ANSWER.format_messages(passages=describe(shown), question=request.question)
    try:
        said = await ask_if_affordable(
            context, messages, config, max_tokens=ANSWER_TOKENS, agent="qa", owner=request.owner
        )
    except NoModelAnswers:
        return None, Usage(), "quote"
    text = " ".join(said.text.split())
    # A tiny model's words must stand in the one sentence that was found, for it joins what does not belong together.
    allowed = [_sentence_only(best, reading.sentence)] if small else evidence
    if not said.whole or not supported(text, allowed).holds or not _says(reading.answer, text):
        return None, said.usage, "quote"
    return text, said.usage, said.model


def _sentence_only(one: Evidence, sentence: str) -> Evidence:
    """The evidence cut down to one of its sentences."""
    kept = tuple(found for found in one.sentences if found.text == sentence)
    return replace(one, passage=replace(one.passage, text=sentence, section=()), sentences=kept, best=0)


_PRONOUN = re.compile(r"(?:he|she|it|they|his|her|its|their|this|these|the latter)\b", re.IGNORECASE)


def _in_context(sentence: str, one: Evidence) -> str:
    """A sentence that speaks of «he» or «it» without a name, with the page's title before it."""
    title = one.passage.title
    if title.lower() in sentence.lower():
        return sentence
    if _PRONOUN.match(sentence):
        return f"{title}: {sentence}"
    named = set(re.findall(r"\w+", title.lower())) & set(re.findall(r"\w+", sentence.lower()))
    inside = re.search(r"\b(?:he|she|it|they)\b", sentence, re.IGNORECASE)
    return f"{title}: {sentence}" if inside and not named else sentence


def _says(short: str, text: str) -> bool:
    """Whether a phrasing holds the words of the span that the reader found."""
    words = set(re.findall(r"\w+", text.lower()))
    return all(word in words for word in re.findall(r"\w+", short.lower())) or len(short) > 80


def _renumber(text: str, evidence: Sequence[Evidence]) -> tuple[str, list[int]]:
    """The text with a number after each sentence, by the passage that has its words; and those passages in order."""
    order: dict[int, int] = {}
    parts = []
    for statement in supported(text, evidence).statements:
        if statement.evidence is not None:
            number = order.setdefault(statement.evidence, len(order) + 1)
            parts.append(f"{statement.text} [{number}]")
    return " ".join(parts), list(order)


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
