"""The console for everybody: axe finds nothing, and the keyboard is enough."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import httpx
import pytest
from axe_core_python.base import AXE_SCRIPT  # type: ignore[import-untyped]  # it has no stubs
from playwright.async_api import Page, expect

OpenPage = Callable[..., Awaitable[Page]]

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]

VIEWS = {
    "chat": ".turn",
    "plan": ".hasse",
    "graph": "#graph-card h2",
    "tasks": ".task",
    "events": "#events-list tr",
    "metrics": "#metrics-agents",
}
"""A view and what is there when it is full."""
WIDE, NARROW = 1280, 360
OTHER = {"light": "dark", "dark": "light"}


async def found_by_axe(page: Page, where: str, only: Sequence[str] = ()) -> list[str]:
    """What axe finds, whatever its impact, by all of its rules or by some."""
    if not await page.evaluate("'axe' in window"):
        await page.evaluate(AXE_SCRIPT)
    options = {"resultTypes": ["violations"], **({"runOnly": list(only)} if only else {})}
    violations = await page.evaluate("options => axe.run(document, options).then(found => found.violations)", options)
    return [
        f"{where}: {one['id']} ({one['impact']}): {node['html'][:150]} {node['failureSummary'][-200:]}"
        for one in violations
        for node in one["nodes"]
    ]


async def filled(site: Any) -> dict[str, str]:
    """Something in every view; which conversation, node and task are to be looked at there."""
    async with httpx.AsyncClient(base_url=site.url, headers=site.headers, timeout=60) as client:
        question = {"message": "Who proved that the Mandelbrot set is connected?", "mode": "wiki_qa", "max_nodes": 4}
        answered = await client.post("/masterchat/chat", json=question)
        task = await client.post("/tasks", json={"crawl": ["Julia set"], "max_nodes": 2})
        return {"chat": answered.json()["conversation_id"], "graph": "Mandelbrot_set", "events": task.json()["id"]}


@pytest.mark.timeout(500)  # some thirty runs of axe, which computes every colour
async def test_axe_finds_nothing_in_any_view_dark_or_light_wide_or_narrow(site: Any, open_page: OpenPage) -> None:
    shown = await filled(site)
    problems = [
        problem
        for scheme, width in (("light", WIDE), ("dark", NARROW))
        for problem in await looked_at(open_page, site, shown, scheme, width)
    ]
    assert not problems, "\n".join(problems)


async def looked_at(open_page: OpenPage, site: Any, shown: dict[str, str], scheme: str, width: int) -> list[str]:
    """What is wrong with the views in a scheme; where they are wide, also after the switch to the other one."""
    viewport = {"width": width, "height": 800}
    page = await open_page(site, "/#/chat", color_scheme=scheme, viewport=viewport, reduced_motion="reduce")
    await expect(page.locator("#welcome")).to_be_visible()
    problems = await found_by_axe(page, "welcome")
    for view, full in VIEWS.items():
        await page.evaluate(f"location.hash = '#/{view}/{shown.get(view, '')}'")
        await expect(page.locator(full).first).to_be_visible()
        problems += await found_by_axe(page, f"{view}, {scheme}, {width}")
        if width == WIDE:  # colours are the same at every width
            await page.evaluate("theme => { document.documentElement.dataset.theme = theme }", OTHER[scheme])
            problems += await found_by_axe(page, f"{view}, {OTHER[scheme]}", only=["color-contrast"])
            await page.evaluate("delete document.documentElement.dataset.theme")
        size = await page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert size[0] <= size[1], f"{view} is {size[0]} wide in {size[1]}"
    await page.locator("#help-open").click()
    problems += await found_by_axe(page, "help")
    await page.context.close()
    return problems


async def test_the_keyboard_is_enough(site: Any, open_page: OpenPage) -> None:
    page = await open_page(site)
    await expect(page.locator("#message")).to_be_focused()
    await page.keyboard.type("Who proved that the Mandelbrot set is connected?")
    await page.keyboard.press("Enter")
    turn = page.locator(".turn").last
    await expect(turn).to_have_attribute("aria-busy", "false", timeout=60_000)
    await focus(page, ".cite", "Shift+Tab")
    await page.keyboard.press("Enter")
    await expect(page.locator("#passage mark")).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(page.locator("#passage")).to_be_hidden()
    await page.keyboard.press("?")
    await expect(page.locator("#help")).to_contain_text("New conversation")
    await page.keyboard.press("Escape")
    await page.keyboard.press("2")
    await expect(page.locator("#plan .hasse")).to_be_visible()
    await focus(page, "#plan-steps button")
    await page.keyboard.press("Enter")
    await expect(page.locator("#plan-detail")).to_contain_text("Round 1")
    await page.keyboard.press("3")
    await expect(page.locator("#graph-size")).to_contain_text("node")
    await page.keyboard.press("/")
    await page.keyboard.type("Mandelbrot set")
    await page.keyboard.press("Enter")
    await expect(page.locator("#graph-card h2")).to_be_focused()
    await page.keyboard.press("4")
    await expect(page.locator("#tasks")).to_be_visible()
    await page.keyboard.press("/")
    await expect(page.locator("#crawl-titles")).to_be_focused()
    await page.keyboard.type("Koch snowflake")
    await focus(page, "#crawl-submit")
    await page.keyboard.press("Enter")
    await expect(page.locator(".task").first).to_contain_text("Koch snowflake")
    await focus(page, '.task a[href^="#/events"]')
    await page.keyboard.press("Enter")
    await expect(page.locator("#events-task")).to_have_value(re.compile(".{36}"))
    await page.keyboard.press("p")
    await expect(page.locator("#events-pause")).to_have_attribute("aria-pressed", "true")
    await page.keyboard.press("t")
    await expect(page.locator("html")).to_have_attribute("data-theme", "light")
    await page.keyboard.press("?")
    await focus(page, "#shortcuts-on", "Shift+Tab")
    await page.keyboard.press("Space")
    await page.keyboard.press("Escape")
    await page.keyboard.press("1")
    await expect(page.locator("#events")).to_be_visible()


async def focus(page: Page, selector: str, key: str = "Tab") -> None:
    """Go to an element as somebody does who has only a keyboard."""
    for _ in range(60):
        if await page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
        await page.keyboard.press(key)
    raise AssertionError(f"{selector} cannot be reached by {key}")


async def test_a_key_is_asked_for_once_and_kept_in_the_tab(site: Any, open_page: OpenPage) -> None:
    page = await open_page(replace(site, key=None), "/#/tasks", expected=("401",))
    await expect(page.locator("#key-dialog")).to_be_visible()
    await expect(page.locator("#key")).to_be_focused()
    await page.fill("#key", "wrong")
    await page.keyboard.press("Enter")
    await expect(page.locator("#key-why")).to_contain_text("not known")
    await page.fill("#key", site.key)
    await page.keyboard.press("Enter")
    await expect(page.locator("#tasks-empty")).to_be_visible()
    await page.reload()
    await expect(page.locator("#tasks-empty")).to_be_visible()
    await expect(page.locator("#key-dialog")).to_be_hidden()
    assert await page.evaluate("[localStorage.length, sessionStorage.length]") == [0, 1]
    other_tab = await page.context.new_page()  # a session's storage is of one tab
    await other_tab.goto(f"{site.url}/#/tasks")
    await expect(other_tab.locator("#key-dialog")).to_be_visible()


async def test_who_gives_no_key_can_give_one_later(site: Any, open_page: OpenPage) -> None:
    page = await open_page(replace(site, key=None), "/#/tasks", expected=("401",))
    await page.locator("#key-dialog").get_by_role("button", name="Cancel").click()
    await expect(page.locator("#tasks-note")).to_contain_text("key")
    await page.click('nav a[href="#/metrics"]')
    await page.fill("#key", site.key)
    await page.keyboard.press("Enter")
    await expect(page.locator("#metrics-cards li").first).to_be_visible()


async def test_focus_goes_through_the_page_in_the_order_in_which_it_is_read(site: Any, open_page: OpenPage) -> None:
    page = await open_page(site, "/#/tasks")
    await expect(page.locator("#tasks-empty")).to_be_visible()
    await page.evaluate("document.activeElement.blur()")
    found = []
    for _ in range(15):
        await page.keyboard.press("Tab")
        found.append(
            await page.evaluate(
                """() => {
                    const one = document.activeElement;
                    const seen = one.getBoundingClientRect();
                    if (!seen.width || !seen.height) return `${one.id} cannot be seen`;
                    return one.id || one.textContent;
                }"""
            )
        )
    views = ["Chat", "Plan", "Graph", "Tasks", "Events", "Metrics"]
    form = ["crawl-titles", "crawl-hops", "crawl-nodes", "crawl-submit", "tasks-status"]
    assert found == ["skip", "Lumina", *views, "theme", "help-open", *form]


async def test_candidates_and_figures_fit_their_places(site: Any, open_page: OpenPage) -> None:
    page = await open_page(site, "/#/plan", viewport={"width": WIDE, "height": 800})
    await page.fill("#plan-message", "Where was Gaston Julia born?")
    await page.press("#plan-message", "Enter")
    table = page.locator("#plan-detail .scroll")
    await expect(table).to_contain_text("dearer")
    assert await table.evaluate("one => one.scrollWidth <= one.clientWidth")
    await page.click('nav a[href="#/metrics"]')
    await expect(page.locator("#metrics-cards li")).to_have_count(8)
    tops = "cards => new Set([...cards.children].map((one) => one.getBoundingClientRect().top)).size"
    assert await page.locator("#metrics-cards").evaluate(tops) == 1


async def test_nothing_moves_for_who_wants_less_motion(site: Any, open_page: OpenPage) -> None:
    moving = """() => document.getAnimations().length"""
    for reduced in ("no-preference", "reduce"):
        page = await open_page(site, reduced_motion=reduced)
        await page.fill("#message", "Think for ever.")
        await page.select_option("#mode", "chat")
        await page.press("#message", "Enter")
        await expect(page.locator(".goals .running")).to_be_visible()
        assert bool(await page.evaluate(moving)) is (reduced == "no-preference")
        await page.click("#stop")
        await expect(page.locator(".turn")).to_have_attribute("aria-busy", "false")
