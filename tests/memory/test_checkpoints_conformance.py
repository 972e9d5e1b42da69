"""LangGraph's own conformance suite, against a real server."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.conformance.capabilities import ALL_CAPABILITIES
from redis.asyncio import Redis

from memory.checkpoints import RedisSaver

TESTS = {
    "put": 17,
    "put_writes": 10,
    "get_tuple": 10,
    "list": 16,
    "delete_thread": 5,
    "delete_for_runs": 7,
    "copy_thread": 8,
    "prune": 8,
}
"""Tests of each capability in langgraph-checkpoint-conformance 0.0.2: none may be skipped unseen."""


@pytest.mark.parametrize("ttl_s", [None, 3600])
async def test_all_eight_capabilities_conform(redis: Redis, ttl_s: int | None) -> None:
    @checkpointer_test(name="RedisSaver")
    async def saver() -> AsyncGenerator[BaseCheckpointSaver[str], None]:
        yield RedisSaver(redis, ttl_s=ttl_s)

    report = await validate(saver)

    report.print_report()
    assert {capability.value for capability in ALL_CAPABILITIES} == set(TESTS)
    assert {name: result.failures for name, result in report.results.items() if result.failures} == {}
    assert {name: result.tests_passed for name, result in report.results.items()} == TESTS
    assert all(result.passed and not result.tests_skipped for result in report.results.values())
