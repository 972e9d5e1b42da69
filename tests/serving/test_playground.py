"""LangServe's playgrounds in a real browser, which may talk to nobody but the server."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from fastapi import FastAPI
from playwright.async_api import Page, async_playwright, expect

from graphs.runs import Runner
from server import create_app
from settings import load_settings

Lumina = Callable[..., AbstractAsyncContextManager[Runner]]
Listen = Callable[[FastAPI], AbstractAsyncContextManager[str]]

CHROMIUM = os.environ.get("LUMINA_CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
QUESTION = "Who proved that the Mandelbrot set is connected?"
ANSWER = "Douady and Hubbard proved in 1982 that the Mandelbrot set is connected."
PATIENCE_MS = 60_000

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path(CHROMIUM).exists(), reason="no Chromium here; LUMINA_CHROMIUM may name one"),
]


@pytest.fixture
async def url(lumina: Lumina, tmp_path: Path, listen: Listen) -> AsyncIterator[str]:
    settings = load_settings(data_dir=tmp_path / "data", redis_url=None)
    app = create_app(settings, open_runner=lambda _: lumina(answers=["Hello, Ada."]))
    async with listen(app) as opened:
        yield opened


@pytest.fixture
async def page(url: str) -> AsyncIterator[Page]:
    """A page; at the end it has had no error, and has asked no other host for anything."""
    wrong: list[str] = []
    hosts: set[str] = set()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = await browser.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
        yield page
        await browser.close()
    assert not wrong
    assert hosts == {urlsplit(url).netloc}


async def test_a_question_typed_into_the_form_is_answered_in_pieces(url: str, page: Page) -> None:
    await page.goto(f"{url}/runnables/masterchat/playground/")
    form = page.locator(".control, .group-layout, .vertical-layout").filter(has_text="Message").last
    await form.locator("textarea").first.fill(QUESTION)
    await expect(page.locator("select").first).to_have_value("auto")
    # What the page shows of the output, every time that it changes.
    await page.evaluate(
        """() => {
            window.seen = new Set();
            new MutationObserver(() => {
                const title = [...document.querySelectorAll("h2")].find((one) => one.innerText === "Output");
                if (title) window.seen.add(title.nextElementSibling.innerText);
            }).observe(document.body, {childList: true, subtree: true, characterData: true});
        }"""
    )
    await page.get_by_role("button", name="Start").click()
    await expect(page.get_by_text(ANSWER).first).to_be_visible(timeout=PATIENCE_MS)
    await expect(page.get_by_role("button", name="Start")).to_be_visible(timeout=PATIENCE_MS)
    seen = await page.evaluate("[...window.seen]")
    assert "..." in seen, "it waits before it answers"
    assert any(text.startswith(ANSWER) for text in seen)


async def test_the_chat_answers_one_message_after_the_other(url: str, page: Page) -> None:
    await page.goto(f"{url}/runnables/masterchat/chat/playground/")
    await page.get_by_placeholder("Send a message...").fill(QUESTION)
    await page.keyboard.press("Enter")
    await expect(page.get_by_text(ANSWER).first).to_be_visible(timeout=PATIENCE_MS)
    await expect(page.locator("button svg.animate-spin")).to_have_count(0, timeout=PATIENCE_MS)
    await page.get_by_placeholder("Send a message...").fill("Hello, I am Ada.")
    await page.keyboard.press("Enter")
    await expect(page.get_by_text("Hello, Ada.").first).to_be_visible(timeout=PATIENCE_MS)


@pytest.mark.parametrize("agent", ["crawl", "orchestrator", "qa", "summarise"])
async def test_every_agent_has_a_form(url: str, page: Page, agent: str) -> None:
    await page.goto(f"{url}/runnables/{agent}/playground/")
    await expect(page.get_by_text("Inputs")).to_be_visible(timeout=PATIENCE_MS)
    await expect(page.locator("textarea").first).to_be_visible(timeout=PATIENCE_MS)
    await expect(page.get_by_text("Owner", exact=True)).to_have_count(0)
