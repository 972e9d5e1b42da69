"""What the smoke test walks through, however it was started."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parents[2]
PORTS = {"hub": 8000, "graph-api": 8001, "event-mux": 8100, "masterchat": 8300}
"""The usual ports of the roles that are published."""
WATCHING = {"prometheus": 9090, "alertmanager": 9093}
"""Those of what watches them."""


@dataclass(frozen=True)
class Deployment:
    """What was started: where the roles are, a key for them, and what looks whether they still are."""

    ports: dict[str, int]
    key: str
    look: Callable[[], None]
    """Raises SmokeFailed when something has ended."""

    def url(self, role: str, path: str = "", scheme: str = "http") -> str:
        """An address of a role."""
        return f"{scheme}://127.0.0.1:{self.ports[role]}{path}"

    @property
    def headers(self) -> dict[str, str]:
        """What a request needs."""
        return {"X-API-Key": self.key} if self.key else {}

    async def until(self, what: Callable[[], Awaitable[Any]], found: Callable[[Any], bool]) -> Any:
        """Ask again and again, until it is found; the step's own time limit ends it."""
        last: Any = None
        try:
            while True:
                self.look()
                with contextlib.suppress(httpx.TransportError):
                    last = await what()
                    if found(last):
                        return last
                await asyncio.sleep(0.2)
        except asyncio.CancelledError:
            if last is not None:
                print(f"the last answer was {last}", file=sys.stderr)
            raise


def is_free(port: int) -> bool:
    """Whether nobody listens on it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """Any port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
