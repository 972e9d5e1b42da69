"""What can go wrong.

* MasterChatError
  * Unreachable: no answer, or the connection broke and could not be taken up again
  * Refused: the server answered with an error
  * RunFailed: a run or a task came to a bad end
"""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime
from typing import Any

import httpx


class MasterChatError(Exception):
    """Whatever goes wrong between here and the server; the text says what and why."""

    status: int | None = None
    """HTTP status, where there is one."""


class Unreachable(MasterChatError):
    """The server does not answer, or not like a Lumina server."""


class Refused(MasterChatError):
    """The server answered with an error (RFC 9457 problem details)."""

    def __init__(self, status: int, title: str, detail: str, retry_after_s: float | None = None) -> None:
        self.status = status
        self.title = title
        self.detail = detail
        self.retry_after_s = retry_after_s
        """Seconds after which it may be tried again, where the server says so."""
        super().__init__(detail or title)

    @classmethod
    def of(cls, response: httpx.Response) -> Refused:
        """What a response whose body has been read says."""
        try:
            body = response.json()
        except ValueError:
            body = None
        said: dict[str, Any] = body if isinstance(body, dict) else {}
        title = str(said.get("title") or response.reason_phrase)
        detail = str(said.get("detail") or response.text[:200])
        return cls(response.status_code, title, detail, retry_after_s(response))


class RunFailed(MasterChatError):
    """A run or a task came to a bad end; the server is well."""

    def __init__(self, reason: str, *, task_id: str | None = None, status: int | None = None) -> None:
        self.reason = reason
        self.task_id = task_id
        self.status = status
        super().__init__(reason)


def retry_after_s(response: httpx.Response) -> float | None:
    """Seconds that ``Retry-After`` (RFC 9110, 10.2.3) asks for: a number, or a date."""
    given = response.headers.get("retry-after", "").strip()
    if not given:
        return None
    try:
        return max(0.0, float(given))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(given).timestamp() - time.time())
    except (ValueError, TypeError):
        return None
