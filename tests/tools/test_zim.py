"""ZIM archives: titles, redirects, revisions, links, search; with archives written here."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from libzim.writer import Creator, Hint, Item, StringProvider

from tools.wikipedia.html import read_html
from tools.wikipedia.opening import open_source
from tools.wikipedia.source import InvalidSource, SourceError
from tools.wikipedia.zim import Zim


class Entry(Item):  # type: ignore[misc]  # libzim has no types here
    def __init__(self, path: str, title: str, content: str, mimetype: str = "text/html") -> None:
        super().__init__()
        self.path, self.title, self.content, self.mimetype = path, title, content, mimetype

    def get_path(self) -> str:
        return self.path

    def get_title(self) -> str:
        return self.title

    def get_mimetype(self) -> str:
        return self.mimetype

    def get_contentprovider(self) -> StringProvider:
        return StringProvider(self.content)

    def get_hints(self) -> dict[Hint, int]:
        return {Hint.FRONT_ARTICLE: self.mimetype == "text/html"}


def html(title: str, body: str, head: str = "") -> str:
    return f"<!doctype html><html><head><title>{title}</title>{head}</head><body><h1>{title}</h1>{body}</body></html>"


MANDELBROT = html(
    "Mandelbrot set",
    "<p>The <b>Mandelbrot set</b> is related to "
    '<a href="Julia_set">Julia sets</a> and <a href="./Fractals">fractals</a>.</p>'
    '<table class="infobox"><tr><td>Field: <a href="Complex_dynamics">dynamics</a></td></tr></table>'
    "<figure><figcaption>A picture</figcaption></figure>"
    '<h2>History</h2><p>First drawn in 1978<sup class="reference">[1]</sup>, at 10<sup>6</sup> points.</p>'
    "<ul><li>One <ul><li>nested</li></ul></li><li>Two</li></ul><blockquote><p>Said.</p></blockquote>"
    '<h3>Later</h3><dl><dt>Term</dt><dd>meaning</dd></dl><h2>See also</h2><ul><li><a href="Nowhere">red</a>'
    '<a href="Newton_fractal#top">Newton</a></li></ul><h2>References</h2><p>Book <a href="Publisher">P</a></p>'
    '<p><a href="picture.png">picture</a> <a href="https://example.org/">outside</a></p>',
    '<meta name="revision" content="123">',
)


def write(path: Path, *, indexed: bool = True) -> Path:
    with Creator(path).config_indexing(indexed, "eng").set_mainpath("Mandelbrot_set") as creator:
        creator.add_item(Entry("Mandelbrot_set", "Mandelbrot set", MANDELBROT))
        for name in ("Julia set", "Fractal", "Complex dynamics", "Newton fractal", "Publisher", "Iteration"):
            creator.add_item(
                Entry(name.replace(" ", "_"), name, html(name, f"<p>About the {name} of mathematics.</p>"))
            )
        footer = '<a href="https://en.wikipedia.org/w/index.php?title=Koch&amp;oldid=4711">source</a>'
        creator.add_item(
            Entry("Koch_snowflake", "Koch snowflake", html("Koch snowflake", f"<p>A curve.</p><div>{footer}</div>"))
        )
        creator.add_item(
            Entry("Set", "Set", html("Set", "<p>May be</p>", '<meta name="disambiguation" content="true">'))
        )
        creator.add_item(Entry("Empty", "Empty", html("Empty", "")))
        creator.add_item(Entry("data.json", "Data", "{}", "application/json"))
        creator.add_item(Entry("Big", "Big", html("Big", "<p>word</p>" * 5000)))
        long = "é" * 127
        creator.add_item(Entry(long, long, html(long, "<p>A long title.</p>")))
        creator.add_redirection("Fractals", "Fractals", "Fractal", {Hint.FRONT_ARTICLE: True})
        for key, value in {"Name": "sample", "Title": "Sample", "Date": "2026-01-02", "Language": "eng"}.items():
            creator.add_metadata(key, value)
    return path


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("zim") / "sample.zim")


async def test_an_article_has_sections_links_revision_and_address(archive: Path) -> None:
    source = Zim(archive)
    (page,) = (await source.fetch(["mandelbrot set"])).pages
    assert source.name == "sample"
    assert [(section.path, section.text) for section in page.sections] == [
        ((), "The Mandelbrot set is related to Julia sets and fractals."),
        (("History",), "First drawn in 1978, at 10⁶ points.\n\nOne\nnested\nTwo\n\nSaid."),
        (("History", "Later"), "Term\nmeaning"),
    ]
    assert page.links == ("Julia set", "Fractals", "Complex dynamics", "Newton fractal")
    assert (page.revision, page.url) == ("123", "zim://sample/Mandelbrot_set?oldid=123")
    await source.aclose()


async def test_every_title_lands_in_exactly_one_place(archive: Path) -> None:
    source = Zim(archive, max_page_bytes=20_000)
    asked = [
        "Fractals",
        "fractal",
        "Fractal#History",
        "Nowhere",
        "Empty",
        "data.json",
        "Big",
        "",
        "é" * 127,
        "Set",
        "Koch_snowflake",
    ]
    fetched = await source.fetch(asked)
    pages = {page.title: page for page in fetched.pages}
    assert pages["Fractal"].redirected_from == ("Fractals", "fractal", "Fractal#History")
    assert pages["Fractal"].revision == "2026-01-02", "the archive's date, where the page names no revision"
    assert pages["Set"].disambiguation
    assert not pages["Fractal"].disambiguation
    assert pages["Koch snowflake"].url == "https://en.wikipedia.org/w/index.php?title=Koch&oldid=4711"
    assert pages["Koch snowflake"].revision == "4711"
    assert "é" * 127 in pages
    assert fetched.missing == ("Nowhere",)
    assert {title: why.split(":")[0] for title, why in fetched.skipped.items()} == {
        "Empty": "empty", "data.json": "not an article", "Big": "too large", "": "invalid title",
    }  # fmt: skip
    assert await source.revisions(["Fractals", "Mandelbrot set", "Nowhere"]) == {
        "Fractals": "2026-01-02",
        "Mandelbrot set": "123",
    }
    await source.aclose()


@pytest.mark.parametrize("indexed", [True, False], ids=["full-text index", "no index"])
async def test_suggestions_and_search(tmp_path: Path, indexed: bool) -> None:
    source = Zim(write(tmp_path / "a.zim", indexed=indexed))
    assert (await source.suggest("Mandelbort set"))[0] == "Mandelbrot set"
    assert (await source.suggest("Frctal"))[0] == "Fractal"
    assert (await source.search("What is the Mandelbrot set related to?"))[0] == "Mandelbrot set"
    assert (await source.search("newton fractals"))[0] in ("Newton fractal", "Fractal")
    assert await source.suggest("") == []
    assert await source.search("") == []
    await source.aclose()


async def test_concurrent_reading_and_use_after_closing(archive: Path) -> None:
    source = Zim(archive)
    answers = await asyncio.gather(*[source.fetch(["Fractal", "Mandelbrot set"]) for _ in range(20)])
    assert all(len(answer.pages) == 2 for answer in answers)
    await source.aclose()
    await source.aclose()
    with pytest.raises(SourceError, match="closed"):
        await source.fetch(["Fractal"])


async def test_a_thousand_pages_are_read_in_one_call(tmp_path: Path) -> None:
    body = (
        "<p>A sentence about sets and numbers. And one more of them.</p>" * 3
        + '<p><a href="P1">one</a></p><h2>More</h2><p>Text.</p>'
    )
    path = tmp_path / "many.zim"
    with Creator(path).config_indexing(False, "eng") as creator:
        for number in range(1000):
            creator.add_item(Entry(f"P{number}", f"P{number}", html(f"P{number}", body)))
    source = Zim(path)
    fetched = await source.fetch([f"P{number}" for number in range(1000)])
    await source.aclose()
    assert len(fetched.pages) == 1000


def test_rendered_wiki_html_loses_what_is_no_prose() -> None:
    read = read_html(
        '<div class="mw-parser-output"><div class="hatnote">For other uses, see <a href="/wiki/B">B</a>.</div>'
        '<p>Let <span class="mwe-math-element"><span style="display: none;">'
        '<math alttext="{\\displaystyle x^{2}}"><mi>x</mi></math>'
        '</span><img alt="x"></span> be <a class="external autonumber" href="http://e.org">[1]</a>so.<br>Next.</p>'
        '<div id="toc"><ul><li>1 History</li></ul></div><h2>History<span class="mw-editsection">[edit]</span></h2>'
        '<p>Old.</p><style>.a{}</style><div class="navbox"><a href="/wiki/C">C</a></div></div>',
        lambda href: href.removeprefix("/wiki/"),
    )
    assert [(section.path, section.text) for section in read.sections] == [
        ((), "Let x^{2} be so. Next."),
        (("History",), "Old."),
    ]
    assert read.links == ("B",)


def test_boxes_are_found_in_any_case_and_tags_that_only_the_parser_writes() -> None:
    read = read_html(
        "<DIV CLASS='Wide NavBox'><p>box</p></DIV><P>One</br>line.</P><UL><LI>item<OL><LI>inner</LI></OL></LI></UL>"
        "<h2>References</h2><p>unread</p><ul><li>source</li></ul><h2>Later</h2><p>Read.",
        lambda href: None,
    )
    assert [(section.path, section.text) for section in read.sections] == [
        ((), "One line.\n\nitem\ninner"),
        (("Later",), "Read."),
    ]


def prose(source: str | bytes) -> list[str]:
    return [section.text for section in read_html(source, lambda href: None).sections]


@pytest.mark.parametrize(
    ("name", "kept"),
    [("navbox", False), ("wide navbox x", False), ("NavBox", True), ("navbox\N{NO-BREAK SPACE}x", True), ("x", True)],
)
def test_on_a_page_with_doctype_a_class_is_what_is_written(name: str, kept: bool) -> None:
    assert prose(f"<!doctype html><div class='{name}'><p>Box.</p></div><p>Text.") == [
        "Box.\n\nText." if kept else "Text."
    ]


def test_an_article_is_read_whatever_stands_around_it() -> None:
    article = "<div class='mw-parser-output'><p>Text.<sup class=reference>[1]</sup></p></div>"
    around = (
        f"<html class=hatnote><body class=noprint><p>Menu.</p><form><table><tr><td>{article}</td></tr></table></form>"
    )
    assert prose(around) == ["Text."]
    assert prose("<x><frameset><html class=navbox>") == []


def test_what_a_formula_or_raised_text_holds_is_said_once() -> None:
    formula = "<span class='mwe-math-element'><math alttext='x'><mi>x</mi></math><p>y</p></span>"
    assert prose(f"<ul><li>a {formula} b<sup><p>2</p></sup></li></ul>") == ["a x b²"]


def test_lists_that_read_the_same_stay_apart() -> None:
    assert prose("<ul><li>One.</li></ul><ul><li>One.</li></ul>") == ["One.\n\nOne."]


def test_bytes_that_are_no_utf_8_are_replaced_and_make_no_characters_together() -> None:
    assert prose("<p>Ça va: 5 €</p>".encode()) == ["Ça va: 5 €"]
    assert prose(b"<p>5 \xe2<b>\x82\xac</b> x\xff</p>") == ["5 \ufffd\ufffd\ufffd x\ufffd"]


async def test_a_link_is_followed_from_the_folder_of_its_page(tmp_path: Path) -> None:
    path = tmp_path / "folders.zim"
    with Creator(path).config_indexing(False, "eng") as creator:
        for folder in ("A", "B"):
            creator.add_item(Entry(f"{folder}/Z", f"Last of {folder}", html("Z", "<p>Text.</p>")))
            for name in ("x", "y"):
                links = '<p><a href="Z">1</a> <a href="./Z#top">2</a> <a href="../A/Z?a=1">3</a> <a href="no">4</a></p>'
                creator.add_item(Entry(f"{folder}/{name}", f"{name} of {folder}", html(name, links)))
    source = Zim(path)
    fetched = await source.fetch(["A/x", "B/x", "A/y", "B/y"])
    await source.aclose()
    assert [page.links for page in fetched.pages] == [("Last of A",), ("Last of B", "Last of A")] * 2


def test_a_page_nested_thousands_deep_is_read() -> None:
    read = read_html("<div>" * 2_000 + "<p>Deep.</p>" + "<ul><li>" * 1_000 + "item", lambda href: None)
    assert [section.text for section in read.sections] == ["Deep.\n\nitem"]


@pytest.mark.parametrize(
    ("wiki_source", "why"),
    [
        ("file:///etc/passwd", "file: is not read"),
        ("ftp://example.org/a.zim", "ftp: is not read"),
        ("/nowhere/a.zim", "no such file"),
        ("/etc/passwd", "neither an http address nor a .zim file"),
        ("", "neither"),
        ("http://169.254.169.254/w/api.php", "link-local"),
        ("http://[fe80::1]/w/api.php", "link-local"),
        ("http://[::ffff:169.254.169.254]/w/api.php", "link-local"),
        ("http://0xa9fea9fe/w/api.php", "link-local"),
        ("http://2852039166/w/api.php", "link-local"),
        ("http://0.0.0.0/w/api.php", "reserved"),
        ("http://metadata.google.internal/w/api.php", "metadata"),
        ("https://en.wikipedia.org/wiki/Fractal", "not the address of api.php"),
        ("https://wiki.test/w/api.php?action=query", "not the address of api.php"),
        ("https:///w/api.php", "names no host"),
        ("http://wiki.test:99999/w/api.php", "not a valid address"),
    ],
)
async def test_what_cannot_be_a_source_is_refused_with_what_is_accepted(wiki_source: str, why: str) -> None:
    with pytest.raises(InvalidSource) as caught:
        async with open_source(wiki_source, contact="x"):
            pass
    assert why in str(caught.value)
    assert "accepted:" in str(caught.value)
    assert "\n" not in str(caught.value)


async def test_a_password_in_an_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(InvalidSource) as caught:
        async with open_source("http://ada:secret@127.0.0.1/w/api.php", contact="x"):
            pass
    assert "secret" not in str(caught.value)


async def test_a_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.zim").write_text("not a zim")
    (tmp_path / "b.zim").write_bytes(b"ZIM\x04" + b"\0" * 200)
    for name in ("a.zim", "b.zim"):
        with pytest.raises(InvalidSource, match="ZIM archive"):
            async with open_source(str(tmp_path / name), contact="x"):
                pass


async def test_an_archive_and_an_address_are_opened_and_closed(archive: Path) -> None:
    async with open_source(str(archive), contact="x") as source:
        assert source.name == "sample"
        assert len((await source.fetch(["Fractal"])).pages) == 1
    with pytest.raises(SourceError):
        await source.fetch(["Fractal"])
    async with open_source("http://127.0.0.1:9/w/api.php", contact="x") as source:
        assert source.name == "127.0.0.1:9"
