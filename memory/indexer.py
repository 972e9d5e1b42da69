"""The indexer: passages from the stream into the vector store, in two phases.

Phase 1 stores text and BM25 vectors as events arrive (thousands a second), so that a passage can be found at once.
Phase 2 follows with dense vectors in large batches, whatever task the passages came from (tens a second on two cores).
What waits for phase 2 is a mark in the store itself, so nothing is forgotten when the process ends in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from loguru import logger

from errors import LuminaError
from memory.passages import Passage, Record
from memory.streams import Event
from memory.vectors import VectorStore

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PASSAGES_ADD = "passages.add"
"""Type of the events that carry passages in ``data["passages"]``."""

BATCH = 256
"""Records taken from the store at a time; sorted by length, so that a slice wastes little on padding."""

SLICE = 16
"""Texts given to the embedder at a time; a question that comes meanwhile waits for one slice at most. 64 at a time are
not embedded faster (10 to 13 a second either way on two busy cores) and keep it waiting 6 to 8 s instead of 2."""

RETRY_FIRST_S, RETRY_MAX_S = 1.0, 60.0
"""Pause after a failure of the embedder or the store, doubled each time."""


class Embedder(Protocol):
    """Turns texts into vectors of length 1."""

    @property
    def dimensions(self) -> int:
        """Length of a vector."""
        ...

    async def encode(self, texts: Sequence[str], *, query: bool = False) -> NDArray[np.float32]:
        """Vectors of shape (len(texts), dimensions), each of length 1; ``query`` for questions."""
        ...


class Progress(Protocol):
    """Is told how far passages have come; a passage may be reported more than once."""

    async def indexed(self, passages: Sequence[Passage]) -> None:
        """These can be found by their words."""
        ...

    async def embedded(self, passages: Sequence[Passage]) -> None:
        """These can be found by their meaning too."""
        ...


class Delivered(Protocol):
    """A stream entry as the consumer hands it over."""

    @property
    def event(self) -> Event:
        """The event it carries."""
        ...


@dataclass(frozen=True, slots=True)
class Handled:
    """What became of some events."""

    indexed: int
    """Passages that are searchable now."""
    skipped: tuple[str, ...] = ()
    """One reason for each passage (or whole event) that was left out."""


class MalformedPassage(LuminaError):
    """An event carries something that is not a passage."""


class Indexer:
    """Takes passages in and embeds them behind that."""

    def __init__(self, vectors: VectorStore, embedder: Embedder, progress: Progress) -> None:
        self._vectors = vectors
        self._embedder = embedder
        self._progress = progress
        self._added = asyncio.Event()
        self._added.set()  # something may be left from the last run
        self._embedding = asyncio.Lock()

    async def handle(self, delivered: Iterable[Delivered]) -> Handled:
        """Phase 1: make the passages of these events searchable; other events are passed over.

        A redelivery changes nothing. Once this returns, the events may be acknowledged.
        """
        passages: dict[str, Passage] = {}
        skipped: list[str] = []
        for item in delivered:
            if item.event.type == PASSAGES_ADD:
                for found in _passages(item.event):
                    if isinstance(found, Passage):
                        passages[found.id] = found
                    else:
                        skipped.append(str(found))
        for reason in skipped:
            logger.warning("passage skipped: {}", reason)
        if passages:
            waiting = set(await self._vectors.upsert(passage.to_record() for passage in passages.values()))
            await self._progress.indexed(list(passages.values()))
            if known := [passage for passage in passages.values() if passage.id not in waiting]:
                await self._progress.embedded(known)
            if waiting:
                self._added.set()
        return Handled(len(passages), tuple(skipped))

    def wake(self) -> None:
        """Say that somebody else put records into the store that wait for their dense vectors."""
        self._added.set()

    async def embed_pending(self, batch: int = BATCH) -> int:
        """Phase 2, once: embed up to ``batch`` records that wait for it; returns how many were embedded."""
        return await self._embed(batch, asyncio.Event())

    async def run_embedding(self, stop: asyncio.Event) -> None:
        """Phase 2 until ``stop``: sleeps while nothing waits, retries when the embedder or the store fails."""
        pause_s = RETRY_FIRST_S
        while not stop.is_set():
            self._added.clear()
            try:
                while await self._embed(BATCH, stop) and not stop.is_set():
                    pause_s = RETRY_FIRST_S
                if not stop.is_set():
                    await self._vectors.optimize()
            except LuminaError as error:
                logger.warning("embedding pauses for {:.0f} s: {}", pause_s, error)
                await _first_of(stop, timeout_s=pause_s)
                pause_s = min(2 * pause_s, RETRY_MAX_S)
                continue
            await _first_of(stop, self._added)

    async def _embed(self, batch: int, stop: asyncio.Event) -> int:
        done = 0
        async with self._embedding:
            records = sorted(await self._vectors.pending(batch), key=lambda record: len(record.text))
            for start in range(0, len(records), SLICE):
                if stop.is_set():
                    break
                done += await self._embed_slice(records[start : start + SLICE])
        return done

    async def _embed_slice(self, records: Sequence[Record]) -> int:
        texts = [record.text for record in records]
        vectors = await self._embedder.encode(texts)
        # Without the texts a record that changed while it was embedded would keep the vector of its old text.
        done = set(await self._vectors.set_dense([record.id for record in records], vectors, texts=texts))
        embedded = [Passage.from_record(record) for record in records if record.id in done and _is_passage(record)]
        if embedded:
            await self._progress.embedded(embedded)
        return len(records)


async def _first_of(*events: asyncio.Event, timeout_s: float | None = None) -> None:
    """Wait until one of the events is set, or the time is over."""
    waiting = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()


def _passages(event: Event) -> Iterable[Passage | MalformedPassage]:
    """Each passage of an event, or the reason why it is none."""
    items = event.data.get("passages")
    if not isinstance(items, list):
        yield MalformedPassage(f"event of task {event.task_id!r} has no list of passages but {type(items).__name__}")
        return
    for item in items:
        try:
            yield _passage(item)
        except MalformedPassage as reason:
            yield reason


def _passage(data: Any) -> Passage:
    """The passage that a JSON object describes.

    Raises:
        MalformedPassage: when a field is missing or of another type.
    """
    if not isinstance(data, dict):
        raise MalformedPassage(f"a passage is an object, not {type(data).__name__}")
    for names, kind in ((_TEXTS, str), (_NUMBERS, int), (("section",), list)):
        for name in names:
            if not isinstance(data.get(name), kind):
                raise MalformedPassage(
                    f"passage {data.get('index')!r} of {data.get('title')!r}: {name} must be {kind.__name__}, "
                    f"not {data.get(name)!r:.80}"
                )
    if not all(isinstance(heading, str) for heading in data["section"]):
        raise MalformedPassage(f"passage {data['index']} of {data['title']!r}: section must be a list of headings")
    if not data["text"].strip():
        raise MalformedPassage(f"passage {data['index']} of {data['title']!r} is empty")
    return Passage.from_dict(data)


_TEXTS = ("owner", "source", "title", "url", "revision", "text")
_NUMBERS = ("start", "end", "index")


def _is_passage(record: Record) -> bool:
    """Whether the record was written from a passage (a shared Qdrant server may hold others)."""
    return set(Passage.__dataclass_fields__) <= set(record.payload)
