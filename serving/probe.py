"""Looks at a running role from outside, for health checks: quick to start, so it imports httpx and nothing else."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

import httpx

from errors import LuminaError

TIMEOUT_S = 5.0
"""Longer than a role takes to say that one of its services does not answer."""


class NoHealth(LuminaError):
    """The address does not answer, or not as a role of Lumina."""


def probe(url: str, *, alive: bool = False, as_json: bool = False, timeout_s: float = TIMEOUT_S) -> bool:
    """Ask a role how it is, print it, and return whether all is well.

    Args:
        url: Its address; ``/health`` is asked where it has no path.
        alive: An answer is enough, whatever it says of the services behind.
        as_json: Print the body.
        timeout_s: How long it may take.

    Raises:
        NoHealth: no answer, or none that a role gives.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise NoHealth(f"--url {url[:200]!r}: accepted is an address such as http://127.0.0.1:8000")
    asked = url if parts.path.strip("/") else f"{parts.scheme}://{parts.netloc}/health"
    try:
        response = httpx.get(asked, timeout=timeout_s, trust_env=False)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise NoHealth(f"{asked} does not answer: {str(error) or type(error).__name__}") from error
    try:
        body: Any = response.json()
    except ValueError:
        body = None
    if not isinstance(body, dict) or not _known(body):
        raise NoHealth(f"{asked} answers {response.status_code}, but not as a role of Lumina does")
    troubles = [f"{name}: {state}" for name, state in body.items() if name in SERVICES and state not in ("ok", True)]
    if as_json:
        print(json.dumps(body, ensure_ascii=False, indent=2))
    else:
        print("; ".join(troubles) or "ok")
    return alive or not troubles


SERVICES = ("redis", "qdrant", "duckdb", "ollama", "llm", "scheduler", "kafka", "planner_alive", "status")
"""Keys of the health bodies that tell how something is."""


def _known(body: dict[str, Any]) -> bool:
    return any(name in body for name in ("redis", "streams", "planner_alive")) or body.get("status") in (
        "ok",
        "degraded",
    )
