"""How an agent tells whoever watches what it is doing."""

from __future__ import annotations

from typing import Any

from langgraph.config import get_stream_writer


def report(kind: str, **data: Any) -> None:
    """Send ``{"kind": kind, **data}`` to the custom stream of the running graph; alone, an agent is silent.

    Kinds: ``progress`` (what an agent does, with counts), ``token`` (a piece of the answer), ``citation``.
    """
    try:
        writer = get_stream_writer()
    except (RuntimeError, KeyError):  # outside any Runnable, and in one that runs without a graph
        return
    writer({"kind": kind, **data})
