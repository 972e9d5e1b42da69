"""When something is wrong, long or refused: the page says what, and what to do."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from playwright.async_api import Page, expect

OpenPage = Callable[..., Awaitable[Page]]

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]

MISSING = "No such article anywhere"
OFFLINE = ("ERR_INTERNET_DISCONNECTED", "ERR_NETWORK_CHANGED")


async def ask(page: Page, message: str, mode: str) -> None:
    await page.select_option("#mode", mode)
    await page.fill("#message", message)
    await page.press("#message", "Enter")
    await expect(page.locator(".turn").last).to_have_attribute("aria-busy", "false")


async def test_a_long_answer_fits_a_narrow_page_and_leaves_the_reader_alone(site: Any, open_page: OpenPage) -> None:
    page = await open_page(site, viewport={"width": 360, "height": 640})
    await ask(page, "Tell me at length.", "chat")
    answer = page.locator(".turn > .answer")
    await expect(answer).to_contain_text("Paragraph 39")
    assert await page.evaluate("document.documentElement.scrollWidth") <= 360
    assert await page.evaluate("document.documentElement.scrollHeight") > 2_000
    await page.evaluate("scrollTo(0, 0)")
    await ask_quietly(page)
    assert await page.evaluate("scrollY") == 0
    await page.reload()
    await expect(answer).to_have_count(2)
    assert await page.evaluate("document.documentElement.scrollWidth") <= 360


async def test_a_long_question_leaves_room_for_its_answer(site: Any, open_page: OpenPage) -> None:
    page = await open_page(site, viewport={"width": 360, "height": 640})
    await ask(page, "One line of many.\n" * 100, "chat")
    asked = page.locator(".asked")
    box = await asked.bounding_box()
    assert box
    assert box["height"] < 320
    await expect(page.locator(".turn > .answer")).to_be_in_viewport()
    await asked.focus()
    await page.keyboard.press("End")
    await expect(asked).to_have_js_property(
        "scrollTop", await asked.evaluate("one => one.scrollHeight - one.clientHeight")
    )


async def test_text_from_right_to_left_is_shown_so(site: Any, open_page: OpenPage) -> None:
    page = await open_page(site)
    await ask(page, "سؤال Is the Mandelbrot set connected?", "chat")
    start = """one => {
        const letter = document.createRange();
        letter.setStart(one.firstChild, 0);
        letter.setEnd(one.firstChild, 1);
        const [first, all] = [letter.getBoundingClientRect(), one.getBoundingClientRect()];
        return all.right - first.right < first.left - all.left;
    }"""
    assert await page.locator(".asked > :last-child").evaluate(start)


async def ask_quietly(page: Page) -> None:
    """A second answer that comes while the beginning is read."""
    ended = page.locator('.turn[aria-busy="false"]')
    await page.evaluate(
        """() => {
            document.getElementById("message").value = "And again?";
            document.getElementById("composer").requestSubmit();
            scrollTo(0, 0);
        }"""
    )
    await expect(ended).to_have_count(2)


async def test_a_refusal_for_too_many_requests_says_when_to_come_back(site: Any, open_page: OpenPage) -> None:
    crawl = {"message": "Fractal", "topics": ["Fractal"], "mode": "crawl", "max_nodes": 1}
    async with httpx.AsyncClient(base_url=site.url, headers=site.headers, timeout=60) as client:
        while (answer := await client.post("/masterchat/chat", json=crawl)).status_code != 429:
            assert answer.status_code == 200
    page = await open_page(site, expected=("429",))
    await ask(page, "Crawl the Cantor set", "crawl")
    turn = page.locator(".turn")
    await expect(turn.locator(".problem")).to_contain_text(re.compile(r"\d+(\.\d+)? s"))
    await expect(turn.locator(".now")).to_contain_text("not answered")
    again = turn.get_by_role("button", name=re.compile(r"Retry in \d+ s"))
    await expect(again).to_be_disabled()
    await expect(page.locator("#send")).to_be_visible()


async def test_a_failed_run_says_why_also_when_its_conversation_is_opened_again(site: Any, open_page: OpenPage) -> None:
    page = await open_page(site)
    await ask(page, "Xyzzyqq", "crawl")
    problem = page.locator(".turn .problem")
    await expect(problem).not_to_be_empty()
    why = await problem.inner_text()
    await page.reload()
    await expect(problem).to_have_text(why)
    await expect(page.locator(".turn .now")).to_contain_text("failed")


async def test_a_dead_task_says_why_and_is_sent_back(site: Any, open_page: OpenPage) -> None:
    page = await open_page(site, "/#/tasks")
    await page.fill("#crawl-titles", MISSING)
    await page.click("#crawl-submit")
    task = page.locator(".task")
    await expect(task.locator(".badge")).to_have_text("dead")
    await expect(task.locator(".problem")).to_contain_text(MISSING)
    async with page.expect_response(lambda response: response.url.endswith("/retry")) as sent:
        await page.get_by_role("button", name="Retry all dead").click()
    assert (await sent.value).ok  # it will be dead again, as long as nobody writes the article


async def test_who_is_offline_reads_so_and_loses_nothing(site: Any, open_page: OpenPage) -> None:
    page = await open_page(site, expected=OFFLINE)
    await expect(page.locator("#welcome")).to_be_visible()
    await page.click('nav a[href="#/tasks"]')
    await expect(page.locator("#tasks-empty")).to_be_visible()
    await page.context.set_offline(True)
    await page.fill("#crawl-titles", "Cantor set")
    await page.click("#crawl-submit")
    await expect(page.locator("#crawl-problem")).to_contain_text("cannot be reached")
    await expect(page.locator("#crawl-titles")).to_have_value("Cantor set")
    await page.click('nav a[href="#/chat"]')
    await page.select_option("#mode", "chat")
    await page.fill("#message", "Are you there?")
    await page.press("#message", "Enter")
    await expect(page.locator("#banner")).to_contain_text("Connection lost")
    await page.context.set_offline(False)
    await expect(page.locator(".turn > .answer")).to_contain_text("Douady")
    await expect(page.locator(".turn")).to_have_count(1)
    await expect(page.locator("#banner")).to_be_hidden()


async def test_a_view_that_cannot_be_loaded_is_loaded_when_it_can(site: Any, open_page: OpenPage) -> None:
    page = await open_page(site, "/ui/icon.svg", expected=("ERR_FAILED", "404"))  # not the console yet
    await page.route("**/ui/metrics/view.js", lambda route: route.abort())
    await page.goto(f"{site.url}/#/metrics")
    await expect(page.locator("#banner")).to_contain_text("Connection lost")
    await page.click('nav a[href="#/tasks"]')
    await expect(page.locator("#tasks-empty")).to_be_visible()
    await page.click('nav a[href="#/metrics"]')
    await expect(page.locator("#banner")).to_contain_text("Connection lost")
    await page.unroute("**/ui/metrics/view.js")
    await expect(page.locator("#metrics-cards li").first).to_be_visible()
    await expect(page.locator("#banner")).to_be_hidden()
