"""One server and one browser for all tests of the console, and pages that fail their test when something goes wrong."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from playwright.async_api import Browser, Page, async_playwright, expect

from models.chat import Chat

Live = Callable[..., AbstractAsyncContextManager[str]]
OpenPage = Callable[..., Awaitable[Page]]

CHROMIUM = os.environ.get("LUMINA_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
QUIET = "--no-sandbox --disable-gpu --disable-background-networking --disable-component-update --disable-sync"
WAIT_MS = 60_000
OWNERS = 50
expect.set_options(timeout=WAIT_MS)


@dataclass(frozen=True)
class Site:
    """A console, and the key of an owner whom no other test knows; no key where the server wants none."""

    url: str
    key: str | None = None

    @property
    def headers(self) -> dict[str, str]:
        """For a client beside the browser."""
        return {"X-API-Key": self.key} if self.key else {}


class Speaker(BaseChatModel):
    """Says the same to everybody, goes on at length when told to, and never comes to an end when asked for that."""

    @property
    def _llm_type(self) -> str:
        return "speaker"

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        said = "Douady and Hubbard proved it [1]."
        if "at length" in str(messages[-1].content):
            said = "\n\n".join(f"Paragraph {n}. {'And so on. ' * 40}" for n in range(40)) + "\n\n" + "long" * 200
        return ChatResult(generations=[ChatGeneration(message=AIMessage(said))])

    async def _agenerate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        if "for ever" in str(messages[-1].content):
            await asyncio.Event().wait()
        return self._generate(messages)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """Headless Chromium, as LUMINA_CHROMIUM or the PATH has it."""
    if CHROMIUM is None:
        pytest.skip("no Chromium: install it, or set LUMINA_CHROMIUM to its path")
    async with async_playwright() as playwright:
        opened = await playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET.split())
        yield opened
        await opened.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def sites(live_forever: Live) -> AsyncIterator[Iterator[Site]]:
    """Consoles of owners, of whom each may crawl twice a minute: who queues more sees a task wait."""
    keys = ",".join(f"owner{n}:key{n}" for n in range(OWNERS))
    model = Chat.from_model(Speaker())
    async with live_forever(settings={"crawl_rate_limit": "2"}, keys=keys, chat=model) as url:
        yield (Site(url, f"key{n}") for n in itertools.count())


@pytest.fixture
def site(request: pytest.FixtureRequest) -> Site:
    """A console where nobody has done anything; or the one that LUMINA_URL names, with LUMINA_KEY."""
    if given := os.environ.get("LUMINA_URL"):
        return Site(given.rstrip("/"), os.environ.get("LUMINA_KEY"))
    shared: Iterator[Site] = request.getfixturevalue("sites")
    return next(shared)


@pytest_asyncio.fixture(loop_scope="session")
async def open_page(browser: Browser) -> AsyncIterator[OpenPage]:
    """Opens a view of a site; errors in its console and requests to other hosts fail the test at its end.

    ``expected`` are words of errors that belong to the test; other arguments go to the browser's context.
    """
    wrong: list[str] = []
    async with AsyncExitStack() as stack:

        async def open_one(site: Site, path: str = "/", *, expected: tuple[str, ...] = (), **options: Any) -> Page:
            context = await browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
            stack.push_async_callback(context.close)
            context.set_default_timeout(WAIT_MS)
            if site.key:
                await context.add_init_script(f"sessionStorage.setItem('lumina.key', {json.dumps(site.key)})")
            host = urlsplit(site.url).netloc

            def told(text: str) -> None:
                if not any(words in text for words in expected):
                    wrong.append(text)

            page = await context.new_page()
            page.on("console", lambda message: told(message.text) if message.type in ("error", "warning") else None)
            page.on("pageerror", lambda error: told(str(error)))
            page.on("request", lambda request: None if urlsplit(request.url).netloc == host else told(request.url))
            await page.goto(site.url + path)
            return page

        yield open_one
    assert not wrong, wrong
