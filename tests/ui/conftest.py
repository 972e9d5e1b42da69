"""A browser for the console, and pages that fail their test when something goes wrong in them."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, Page, async_playwright, expect

Live = Callable[..., AbstractAsyncContextManager[str]]
OpenPage = Callable[..., Awaitable[Page]]

CHROMIUM = os.environ.get("LUMINA_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
QUIET = "--no-sandbox --disable-gpu --disable-background-networking --disable-component-update --disable-sync"
WAIT_MS = 30_000
expect.set_options(timeout=WAIT_MS)


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """Headless Chromium, as LUMINA_CHROMIUM or the PATH has it."""
    if CHROMIUM is None:
        pytest.skip("no Chromium: install it, or set LUMINA_CHROMIUM to its path")
    async with async_playwright() as playwright:
        opened = await playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET.split())
        yield opened
        await opened.close()


@pytest.fixture
async def url(live: Live, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """A server with everything embedded, or the one that LUMINA_URL names.

    It may crawl twice a minute: who queues more sees a task wait that can be cancelled.
    """
    if given := os.environ.get("LUMINA_URL"):
        yield given.rstrip("/")
        return
    monkeypatch.setenv("CRAWL_RATE_LIMIT", "2")
    async with live(answers=["Douady and Hubbard proved it [1]."]) as served:
        yield served


@pytest.fixture
async def open_page(browser: Browser) -> AsyncIterator[OpenPage]:
    """Opens an address; errors in its console and requests to other hosts fail the test at its end.

    ``expected`` are words of errors that belong to the test; other arguments go to the browser's context.
    """
    wrong: list[str] = []
    async with AsyncExitStack() as stack:

        async def open_one(address: str, *, expected: tuple[str, ...] = (), **options: Any) -> Page:
            context = await browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
            stack.push_async_callback(context.close)
            context.set_default_timeout(WAIT_MS)
            host = urlsplit(address).netloc

            def told(text: str) -> None:
                if not any(words in text for words in expected):
                    wrong.append(text)

            page = await context.new_page()
            page.on("console", lambda message: told(message.text) if message.type in ("error", "warning") else None)
            page.on("pageerror", lambda error: told(str(error)))
            page.on("request", lambda request: None if urlsplit(request.url).netloc == host else told(request.url))
            await page.goto(address)
            return page

        yield open_one
    assert not wrong, wrong
