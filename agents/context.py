"""The open services of one process, handed down to whatever runs in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from langgraph.checkpoint.base import BaseCheckpointSaver
    from redis.asyncio import Redis

    from memory.conversations import Conversations
    from memory.events import EventStore
    from memory.graph import GraphStore
    from memory.library import Library
    from memory.streams import Streams
    from memory.vectors import VectorStore
    from models.budget import Budget
    from models.chat import Chat
    from models.embeddings import Embedder
    from tools.recall import Recall
    from tools.wikipedia.source import WikiSource


@dataclass(frozen=True, kw_only=True)
class Context:
    """Opened once by the entry point, frozen, passed to the graph as LangGraph's context."""

    redis: Redis
    streams: Streams
    checkpoints: BaseCheckpointSaver[str]
    library: Library
    """What has been read, and how far it is indexed."""
    graph: GraphStore
    conversations: Conversations
    source: WikiSource
    chat: Chat
    embedder: Embedder
    budget: Budget
    vectors: VectorStore | None
    recall: Recall | None
    """Both None in a process that neither owns the vectors' folder nor has a Qdrant server."""
    events: EventStore | None
    """None in a process that does not own the DuckDB file."""
