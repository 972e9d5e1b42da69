"""What the errors of providers mean: a dropped connection, a refused one, a fault of the request."""

from __future__ import annotations

from collections.abc import Iterator

REST_S = 30.0
"""How long a provider that failed is asked last: long enough not to pay its timeout with every call."""
REQUEST_FAULTS = (400, 413, 422)
"""Status codes that blame the request: no reason to let the provider rest."""
_REASON_CHARS = 200
_DROPPED = frozenset(
    {"RemoteProtocolError", "ReadError", "WriteError"}  # httpx, and the httpx2 that openai uses
    | {"ServerDisconnectedError", "ClientOSError", "ClientConnectionResetError", "ClientPayloadError"}  # aiohttp
)
"""Errors when a pooled connection was closed by the other side."""
_REFUSED = frozenset({"ConnectError", "ClientConnectorError"})


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def was_dropped(error: Exception) -> bool:
    """Whether the other side closed a connection that was under way or kept."""
    return any(type(cause).__name__ in _DROPPED for cause in _causes(error))


def was_refused(error: Exception) -> bool:
    """Whether nobody accepts connections there."""
    return any(type(cause).__name__ in _REFUSED for cause in _causes(error))


def status_of(error: Exception) -> int | None:
    """The HTTP status that an error carries."""
    response = getattr(error, "response", None)
    status = getattr(error, "status_code", None) or getattr(response, "status_code", None)
    return status if isinstance(status, int) else None


def reason_of(error: Exception) -> str:
    """One short line: what the error says, and what was at the bottom of it."""
    said = [" ".join(str(cause).split()) or type(cause).__name__ for cause in _causes(error)]
    return " – ".join(dict.fromkeys([said[0], said[-1]]))[:_REASON_CHARS]
