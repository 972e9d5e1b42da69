"""What a run told whoever asked, kept for a while, so that a dropped connection loses and repeats nothing.

A run has one holder, the process that runs it; every append carries the holder's token, and Redis compares it in the
step in which it writes. When the holder dies, another process takes the run over and its events go on in the same log.
Followers read the log from any process and leave a sign of life that expires; the holder sees whether it is there.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from errors import LuminaError
from memory import keys

if TYPE_CHECKING:
    from redis.asyncio import Redis

MAX_EVENTS = 10_000
"""Latest events kept of a run."""
KEEP_S = 600.0
"""How long a log is kept after its last event."""
LEASE_S = 6.0
"""A holder that has not renewed for so long is dead, and the run may be taken over."""
GRACE_S = 5.0
"""How long a run goes on after the last sign of life of a follower."""
READ_EVENTS = 500
"""Events of one read."""
TERMINAL = ("done", "error")
"""Kinds after which nothing follows."""

# KEYS: head, holder, followed. ARGV: lifetime in ms, token, lease in ms, grace in ms, then fields and values of the
# head. Answers with the head that is there already, or with nothing when this one is new.
_BEGIN = """
if redis.call('EXISTS', KEYS[1]) == 1 then
  if redis.call('GET', KEYS[2]) == ARGV[2] then return {} end -- sent again, for the first reply was lost
  return redis.call('HGETALL', KEYS[1])
end
redis.call('HSET', KEYS[1], 'position', 0, unpack(ARGV, 5))
redis.call('PEXPIRE', KEYS[1], ARGV[1])
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
redis.call('SET', KEYS[3], 1, 'PX', ARGV[4])
return {}
"""

# KEYS: head, events, holder. ARGV: token, events kept, lifetime in ms, position after which they come, then kind and
# data of each event. Answers with the last position, or -1 when another holds the run. What is sent again because the
# first reply was lost is not written twice.
_APPEND = """
if redis.call('GET', KEYS[3]) ~= ARGV[1] then return -1 end
local position = tonumber(redis.call('HGET', KEYS[1], 'position'))
if position == tonumber(ARGV[4]) + (#ARGV - 4) / 2 then return position end
if position ~= tonumber(ARGV[4]) then return -1 end
for i = 5, #ARGV, 2 do
  position = position + 1
  redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[2], position .. '-0', 'kind', ARGV[i], 'data', ARGV[i + 1])
  if ARGV[i] == 'done' or ARGV[i] == 'error' then redis.call('HSET', KEYS[1], 'ended', 1) end
end
redis.call('HSET', KEYS[1], 'position', position)
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
return position
"""

# KEYS: head, events, holder, followed. ARGV: token, lease in ms, lifetime in ms. Answers with whether the run is still
# held under this token, whether somebody follows, and whether it was cancelled.
_RENEW = """
if redis.call('GET', KEYS[3]) ~= ARGV[1] then return {0, 0, 0} end
redis.call('PEXPIRE', KEYS[3], ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
return {1, redis.call('EXISTS', KEYS[4]), redis.call('HEXISTS', KEYS[1], 'cancelled')}
"""

# KEYS: head, holder, followed. ARGV: token, lease in ms, grace in ms. Answers with 1 when the run is now held under
# this token.
_TAKE_OVER = """
if redis.call('EXISTS', KEYS[1]) == 0 or redis.call('HEXISTS', KEYS[1], 'ended') == 1 then return 0 end
if redis.call('GET', KEYS[2]) == ARGV[1] then return 1 end
if not redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2]) then return 0 end
redis.call('SET', KEYS[3], 1, 'PX', ARGV[3])
return 1
"""

# KEYS: holder. ARGV: token.
_RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end"

# KEYS: head. A cancelled run stays cancelled: only a head that is there is marked.
_CANCEL = "if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('HSET', KEYS[1], 'cancelled', 1) end"


class UnknownRun(LuminaError):
    """No run of this owner has that id, or its events are no longer kept."""


class EventsGone(LuminaError):
    """The events after this position are no longer kept."""


class HolderLost(LuminaError):
    """Another process holds the run, or it has ended; nothing was written."""


@dataclass(frozen=True, slots=True)
class RunHead:
    """What is known of a run from its beginning."""

    task_id: str
    owner: str
    request: Mapping[str, Any]
    """What the run was started with, as JSON."""
    fingerprint: str
    """Of what the client sent, so that a resumed request can be told from another one."""
    background: bool
    """Whether it goes on when nobody follows."""
    position: int = 0
    """Of the last event."""
    ended: bool = False
    cancelled: bool = False


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """One event of a run."""

    position: int
    """From 1, without gaps."""
    kind: str
    data: str
    """A JSON object, as text: most followers only hand it on."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How a run stands, for its holder."""

    held: bool
    followed: bool
    cancelled: bool


@dataclass(frozen=True, slots=True)
class Hold:
    """The right to append to a run's log."""

    task_id: str
    token: str = field(default_factory=lambda: secrets.token_hex(8))


class RunLogs:
    """The logs of all runs."""

    def __init__(
        self,
        redis: Redis,
        *,
        keep_s: float = KEEP_S,
        lease_s: float = LEASE_S,
        grace_s: float = GRACE_S,
        max_events: int = MAX_EVENTS,
    ) -> None:
        """Logs on a Redis client whose replies are bytes.

        Args:
            redis: The client.
            keep_s: How long a log is kept after its last event.
            lease_s: After so long without a renewal a holder counts as dead.
            grace_s: How long a follower's sign of life counts.
            max_events: Latest events kept of a run.
        """
        self.grace_s, self.lease_s = grace_s, lease_s
        self._redis = redis
        self._keep_ms, self._lease_ms, self._grace_ms = (round(s * 1000) for s in (keep_s, lease_s, grace_s))
        self._max_events = max_events
        self._scripts = {
            name: redis.register_script(text)
            for name, text in {
                "begin": _BEGIN,
                "append": _APPEND,
                "renew": _RENEW,
                "take_over": _TAKE_OVER,
                "release": _RELEASE,
                "cancel": _CANCEL,
            }.items()
        }

    async def begin(self, head: RunHead) -> tuple[RunHead, Hold | None]:
        """A new log and the hold on it; or the head of the log that this id has already, and no hold."""
        hold = Hold(head.task_id)
        head_key, _, holder, followed = keys.run_log(head.task_id)
        fields: list[str | int] = [
            *("owner", head.owner),
            *("request", json.dumps(head.request, ensure_ascii=False)),
            *("fingerprint", head.fingerprint),
            *("background", int(head.background)),
        ]
        args: list[str | int] = [self._keep_ms, hold.token, self._lease_ms, self._grace_ms, *fields]
        reply = await self._scripts["begin"]([head_key, holder, followed], args)
        if not reply:
            return head, hold
        return _head_from(head.task_id, dict(zip(reply[::2], reply[1::2], strict=True))), None

    async def head(self, task_id: str, owner: str) -> RunHead:
        """The head of an owner's run.

        Raises:
            UnknownRun: there is none; another's looks the same.
        """
        fields: Any = await self._redis.hgetall(keys.run_log(task_id)[0])
        head = _head_from(task_id, fields) if fields else None
        if head is None or head.owner != owner:
            kept = f"{self._keep_ms / 60_000:g} minutes"
            raise UnknownRun(f"no run {task_id[:80]!r} of yours: its events are kept for {kept} after the last one")
        return head

    async def append(self, hold: Hold, after: int, events: Sequence[tuple[str, str]]) -> int:
        """Append (kind, JSON text) pairs in one round trip, and return the position of the last.

        Args:
            hold: The right to do so.
            after: Position of the last event so far; the same again after a broken connection writes nothing twice.
            events: In order; all or none are written.

        Raises:
            HolderLost: the hold has gone to another, or the run has ended.
        """
        head, stream, holder, _ = keys.run_log(hold.task_id)
        words = [word for event in events for word in event]
        args: list[str | int] = [hold.token, self._max_events, self._keep_ms, after, *words]
        position = int(await self._scripts["append"]([head, stream, holder], args))
        if position < 0:
            raise HolderLost(f"run {hold.task_id} is no longer held here; {len(events)} events were refused")
        return position

    async def renew(self, hold: Hold) -> Standing:
        """Keep the hold, and see how the run stands."""
        held, followed, cancelled = await self._scripts["renew"](
            [*keys.run_log(hold.task_id)], [hold.token, self._lease_ms, self._keep_ms]
        )
        return Standing(bool(held), bool(followed), bool(cancelled))

    async def take_over(self, task_id: str) -> Hold | None:
        """The hold on a run that nobody holds and that has not ended."""
        hold = Hold(task_id)
        head, _, holder, followed = keys.run_log(task_id)
        args: list[str | int] = [hold.token, self._lease_ms, self._grace_ms]
        return hold if await self._scripts["take_over"]([head, holder, followed], args) else None

    async def release(self, hold: Hold) -> None:
        """Let another take the run over at once."""
        await self._scripts["release"]([keys.run_log(hold.task_id)[2]], [hold.token])

    async def cancel(self, task_id: str) -> None:
        """Ask the holder to end the run for good."""
        await self._scripts["cancel"]([keys.run_log(task_id)[0]])

    async def is_held(self, task_id: str) -> bool:
        """Whether a process runs it now; also a sign of life of the follower who asks."""
        _, _, holder, followed = keys.run_log(task_id)
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.set(followed, 1, px=self._grace_ms)
            pipe.exists(holder)
            _, held = await pipe.execute()
        return bool(held)

    async def read(
        self, task_id: str, after: int, count: int = READ_EVENTS, *, gaps: bool = False
    ) -> list[LoggedEvent]:
        """The events after a position, as far as they are there.

        Args:
            task_id: The run.
            after: Position of the last event known; 0 for none.
            count: Events at most.
            gaps: Pass over those that are no longer kept.

        Raises:
            EventsGone: the log does not reach back that far.
        """
        reply: Any = await self._redis.xrange(keys.run_log(task_id)[1], min=f"({after}-0", max="+", count=count)
        events = [
            LoggedEvent(int(id_.partition(b"-")[0]), fields[b"kind"].decode(), fields[b"data"].decode())
            for id_, fields in reply
        ]
        if events and events[0].position != after + 1 and not gaps:
            raise EventsGone(
                f"run {task_id}: of its events only those from {events[0].position} on are kept, and {after + 1} is "
                "wanted; begin there, or read the conversation"
            )
        return events


def _head_from(task_id: str, fields: Mapping[bytes, bytes]) -> RunHead:
    return RunHead(
        task_id=task_id,
        owner=fields[b"owner"].decode(),
        request=json.loads(fields[b"request"]),
        fingerprint=fields[b"fingerprint"].decode(),
        background=fields[b"background"] == b"1",
        position=int(fields[b"position"]),
        ended=b"ended" in fields,
        cancelled=b"cancelled" in fields,
    )
