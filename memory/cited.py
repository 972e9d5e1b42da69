"""Which passages the kept answers cite.

``Conversations.append`` notes the citations of every turn in the step that stores the turn. A conversation's head says
up to which turn that was done; what was stored before this was kept is noted by ``catch_up``. A note counts while its
turn is kept, so turns that were trimmed, deleted or have expired need no step of their own.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from memory import keys

if TYPE_CHECKING:
    from redis.asyncio import Redis

BATCH = 500
"""Conversations, notes or ids of one round trip."""
TURNS = 50
"""Turns read at once; one may have a megabyte."""

# KEYS: head. ARGV: number of turns that were looked through.
_CAUGHT_UP = """
if redis.call('HGET', KEYS[1], 'turns') == ARGV[1] then redis.call('HSET', KEYS[1], 'cited', ARGV[1]) end
"""


def cited_by(metadata: Mapping[str, Any]) -> list[str]:
    """Ids of the passages that a message's metadata cites; what is no passage id is passed over."""
    citations = metadata.get("citations")
    found: dict[str, None] = {}
    for citation in citations if isinstance(citations, list) else []:
        id_ = citation.get("passage_id") if isinstance(citation, Mapping) else None
        try:
            found[str(uuid.UUID(id_))] = None
        except (ValueError, AttributeError, TypeError):
            continue
    return list(found)


class CitedPassages:
    """The citations of every owner's conversations."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._caught_up = redis.register_script(_CAUGHT_UP)

    async def catch_up(self, owner: str) -> int:
        """Note what conversations cite that were stored before notes were kept; returns how many there were."""
        found = 0
        batch: list[str] = []
        async for id_, _ in self._redis.zscan_iter(keys.conversations(owner), count=BATCH):
            batch.append(id_.decode())
            if len(batch) >= BATCH:
                found += await self._catch_up(owner, batch)
                batch = []
        return found + await self._catch_up(owner, batch)

    async def among(self, owner: str, ids: Sequence[str]) -> set[str]:
        """Those of the passages that some kept turn cites."""
        cited: set[str] = set()
        for start in range(0, len(ids), BATCH):
            pipe = self._redis.pipeline(transaction=False)
            for id_ in ids[start : start + BATCH]:
                pipe.zrangebylex(keys.cited(owner), f"[{id_} ", f"({id_}!")  # «!» follows the blank
            notes = [note.decode() for found in await pipe.execute() for note in found]
            cited |= {note.partition(" ")[0] for note in await self._kept(owner, notes)}
        return cited

    async def _kept(self, owner: str, notes: Sequence[str]) -> list[str]:
        """Those of the notes whose turn is kept; the others are dropped."""
        if not notes:
            return []
        conversations = list(dict.fromkeys(note.split(" ")[1] for note in notes))
        pipe = self._redis.pipeline(transaction=False)
        for id_ in conversations:
            head, turns, _ = keys.conversation(owner, id_)
            pipe.hget(head, "turns")
            pipe.llen(turns)
        answers = await pipe.execute()
        last: dict[str, int] = {id_: int(answers[2 * i] or 0) for i, id_ in enumerate(conversations)}
        first: dict[str, int] = {id_: last[id_] - answers[2 * i + 1] + 1 for i, id_ in enumerate(conversations)}

        def counts(note: str) -> bool:
            _, conversation, turn = note.split(" ")
            return first[conversation] <= int(turn) <= last[conversation]

        kept = [note for note in notes if counts(note)]
        if gone := set(notes) - set(kept):
            await self._redis.zrem(keys.cited(owner), *gone)
        return kept

    async def _catch_up(self, owner: str, conversations: Sequence[str]) -> int:
        pipe = self._redis.pipeline(transaction=False)
        for id_ in conversations:
            pipe.hmget(keys.conversation(owner, id_)[0], "turns", "cited")
        heads = await pipe.execute()
        behind = [
            (id_, turns) for id_, (turns, cited) in zip(conversations, heads, strict=True) if turns and turns != cited
        ]
        for id_, turns in behind:
            await self._note_all(owner, id_)
            await self._caught_up([keys.conversation(owner, id_)[0]], [turns])
        return len(behind)

    async def _note_all(self, owner: str, conversation_id: str) -> None:
        _, turns, _ = keys.conversation(owner, conversation_id)
        at = -1  # from the newest back, for the oldest may be trimmed meanwhile
        while True:
            values: Any = await self._redis.lrange(turns, at - TURNS + 1, at)
            notes = dict.fromkeys(_notes(conversation_id, values), 0)
            if notes:
                await self._redis.zadd(keys.cited(owner), notes)
            if len(values) < TURNS:
                return
            at -= TURNS


def _notes(conversation_id: str, values: Iterable[bytes]) -> Iterable[str]:
    for value in values:
        number, _, text = value.partition(b" ")
        for id_ in cited_by(json.loads(text)["metadata"]):
            yield f"{id_} {conversation_id} {number.decode()}"
