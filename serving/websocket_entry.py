"""Who may open a WebSocket: the page it was opened from, and the key, which never stands in the address."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import Collection, Mapping
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from fastapi import WebSocket
from starlette.exceptions import HTTPException
from starlette.websockets import WebSocketDisconnect

from serving.auth import find_owner, given_key

PROTOCOL = "lumina.v1"
"""The subprotocol. A browser, which cannot set headers, offers ``lumina.key.<base64url of the key>`` beside it."""
KEY_PREFIX = "lumina.key."
FIRST_MESSAGE_S = 10.0
"""How long a client without a key may take to send ``{"key": "…"}`` as its first message."""
NO_KEY = 4401
"""Close code: 401, in the range that RFC 6455, 7.4.2 leaves to applications."""


def check_origin(websocket: WebSocket, allowed: Collection[str], *, keys: bool) -> None:
    """Refuse pages of other sites: browsers open WebSockets to anywhere, loopback too, and ask nobody.

    A client that is no browser sends no Origin. The page's host must be the one that was called; where no keys are
    needed it must be this machine besides, for a name of the attacker's may point here (DNS rebinding).

    Raises:
        HTTPException: 403, when the page is none of these.
    """
    origin = websocket.headers.get("origin")
    if origin is None or origin in allowed or "*" in allowed:
        return
    try:
        page = urlsplit(origin)
        same = page.scheme in ("http", "https") and page.netloc.lower() == websocket.headers.get("host", "").lower()
        here = keys or _is_loopback(page.hostname or "")
    except ValueError:
        same = here = False
    if not (same and here):
        raise HTTPException(
            403, f"pages of {origin[:200]!r} may not connect; accepted: this server's, and CORS_ORIGINS"
        )


def owner_of(websocket: WebSocket, keys: Mapping[str, str], default_owner: str) -> str | None:
    """The owner of the key in the headers or in the subprotocol; None when no key was sent and one is needed.

    Raises:
        HTTPException: 401, when the key is not known.
    """
    if not keys:
        return default_owner
    given = given_key(websocket.headers) or _key_in(websocket.scope.get("subprotocols", ()))
    if not given:
        return None
    owner = find_owner(keys, given)
    if owner is None:
        raise HTTPException(401, "this key is not known")
    return owner


async def owner_by_message(websocket: WebSocket, keys: Mapping[str, str]) -> str | None:
    """The owner of the key in the first message of an open connection; one without is closed and gives None."""
    given: Any = None
    try:
        async with asyncio.timeout(FIRST_MESSAGE_S):
            message = json.loads(await websocket.receive_text())
        given = message.get("key") if isinstance(message, dict) else None
    except TimeoutError:
        pass
    except WebSocketDisconnect:
        return None
    except (ValueError, KeyError, RecursionError):  # no JSON; starlette's KeyError stands for a binary message
        pass
    owner = find_owner(keys, given) if isinstance(given, str) and given else None
    if owner is None:
        what = "this key is not known" if given else f"no key came within {FIRST_MESSAGE_S:g} s"
        await websocket.close(NO_KEY, f'{what}; send {{"key": "…"}} first, or a header')
    return owner


def _key_in(protocols: Collection[str]) -> str:
    for name in protocols:
        if name.startswith(KEY_PREFIX):
            text = name.removeprefix(KEY_PREFIX)
            try:
                return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
            except (binascii.Error, ValueError):
                raise HTTPException(401, f"{KEY_PREFIX}… is not followed by base64url of a key") from None
    return ""


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
