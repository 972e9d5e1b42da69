"""Which conversation a history belongs to, for clients that send the whole history and no id with every message.

A history is what was said by both sides, in order. Its digest leads to its conversation. Three rules make that safe:
a history that was seen before belongs to where it belonged then, so that a request sent twice is stored once; a
conversation goes on only from its latest state; and a history that branches off from an earlier state, or that nobody
knows, begins a new conversation.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from memory import keys

if TYPE_CHECKING:
    from redis.asyncio import Redis

TTL_S = 30 * 24 * 3600
"""How long a history is known after it was last seen."""

# KEYS: the history now, the history before its last message. ARGV: id for a new conversation, lifetime in ms, messages
# before the last, prefix of the keys of conversations. Fields: c (conversation), s (messages that it had before), n
# (the history that went on from this one). A conversation that was deleted since begins again, with everything.
_CLAIM = """
local known = redis.call('HMGET', KEYS[1], 'c', 's')
if known[1] then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  if redis.call('EXISTS', ARGV[4] .. known[1]) == 0 then return {known[1], 0} end
  return {known[1], tonumber(known[2])}
end
local id, stored = ARGV[1], 0
local before = redis.call('HMGET', KEYS[2], 'c', 'n')
if before[1] and not before[2] and redis.call('EXISTS', ARGV[4] .. before[1]) == 1 then
  id, stored = before[1], tonumber(ARGV[3])
  redis.call('HSET', KEYS[2], 'n', KEYS[1])
end
redis.call('HSET', KEYS[1], 'c', id, 's', stored)
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return {id, stored}
"""

Said = tuple[str, str]
"""Role and text of a message."""


@dataclass(frozen=True, slots=True)
class Claim:
    """Where a history belongs."""

    conversation_id: str
    stored: int
    """How many of its messages the conversation has already."""
    digest: str
    """The same for the same history of the same owner; an idempotency key."""


class Histories:
    """The histories of every owner, on a Redis client whose replies are bytes."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def claim(self, owner: str, history: Sequence[Said]) -> Claim:
        """The conversation that goes on with the last message of a history; atomic, in one round trip.

        Args:
            owner: Whose; another's equal history is another conversation.
            history: At least one message.
        """
        now, before = digest(history), digest(history[:-1])
        id_, stored = await self._redis.eval(
            _CLAIM, 2, keys.history(owner, now), keys.history(owner, before),
            str(uuid.uuid4()), TTL_S * 1000, len(history) - 1, keys.conversation(owner, "")[0],
        )  # fmt: skip
        return Claim(id_.decode(), int(stored), now)

    async def keep(self, owner: str, history: Sequence[Said], conversation_id: str) -> None:
        """Note where a conversation stands after an answer; a history that is known already stays as it is."""
        key = keys.history(owner, digest(history))
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.hsetnx(key, "c", conversation_id)
            pipe.hsetnx(key, "s", len(history))
            pipe.pexpire(key, TTL_S * 1000)
            await pipe.execute()


def digest(history: Sequence[Said]) -> str:
    """32 hexadecimal digits. Space around a message does not count, for clients trim it."""
    text = json.dumps([(role, content.strip()) for role, content in history])
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
