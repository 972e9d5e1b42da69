"""What a person does with the console, in a browser against a live server."""

from __future__ import annotations

import asyncio
import contextlib
import re
import uuid
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.async_api import Locator, Page, Route, expect

Live = Callable[..., AbstractAsyncContextManager[str]]
Alone = Callable[[str], AbstractAsyncContextManager[str]]
OpenPage = Callable[..., Awaitable[Page]]

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]

QUESTION = "Who proved that the Mandelbrot set is connected?"
ANSWERED_MS = 60_000
CUT = ("ERR_CONNECTION", "ERR_EMPTY_RESPONSE", "ERR_INCOMPLETE_CHUNKED_ENCODING", "ERR_NETWORK_CHANGED", "MISMATCH")
"""What Chromium says of a connection that broke."""


async def ask(page: Page, message: str = QUESTION, mode: str = "wiki_qa") -> None:
    await page.select_option("#mode", mode)
    await page.fill("#message", message)
    await page.press("#message", "Enter")


async def go(page: Page, view: str) -> None:
    await page.click(f'nav a[href="#/{view}"]')
    await expect(page.locator(f"#{view}")).to_be_visible()


async def nodes(page: Page) -> int:
    """How many nodes the graph view says it has."""
    found = re.match(r"([\d,]+) nodes?", await page.locator("#graph-size").inner_text())
    return int(found[1].replace(",", "")) if found else 0


async def queue(page: Page, title: str) -> None:
    await page.fill("#crawl-titles", title)
    await page.click("#crawl-submit")
    await expect(page.locator("#crawl-titles")).to_have_value("")


async def shown(turn: Locator) -> list[str]:
    """What a turn shows of an answer and the run behind it, as text."""
    parts = (".asked", ".goals", ".now", "> .answer", "> .citations", "[data-part=more]", ".problem")
    return [" ".join(await turn.locator(part).all_inner_texts()) for part in parts]


@pytest.mark.timeout(500)
async def test_somebody_asks_reads_what_was_cited_and_watches_plan_graph_and_tasks(
    site: Any, open_page: OpenPage
) -> None:
    watcher = await open_page(site, "/#/graph")
    await expect(watcher.locator("#graph-size")).not_to_be_empty()
    before = await nodes(watcher)
    planner = await open_page(site, "/#/plan")
    page = await open_page(site, permissions=["clipboard-read", "clipboard-write"])
    await expect(page.locator("#welcome")).to_be_visible()
    await ask(page)
    turn = page.locator(".turn").last
    await expect(turn).to_have_attribute("aria-busy", "false", timeout=ANSWERED_MS)
    await expect(turn.locator("> .answer")).to_contain_text("Hubbard")
    await expect(turn.locator(".goals .holds").filter(has_text="answered")).to_be_visible()
    await expect(turn.locator(".goals li").filter(has_text=re.compile("bridged|linked"))).to_have_count(0)

    await turn.locator(".cite").first.click()
    await expect(page.locator("#passage-text mark")).to_contain_text("connected")
    await expect(page.locator("#passage-note")).to_be_empty()
    assert len(await page.locator("#passage-text").inner_text()) > len(
        await page.locator("#passage-text mark").inner_text()
    )
    await expect(page.locator("#passage-source")).to_contain_text(re.compile(r"Revision \d+: .+oldid=\d+"))
    await page.keyboard.press("Escape")
    await expect(turn.locator(".cite").first).to_be_focused()

    await turn.get_by_role("button", name="Copy").click()
    await expect(turn.get_by_role("button", name="Copied")).to_be_visible()
    copied = await page.evaluate("navigator.clipboard.readText()")
    assert re.fullmatch(r"Douady and Hubbard .+\[1\]\.?\n\[1\] Mandelbrot set, revision \d+: \S+oldid=\d+", copied), (
        copied
    )

    # Two pages that nobody has touched since: they have moved by themselves.
    await expect(planner.locator("#plan-title")).to_have_text(QUESTION)
    await expect(planner.locator(".hasse line.walked").first).to_be_attached()
    await expect(planner.locator("#plan-steps li").last).to_contain_text("every target holds")
    await planner.locator("#plan-steps button").first.click()
    await expect(planner.locator("#plan-detail")).to_contain_text("Candidates")
    await expect(planner.locator("#plan-detail")).to_contain_text("first of")
    await expect(watcher.locator("#graph-size")).not_to_have_text(re.compile(f"^{before} nodes"))
    assert await nodes(watcher) > before
    await watcher.fill("#graph-search", "mandelbrot")
    await watcher.press("#graph-search", "Enter")
    await expect(watcher.locator("#graph-card h2")).to_contain_text("Mandelbrot")
    await expect(watcher.locator("#graph-card")).to_contain_text("Revision")
    await expect(watcher.locator("#graph-card .summary")).not_to_contain_text("Not summarised")

    await go(page, "tasks")
    for title in ("Koch snowflake", "Julia set", "Fractal", "Logistic map", "Newton fractal", "Cantor set"):
        await queue(page, title)
    # The server crawls twice a minute: the last of six waits for its turn, however quick or slow the machine is.
    task = page.locator(".task").filter(has_text="Cantor set").first
    await task.get_by_role("button", name="Cancel").click()
    await expect(task.locator(".badge")).to_have_text("cancelled")
    await task.get_by_role("button", name="Retry").click()
    await expect(task.locator(".badge")).to_have_text(re.compile("queued|retrying|running"))

    await go(page, "events")
    await expect(page.locator("#events-list tr").filter(has_text="task.cancel").first).to_be_visible()
    await page.locator("#events-list button").first.click()
    await expect(page.locator("#events-list pre").first).to_contain_text('"type"')
    await go(page, "metrics")
    await expect(page.locator("#metrics-agents")).to_contain_text("crawl")

    await go(page, "chat")
    before_reload = await shown(turn)
    assert all(before_reload[:6])  # goals, how it ended, the answer, its source, the summary
    await page.reload()
    await expect(page.locator(".turn > .answer").last).to_contain_text("Hubbard")
    assert timeless(await shown(page.locator(".turn").last)) == timeless(before_reload)
    await page.locator(".turn > .answer .cite").last.click()
    await expect(page.locator("#passage-text mark")).to_contain_text("connected")


def timeless(parts: list[str]) -> list[str]:
    """Without how long it took, which the page measures and the conversation has by its messages' times."""
    return [re.sub(r"· [\d.]+ (s|min)", "", part) for part in parts]


class Wire:
    """A connection to the server that can be cut, and led to another server."""

    def __init__(self) -> None:
        self._host, self._port = "", 0
        self._open: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def mend(self, url: str) -> None:
        """Let who connects reach the server with this URL."""
        self._host, self._port = urlsplit(url).hostname or "", urlsplit(url).port or 80
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        if self._server:
            self._server.close()
        for writer in list(self._open):
            writer.transport.abort()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        other_reader, other_writer = await asyncio.open_connection(self._host, self._port)
        self._open |= {writer, other_writer}
        await asyncio.gather(self._pass(reader, other_writer), self._pass(other_reader, writer))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(65_536):
                writer.write(piece)
                await writer.drain()
        writer.close()
        self._open.discard(writer)


async def test_nothing_is_missing_after_the_connection_was_cut(site: Any, open_page: OpenPage) -> None:
    wire = Wire()
    await wire.mend(site.url)
    page = await open_page(replace(site, url=wire.url), "/#/events", expected=CUT)
    watcher = await open_page(replace(site, url=wire.url), "/#/graph", expected=CUT)
    title = f"Written while nobody listened {uuid.uuid4()}"
    async with httpx.AsyncClient(base_url=site.url, headers=site.headers, timeout=60) as other:
        await other.post("/nodes", json={"title": f"Before {title}"})
        for where in (page.locator("#events-list"), watcher.locator("#graph-size")):
            await expect(where).to_contain_text(re.compile(r"Before|\d node"))
        await wire.cut()
        for one in (page, watcher):
            await expect(one.locator("#banner")).to_contain_text("Connection lost")
        assert (await other.post("/nodes", json={"title": title})).status_code == 201
    await wire.mend(site.url)
    await expect(page.locator("#events-list")).to_contain_text(title)
    assert await page.locator("#events-list tr").filter(has_text=f"Before {title}").count() == 1  # told once
    for one in (page, watcher):
        await expect(one.locator("#banner")).to_be_hidden()
    await watcher.fill("#graph-search", title)
    await expect(watcher.locator("#graph-found button").filter(has_text=title).first).to_have_text(title)
    await wire.cut()


@pytest.mark.parametrize("view", ["graph", "tasks"])
async def test_what_happens_while_a_view_opens_is_not_missing(site: Any, open_page: OpenPage, view: str) -> None:
    page = await open_page(site)
    title = f"Written while the view opens {uuid.uuid4()}"
    happened = asyncio.Event()

    async def later(route: Route) -> None:
        await happened.wait()
        await route.continue_()

    await page.route("**/events/stream*", later)
    async with page.expect_request("**/events/stream*"):
        await page.click(f"nav a[href='#/{view}']")
    async with httpx.AsyncClient(base_url=site.url, headers=site.headers, timeout=60) as other:
        if view == "graph":
            await other.post("/nodes", json={"title": title})
        else:
            await other.post("/tasks", json={"kind": "crawl", "topics": [title]})
    happened.set()
    if view == "graph":
        await expect(page.locator("#graph-size")).to_contain_text(re.compile(r"[1-9]\d* node"))
        await page.fill("#graph-search", title)
        await expect(page.locator("#graph-found button").filter(has_text=title).first).to_be_visible()
    else:
        await expect(page.locator("#tasks-list")).to_contain_text(title)


async def test_nothing_is_missing_after_the_server_has_begun_anew(live: Live, open_page: OpenPage, site: Any) -> None:
    wire = Wire()
    async with live() as url:
        await wire.mend(url)
        own = replace(site, url=wire.url, key=None)
        page = await open_page(own, "/#/events", expected=(*CUT, "503", "502"))
        graph = await open_page(own, "/#/graph", expected=(*CUT, "503", "502"))
        await expect(page.locator("#events-empty")).to_be_visible()
        async with httpx.AsyncClient(base_url=url, timeout=60) as other:
            await other.post("/nodes", json={"title": "Before"})
        await expect(page.locator("#events-list")).to_contain_text("Before")
        await expect(graph.locator("#graph-size")).to_contain_text("1 node")
        await wire.cut()
    async with live() as url:
        async with httpx.AsyncClient(base_url=url, timeout=60) as other:
            await other.post("/nodes", json={"title": "Meanwhile"})
            await wire.mend(url)
            await expect(page.locator("#events-list")).to_contain_text("Meanwhile")
            await expect(graph.locator("#graph-size")).to_contain_text("2 nodes")
            await other.post("/nodes", json={"title": "Afterwards"})
        await expect(page.locator("#events-list")).to_contain_text("Afterwards")
        await expect(graph.locator("#graph-size")).to_contain_text("3 nodes")
        told = page.locator("#events-list td:nth-child(2)")  # each once, and nothing may be missing
        assert [kind for kind in await told.all_inner_texts() if kind in ("node.add", "gap")] == ["node.add"] * 3
        for one in (page, graph):
            await expect(one.locator("#banner")).to_be_hidden()
            await one.context.close()
        await wire.cut()


async def test_an_answer_goes_on_after_a_reload_and_is_found_again(site: Any, open_page: OpenPage) -> None:
    page = await open_page(site)
    await ask(page, "Crawl the Julia set", "crawl")
    await expect(page.locator(".turn")).to_be_visible()
    await page.reload()
    await expect(page.locator(".turn").last).to_have_attribute("aria-busy", "false", timeout=ANSWERED_MS)
    await expect(page.locator(".turn .asked")).to_have_count(1)
    await page.click("#fresh")
    await expect(page.locator(".turn")).to_have_count(0)
    await expect(page.locator("#conversations li")).not_to_have_count(0)
    await page.locator("#conversations a").first.click()
    await expect(page.locator(".turn .asked")).to_contain_text("Crawl the Julia set")


async def test_a_reload_at_any_moment_shows_the_conversation(site: Any, open_page: OpenPage) -> None:
    page = await open_page(site)
    await ask(page, "Think for ever.", "chat")
    await expect(page.locator(".goals .running")).to_be_visible()
    assert re.search(r"#/chat/[0-9a-f-]{36}$", page.url)
    await expect(page.locator("#conversations [aria-current]")).to_contain_text("Think for ever.")
    # The last event came, the run is forgotten, and the page is left before it has drawn anything.
    await page.evaluate("sessionStorage.removeItem('lumina.run')")
    await page.reload()
    await expect(page.locator(".turn .asked")).to_have_text("You: Think for ever.")
    await expect(page.locator("#welcome")).to_be_hidden()


async def test_an_answer_that_came_while_the_page_was_loaded_again_is_shown_once(
    site: Any, open_page: OpenPage
) -> None:
    page = await open_page(site)
    await ask(page, "Hello", "chat")
    link = page.get_by_role("link", name="Why these steps")
    run, conversation = (await link.get_attribute("href") or "").split("/")[-1], page.url.split("/")[-1]
    kept = {"message": "Hello", "mode": "chat", "conversation": conversation, "task": run, "key": "any"}
    await page.evaluate("kept => sessionStorage.setItem('lumina.run', JSON.stringify(kept))", kept)
    await page.reload()
    await expect(page.locator(".turn > .answer")).to_contain_text("Douady")
    await expect(page.locator(".turn .asked")).to_have_count(1)
    assert await page.evaluate("sessionStorage.getItem('lumina.run')") is None


async def test_an_answer_stops_when_it_is_told_to(site: Any, open_page: OpenPage) -> None:
    page = await open_page(site)
    await ask(page, "Think for ever.", "chat")
    turn = page.locator(".turn")
    await expect(turn.locator(".goals .running")).to_be_visible()
    await page.click("#stop")
    await expect(turn).to_have_attribute("aria-busy", "false")
    await expect(turn.locator(".now")).to_contain_text("stopped")
    await expect(page.locator("#send")).to_be_visible()
    await turn.get_by_role("button", name="Retry").click()
    await expect(page.locator(".turn")).to_have_count(2)
    await page.keyboard.press("Escape")
    await page.locator("#log").click()
    await page.keyboard.press("Escape")
    await expect(page.locator(".turn").last.locator(".now")).to_contain_text("stopped")


async def test_the_console_alone_does_the_same(
    live: Live, console_alone: Alone, open_page: OpenPage, site: Any
) -> None:
    async with live(answers=["Hi."]) as server, console_alone(server) as url:
        page = await open_page(replace(site, url=url, key=None))
        await ask(page, "Hello", "chat")
        await expect(page.locator(".turn")).to_have_attribute("aria-busy", "false", timeout=ANSWERED_MS)
        await expect(page.locator(".turn > .answer")).to_contain_text("Hi.")
        await page.reload()
        await expect(page.locator(".turn > .answer")).to_contain_text("Hi.")
        await page.context.close()
