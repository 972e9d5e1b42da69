"""The manners and the rules of the MediaWiki API, against a scripted wiki that counts requests."""

from __future__ import annotations

import asyncio
import email.utils
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest

from tools.wikipedia.api import RefusedByWiki
from tools.wikipedia.mediawiki import MediaWiki
from tools.wikipedia.reading import TextFrom
from tools.wikipedia.source import SourceUnavailable

API = "https://wiki.test/w/api.php"
EPOCH = 1_700_000_000.0
PROSE = "'''It''' is a [[set]] of [[number]]s, known for a long time."
Params = dict[str, str]
Answer = dict[str, Any] | list[Any] | httpx.Response
SITE = {
    "general": {"server": "//wiki.test", "script": "/w/index.php", "articlepath": "/wiki/$1", "case": "first-letter"},
    "namespaces": {"0": {"id": 0, "name": ""}, "6": {"id": 6, "name": "File", "canonical": "File"}},
    "namespacealiases": [{"id": 6, "alias": "Image"}],
    "interwikimap": [{"prefix": "fr"}],
    "extensions": [{"name": "TextExtracts"}],
}


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.at = EPOCH
        self.slept: list[float] = []

    def now(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.at += seconds
        await asyncio.sleep(0)


class Wiki:
    """A wiki that answers from a function and remembers what it was asked."""

    def __init__(self, answer: Callable[[Params], Answer], **site: Any) -> None:
        self.answer, self.site = answer, {**SITE, **site}
        self.asked: list[Params] = []
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        query = request.url.query.decode() or request.content.decode()
        params = {name: values[0] for name, values in parse_qs(query).items()}
        self.requests.append(request)
        if params.get("meta") == "siteinfo":
            return httpx.Response(200, json={"query": self.site})
        self.asked.append(params)
        said = self.answer(params)
        return said if isinstance(said, httpx.Response) else httpx.Response(200, json=said)


def opened(wiki: Wiki, clock: Clock | None = None, *, text: TextFrom = "auto", **options: Any) -> MediaWiki:
    clock = clock or Clock()
    client = httpx.AsyncClient(transport=httpx.MockTransport(wiki))
    hooks: dict[str, Any] = {"sleep": clock.sleep, "now": clock.now, "jitter": lambda: 0.5}
    return MediaWiki(API, contact="ada@wiki.test", client=client, text=text, **hooks, **options)


def article(title: str, text: str = PROSE, **more: Any) -> dict[str, Any]:
    slot = {"contentmodel": "wikitext", "content": text}
    revision = {"revid": 7, "timestamp": "2024-01-02T03:04:05Z", "size": len(text.encode()), "slots": {"main": slot}}
    return {"pageid": 1, "ns": 0, "title": title, "revisions": [revision], **more}


def query(pages: Iterable[dict[str, Any]] = (), **more: Any) -> dict[str, Any]:
    return {"batchcomplete": True, "query": {"pages": list(pages), **more}}


def echo(params: Params) -> Answer:
    return query(article(title) for title in params["titles"].split("|"))


async def test_titles_are_asked_fifty_at_a_time_and_the_same_title_once() -> None:
    wiki = Wiki(echo)
    fetched = await opened(wiki).fetch([f"Page {number}" for number in range(120)] * 2)
    assert [len(params["titles"].split("|")) for params in wiki.asked] == [50, 50, 20]
    assert len(fetched.pages) == 120
    assert len(wiki.requests) == 4, "one for the site's facts"


async def test_each_request_says_who_asks_and_how_much_lag_is_too_much() -> None:
    wiki = Wiki(echo)
    await opened(wiki).fetch(["Fractal"])
    request, params = wiki.requests[-1], wiki.asked[-1]
    assert request.headers["user-agent"].startswith("Lumina/0.1 (ada@wiki.test)")
    assert "gzip" in request.headers["accept-encoding"]
    assert (params["maxlag"], params["formatversion"], params["rvslots"]) == ("5", "2", "main")


async def test_a_page_has_prose_links_revision_and_permanent_address() -> None:
    fetched = await opened(Wiki(echo)).fetch(["Cantor set"])
    (page,) = fetched.pages
    assert (page.title, page.revision, page.timestamp) == ("Cantor set", "7", "2024-01-02T03:04:05Z")
    assert page.url == "https://wiki.test/w/index.php?title=Cantor_set&oldid=7"
    assert page.sections[0].text == "It is a set of numbers, known for a long time."
    assert page.links == ("Set", "Number")


@pytest.mark.parametrize("server", ["", "http://localhost", "nonsense"])
async def test_an_unusable_server_name_gives_way_to_the_host_that_was_asked(server: str) -> None:
    wiki = Wiki(echo, general={"server": server, "script": "/w/index.php"})
    fetched = await opened(wiki).fetch(["Set"])
    assert fetched.pages[0].url == "https://wiki.test/w/index.php?title=Set&oldid=7"


async def test_continuation_is_followed_to_the_end_and_joined() -> None:
    def answer(params: Params) -> Answer:
        if "rvcontinue" not in params:
            return {**query([{"ns": 0, "title": "B"}, article("A")]), "continue": {"rvcontinue": "9", "continue": "||"}}
        return query([article("B", "'''B''' comes later."), {"ns": 0, "title": "A"}])

    wiki = Wiki(answer)
    fetched = await opened(wiki).fetch(["A", "B"])
    assert {page.title: page.sections[0].text[:9] for page in fetched.pages} == {"A": "It is a s", "B": "B comes l"}
    assert [params.get("continue") for params in wiki.asked] == [None, "||"]


async def test_every_title_lands_in_exactly_one_place() -> None:
    def answer(params: Params) -> Answer:
        return query(
            [
                article("Fractal"),
                {"ns": 0, "title": "Nowhere", "missing": True},
                {"ns": 14, "title": "Category:Sets"},
                {"ns": -1, "title": "Special:Search", "special": True},
                {"title": "Odd:title", "invalid": True, "invalidreason": "The wiki refuses it."},
                article("Empty", "  \n"),
                article("Comment only", "<!-- nothing -->"),
                article("Huge", "word " * 100),
                article("Data", pageid=3)
                | {"revisions": [{"revid": 1, "slots": {"main": {"contentmodel": "json", "content": "{}"}}}]},
                article("Hidden")
                | {"revisions": [{"revid": 1, "slots": {"main": {"contentmodel": "wikitext", "texthidden": True}}}]},
            ],
            normalized=[{"from": "fractal", "to": "Fractal"}, {"from": "fractals", "to": "Fractals"}],
            redirects=[
                {"from": "Fractals", "to": "Fractal", "tofragment": "History"},
                {"from": "Loop A", "to": "Loop B"},
                {"from": "Loop B", "to": "Loop A"},
                {"from": "Self", "to": "Self"},
            ],
            interwiki=[{"title": "fr:Fractale", "iw": "fr"}],
        )

    asked = [
        "fractal", "Fractal#History", "fractals", "_Fractal_", "Nowhere", "Category:Sets", "Special:Search",
        "Odd:title", "Empty", "Comment only", "Huge", "Data", "Hidden", "Loop A", "Loop B", "Self", "fr:Fractale",
        "a[b", "x|y", "", "#only", "é" * 128,
    ]  # fmt: skip
    wiki = Wiki(answer)
    fetched = await opened(wiki, max_page_bytes=400).fetch(asked)
    (page,) = fetched.pages
    assert page.redirected_from == ("fractal", "Fractal#History", "fractals", "_Fractal_")
    assert fetched.missing == ("Nowhere",)
    assert sorted([*page.redirected_from, *fetched.missing, *fetched.skipped]) == sorted(asked)
    reasons = {
        "Category:Sets": "not an article", "Special:Search": "not an article", "Odd:title": "refuses", "Empty": "empty",
        "Comment only": "empty", "Huge": "too large: 500 bytes", "Data": "json", "Hidden": "hides",
        "Loop A": "redirect loop", "Loop B": "redirect loop",
        "Self": "redirect loop", "fr:Fractale": "another wiki", "a[b": "'['", "x|y": "'|'",
        "": "empty", "#only": "empty", "é" * 128: "256 bytes",
    }  # fmt: skip
    assert {title: reason in fetched.skipped[title] for title, reason in reasons.items()} == dict.fromkeys(
        reasons, True
    )
    assert "a[b" not in wiki.asked[0]["titles"], "what cannot be a title is not asked for"


async def test_titles_of_255_bytes_are_sent_in_the_body() -> None:
    titles = [f"{number:03}" + "é" * 126 for number in range(50)]
    wiki = Wiki(echo)
    fetched = await opened(wiki).fetch(titles)
    assert len(fetched.pages) == 50
    assert wiki.requests[-1].method == "POST"


@pytest.mark.parametrize(
    "page",
    [
        article("X", pageprops={"disambiguation": ""}),
        article("X", categories=[{"ns": 14, "title": "Category:Disambiguation pages"}]),
        article("X", PROSE + "\n{{disambiguation}}"),
        article("X (disambiguation)"),
    ],
    ids=["property", "category", "template", "title"],
)
async def test_disambiguation_pages_are_recognised(page: dict[str, Any]) -> None:
    fetched = await opened(Wiki(lambda params: query([page]))).fetch([page["title"]])
    assert fetched.pages[0].disambiguation


def failing(times: int, failure: Callable[[], httpx.Response]) -> Callable[[Params], Answer]:
    left = [times]

    def answer(params: Params) -> Answer:
        left[0] -= 1
        return failure() if left[0] >= 0 else echo(params)

    return answer


MAXLAG = {"error": {"code": "maxlag", "info": "Waiting for a database server: 6 seconds lagged."}}


@pytest.mark.parametrize(
    ("failure", "wait_s"),
    [
        (lambda: httpx.Response(429, headers={"retry-after": "7"}), 7.25),
        (lambda: httpx.Response(503, headers={"retry-after": email.utils.formatdate(EPOCH + 9, usegmt=True)}), 9.25),
        (lambda: httpx.Response(200, headers={"retry-after": "5"}, json=MAXLAG), 5.25),
        (lambda: httpx.Response(200, json={"error": {"code": "ratelimited", "info": "Slow down."}}), 0.375),
        (lambda: httpx.Response(502), 0.375),
        (lambda: httpx.Response(429, headers={"retry-after": "soon"}), 0.375),
    ],
    ids=["429 seconds", "503 date", "maxlag", "ratelimited", "502", "unreadable"],
)
async def test_a_busy_wiki_is_asked_again_after_the_wait_it_names(
    failure: Callable[[], httpx.Response], wait_s: float
) -> None:
    clock, wiki = Clock(), Wiki(failing(1, failure))
    fetched = await opened(wiki, clock).fetch(["Set"])
    assert len(fetched.pages) == 1
    assert clock.slept == pytest.approx([wait_s])
    assert len(wiki.asked) == 2


async def test_a_wait_that_the_wiki_names_holds_for_every_request() -> None:
    clock = Clock()
    wiki = Wiki(failing(1, lambda: httpx.Response(429, headers={"retry-after": "60"})))
    times: list[float] = []
    inner = wiki.answer

    def timed(params: Params) -> Answer:
        times.append(clock.at)
        return inner(params)

    wiki.answer = timed
    await opened(wiki, clock, concurrency=1).fetch([f"P{number}" for number in range(150)])
    assert times[0] == EPOCH
    assert all(at >= EPOCH + 60 for at in times[1:])


async def test_a_source_that_stays_down_gives_one_line_with_host_cause_and_count() -> None:
    def down(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("All connection attempts failed")

    clock = Clock()
    client = httpx.AsyncClient(transport=httpx.MockTransport(down))
    source = MediaWiki(
        API, contact="x", client=client, max_attempts=4, sleep=clock.sleep, now=clock.now, jitter=lambda: 1.0
    )
    with pytest.raises(SourceUnavailable) as caught:
        await source.fetch(["Set"])
    assert str(caught.value) == (
        "wiki.test: All connection attempts failed; tried 4 times, giving up. Try again later."
    )
    assert clock.slept == [0.5, 1.0, 2.0], "exponential"
    assert source.requests_sent == 4


async def test_a_wait_longer_than_accepted_is_not_waited_for() -> None:
    clock, wiki = Clock(), Wiki(lambda params: httpx.Response(429, headers={"retry-after": "3600"}))
    with pytest.raises(SourceUnavailable, match="asks to wait 3600 s"):
        await opened(wiki, clock).fetch(["Set"])
    assert clock.slept == []


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (httpx.Response(403, text="Please set a user-agent"), "HTTP 403: Please set a user-agent"),
        (httpx.Response(200, text="<html>no api</html>"), "must be the address of api.php"),
        (httpx.Response(200, json={"error": {"code": "badvalue", "info": "No."}}), "refused the query: badvalue: No."),
        (httpx.Response(302, headers={"location": "http://169.254.169.254/latest"}), "which is not followed"),
        (httpx.Response(302, headers={"location": "http://wiki.test/w/api.php"}), "which is not followed"),
        (httpx.Response(200, content=b"[" + b" " * 5000), "JSON"),
    ],
    ids=["403", "html", "error", "other host", "downgrade", "broken"],
)
async def test_an_answer_that_no_repetition_mends_is_not_repeated(answer: httpx.Response, message: str) -> None:
    wiki = Wiki(lambda params: answer)
    with pytest.raises(RefusedByWiki, match=message) as caught:
        await opened(wiki).fetch(["Set"])
    assert "\n" not in str(caught.value)
    assert len(wiki.asked) == 1


async def test_a_redirect_on_the_same_host_is_followed() -> None:
    def answer(params: Params) -> Answer:
        moved = httpx.Response(301, headers={"location": "/new/api.php?action=query"})
        return moved if wiki.requests[-1].url.path.startswith("/w/") else echo(params)

    wiki = Wiki(answer)
    assert len((await opened(wiki).fetch(["Set"])).pages) == 1
    assert wiki.requests[-1].url.path == "/new/api.php"


async def test_unknown_templates_of_a_batch_cost_one_request_and_are_remembered() -> None:
    def answer(params: Params) -> Answer:
        if params["action"] == "expandtemplates":
            return {"expandtemplates": {"wikitext": params["text"].replace("{{people|Malta}}", "'''519''' [[x]]")}}
        return query(article(title, "There live {{people|Malta}} on it.") for title in params["titles"].split("|"))

    wiki = Wiki(answer)
    source = opened(wiki)
    fetched = await source.fetch([f"P{number}" for number in range(50)])
    assert {page.sections[0].text for page in fetched.pages} == {"There live 519 x on it."}
    await source.fetch(["Q"])
    assert [params["action"] for params in wiki.asked] == ["query", "expandtemplates", "query"]


@pytest.mark.parametrize("extensions", [[{"name": "TextExtracts"}], []], ids=["extracts", "parse"])
async def test_a_page_that_wikitext_does_not_tell_is_rendered_by_the_wiki(extensions: list[dict[str, str]]) -> None:
    def answer(params: Params) -> Answer:
        if params["action"] == "parse":
            return {
                "parse": {"text": '<div class="mw-parser-output"><p>All of it, <a href="/wiki/Set">sets</a>.</p></div>'}
            }
        if params.get("prop") == "extracts":
            return query([{"title": "T", "extract": "All of it, sets.\n\n== References ==\nBook."}])
        return query([article("T", "{{whole article}}\n" * 20)])

    fetched = await opened(Wiki(answer, extensions=extensions)).fetch(["T"])
    assert [section.text for section in fetched.pages[0].sections] == ["All of it, sets."]


async def test_formulas_of_extracts_are_read_once() -> None:
    mathml = "\n\n  \n    \n      \n        x\n        =\n        1\n      \n    \n    "
    extract = f"Let{mathml}{{\\displaystyle x=1}}\n   be so.\n\n\n== A ==\nMore."
    wiki = Wiki(lambda params: query([{**article("T"), "extract": extract}]))
    fetched = await opened(wiki, text="extracts").fetch(["T"])
    text = " ".join(fetched.pages[0].sections[0].text.split())
    assert "x=1" in text
    assert "displaystyle" not in text
    assert "x = 1" not in text.replace("x=1", "")
    assert fetched.pages[0].sections[-1].path == ("A",)


async def test_a_misspelt_title_is_found_by_completing_shorter_beginnings() -> None:
    titles = ["Mandelbrot set", "Mandolin", "Fractal", "Frankfurt"]

    def answer(params: Params) -> Answer:
        if params["action"] == "opensearch":
            wanted = params["search"].lower()
            return [wanted, [title for title in titles if title.lower().startswith(wanted)], [], []]
        return {"query": {"search": []}}

    source = opened(Wiki(answer))
    assert (await source.suggest("Mandelbort set"))[0] == "Mandelbrot set"
    assert (await source.suggest("Frctal"))[0] == "Fractal"
    assert await source.suggest("Fract", 1) == ["Fractal"]
    assert await source.suggest("  ") == []


async def test_articles_are_listed_page_by_page_until_there_are_enough() -> None:
    def answer(params: Params) -> Answer:
        at = int(params.get("apcontinue", "0"))
        found = [{"pageid": n, "ns": 0, "title": f"T{n}"} for n in range(at, at + 2)]
        more = {"continue": {"apcontinue": str(at + 2), "continue": "-||"}} if at < 4 else {}
        return {"query": {"allpages": found}, **more}

    wiki = Wiki(answer)
    assert await opened(wiki).titles(3) == ["T0", "T1", "T2"]
    assert [one.get("apcontinue") for one in wiki.asked] == [None, "2"]
    assert wiki.asked[0]["apfilterredir"] == "nonredirects"
    assert await opened(wiki).titles(100) == [f"T{n}" for n in range(6)]
    assert await opened(Wiki(lambda params: {})).titles(5) == []


async def test_closing_leaves_a_client_that_was_passed_in_open() -> None:
    client = httpx.AsyncClient(transport=httpx.MockTransport(Wiki(echo)))
    source = MediaWiki(API, contact="x", client=client)
    await source.aclose()
    assert not client.is_closed
    await client.aclose()


@pytest.mark.parametrize("shape", [{}, {"query": {}}, {"batchcomplete": True}, {"query": {"pages": []}}], ids=str)
async def test_answers_of_any_shape_do_not_crash(shape: dict[str, Any]) -> None:
    assert (await opened(Wiki(lambda params: shape)).fetch(["Set"])).missing == ("Set",)
