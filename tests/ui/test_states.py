"""Each view tells apart: being loaded, in trouble, empty, full."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest
from playwright.async_api import Page, Route, expect

OpenPage = Callable[..., Awaitable[Page]]

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]

VIEWS = {
    "chat": (r"/conversations\?", "#conversations-note", "None yet."),
    "plan": (r"/planner/logs\?", "#plan-none", "None yet."),
    "graph": (r"/graph\?", "#graph-note", "Nothing was read yet."),
    "tasks": (r"/tasks\?", "#tasks-note", "No tasks here."),
    "events": (r"/events/stream\?", "#events-note", "Nothing in the last ten minutes."),
    "metrics": (r"/metrics/summary$", "#metrics-note", "as of"),
}
"""A view, what it asks for, where it says that this did not come, and what it says when there is nothing."""
TROUBLES = {
    "down": (None, "The server cannot be reached"),
    "503": (503, "Redis does not answer now"),
    "429": (429, "too many of them"),
    "403": (403, "this is not yours"),
}
"""What is answered, and what is to be read then."""


def trouble(status: int | None, words: str) -> Callable[[Route], Awaitable[None]]:
    async def answer(route: Route) -> None:
        if status is None:
            await route.abort()
        else:
            await route.fulfill(
                status=status, headers={"Retry-After": "1"}, body=json.dumps({"status": status, "detail": words})
            )

    return answer


@pytest.mark.parametrize("kind", TROUBLES)
async def test_what_did_not_come_is_not_called_empty(site: Any, open_page: OpenPage, kind: str) -> None:
    status, words = TROUBLES[kind]
    page = await open_page(site, "/ui/icon.svg", expected=("ERR_FAILED", "404", str(status)))  # not the console yet
    for path, *_ in VIEWS.values():
        await page.route(re.compile(path), trouble(status, words))
    await page.goto(f"{site.url}/#/chat")
    for view, (_, note, empty) in VIEWS.items():
        await page.click(f'nav a[href="#/{view}"]')
        await expect(page.locator(note)).to_contain_text(words)
        await expect(page.locator(note)).to_have_class(re.compile(r"\bproblem\b"))
        await expect(page.locator(f"#{view}")).not_to_contain_text(empty, use_inner_text=True)
        await expect(page.locator(f"#{view}")).not_to_contain_text("loading", use_inner_text=True)
    await page.unroute_all()
    for view, (_, note, empty) in VIEWS.items():  # what would be refused again is asked for when the view is opened
        await page.click(f'nav a[href="#/{view}"]')
        await expect(page.locator(f"#{view}")).to_contain_text(empty, use_inner_text=True)
        await expect(page.locator(f"#{view} .problem:visible")).to_have_count(0)
        await expect(page.locator(note)).not_to_contain_text(words)


async def test_a_list_that_did_not_come_comes_by_itself_when_it_can(site: Any, open_page: OpenPage) -> None:
    page = await open_page(site, "/ui/icon.svg", expected=("ERR_FAILED", "404"))
    for path in (r"/conversations\?", r"/tasks\?"):
        await page.route(re.compile(path), trouble(None, ""))
    for view in ("chat", "tasks"):
        path, note, empty = VIEWS[view]
        await page.goto(f"{site.url}/#/{view}")
        await expect(page.locator(note)).to_contain_text("cannot be reached")
        await page.unroute(re.compile(path))
        await expect(page.locator(f"#{view}")).to_contain_text(empty, use_inner_text=True)


async def test_what_is_on_its_way_is_not_called_empty(site: Any, open_page: OpenPage) -> None:
    page = await open_page(site, "/ui/icon.svg", expected=("404",))
    for path, *_ in VIEWS.values():
        await page.route(re.compile(path), lambda _: None)  # answered never
    await page.goto(f"{site.url}/#/chat")
    for view, (_, _, empty) in VIEWS.items():
        await page.click(f'nav a[href="#/{view}"]')
        await expect(page.locator(f"#{view}")).to_contain_text("loading", use_inner_text=True)
        await expect(page.locator(f"#{view}")).not_to_contain_text(empty, use_inner_text=True)


async def test_a_conversation_that_did_not_come_keeps_its_address_and_comes_later(
    site: Any, open_page: OpenPage
) -> None:
    async with httpx.AsyncClient(base_url=site.url, headers=site.headers, timeout=60) as client:
        said = (await client.post("/chat", json={"message": "Hello"})).json()
    page = await open_page(site, "/ui/icon.svg", expected=("ERR_FAILED", "404"))
    one = re.compile(r"/conversations/[0-9a-f-]+\?")
    await page.route(one, trouble(None, ""))
    address = f"{site.url}/#/chat/{said['conversation_id']}"
    await page.goto(address)
    await expect(page.locator("#chat-note")).to_contain_text("cannot be reached")
    await expect(page.locator("#welcome")).to_be_hidden()
    assert page.url == address
    await page.unroute(one)
    await expect(page.locator(".turn > .answer")).to_contain_text("Douady")
    await expect(page.locator("#chat-note")).to_be_empty()


async def test_addresses_of_what_is_not_there_say_so(site: Any, open_page: OpenPage) -> None:
    page = await open_page(site, f"/#/plan/{uuid.uuid4()}", expected=("404",))
    await expect(page.locator("#plan-missing")).to_be_visible()
    await page.goto(f"{site.url}/#/graph/Nowhere")
    await expect(page.locator("#graph-note")).to_have_text("there is no node «Nowhere» here")
    await page.goto(f"{site.url}/#/events/{uuid.uuid4()}")
    await expect(page.locator("#events-empty")).to_contain_text("Nothing is kept of this task.")
    await page.goto(f"{site.url}/#/chat/{uuid.uuid4()}")
    await expect(page.locator("#chat-note")).to_contain_text("not there any more")


async def test_the_planner_s_log_is_followed_while_it_is_looked_at_only(site: Any, open_page: OpenPage) -> None:
    page = await open_page(site, "/#/plan")
    await expect(page.locator("#plan-none")).to_have_text("None yet.")
    async with page.expect_event("requestfailed", lambda request: "/planner/logs" in request.url):
        await page.click('nav a[href="#/chat"]')
    async with page.expect_request("**/planner/logs*"):
        await page.click('nav a[href="#/plan"]')


async def test_figures_do_not_ask_for_a_key_again_and_again(site: Any, open_page: OpenPage) -> None:
    page = await open_page(replace(site, key=None), "/ui/icon.svg", expected=("401", "404"))
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/metrics/summary" in request.url else None)
    await page.clock.install()
    await page.goto(f"{site.url}/#/metrics")
    await page.locator("#key-dialog").get_by_role("button", name="Cancel").click()
    await expect(page.locator("#metrics-note")).to_contain_text("a key is needed")
    await page.clock.run_for(20_000)
    assert len(asked) == 1
    await expect(page.locator("#key-dialog")).to_be_hidden()
