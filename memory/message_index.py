"""The vector index behind the recall of earlier messages."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from memory.conversation_items import SimilarMessage
from memory.passages import PASSAGE_NAMESPACE, Record
from memory.vectors import VectorStore


class Encoder(Protocol):
    """Turns texts into unit vectors."""

    async def encode(self, texts: Sequence[str], *, query: bool = False) -> NDArray[np.float32]:
        """(n,) texts → (n, d) rows of length one."""
        ...


class VectorMessageIndex:
    """Messages by meaning, each owner's own; the ``MessageIndex`` of ``memory.conversations``."""

    def __init__(self, vectors: VectorStore, encoder: Encoder, added: Callable[[], None] = lambda: None) -> None:
        """An index on a collection of its own.

        Args:
            vectors: The collection.
            encoder: Makes the vectors of questions.
            added: Called when a message waits for its dense vector: it is made behind the conversation, for nobody
                should wait for a model to load.
        """
        self._vectors, self._encoder, self._added = vectors, encoder, added

    async def add(self, owner: str, conversation_id: str, turn_id: str, text: str) -> None:
        """Index a message; the same (owner, conversation, turn) again replaces it."""
        payload = {"owner": owner, "conversation_id": conversation_id, "turn_id": turn_id}
        name = "\x1f".join((owner, conversation_id, turn_id))
        record = Record(str(uuid.uuid5(PASSAGE_NAMESPACE, name)), text, payload)
        if await self._vectors.upsert([record]):
            self._added()

    async def similar(
        self, owner: str, text: str, limit: int, exclude_conversation: str | None = None
    ) -> list[SimilarMessage]:
        """The owner's messages that are most alike, best first: by meaning and, the newest ones, by words."""
        dense = (await self._encoder.encode([text], query=True))[0]
        # A few more, for those of the excluded conversation are dropped here: ``where`` has no negation.
        wanted = limit if exclude_conversation is None else 4 * limit
        hits = await self._vectors.search(text, dense=dense, where={"owner": owner}, limit=wanted, mode="hybrid")
        found = [
            SimilarMessage(
                conversation_id=str(hit.record.payload["conversation_id"]),
                turn_id=str(hit.record.payload["turn_id"]),
                text=hit.record.text,
                score=hit.score,
            )
            for hit in hits
            if hit.record.payload["conversation_id"] != exclude_conversation
        ]
        return found[:limit]

    async def forget(self, owner: str, conversation_id: str) -> None:
        """Drop every message of a conversation."""
        await self._vectors.delete({"owner": owner, "conversation_id": conversation_id})
