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


def given_key(headers: Mapping[str, str]) -> str:
    """The key that was sent with a request, empty when there was none."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")


async def _owner(request: Request) -> str:
    keys: Mapping[str, str] = request.state.api_keys
    if not keys:
        return str(request.state.default_owner)
    given = given_key(request.headers)
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
