"""The parts that one Lumina can be served in, as data: what each answers, what it opens, and on which port.

What only one process may hold is with exactly one of them. ``masterchat`` holds the event store. The vectors belong to
a Qdrant server where there is one: then ``indexer`` takes passages in, and the hub and workers search. Without one the
hub holds the folder, takes passages in, and runs tasks, for nobody else could run those that retrieve.
"""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import APIRouter

from serving import (
    chat,
    event_export,
    events,
    graph,
    health,
    lattice,
    masterchat,
    metrics,
    mux,
    openai,
    planner,
    sources,
    tasks,
)


@dataclass(frozen=True, kw_only=True)
class Role:
    """A part. What is False is neither opened nor done in its process."""

    name: str
    port: int
    """Where nobody says otherwise."""
    routers: tuple[APIRouter, ...]
    events: bool = False
    """Holds the event store: takes events in, looks at the standing goals, passes events on to Kafka."""
    retrieves: bool = False
    """Opens the vectors; without a Qdrant server it holds their folder."""
    indexes: bool = False
    """Takes passages in; who holds the vectors' folder does so anyway."""
    reads: bool = False
    """Opens the encyclopaedia."""
    chats: bool = False
    """Runs turns of conversations, OpenAI's API and the console."""
    tells: bool = False
    """Follows the streams and tells them on."""

    def takes_passages(self, qdrant_server: bool) -> bool:
        """Whether its process takes passages in."""
        return self.retrieves and (self.indexes or not qdrant_server)

    def takes_tasks(self, qdrant_server: bool) -> bool:
        """Whether its process runs tasks, as workers do."""
        return self.chats and self.takes_passages(qdrant_server)

    def describe(self, qdrant_server: bool) -> str:
        """What its process does that no other may or can; empty when there is nothing."""
        done = {
            "holds the event store": self.events,
            "holds the vectors (QDRANT_URL is not set)": self.retrieves and not qdrant_server,
            "indexes": self.takes_passages(qdrant_server),
            "runs tasks": self.takes_tasks(qdrant_server),
        }
        return ", ".join(what for what, does in done.items() if does)


_TALK = (
    *(masterchat.router, chat.router, *openai.ROUTERS, planner.router, lattice.router),
    *(tasks.router, graph.router, sources.router, mux.router),
)
_STORE = (events.router, event_export.router, graph.store)

ALL = Role(
    name="all",
    port=8000,
    routers=(health.router, health.masterchat, metrics.router, *_TALK, *_STORE),
    events=True,
    retrieves=True,
    indexes=True,
    reads=True,
    chats=True,
    tells=True,
)
"""Everything in one process."""

ROLES = {
    role.name: role
    for role in (
        ALL,
        Role(
            name="hub",
            port=8000,
            routers=(health.router, health.masterchat, metrics.router, *_TALK),
            retrieves=True,
            reads=True,
            chats=True,
            tells=True,
        ),
        Role(name="graph-api", port=8001, routers=(health.alone, metrics.router, graph.router)),
        Role(name="event-mux", port=8100, routers=(mux.alone, metrics.router, mux.router), tells=True),
        Role(
            name="masterchat",
            port=8300,
            routers=(health.masterchat_alone, health.masterchat, metrics.router, planner.router, *_STORE),
            events=True,
            reads=True,
            tells=True,
        ),
        Role(
            name="indexer",
            port=8400,
            routers=(health.indexer, metrics.router),
            retrieves=True,
            indexes=True,
        ),
    )
}
"""Every role by its name."""
