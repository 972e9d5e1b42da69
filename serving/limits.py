"""Rate limits over HTTP: a request that lacks a token is refused, and answers of limited routes say how it stands.

A route calls ``admit`` before it runs anything and before its answer begins. The headers are those of the IETF's draft
«RateLimit header fields for HTTP» (draft-ietf-httpapi-ratelimit-headers-10), the refusal is RFC 6585's 429 with
``Retry-After`` (RFC 9110, 10.2.3).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from starlette.requests import HTTPConnection

from agents.spec import RunRequest
from graphs.limits import Admission, Demand, RateLimited
from graphs.runs import Runner
from memory.buckets import MINUTE_US, Bucket
from serving import headers


async def admit(connection: HTTPConnection, wanted: RunRequest) -> Mapping[str, int]:
    """Take the tokens of the agents that a run will use; hand what comes back to ``Runner.stream`` as ``paid``.

    Args:
        connection: The request that is answered; its answer gets the headers.
        wanted: What is to be run, with its owner.

    Raises:
        InvalidRequest: no run can be made of it.
        RateLimited: a token is not there, and none was taken.
    """
    runner: Runner = connection.state.runner
    return _told(connection, await runner.admit(wanted)).paid


async def admit_agent(connection: HTTPConnection, owner: str, agent: str) -> Mapping[str, int]:
    """The same for one agent that is called by itself.

    Raises:
        RateLimited: its token is not there.
    """
    runner: Runner = connection.state.runner
    if runner.limits is None:
        return {}
    return _told(connection, await runner.limits.admit(owner, Demand({agent: 1}))).paid


def _told(connection: HTTPConnection, admission: Admission) -> Admission:
    headers.add(connection.scope, limit_headers(admission.buckets))
    return admission


def limit_headers(buckets: Mapping[str, Bucket]) -> dict[str, str]:
    """``RateLimit-Policy`` and ``RateLimit``: quota, window, what remains, and seconds until all of it is back."""
    if not buckets:
        return {}
    window_s = MINUTE_US // 1_000_000
    policies = [f"{_quoted(name)};q={bucket.limit};w={window_s}" for name, bucket in buckets.items()]
    states = [
        f"{_quoted(name)};r={bucket.remaining};t={math.ceil(bucket.full_after_us / 1e6)}"
        for name, bucket in buckets.items()
    ]
    return {"RateLimit-Policy": ", ".join(policies), "RateLimit": ", ".join(states)}


def refusal_headers(error: RateLimited) -> dict[str, str]:
    """The headers of a 429. ``Retry-After`` has whole seconds, so it is rounded up."""
    return {"Retry-After": str(math.ceil(error.retry_after_s)), **limit_headers(error.buckets)}


def refusal_members(error: RateLimited) -> dict[str, Any]:
    """What a 429 says beside its text: which agent, and how long in seconds."""
    return {"agent": error.agent, "retry_after_s": error.retry_after_s, "rate_limits": states(error.buckets)}


def states(buckets: Mapping[str, Bucket]) -> dict[str, dict[str, float]]:
    """How buckets stand, as JSON; times in seconds."""
    return {
        name: {
            "limit": bucket.limit,
            "remaining": bucket.remaining,
            "retry_after_s": bucket.retry_after_us / 1e6,
            "full_after_s": bucket.full_after_us / 1e6,
        }
        for name, bucket in buckets.items()
    }


def _quoted(name: str) -> str:
    """A string of RFC 9651."""
    printable = "".join(character for character in name if " " <= character <= "~")
    return '"' + printable.replace("\\", "\\\\").replace('"', '\\"') + '"'
