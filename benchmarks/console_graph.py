"""How smooth the console's graph is: from frame to frame while it is moved and zoomed, and while it is laid out.

``python -m benchmarks.console_graph [--short]``; 5,000 nodes and 20,000 edges in headless Chromium without a graphics
card, 1440 × 900; the figures say what drew the canvas. No server: the page's files come from ``ui/``, the graph is made
up here. Chromium is that of the PATH, or LUMINA_CHROMIUM names it.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import statistics
import sys
from mimetypes import guess_type
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.figures import OURS, Figures
from benchmarks.harness import finish, options, rounds_of
from serving.console import HEADERS, UI

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page, Route

NODES, EDGES = 5_000, 20_000
SEED = 7
SITE = "http://console.invalid"
CALM_MS = 300_000
FRAMES = """async (moved) => {
    const canvas = document.getElementById("graph-canvas");
    const box = canvas.getBoundingClientRect();
    const [x, y] = [box.left + box.width / 2, box.top + box.height / 2];
    const send = (kind, more) => canvas.dispatchEvent(new PointerEvent(kind, { pointerId: 1, bubbles: true, ...more }));
    canvas.setPointerCapture = () => {};
    const times = [];
    let before = await new Promise(requestAnimationFrame);
    for (let n = 0; n < 300; n++) {
        if (moved && n % 100 < 60) {
            const turn = { deltaY: n % 40 < 20 ? -60 : 60, clientX: x, clientY: y, cancelable: true };
            canvas.dispatchEvent(new WheelEvent("wheel", turn));
        } else if (moved) {
            const at = (n % 100 - 60) * 6;
            if (n % 100 === 60) send("pointerdown", { clientX: box.left + 3, clientY: box.top + 3 });
            send("pointermove", { clientX: box.left + 3 + at, clientY: box.top + 3 + at / 2 });
            if (n % 100 === 99) send("pointerup", { clientX: box.left + 3 + at, clientY: box.top + 3 + at / 2 });
        }
        const now = await new Promise(requestAnimationFrame);
        times.push(now - before);
        before = now;
        if (!moved && canvas.dataset.calm === "true") break;
    }
    return times;
}"""
"""Milliseconds from frame to frame: 300 while the graph is zoomed and drawn about, or until the layout is calm."""


def graph() -> dict[str, Any]:
    """A graph that grew as the web does: who is linked to often is linked to more often (Barabási & Albert 1999)."""
    chance = random.Random(SEED)
    ends, edges = [0], set()
    for node in range(1, NODES):
        ends.append(node)
        edges.add((node, chance.choice(ends[:-1])))
    while len(edges) < EDGES:
        node, other = chance.randrange(NODES), chance.choice(ends)
        if node != other and (node, other) not in edges:
            edges.add((node, other))
            ends += [node, other]
    return {
        "nodes": [{"id": f"n{n}", "title": f"Article {n}", "data": {}} for n in range(NODES)],
        "edges": [{"source": f"n{a}", "target": f"n{b}", "type": "link"} for a, b in sorted(edges)],
        "truncated": False,
    }


async def answer(route: Route, made: str) -> None:
    """Answer a request of the page: its files, the graph, and nothing else."""
    path = urlsplit(route.request.url).path
    if path == "/graph":
        await route.fulfill(body=made, content_type="application/json")
    elif path == "/" or path.startswith("/ui/"):
        file = UI / (path.removeprefix("/ui/") if path != "/" else "index.html")
        await route.fulfill(body=file.read_bytes(), content_type=guess_type(file.name)[0], headers=HEADERS)
    else:
        await route.fulfill(status=204)


async def measure(browser: Browser, made: str, figures: Figures) -> None:
    """One visit of the graph view."""
    page: Page = await browser.new_page(viewport={"width": 1440, "height": 900})
    await page.route("**/*", lambda route: answer(route, made))
    await page.goto(f"{SITE}/#/graph")
    size = page.locator("#graph-size", has_text="nodes")
    await size.wait_for()
    began = asyncio.get_running_loop().time()
    laying_out = await page.evaluate(FRAMES, False)
    calm = page.locator('#graph-canvas[data-calm="true"]')
    await calm.wait_for(timeout=CALM_MS)
    figures.note("layout is calm, s", OURS, asyncio.get_running_loop().time() - began)
    figures.note("frame beside the layout, ms", OURS, statistics.median(laying_out))
    moved = await page.evaluate(FRAMES, True)
    figures.note("frame while moved, ms", OURS, statistics.median(moved))
    figures.note("95 of 100 frames while moved, ms", OURS, statistics.quantiles(moved, n=20)[-1])
    await page.close()


async def renderer(browser: Browser) -> str:
    """What draws a canvas in this browser, by its own account."""
    session = await browser.new_browser_cdp_session()
    gpu = (await session.send("SystemInfo.getInfo"))["gpu"]
    canvas = gpu.get("featureStatus", {}).get("2d_canvas", "unknown")
    if "software" in canvas:
        return f"the processor (2d_canvas: {canvas})"
    return f"{gpu['devices'][0]['deviceString']} (2d_canvas: {canvas})"


async def main(figures: Figures, rounds: int) -> None:
    from playwright.async_api import async_playwright  # of the development packages

    chromium = os.environ.get("LUMINA_CHROMIUM") or shutil.which("chromium")
    made = json.dumps(graph())
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        figures.ran_on = {"chromium": browser.version, "canvas drawn by": await renderer(browser)}
        for _ in range(rounds):
            await measure(browser, made, figures)
        await browser.close()


if __name__ == "__main__":
    given = options(__doc__, rounds=5).parse_args()
    collected = Figures("console_graph")
    asyncio.run(main(collected, rounds_of(given)))
    finish(collected, given)
