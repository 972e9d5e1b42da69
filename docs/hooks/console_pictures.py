"""Takes the pictures of the console: ``python docs/hooks/console_pictures.py [URL]``; ``make pictures`` does it.

Every view, 1440 and 390 pixels wide, light and dark, into ``docs/pictures/console``. Without a URL a server is started
on an empty folder; it reads, answers and summarises the sample first, so that there is something to see. Chromium is
that of the PATH, or LUMINA_CHROMIUM names it.
"""

from __future__ import annotations

import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from PIL import Image
from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "pictures" / "console"
SIZES = {1440: 900, 390: 844}
"""Width and height in pixels of CSS."""
COLOURS = 128
"""Of a picture's palette; a page has few, and nobody sees the difference."""
MAX_BYTES = 150_000
QUESTION = "Who proved that the Mandelbrot set is connected?"
ASKED = (
    {"message": "Where was Gaston Julia born?", "mode": "wiki_qa", "topics": ["Gaston Julia"], "max_nodes": 12},
    {"message": "Summarise the article on the Koch snowflake.", "mode": "summarise", "max_nodes": 3},
    {"message": QUESTION, "mode": "wiki_qa", "max_nodes": 30},
)
CRAWLS = ("Logistic map", "Cantor set", "No such article, I fear", "Newton fractal")
VIEWS = {
    "chat": ".turn .citations:not([hidden])",
    "plan": ".hasse",
    "graph": "#graph-card h2",
    "tasks": ".task",
    "events": "#events-list tr",
    "metrics": "#metrics-agents td",
}
"""A view, and what is there when it can be looked at."""


@contextmanager
def serving() -> Iterator[str]:
    """A server on an empty folder; its URL comes out."""
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
        free.close()
        command = [sys.executable, str(ROOT / "cli.py"), "serve", "--port", str(port), "--data-dir", folder]
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        url = f"http://127.0.0.1:{port}"
        try:
            while process.poll() is None:
                try:
                    httpx.get(f"{url}/health", trust_env=False, timeout=60).raise_for_status()
                    break
                except httpx.TransportError:
                    time.sleep(0.5)
            yield url
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def fill(url: str) -> str:
    """Have something to look at; the id of the conversation to show."""
    with httpx.Client(base_url=url, timeout=300, trust_env=False) as client:
        for asked in ASKED:
            print(f"asking: {asked['message']}", flush=True)
            answer = client.post("/masterchat/chat", json=asked).raise_for_status().json()
        for title in CRAWLS:
            client.post("/tasks", json={"crawl": [title], "max_nodes": 8}).raise_for_status()
        return str(answer["conversation_id"])


def take(page: Page, url: str, conversation: str, name: str) -> None:
    """A picture of every view in a page."""
    page.goto(f"{url}/#/chat/{conversation}")
    for view, full in VIEWS.items():
        rest = {"chat": conversation, "graph": "Mandelbrot_set"}.get(view, "")
        page.evaluate(f"location.hash = '#/{view}/{rest}'")
        page.locator(full).first.wait_for(timeout=60_000)
        if view == "plan":
            page.locator("#plan-runs a", has_text=QUESTION).first.click()
            page.locator("#plan-steps button").nth(1).click()
            page.evaluate("scrollTo(0, 0)")
        if view == "graph":
            page.locator('#graph-canvas[data-calm="true"]').wait_for(timeout=60_000)
            page.wait_for_timeout(1_500)  # until it has glided to its place and all lines are drawn
        page.mouse.move(0, 0)
        page.evaluate("document.activeElement.blur()")
        save(page.screenshot(), f"{view}_{name}")


def save(shot: bytes, name: str) -> None:
    """Keep a picture with a palette of few colours."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{name}.png"
    Image.open(io.BytesIO(shot)).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    size = path.stat().st_size
    print(f"{path.relative_to(ROOT)}  {size:,} bytes{'  TOO LARGE' if size > MAX_BYTES else ''}", flush=True)


def photograph(url: str) -> None:
    """All pictures of a server that runs."""
    conversation = fill(url)
    chromium = os.environ.get("LUMINA_CHROMIUM") or shutil.which("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        for width, height in SIZES.items():
            for scheme in ("light", "dark"):
                page = browser.new_page(
                    viewport={"width": width, "height": height},
                    color_scheme="dark" if scheme == "dark" else "light",
                    is_mobile=width < 500,
                    reduced_motion="reduce",
                )
                take(page, url, conversation, f"{width}_{scheme}")
                page.close()
        browser.close()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        photograph(sys.argv[1].rstrip("/"))
    else:
        with serving() as served:
            photograph(served)
