"""Who is asking: API keys and the owners that they stand for."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Annotated

from fastapi import Depends, HTTPException, Request


def find_owner(keys: Mapping[str, str], given: str) -> str | None:
    """The owner of a key, every key compared in constant time."""
    owner = None
    for key, name in keys.items():
        if hmac.compare_digest(key.encode(), given.encode()):
            owner = name
    return owner


async def _owner(request: Request) -> str:
    keys: Mapping[str, str] = request.state.api_keys
    if not keys:
        return str(request.state.default_owner)
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    given = token.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key", "")
    owner = find_owner(keys, given) if given else None
    if owner is None:
        what = "this key is not known" if given else "a key is needed"
        raise HTTPException(
            401,
            f"{what}; send it as «Authorization: Bearer …» or «X-API-Key: …»",
            headers={"WWW-Authenticate": "Bearer"},
        )
    return owner


Owner = Annotated[str, Depends(_owner)]
"""The owner that the request's key stands for; the default owner where no keys are set."""


async def _owner_or_none(request: Request, owner: Owner) -> str | None:
    return owner if request.state.api_keys else None


OwnerOrNone = Annotated[str | None, Depends(_owner_or_none)]
"""The owner whose events a request may read. None means everybody's: without keys only this machine is served, and
whoever is on it may read the files as well."""
