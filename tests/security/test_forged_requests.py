"""A crawl asks the configured encyclopaedia and nobody else, whatever people, wikis or pages say (SSRF)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest

from graphs.runs import Runner
from tools.wikipedia.api import RefusedByWiki
from tools.wikipedia.mediawiki import MediaWiki
from tools.wikipedia.opening import open_source
from tools.wikipedia.source import InvalidSource

Live = Callable[..., AbstractAsyncContextManager[str]]
Lumina = Callable[..., AbstractAsyncContextManager[Runner]]
API = "http://wiki.test:8080/w/api.php"
SITE = {
    "general": {"server": "//wiki.test", "script": "/w/index.php", "articlepath": "/wiki/$1", "case": "first-letter"},
    "namespaces": {"0": {"id": 0, "name": ""}},
    "namespacealiases": [],
    "interwikimap": [{"prefix": "aws", "url": "http://169.254.169.254/$1"}],
    "extensions": [],
}
TARGETS = [
    "http://169.254.169.254/latest/meta-data/iam",
    "http://127.0.0.1:6379/",
    "http://[::1]/",
    "file:///etc/passwd",
    "gopher://127.0.0.1:6379/_FLUSHALL",
    "//169.254.169.254/latest",
    "aws:latest/meta-data",
    "../../../../etc/passwd",
]


class Wiki:
    """A wiki with one article, which links to what it should not; it remembers who was asked."""

    def __init__(self, redirect: str | None = None) -> None:
        self.redirect = redirect
        self.asked: list[httpx.URL] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request.url)
        params = {name: values[0] for name, values in parse_qs(request.url.query.decode()).items()}
        if self.redirect:
            return httpx.Response(302, headers={"location": self.redirect})
        if params.get("meta") == "siteinfo":
            return httpx.Response(200, json={"query": SITE})
        if params.get("action") == "opensearch":
            return httpx.Response(200, json=["", []])
        titles = params.get("titles", "").split("|")
        return httpx.Response(200, json={"batchcomplete": True, "query": {"pages": [page(title) for title in titles]}})

    def source(self) -> MediaWiki:
        client = httpx.AsyncClient(transport=httpx.MockTransport(self), follow_redirects=True)
        return MediaWiki(API, contact="ada@wiki.test", client=client, max_attempts=1)


def page(title: str) -> dict[str, Any]:
    if title != "Island":
        return {"ns": 0, "title": title, "missing": True}
    links = " ".join(f"[[{target}]] [{target} away]" for target in TARGETS)
    text = f"An island is land with water around it. {{{{:http://169.254.169.254/}}}} {links}"
    revision = {"revid": 7, "timestamp": "2024-01-02T03:04:05Z", "size": len(text)}
    slots = {"main": {"contentmodel": "wikitext", "content": text}}
    return {"pageid": 1, "ns": 0, "title": title, "revisions": [{**revision, "slots": slots}]}


async def test_an_address_for_a_topic_is_only_ever_a_title(live: Live) -> None:
    wiki = Wiki()
    async with live(source=wiki.source()) as url, httpx.AsyncClient(base_url=url, timeout=60) as client:
        body = {"message": "Read these", "mode": "crawl", "topics": TARGETS, "stream": False}
        answer = await client.post("/masterchat/chat", json=body)
    assert answer.status_code == 422, answer.text
    assert "has no article" in answer.text
    assert {(asked.host, asked.port) for asked in wiki.asked} == {("wiki.test", 8080)}


async def test_links_and_templates_of_a_page_lead_to_titles_of_the_same_wiki(live: Live) -> None:
    wiki = Wiki()
    async with live(source=wiki.source()) as url, httpx.AsyncClient(base_url=url, timeout=60) as client:
        body = {"message": "Read", "mode": "crawl", "topics": ["Island"], "hops": 2, "stream": False}
        answer = (await client.post("/masterchat/chat", json=body)).json()
    assert answer["outcome"]["status"] in ("done", "partial"), answer
    assert wiki.asked
    assert {(asked.host, asked.port, asked.path) for asked in wiki.asked} == {("wiki.test", 8080, "/w/api.php")}


@pytest.mark.parametrize(
    "location",
    [
        "http://169.254.169.254/latest/meta-data",
        "http://127.0.0.1/w/api.php",
        "http://localhost:8080/w/api.php",
        "http://wiki.test:6379/w/api.php",
        "http://wiki.test/w/api.php",
        "https://wiki.test:6379/w/api.php",
        "http://wiki.test:99999999/w/api.php",
        "http://wiki.test@169.254.169.254/",
        "//169.254.169.254/latest",
        "file:///etc/passwd",
    ],
)
async def test_a_wiki_that_redirects_elsewhere_is_not_followed(location: str) -> None:
    wiki = Wiki(redirect=location)
    with pytest.raises(RefusedByWiki, match="is not followed"):
        await wiki.source().fetch(["Island"])
    assert [(asked.host, asked.port) for asked in wiki.asked] == [("wiki.test", 8080)]


async def test_an_upgrade_to_https_is_followed() -> None:
    wiki = Wiki(redirect="https://wiki.test/w/api.php")
    with pytest.raises(RefusedByWiki, match="redirects more than"):
        await wiki.source().fetch(["Island"])
    assert wiki.asked[1].scheme == "https"


@pytest.mark.parametrize(
    "wiki_source",
    [
        "file:///etc/passwd",
        "FILE:/etc/passwd.zim",
        "gopher://127.0.0.1/x.zim",
        "data:text/plain,x.zim",
        "javascript:x.zim",
        "/etc/passwd",
        "../../etc/passwd",
        "sample.zim/../../../etc/passwd",
        "/etc/passwd\x00.zim",
        "/dev/zero.zim",
        "/proc/self/environ",
        "http://169.254.169.254/w/api.php",
        "http://wiki.test/../../etc/passwd",
        "http://user:pass@wiki.test/w/api.php",
        "http:///etc/passwd",
    ],
)
async def test_a_source_that_is_neither_a_wiki_nor_an_archive_is_refused(wiki_source: str) -> None:
    with pytest.raises(InvalidSource) as caught:
        async with open_source(wiki_source, contact="x"):
            pass
    assert "pass@" not in str(caught.value)


async def test_a_file_that_only_pretends_to_be_an_archive_is_not_read(tmp_path: Any) -> None:
    (tmp_path / "secret.zim").symlink_to("/etc/passwd")
    with pytest.raises(InvalidSource, match="is not a ZIM archive"):
        async with open_source(str(tmp_path / "secret.zim"), contact="x"):
            pass
