"""What a server without keys needs against web pages: it trusts whoever reaches it, and a browser reaches loopback.

A page of another site can send requests to ``http://127.0.0.1:8000`` (cross-site request forgery), and one whose name
is made to resolve to 127.0.0.1 can even read the answers (DNS rebinding). ``Origins`` stops the first, ``Hosts`` the
second.
"""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.problems import problem

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
"""Methods that change nothing (RFC 9110, 9.2.1)."""


class Hosts:
    """Refuses requests that were sent to another name than this server's.

    Addresses of the loopback network and ``localhost`` are always its own: nobody else can make them resolve elsewhere.
    """

    def __init__(self, app: ASGIApp, *, names: Collection[str] = ()) -> None:
        self._app = app
        self._names = {name.lower() for name in names} | {"localhost"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] in ("http", "websocket"):
            host = Headers(scope=scope).get("host", "")
            if not self._own(host):
                accepted = ", ".join(sorted(self._names | {"127.0.0.1", "[::1]"}))
                detail = f"this server is not «{host[:100]}»; use one of {accepted}, or set LUMINA_API_KEYS"
                await _refuse(scope, receive, send, 421, "Misdirected request", detail)
                return
        await self._app(scope, receive, send)

    def _own(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        return name in self._names or _is_loopback(name)


class Origins:
    """Refuses requests that change something, and WebSockets, when a page of another origin sends them.

    Browsers send ``Origin`` with all of these; other clients do not.
    """

    def __init__(self, app: ASGIApp, *, allowed: Collection[str] = ()) -> None:
        self._app = app
        self._allowed = frozenset(allowed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        checked = scope["type"] == "websocket" or (scope["type"] == "http" and scope["method"] not in SAFE_METHODS)
        if checked:
            headers = Headers(scope=scope)
            origin = headers.get("origin")
            if origin is not None and not self._may(origin, headers.get("host", "")):
                detail = (
                    f"a page of {origin[:100]} may not do this; list it in CORS_ORIGINS, "
                    "or set LUMINA_API_KEYS and send a key"
                )
                await _refuse(scope, receive, send, 403, "Cross-site request", detail)
                return
        await self._app(scope, receive, send)

    def _may(self, origin: str, host: str) -> bool:
        if "*" in self._allowed or origin in self._allowed:
            return True
        # The scheme is left out: a proxy in front may speak TLS.
        return origin.partition("://")[2].lower() == host.lower() != ""


def _is_loopback(name: str) -> bool:
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


async def _refuse(scope: Scope, receive: Receive, send: Send, status: int, title: str, detail: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": title})
        return
    await problem(status, title, detail)(scope, receive, send)
