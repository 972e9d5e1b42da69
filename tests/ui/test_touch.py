"""The graph under fingers: one moves it, two make it larger, a tap opens a card."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from playwright.async_api import CDPSession, Page, expect

OpenPage = Callable[..., Awaitable[Page]]
Point = tuple[float, float]

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]

PHONE = {"viewport": {"width": 390, "height": 800}, "has_touch": True, "is_mobile": True}
STEPS = 6


async def touch(session: CDPSession, *fingers: tuple[Point, Point]) -> None:
    """Put fingers down, draw each from its first point to its second, and take them up."""

    async def tell(kind: str, share: float | None) -> None:
        points = [
            {"x": a[0] + (b[0] - a[0]) * share, "y": a[1] + (b[1] - a[1]) * share, "id": number}
            for number, (a, b) in enumerate(fingers)
            if share is not None
        ]
        await session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    await tell("touchStart", 0)
    for step in range(1, STEPS + 1):
        if any(a != b for a, b in fingers):
            await tell("touchMove", step / STEPS)
    await tell("touchEnd", None)


async def test_fingers_move_the_graph_make_it_larger_and_open_a_card(site: Any, open_page: OpenPage) -> None:
    async with httpx.AsyncClient(base_url=site.url, headers=site.headers, timeout=60) as client:
        await client.post("/nodes", json={"title": "Touched"})
    page = await open_page(site, "/#/graph", **PHONE)
    await expect(page.locator('#graph-canvas[data-calm="true"]')).to_be_visible()
    box = await page.locator("#graph-canvas").bounding_box()
    assert box
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    session = await page.context.new_cdp_session(page)
    card, close = page.locator("#graph-card"), page.get_by_role("button", name="Close the card")

    async def tap(dx: float, dy: float) -> None:
        await touch(session, ((x + dx, y + dy), (x + dx, y + dy)))

    async def touched_at(dx: float, dy: float) -> None:
        await tap(dx, dy)
        await expect(card.locator("h2")).to_have_text("Touched")
        await close.click()
        await expect(card).to_be_hidden()

    await touched_at(0, 0)  # the only node is in the middle
    await tap(90, -90)
    await expect(card).to_be_hidden()
    await touch(session, ((x - 90, y - 60), (x - 60, y - 160)))  # 30 to the right and 100 up
    await tap(0, 0)
    await expect(card).to_be_hidden()
    await touched_at(30, -100)
    # Apart to twice the distance, the middle between them staying where it is: so is all else twice as far from it.
    await touch(session, ((x - 40, y), (x - 80, y)), ((x + 40, y), (x + 80, y)))
    await tap(30, -100)
    await expect(card).to_be_hidden()
    await touched_at(60, -200)
    assert await page.evaluate("[scrollX, scrollY, visualViewport.scale]") == [0, 0, 1]  # the page itself stayed
