"""Scripts that several coroutines call at a time are sent together: one round trip, and one way through the client."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import NoScriptError, RedisError

LARGEST = 64
"""Calls in one round trip, so that none waits long for the others."""
ON_THE_WAY = 2
"""Round trips at a time: the server works on one while the next is packed here."""


@dataclass(slots=True)
class _Call:
    sha: str
    words: Sequence[Any]
    """How many keys, the keys, the values."""
    reply: asyncio.Future[Any]


class ScriptBatches:
    """Lua scripts of one client by name. What is called while round trips are on their way goes with the next one."""

    def __init__(self, redis: Redis, scripts: Mapping[str, str]) -> None:
        """Take a client of one server, not of a cluster, and the scripts' texts."""
        self._redis = redis
        self._texts = list(scripts.values())
        self._shas = {
            name: hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest() for name, text in scripts.items()
        }
        self._waiting: list[_Call] = []
        self._senders: set[asyncio.Task[None]] = set()

    async def call(self, name: str, keys: Sequence[str], values: Sequence[str | int]) -> Any:
        """Run a script and pass on what it tells. Who leaves does not call it back.

        Raises:
            RedisError: the server refused it, or does not answer.
        """
        reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Call(self._shas[name], [len(keys), *keys, *values], reply))
        if len(self._senders) < ON_THE_WAY:
            sender = asyncio.create_task(self._send())
            self._senders.add(sender)
            sender.add_done_callback(self._senders.discard)
        return await reply

    async def _send(self) -> None:
        while self._waiting:
            calls, self._waiting = self._waiting[:LARGEST], self._waiting[LARGEST:]
            try:
                replies = await self._replies(calls)
                unknown = [number for number, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
                if unknown:
                    for text in self._texts:
                        await self._redis.script_load(text)
                    again = await self._replies([calls[number] for number in unknown])
                    for number, reply in zip(unknown, again, strict=True):
                        replies[number] = reply
            except (RedisError, OSError) as error:
                replies = [error] * len(calls)
            except asyncio.CancelledError:
                for call in calls:
                    call.reply.cancel()
                raise
            for call, reply in zip(calls, replies, strict=True):
                if call.reply.done():
                    continue  # who called it has left
                if isinstance(reply, Exception):
                    call.reply.set_exception(reply)
                else:
                    call.reply.set_result(reply)

    async def _replies(self, calls: Sequence[_Call]) -> list[Any]:
        async with self._redis.pipeline(transaction=False) as pipe:
            for call in calls:
                pipe.execute_command("EVALSHA", call.sha, *call.words)
            found: list[Any] = await pipe.execute(raise_on_error=False)
            return found
