"""The documentation as a site: it builds without a warning, and a browser asks no other host for anything."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

import pytest
from playwright.async_api import async_playwright

ROOT = Path(__file__).parents[1]
CHROMIUM = os.environ.get("LUMINA_CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (find_spec("mkdocs") and find_spec("material") and find_spec("mkdocstrings")),
        reason="MkDocs is not installed; `make docs-check` does it",
    ),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built site."""
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert built.returncode == 0, built.stderr[-5_000:]
    return folder


class Quiet(SimpleHTTPRequestHandler):
    """Serves files and logs nothing."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def url(site: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_every_page_is_built_and_every_decision_is_in_the_navigation(site: Path) -> None:
    start = (site / "index.html").read_text(encoding="utf-8")
    for page in (ROOT / "docs").rglob("*.md"):
        name = page.relative_to(ROOT / "docs").with_suffix(".html").as_posix().replace("README.html", "index.html")
        assert (site / name).exists(), name
        assert f'href="{name}"' in start or name == "index.html", f"{name} is not in the navigation"


def test_the_reference_has_the_docstrings(site: Path) -> None:
    for page, words in {
        "masterchat": ["MasterChatSync", "conversation_id"],
        "agents": ["AgentSpec", "runs_per_minute"],
        "planning": ["fringe", "NoPlan"],
        "memory": ["RedisSaver", "from_conn_string", "IDEMPOTENCY_TTL_S"],
        "models": ["Embedder", "Budget"],
    }.items():
        text = (site / "reference" / f"{page}.html").read_text(encoding="utf-8")
        for word in words:
            assert word in text, (page, word)


def _pages(site: Path) -> list[str]:
    return [page.relative_to(site).as_posix() for page in sorted(site.rglob("*.html")) if page.name != "404.html"]


@pytest.mark.skipif(not Path(CHROMIUM).exists(), reason="no Chromium here; LUMINA_CHROMIUM may name one")
async def test_no_page_asks_another_host_nor_has_an_error(site: Path, url: str) -> None:
    pages = _pages(site)
    wrong: list[str] = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        page = await browser.new_page()
        here = urlsplit(url).netloc
        page.on("request", lambda one: None if urlsplit(one.url).netloc in (here, "") else wrong.append(one.url))
        page.on("response", lambda one: wrong.append(f"{one.status} {one.url}") if one.status >= 400 else None)
        page.on("pageerror", lambda error: wrong.append(f"{page.url}: {error}"))
        page.on("console", lambda said: wrong.append(f"{page.url}: {said.text}") if said.type == "error" else None)
        for name in pages:
            await page.goto(f"{url}/{name}", wait_until="load")
        await page.goto(f"{url}/index.html")
        await page.locator("input.md-search__input").click()
        await page.keyboard.type("fencing token")
        await page.locator(".md-search-result__item").first.wait_for()
        await browser.close()
    assert not wrong
