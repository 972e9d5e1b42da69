"""Every Redis key and stream name of Lumina, in one place.

Keys that one script or transaction touches share a hash tag (``{…}``), so that a Redis Cluster
keeps them in one slot.
"""

GRAPH_STREAM = "graph_stream/v1"
"""Node, edge, summary, answer and every other event that is not about planning."""
TASKS_STREAM = "tasks/v1"
"""The task queue."""
PLANNER_STREAM = "planner_log/v1"
"""Planning events."""
PASSAGES_STREAM = "passages/v1"
"""Passages that wait to be indexed."""

STREAM_MAX_LENGTH = {GRAPH_STREAM: 10_000, TASKS_STREAM: 10_000, PLANNER_STREAM: 1_000, PASSAGES_STREAM: 10_000}
"""Entries kept beyond what some group has not yet acknowledged."""


def page(owner: str, source: str, title: str) -> str:
    """Hash: revision, number of passages and links (JSON, zlib) of a page as last read."""
    return f"lumina:{{{owner}}}:page:{source}:{title}"


def pages(owner: str) -> str:
    """Sorted set: ``source`` US ``title`` of every page that is kept → milliseconds since the epoch of its latest
    reading or check (US is the character 31)."""
    return f"lumina:{{{owner}}}:pages"


def stale(owner: str) -> str:
    """Sorted set: ``source`` US ``title`` US ``revision`` of what was superseded or forgotten → milliseconds since."""
    return f"lumina:{{{owner}}}:stale"


def aliases(owner: str, source: str) -> str:
    """Hash: title that leads to a page → the page's own title."""
    return f"lumina:{{{owner}}}:aliases:{source}"


def survey(owner: str) -> str:
    """How far the store was searched for passages that were there before ``pages`` and ``stale`` were kept."""
    return f"lumina:{{{owner}}}:survey"


def cited(owner: str) -> str:
    """Sorted set, all scores 0: ``passage conversation turn`` for every citation of a kept answer."""
    return f"lumina:{{{owner}}}:cited"


def page_bits(owner: str, source: str, title: str, revision: str, phase: str) -> str:
    """Bitmap: which passages of a revision have been through an indexing phase (``text`` or ``dense``)."""
    return f"lumina:{{{owner}}}:bits:{phase}:{source}:{title}:{revision}"


def coverage(owner: str, source: str) -> str:
    """Hash: topic → extent of the latest crawl from it (JSON)."""
    return f"lumina:{{{owner}}}:coverage:{source}"


def summaries(owner: str, source: str) -> str:
    """Hash: topic → its summary (JSON)."""
    return f"lumina:{{{owner}}}:summaries:{source}"


STREAM_GROUPS = {
    GRAPH_STREAM: ("masterchat",),
    TASKS_STREAM: ("workers", "masterchat"),
    PLANNER_STREAM: ("ui", "masterchat"),
    PASSAGES_STREAM: ("indexer",),
}
"""Who reads each stream; ``masterchat`` takes events into the event store, ``workers`` run the tasks."""
DEFAULT_MAX_LENGTH = 10_000
"""Length of every other stream, dead letters among them."""
WORKERS_GROUP = "workers"
"""The group of ``tasks/v1`` whose members run the tasks."""
KAFKA_GROUP = "kafka"
"""The group that passes events on to Kafka, where that is switched on. Producers do not wait for it."""


def dead_letters(stream: str) -> str:
    """The stream that takes what could not be handled."""
    return f"{stream}:dead"


# The task queue keeps its own keys under the hash tag {tasks/v1}, beside the stream itself: task:<id> (hash),
# seq (counter), idem:<sha256> (task id), all, owner:<owner> and status:<status> (sorted by seq), finished, leases
# and delayed (sorted by time), parked:<kind> (list), line:<kind>:<owner> (list) and lines:<kind> (owners by time),
# outbox:<stream> (stream, only on a cluster).
TASKS_ROOT = "{tasks/v1}:"
"""Prefix of every key of the task queue."""


def relayed(stream: str) -> str:
    """Last outbox entry that was moved to a stream (same slot as the stream)."""
    return f"{{{stream}}}:relayed"


CHECKPOINT_THREADS = "lumina:checkpoint:threads"
"""Sorted set: thread id → when its entry may be dropped (milliseconds since the epoch, Redis's clock)."""


def checkpoint_run(run_id: str) -> str:
    """Set: threads that hold checkpoints of a run."""
    return f"lumina:checkpoint:run:{run_id}"


def checkpoint_thread(thread_id: str) -> tuple[str, str, str, str]:
    """The index (sorted set), checkpoints, blobs and pending writes (hashes) of a LangGraph thread.

    The hash tag begins with a word of its own, for an id that makes an empty tag (``{}``) would spread the four keys.
    """
    stem = f"lumina:checkpoint:{{thread/{thread_id}}}"
    return f"{stem}:index", f"{stem}:checkpoints", f"{stem}:blobs", f"{stem}:writes"


WAY_HISTORY = "lumina:way_history/v1"
"""JSON: way → what its latest runs cost, written by the process that holds the event store."""

GRAPH_OWNERS = "lumina:graph:owners"
"""Set: every owner that has a knowledge graph."""


def graph_nodes(owner: str) -> str:
    """Hash: node id → stream id of its latest event, a space, the node (JSON)."""
    return f"lumina:{{{owner}}}:graph:nodes"


def graph_edges(owner: str) -> str:
    """Hash: edge key (source, type, target) → stream id of its latest event, a space, the edge's data (JSON)."""
    return f"lumina:{{{owner}}}:graph:edges"


def graph_links(owner: str, direction: str, node: str) -> str:
    """Sorted set, all scores 0: type and other end of the edges that leave (``out``) or reach (``in``) a node."""
    return f"lumina:{{{owner}}}:graph:{direction}:{node}"


def graph_rebuild(owner: str, token: str) -> tuple[str, str]:
    """Nodes and edges (hashes as above) that a rebuild has made so far; gone an hour after it was killed."""
    root = f"lumina:{{{owner}}}:graph:rebuild:{token}"
    return f"{root}:nodes", f"{root}:edges"


def conversation(owner: str, conversation_id: str) -> tuple[str, str, str]:
    """The title and dates (hash), turns (list) and idempotency keys (sorted set by turn) of a conversation."""
    root = f"lumina:{{{owner}}}:conversation:{conversation_id}"
    return root, f"{root}:turns", f"{root}:sent"


def history(owner: str, digest: str) -> str:
    """Hash: the conversation that a history belongs to, and whether it went on from there (see memory/histories.py)."""
    return f"lumina:{{{owner}}}:history:{digest}"


def conversations(owner: str) -> str:
    """Sorted set: conversation id → milliseconds since the epoch of its latest turn."""
    return f"lumina:{{{owner}}}:conversations"


def lock(name: str) -> tuple[str, str, str]:
    """The token of who holds a lock (expires), the last token given (counter), and what its holders wrote (hash)."""
    root = f"{{lumina:lock:{name}}}"
    return f"{root}:held", f"{root}:fence", f"{root}:state"


def holder(name: str) -> str:
    """JSON: the process that holds what only one may hold (expires)."""
    return f"lumina:holder:{name}"


MASTERCHAT_HEALTH = "lumina:health:masterchat"
"""JSON: how the process that holds the event store last said that it is (expires)."""


def rate_limit(owner: str, agent: str) -> str:
    """Number: when an owner's token bucket for an agent is full again (microseconds since the epoch); expires then."""
    return f"lumina:{{{owner}}}:rate_limit:{agent}"


def run_log(task_id: str) -> tuple[str, str, str, str]:
    """The head (hash), events (stream), holder's token and followers' sign of life (both expire) of a chat's run."""
    root = f"lumina:{{run/{task_id}}}"
    return f"{root}:head", f"{root}:events", f"{root}:holder", f"{root}:followed"
