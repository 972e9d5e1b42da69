"""Pruning as a request: what it accepts, what it tells the streams, and what comes out."""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import asdict
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from agents.context import Context
from errors import LuminaError
from memory import keys
from memory.pruning import Limits, Pruned, Pruner
from memory.streams import Event

LISTED = 500
"""Pages that a result names; beyond that it counts them."""
_UNITS_S = {"m": 60, "h": 3600, "d": 24 * 3600, "w": 7 * 24 * 3600}


def _age(text: str) -> str:
    if not re.fullmatch(r"[1-9][0-9]{0,4}[mhdw]", text):
        raise ValueError(f"{text[:20]!r} is no age; accepted are minutes, hours, days and weeks: 90m, 12h, 30d, 8w")
    return text


class PruneRequest(BaseModel):
    """What is to go. Without any field: what newer revisions have superseded."""

    model_config = ConfigDict(extra="forbid", strict=True)

    superseded: bool = Field(True, description="Passages of a revision when a newer one was read.")
    older_than: Annotated[str, AfterValidator(_age)] | None = Field(
        None, description="Pages that were last read or checked longer ago: 90m, 12h, 30d or 8w."
    )
    max_passages: int | None = Field(
        None, ge=1, le=2**53, description="More passages than these, page by page, those read longest ago first."
    )
    dry_run: bool = Field(False, description="Say what would go, and remove nothing.")

    def limits(self) -> Limits:
        """The same for the pruner."""
        age = self.older_than
        return Limits(
            superseded=self.superseded,
            older_than_ms=None if age is None else int(age[:-1]) * _UNITS_S[age[-1]] * 1000,
            max_passages=self.max_passages,
        )


async def prune(
    context: Context,
    request: PruneRequest,
    *,
    owner: str,
    task_id: str = "",
    progress: Callable[[dict[str, Any]], Awaitable[None]] | None = None,
) -> dict[str, Any]:
    """Prune an owner's passages; what went is told on ``graph_stream/v1`` as it goes.

    Args:
        context: Open services.
        request: What is to go.
        owner: Whose passages.
        task_id: The task that does it.
        progress: Is told how far it is after each batch.

    Returns:
        ``passages`` and ``pages`` that went, the same for each reason, ``cited`` passages that stay for that, and the
        first ``LISTED`` pages.

    Raises:
        LuminaError: this process has no vectors.
    """
    if context.vectors is None:
        raise LuminaError("this process has no vectors: prune inside `lumina serve`, or set QDRANT_URL")
    started = time.monotonic()
    seen = await context.streams.last_id(keys.GRAPH_STREAM)
    pruner = Pruner(context.redis, context.vectors)
    total: dict[str, Any] = {"passages": 0, "pages": 0, "cited": 0}
    reasons: dict[str, dict[str, int]] = {}
    listed: list[dict[str, Any]] = []
    async with aclosing(pruner.prune(owner, request.limits(), dry_run=request.dry_run)) as batches:
        async for batch in batches:
            for one in batch:
                for counts in (total, reasons.setdefault(one.reason, {"passages": 0, "pages": 0})):
                    counts["passages"] += one.passages
                    counts["pages"] += 1
                total["cited"] += one.cited
            listed += [asdict(one) for one in batch[: LISTED - len(listed)]]
            if not request.dry_run:
                await context.streams.publish([_event(one, owner, task_id) for one in batch])
            if progress:
                await progress({"agent": "prune", "text": f"{total['passages']} passages of {total['pages']} pages"})
    done = {"owner": owner, "dry_run": request.dry_run, **total, "reasons": reasons}
    seconds = round(time.monotonic() - started, 3)
    if not request.dry_run:
        more = {"superseded": request.superseded, "unsettled": await pruner.unsettled(owner), "seen": seen}
        data = {key: value for key, value in done.items() if key != "dry_run"}
        await context.streams.publish([Event("prune.done", {**data, **more, "seconds": seconds}, task_id=task_id)])
    return {**done, "listed": listed, "seconds": seconds}


def _event(one: Pruned, owner: str, task_id: str) -> Event:
    return Event("page.prune", {"owner": owner, **asdict(one)}, task_id=task_id)
