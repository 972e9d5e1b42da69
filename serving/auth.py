"""Who is asking: API keys and the owners that they stand for."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Annotated

from fastapi import Depends, HTTPException, Request, Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

_Bearer = Annotated[
    HTTPAuthorizationCredentials | None,
    Security(HTTPBearer(auto_error=False, scheme_name="bearer", description="A key of LUMINA_API_KEYS.")),
]
_ApiKey = Annotated[
    str | None,
    Security(APIKeyHeader(name="X-API-Key", auto_error=False, scheme_name="key", description="The same key.")),
]


def find_owner(keys: Mapping[str, str], given: str) -> str | None:
    """The owner of a key, every key compared in constant time."""
    owner = None
    for key, name in keys.items():
        if hmac.compare_digest(key.encode(), given.encode()):
            owner = name
    return owner


def given_key(headers: Mapping[str, str]) -> str:
    """The key that was sent with a request, empty when there was none."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")


async def _caller(request: Request, bearer: _Bearer, api_key: _ApiKey) -> str | None:
    keys: Mapping[str, str] = request.state.api_keys
    if not keys:
        return str(request.state.default_owner)
    given = bearer.credentials.strip() if bearer else api_key or ""
    return find_owner(keys, given) if given else None


Caller = Annotated[str | None, Depends(_caller)]
"""The owner that the request's key stands for, None without a valid one; for routes that need no key."""


async def _owner(request: Request, bearer: _Bearer, api_key: _ApiKey) -> str:
    return check_owner(request, await _caller(request, bearer, api_key))


def check_owner(request: Request, owner: str | None) -> str:
    """The owner that the request's key stands for.

    Raises:
        HTTPException: 401, without a valid key.
    """
    if owner is None:
        sent = "authorization" in request.headers or "x-api-key" in request.headers
        what = "this key is not known" if sent else "a key is needed"
        raise HTTPException(
            401,
            f"{what}; send it as «Authorization: Bearer …» or «X-API-Key: …»",
            headers={"WWW-Authenticate": "Bearer"},
        )
    request.state.owner = owner  # for the log
    return owner


Owner = Annotated[str, Depends(_owner)]
"""The owner that the request's key stands for; the default owner where no keys are set."""


async def _owner_or_none(request: Request, owner: Owner) -> str | None:
    return owner if request.state.api_keys else None


OwnerOrNone = Annotated[str | None, Depends(_owner_or_none)]
"""The owner whose events a request may read. None means everybody's: without keys only this machine is served, and
whoever is on it may read the files as well."""
