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
