"""Asks Lumina itself: the paragraphs go through the indexer as crawled pages do, the questions to the QA agent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from agents.context import Context
from agents.qa import PASSAGES, QAInput, build_qa
from errors import LuminaError
from evaluation.outcomes import DEPTH, Outcome
from evaluation.squad import OWNER, Question, Squad
from memory.streams import Event
from memory.vectors import Mode
from tools.evidence import Evidence
from tools.reader import read
from tools.recall import Recall
from tools.span_reader import span_reader
from tools.token_match import token_matcher

Progress = Callable[[int], None]
"""Told how many are done so far."""
PASSAGES_PER_ENTRY = 64
LOOK_S = 0.2


async def index(context: Context, squad: Squad, progress: Progress) -> None:
    """Put all paragraphs on the indexer's stream, and wait until each has its dense vector.

    Raises:
        LuminaError: this process has no vectors.
    """
    if context.vectors is None:
        raise LuminaError("this process has no vectors: evaluate without QDRANT_URL, on the embedded engine")
    passages = squad.passages()
    await context.library.expect(passages)
    entries = [passages[at : at + PASSAGES_PER_ENTRY] for at in range(0, len(passages), PASSAGES_PER_ENTRY)]
    await context.streams.publish(
        [Event("passages.add", {"owner": OWNER, "passages": [one.to_dict() for one in part]}) for part in entries]
    )
    while (done := await context.vectors.count({"owner": OWNER}, embedded=True)) < len(passages):
        progress(done)
        await asyncio.sleep(LOOK_S)
    progress(len(passages))


class _Watched(Recall):
    """Looks as far as is measured, hands out as many passages as were asked for, and remembers all it found."""

    def __init__(self, context: Context, mode: Mode) -> None:
        if context.vectors is None:
            raise LuminaError("this process has no vectors: evaluate without QDRANT_URL, on the embedded engine")
        embedder = context.embedder
        super().__init__(context.vectors, embedder, span_reader(embedder), token_matcher(embedder), mode=mode)
        self.evidence: list[Evidence] = []

    async def search(
        self,
        question: str,
        *,
        owner: str,
        limit: int = PASSAGES,
        titles: Sequence[str] | None = None,
        prefer: Sequence[str] = (),
        mode: Mode | None = None,
    ) -> list[Evidence]:
        """See ``Recall.search``."""
        self.evidence = await super().search(
            question, owner=owner, limit=max(limit, DEPTH), titles=titles, prefer=prefer, mode=mode
        )
        return self.evidence[:limit]


async def ask_lumina(
    context: Context, questions: Sequence[Question], *, retriever: Mode, phrase: bool, progress: Progress
) -> list[Outcome]:
    """Ask each question, one after the other.

    Args:
        context: Open services, whose memory has the paragraphs.
        questions: The questions.
        retriever: What finds the passages.
        phrase: Whether the chat model may phrase the answer.
        progress: Told after each question.
    """
    watched = _Watched(context, retriever)
    qa = build_qa(replace(context, recall=watched))
    outcomes = []
    for number, one in enumerate(questions, 1):
        start = time.perf_counter()
        output = await qa.ainvoke(QAInput(question=one.question[:20_000], phrase=phrase, owner=OWNER))
        seconds = time.perf_counter() - start
        reading = read(one.question, watched.evidence[:PASSAGES])
        cited = {each.passage.url: each.passage.text for each in watched.evidence}
        outcomes.append(
            Outcome(
                id=one.id,
                question=one.question,
                answers=one.answers,
                paragraph=(one.title, one.paragraph),
                found=[(each.passage.title, each.passage.index) for each in watched.evidence[:DEPTH]],
                best=reading.answer if reading else "",
                sentence=reading.sentence if reading else "",
                answer=output.answer,
                cited=cited.get(output.citations[0].url) if output.citations else None,
                abstained=output.abstained,
                confidence=output.confidence,
                seconds=seconds,
                tokens_in=output.usage.input_tokens,
                tokens_out=output.usage.output_tokens,
            )
        )
        progress(number)
    return outcomes
