"""Work for a client: cancelled when the client goes, else left alone."""

import asyncio
from typing import Any

import pytest
from starlette.requests import ClientDisconnect, Request

from serving.disconnects import unless_gone


def request(receive: Any) -> Request:
    return Request({"type": "http"}, receive)


async def test_work_has_cleaned_up_before_the_departure_is_told() -> None:
    gone, cleaned = asyncio.Event(), []

    async def receive() -> Any:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def work() -> None:
        try:
            gone.set()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append(True)

    with pytest.raises(ClientDisconnect):
        await asyncio.wait_for(unless_gone(request(receive), work()), 60)
    assert cleaned


async def test_a_timeout_of_the_work_is_no_departure() -> None:
    ended = asyncio.Event()

    async def receive() -> Any:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def work() -> None:
        await asyncio.sleep(0)
        raise TimeoutError("the provider said nothing")

    with pytest.raises(TimeoutError, match="said nothing"):
        await unless_gone(request(receive), work())
    await asyncio.wait_for(ended.wait(), 60)
