"""Two tabs of one person: what is asked in one is followed in the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from playwright.async_api import Page, expect
from pydantic import PrivateAttr

from models.chat import Chat

Live = Callable[..., AbstractAsyncContextManager[str]]
OpenPage = Callable[..., Awaitable[Page]]

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]


class Slow(BaseChatModel):
    """Says a word whenever it is allowed to."""

    words: tuple[str, ...] = ("one ", "two ", "three.")
    _allowed: asyncio.Semaphore = PrivateAttr(default_factory=lambda: asyncio.Semaphore(0))

    @property
    def _llm_type(self) -> str:
        return "slow"

    def let(self, words: int) -> None:
        for _ in range(words):
            self._allowed.release()

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        raise NotImplementedError

    async def _astream(
        self, messages: list[BaseMessage], *args: Any, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        for word in self.words:
            await self._allowed.acquire()
            yield ChatGenerationChunk(message=AIMessageChunk(content=word))


async def ask(page: Page, message: str) -> None:
    await page.select_option("#mode", "chat")
    await page.fill("#message", message)
    await page.press("#message", "Enter")


async def test_an_answer_that_is_written_grows_in_every_tab(live: Live, open_page: OpenPage, site: Any) -> None:
    model = Slow()
    async with live(chat=Chat.from_model(model)) as url:
        first = await open_page(replace(site, url=url, key=None))
        await ask(first, "Count to three.")
        model.let(1)
        await expect(first.locator(".turn > .answer")).to_have_text("one")
        second = await first.context.new_page()
        await second.goto(first.url)
        await expect(second.locator(".turn > .answer")).to_have_text("one")
        await expect(second.locator(".turn .asked")).to_have_count(1)
        await expect(second.locator("#stop")).to_be_visible()
        model.let(1)
        for tab in (first, second):
            await expect(tab.locator(".turn > .answer")).to_have_text("one two")
        await second.reload()
        await expect(second.locator(".turn > .answer")).to_have_text("one two")
        model.let(1)
        for tab in (first, second):
            await expect(tab.locator(".turn > .answer")).to_have_text("one two three.")
            await expect(tab.locator(".turn .now")).to_contain_text("done")
            await expect(tab.locator("#send")).to_be_visible()
        # Both have it open now, and the next question is asked in the other one.
        await ask(second, "Again.")
        model.let(2)
        for tab in (first, second):
            await expect(tab.locator(".turn > .answer").last).to_have_text("one two")
            await expect(tab.locator(".turn .asked")).to_have_text(["You: Count to three.", "You: Again."])
        model.let(1)
        for tab in (first, second):
            await expect(tab.locator(".turn > .answer").last).to_have_text("one two three.")
        await first.context.close()


async def test_a_tab_that_watches_may_leave_and_the_answer_goes_on(live: Live, open_page: OpenPage, site: Any) -> None:
    model = Slow()
    async with live(chat=Chat.from_model(model)) as url:
        first = await open_page(replace(site, url=url, key=None))
        await ask(first, "Count to three.")
        await expect(first.locator(".goals .running")).to_be_visible()
        second = await first.context.new_page()
        await second.goto(first.url)
        await expect(second.locator("#stop")).to_be_visible()
        await second.click("#fresh")
        await expect(second.locator("#send")).to_be_visible()
        await expect(second.locator(".turn")).to_have_count(0)
        model.let(3)
        await expect(first.locator(".turn > .answer")).to_have_text("one two three.")
        await second.locator("#conversations a").first.click()
        await expect(second.locator(".turn > .answer")).to_have_text("one two three.")
        await first.context.close()


async def test_a_question_that_was_stopped_says_so_in_a_tab_that_opens_it(site: Any, open_page: OpenPage) -> None:
    page = await open_page(site)
    await ask(page, "Think for ever.")
    await expect(page.locator(".goals .running")).to_be_visible()
    await page.click("#stop")
    await expect(page.locator(".turn .now")).to_have_text("stopped")
    await page.reload()
    await expect(page.locator(".turn .now")).to_have_text("stopped")
    await expect(page.locator(".turn")).to_have_count(1)
    await expect(page.locator("#send")).to_be_visible()
