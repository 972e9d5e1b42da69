from __future__ import annotations

import gzip
import json
import re
from collections.abc import AsyncIterator

import httpx
import pytest

from server import create_app
from serving.console import UI
from settings import load_settings

TYPES = {
    "html": ("text/html",),
    "js": ("text/javascript", "application/javascript"),
    "css": ("text/css",),
    "svg": ("image/svg+xml",),
}
FILES = sorted(str(path.relative_to(UI)) for path in UI.rglob("*") if path.is_file())
MODULES = [name for name in FILES if name.endswith(".js")]
MAX_GZIP_BYTES = 100_000
"""The first load may have 300 KB; all views together have a third of it, and shall keep it so."""
NAMESPACE = "http://www.w3.org/2000/svg"  # a name, which nobody looks up


@pytest.fixture
async def browser() -> AsyncIterator[httpx.AsyncClient]:
    """A client of an application whose services are not open: a static page needs none, and no key."""
    transport = httpx.ASGITransport(create_app(load_settings(lumina_api_keys="ada:k1")))
    async with httpx.AsyncClient(transport=transport, base_url="http://lumina") as client:
        yield client


async def test_the_console_is_at_the_root(browser: httpx.AsyncClient) -> None:
    page = await browser.get("/")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert page.text == (UI / "index.html").read_text()
    assert (await browser.head("/")).status_code == 200


@pytest.mark.parametrize("name", FILES)
async def test_every_file_is_served_with_its_type_and_may_load_nothing_from_elsewhere(
    browser: httpx.AsyncClient, name: str
) -> None:
    response = await browser.get(f"/ui/{name}")
    assert response.status_code == 200
    assert response.headers["content-type"].split(";")[0] in TYPES[name.rpartition(".")[2]]
    policy = dict(part.strip().split(" ", 1) for part in response.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert {policy[f"{kind}-src"] for kind in ("script", "style", "img", "connect", "worker")} == {"'self'"}
    assert response.headers["x-content-type-options"] == "nosniff"
    again = await browser.get(f"/ui/{name}", headers={"If-None-Match": response.headers["etag"]})
    assert again.status_code == 304
    assert again.headers["content-security-policy"] == response.headers["content-security-policy"]


@pytest.mark.parametrize("name", FILES)
def test_no_file_names_another_host(name: str) -> None:
    text = (UI / name).read_text().replace(NAMESPACE, "")
    assert not re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}|https?://[^\s\"']+|@import|url\(", text)


def test_the_page_has_no_inline_script_or_style_which_the_policy_would_refuse() -> None:
    text = (UI / "index.html").read_text()
    assert not re.findall(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", text)


def test_every_control_has_a_label_and_every_id_that_a_module_asks_for_is_there() -> None:
    page = (UI / "index.html").read_text()
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    labelled = set(re.findall(r'<label for="([^"]+)"', page))
    wrapped = re.sub(r"<label>.*?</label>", "", page)
    controls = set(re.findall(r'<(?:textarea|select|input)[^>]*\bid="([^"]+)"', wrapped))
    assert controls
    assert controls <= labelled
    asked = {id_ for name in MODULES for id_ in re.findall(r'\b(?:by|copy|table)\("([^"]+)"', (UI / name).read_text())}
    assert asked <= set(ids), asked - set(ids)


def test_every_module_says_what_it_is_for_and_imports_only_what_is_there() -> None:
    for name in MODULES:
        text = (UI / name).read_text()
        assert text.startswith("/**"), name
        for wanted in re.findall(r'(?:from|import\() ?"(\.[^"]+)"|import "([^"]+)"', text):
            path = "".join(wanted)
            assert ((UI / name).parent / path).is_file(), f"{name} imports {path}"


def test_the_whole_console_is_small() -> None:
    packed = {name: len(gzip.compress((UI / name).read_bytes(), 6)) for name in FILES}
    assert sum(packed.values()) < MAX_GZIP_BYTES, packed


async def test_what_is_not_there_is_a_problem_document(browser: httpx.AsyncClient) -> None:
    for path in ("/ui/nothing.js", "/ui/../server.py", "/ui/%2e%2e/server.py"):
        response = await browser.get(path)
        assert response.status_code == 404
        assert json.loads(response.text)["status"] == 404
