"""What a person wants to know beside an event: the titles at the ends of an edge, and on which host it was made."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from memory import keys
from memory.followed import Followed

if TYPE_CHECKING:
    from redis.asyncio import Redis

_WORKER = re.compile(r"worker-(?P<host>.+)-\d+-\d+")
"""A worker's name says where it runs: ``worker-<host>-<process>-<number>``."""


async def enrich(redis: Redis, entries: Sequence[Followed]) -> None:
    """Fill ``extra`` of the entries: ``source_title`` and ``target_title`` of edges, ``host`` and ``worker`` of tasks.

    One round trip, however many entries. What is not known is left out. The host is that of the worker which began the
    task last; a run that no worker made has none.
    """
    nodes: dict[tuple[str, str], str] = {}
    workers: dict[str, str] = {}
    fresh = [entry for entry in entries if not entry.extra]
    for entry in fresh:
        if entry.event.task_id:
            workers[entry.event.task_id] = ""
        nodes |= dict.fromkeys(_ends(entry), "")
    if not nodes and not workers:
        return
    async with redis.pipeline(transaction=False) as pipe:
        for owner, node in nodes:
            pipe.hget(keys.graph_nodes(owner), node)
        for task_id in workers:
            pipe.hget(f"{keys.TASKS_ROOT}task:{task_id}", "worker")
        replies: list[bytes | None] = await pipe.execute()
    titles = {end: _title(reply) for end, reply in zip(nodes, replies, strict=False)}
    names = {task: (reply or b"").decode() for task, reply in zip(workers, replies[len(nodes) :], strict=True)}
    for entry in fresh:
        known = {f"{side}_title": titles[end] for side, end in zip(("source", "target"), _ends(entry), strict=False)}
        worker = names.get(entry.event.task_id, "")
        match = _WORKER.fullmatch(worker)
        found = {**known, "worker": worker, "host": match["host"] if match else ""}
        entry.extra = {name: value for name, value in found.items() if value}


def _ends(entry: Followed) -> list[tuple[str, str]]:
    data = entry.event.data
    if entry.event.type != "edge.add" or not isinstance(entry.owner, str):
        return []
    return [(entry.owner, str(data.get(side, ""))) for side in ("source", "target")]


def _title(reply: bytes | None) -> str:
    """The title out of a node's state: a stream id, a space, JSON (see ``memory.graph``)."""
    try:
        node: Any = json.loads((reply or b"").partition(b" ")[2])
    except ValueError:
        return ""
    return str(node.get("title", "")) if isinstance(node, dict) else ""
