"""The sample encyclopaedia: what its articles promise, and what the build makes of them and refuses."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from libzim.reader import Archive
from libzim.search import Query, Searcher
from libzim.suggestion import SuggestionSearcher

from tools.encyclopaedia import (
    ARTICLES,
    DIGEST_KEY,
    ROOT,
    BuildFailed,
    BuildReport,
    InvalidArticle,
    build_zim,
    ensure_sample,
    main,
    sources_digest,
)
from tools.markdown_articles import Article, entry_path, read_articles, render

WriteArticle = Callable[..., Path]


class _Links(HTMLParser):
    """Addresses of all links, and the ``meta`` elements by name."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.meta: dict[str, str | None] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "a":
            self.addresses.append(values["href"] or "")
        if tag == "meta" and "name" in values:
            self.meta[values["name"] or ""] = values["content"]


@pytest.fixture(scope="module")
def articles() -> list[Article]:
    return read_articles(ARTICLES)


@pytest.fixture(scope="module")
def names(articles: list[Article]) -> dict[str, str]:
    """Every title and redirect → the title of the article."""
    return {name: article.title for article in articles for name in (article.title, *article.redirects)}


@pytest.fixture(scope="module")
def linked(articles: list[Article], names: dict[str, str]) -> dict[str, set[str]]:
    """Title → titles of the other articles it links to, redirects followed."""
    paths = {name: entry_path(name) for name in names}
    return {a.title: {names[target] for target in render(a, paths)[1]} - {a.title} for a in articles}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> BuildReport:
    return build_zim(ARTICLES, tmp_path_factory.mktemp("sample") / "sample.zim")


@pytest.fixture(scope="module")
def archive(report: BuildReport) -> Archive:
    return Archive(report.target)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "articles").mkdir()
    return tmp_path / "articles"


@pytest.fixture
def write(folder: Path) -> WriteArticle:
    """Write an article, right unless told otherwise; the body begins on line 6 when there is no extra key."""
    revisions = iter(range(1, 100))

    def write(name: str, title: str, body: str = "Text.", extra: str = "") -> Path:
        file = folder / f"{name}.md"
        file.write_text(f"---\ntitle: {title}\nrevision: {next(revisions)}\n{extra}---\n\n{body}\n", encoding="utf-8")
        return file

    return write


def _sentences(article: Article) -> set[str]:
    """Prose only; a full stop after a lower-case letter, a digit or a bracket ends a sentence (not «John H.»)."""
    blocks = (" ".join(block.split()) for block in re.split(r"\n\s*\n", article.body))
    prose = (block for block in blocks if not block.startswith(("#", "|", "- ")))
    return {part for block in prose for part in re.split(r"(?<=[^\WA-Z_][.!?])\s+|(?<=[)\]][.!?])\s+", block)}


def _html(archive: Archive, path: str) -> str:
    entry = archive.get_entry_by_path(path)
    return bytes(entry.get_item().content).decode()


# What the articles promise.


def test_at_least_forty_five_articles_besides_the_disambiguation_pages(articles: list[Article]) -> None:
    assert sum(not article.disambiguation for article in articles) >= 45
    assert sum(article.disambiguation for article in articles) >= 1


def test_every_article_has_a_lead_and_at_least_two_sections(articles: list[Article]) -> None:
    for article in articles:
        if article.disambiguation:
            continue
        lead = article.body.strip().split("\n## ")[0]
        assert len(lead.split()) >= 20, article.title
        assert not lead.startswith("#"), article.title
        assert len(re.findall(r"^## ", article.body, re.M)) >= 2, article.title


def test_lengths_stay_within_what_was_promised(articles: list[Article]) -> None:
    words = {article.title: len(article.body.split()) for article in articles if not article.disambiguation}
    assert words.pop("Mandelbrot set") >= 1200
    assert {title: count for title, count in words.items() if not 230 <= count <= 650} == {}


def test_every_article_links_to_four_others_and_the_centre_to_twenty_five(linked: dict[str, set[str]]) -> None:
    assert {title: len(targets) for title, targets in linked.items() if len(targets) < 4} == {}
    assert len(linked["Mandelbrot set"]) >= 25


def test_every_article_is_reached_from_the_centre_in_three_hops(linked: dict[str, set[str]]) -> None:
    reached = {"Mandelbrot set"}
    for _ in range(3):
        reached |= {target for title in reached for target in linked[title]}
    unreached = {title for title in linked if title not in reached}
    assert unreached <= {"Julia"}  # Only its redirect and a search lead to this disambiguation page.


def test_no_sentence_stands_in_two_articles(articles: list[Article]) -> None:
    owners: dict[str, list[str]] = defaultdict(list)
    for article in articles:
        for sentence in _sentences(article):
            owners[sentence].append(article.title)
    assert len(owners) > 1000
    assert {sentence: titles for sentence, titles in owners.items() if len(titles) > 1} == {}


# What the build makes of them.


def test_the_file_holds_every_article_and_redirect(
    archive: Archive, report: BuildReport, articles: list[Article], names: dict[str, str]
) -> None:
    assert report.articles == len(articles)
    assert report.redirects == len(names) - len(articles)
    assert archive.entry_count == len(names)
    assert archive.check()
    assert (archive.has_fulltext_index, archive.has_title_index) == (True, True)
    assert report.size_bytes == report.target.stat().st_size == archive.filesize


def test_every_link_of_every_page_leads_to_an_entry(archive: Archive, report: BuildReport) -> None:
    links = 0
    for article in read_articles(ARTICLES):
        page = _Links()
        page.feed(_html(archive, article.entry))
        for address in page.addresses:
            assert archive.has_entry_by_path(unquote(address)), (article.title, address)
        links += len(page.addresses)
    assert links == report.links


def test_every_redirect_leads_to_its_article(archive: Archive, articles: list[Article]) -> None:
    for article in articles:
        for redirect in article.redirects:
            entry = archive.get_entry_by_path(entry_path(redirect))
            assert entry.is_redirect, redirect
            assert entry.title == redirect
            assert entry.get_redirect_entry().path == article.entry


def test_a_page_carries_title_revision_sections_and_kind(archive: Archive) -> None:
    page = _html(archive, "Sierpiński_triangle")
    assert page.startswith("<!DOCTYPE html>")
    assert page.count("<h1>Sierpiński triangle</h1>") == 1
    assert '<h2 id="Other_constructions">Other constructions</h2>' in page
    assert '<a href="Wac%C5%82aw_Sierpi%C5%84ski">Wacław Sierpiński</a>' in page
    kinds = {}
    for path in ("Sierpiński_triangle", "Mandelbrot"):
        head = _Links()
        head.feed(_html(archive, path))
        kinds[path] = head.meta
    assert kinds["Sierpiński_triangle"].keys() == {"revision"}
    assert int(kinds["Sierpiński_triangle"]["revision"] or "") > 1000
    assert kinds["Mandelbrot"]["disambiguation"] == "true"


def test_the_file_tells_what_openzim_asks_of_it(archive: Archive) -> None:
    assert archive.get_metadata("Name") == b"lumina-sample"
    assert archive.get_metadata("Language") == b"eng"
    assert {"Title", "Description", "Creator", "Publisher", "Date", "Source", DIGEST_KEY} <= set(archive.metadata_keys)
    assert bytes(archive.get_illustration_item(48).content).startswith(b"\x89PNG")
    assert archive.main_entry.get_redirect_entry().path == "Mandelbrot_set"


@pytest.mark.parametrize(
    ("question", "path"),
    [
        ("area of the Mandelbrot set", "Mandelbrot_set"),
        ("Shishikura boundary dimension", "Mitsuhiro_Shishikura"),
        ("sea gull tornado Texas", "Butterfly_effect"),
        ("paper folding Jurassic Park", "Dragon_curve"),
    ],
)
def test_full_text_search_finds_the_article(archive: Archive, question: str, path: str) -> None:
    results = list(Searcher(archive).search(Query().set_query(question)).getResults(0, 3))
    assert path in results


def test_title_suggestions_know_titles_and_redirects(archive: Archive) -> None:
    suggested = list(SuggestionSearcher(archive).suggest("M-set").getResults(0, 5))
    assert "M-set" in suggested or "Mandelbrot_set" in suggested


def test_two_builds_hold_the_same_content(report: BuildReport, tmp_path: Path, articles: list[Article]) -> None:
    first, second = Archive(report.target), Archive(build_zim(ARTICLES, tmp_path / "again.zim").target)
    assert all(_html(first, article.entry) == _html(second, article.entry) for article in articles)
    assert first.metadata_keys == second.metadata_keys
    assert all(first.get_metadata(key) == second.get_metadata(key) for key in first.metadata_keys)


def test_links_fold_the_first_letter_and_may_span_lines_and_sit_in_other_markup(
    folder: Path, write: WriteArticle
) -> None:
    write("a", "Alpha", "See **[[beta\nset|the second]]**, `[[Code]]` and [[Beta set]]s.")
    write("b", "Beta set", "Back to [[alpha]].")
    alpha, beta = read_articles(folder)
    paths = {"Alpha": "Alpha", "Beta set": "Beta_set"}
    page, targets = render(alpha, paths)
    assert '<strong><a href="Beta_set">the second</a></strong>' in page
    assert "<code>[[Code]]</code>" in page
    assert '<a href="Beta_set">Beta set</a>s' in page
    assert targets == ["Beta set", "Beta set"]
    assert render(beta, paths)[1] == ["Alpha"]


def test_markup_in_titles_and_text_is_escaped(folder: Path, write: WriteArticle) -> None:
    write("a", "'Rock & roll'", "<script>alert(1)</script>")
    page, _ = render(read_articles(folder)[0], {})
    assert "<h1>Rock &amp; roll</h1>" in page
    assert "<script>" not in page


# What the build refuses.


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("Just text.\n", 1, "no front matter"),
        ("---\ntitle: A\n", 1, "no front matter"),
        ("---\nrevision: 1\n---\nText.\n", 1, "no title"),
        ("---\ntitle: A\n---\nText.\n", 1, "no revision"),
        ("---\ntitle: A\nrevision: one\n---\nText.\n", 3, "revision is 'one'"),
        ("---\ntitle: A\nrevision: true\n---\nText.\n", 3, "revision is True"),
        ("---\ntitle: a small one\nrevision: 1\n---\nText.\n", 2, "no title"),
        ("---\ntitle: A|B\nrevision: 1\n---\nText.\n", 2, "no title"),
        (f"---\ntitle: {'Ł' * 128}\nrevision: 1\n---\nText.\n", 2, "more than 255 bytes"),
        ("---\ntitle: A\nrevision: 1\nredirects: B\n---\nText.\n", 4, "redirects is 'B'"),
        ("---\ntitle: A\nrevision: 1\nredirects:\n  - B\n  - [C]\n---\nText.\n", 6, "is no title"),
        ("---\ntitle: A\nrevision: 1\nredirects:\n  - B\n  - B\n---\nText.\n", 6, "'B' is already taken by a.md:5"),
        ("---\ntitle: A\nrevision: 1\ndisambiguation: maybe\n---\nText.\n", 4, "disambiguation is 'maybe'"),
        ("---\ntitle: A\nrevision: 1\nredirect: [B]\n---\nText.\n", 4, "unknown key 'redirect'"),
        ("---\ntitle: A\nrevision: 1\ntitle: B\n---\nText.\n", 4, "bad front matter"),
        ("---\ntitle: A\nrevision: [1\n---\nText.\n", 3, "bad front matter"),
        ("---\n- title\n---\nText.\n", 2, "bad front matter"),
        ("---\ntitle: A\nrevision: 1\n---\n\n\n", 5, "no text"),
        ("---\ntitle: A\nrevision: 1\n---\n\nOne\ntwo [[Nowhere]].\n", 7, "dead link [[Nowhere]]"),
        ("---\ntitle: A\nrevision: 1\n---\n\nA [[broken link.\n", 6, "broken link"),
        ("---\ntitle: A\nrevision: 1\n---\n\nLead.\n\n# Again\n", 8, "heading with one #"),
    ],
)
def test_a_wrong_article_is_refused_with_its_line_and_leaves_no_file(
    folder: Path, tmp_path: Path, text: str, line: int, reason: str
) -> None:
    (folder / "a.md").write_text(text, encoding="utf-8")
    with pytest.raises(InvalidArticle) as caught:
        build_zim(folder, tmp_path / "out.zim")
    assert (caught.value.path, caught.value.line) == (folder / "a.md", line)
    assert reason in str(caught.value)
    assert str(caught.value).startswith(f"{folder / 'a.md'}:{line}: ")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out.zim").exists()


@pytest.mark.parametrize(
    ("title", "extra", "line"),
    [("Alpha", "", 2), ("Beta", "redirects: [Alpha]\n", 4), ("Beta", "redirects: [A1]\n", 4)],
)
def test_a_name_claimed_twice_is_refused_with_both_places(
    folder: Path, write: WriteArticle, title: str, extra: str, line: int
) -> None:
    write("a", "Alpha", extra="redirects: [A1]\n")
    second = write("b", title, extra=extra)
    with pytest.raises(InvalidArticle, match=r"is already taken by a\.md:[24]$") as caught:
        read_articles(folder)
    assert (caught.value.path, caught.value.line) == (second, line)


def test_a_revision_used_twice_and_bytes_that_are_not_utf8_are_refused(folder: Path, write: WriteArticle) -> None:
    text = write("a", "Alpha").read_text()
    (folder / "b.md").write_text(text.replace("Alpha", "Beta"))
    with pytest.raises(InvalidArticle, match=r"b\.md:3: revision 1 is already used by a\.md"):
        read_articles(folder)
    (folder / "b.md").write_bytes(b"---\ntitle: \xff\n")
    with pytest.raises(InvalidArticle, match=r"b\.md:1: not UTF-8"):
        read_articles(folder)


def test_a_folder_without_articles_is_refused(folder: Path) -> None:
    with pytest.raises(InvalidArticle, match="give the folder that holds the articles"):
        read_articles(folder)


def test_the_command_prints_the_counts_or_one_line_of_error(
    folder: Path, write: WriteArticle, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write("a", "Alpha", "To [[Gamma]].", "redirects: [Gamma]\n")
    target = tmp_path / "out.zim"
    assert main([str(target), "--articles", str(folder)]) == 0
    printed = capfd.readouterr()
    assert printed.out.startswith(f"{target}: 1 articles (0 of them disambiguation pages), 1 redirects, 1 links, ")
    assert (printed.out.count("\n"), printed.err) == (1, "")
    write("b", "Beta", "To [[Delta]].")
    assert main([str(target), "--articles", str(folder)]) == 1
    printed = capfd.readouterr()
    assert (printed.out, printed.err.count("\n")) == ("", 1)
    assert "b.md:6: dead link [[Delta]]" in printed.err


# Building only when needed.


def test_the_sample_is_built_again_only_when_sources_change_or_the_file_is_damaged(
    folder: Path, write: WriteArticle, tmp_path: Path
) -> None:
    write("a", "Alpha")
    target = tmp_path / "deep" / "sample.zim"
    assert ensure_sample(target, folder) == target
    built = Archive(target).uuid
    ensure_sample(target, folder)
    assert Archive(target).uuid == built
    write("b", "Beta")
    ensure_sample(target, folder)
    grown = Archive(target)
    assert grown.uuid != built
    assert grown.has_entry_by_path("Beta")
    assert grown.get_metadata(DIGEST_KEY).decode() == sources_digest(folder)
    for damaged in (target.read_bytes()[:500], b""):
        target.write_bytes(damaged)
        assert Archive(ensure_sample(target, folder)).check()


def test_an_earlier_file_survives_a_build_that_fails(folder: Path, write: WriteArticle, tmp_path: Path) -> None:
    write("a", "Alpha")
    target = ensure_sample(tmp_path / "sample.zim", folder)
    before = target.read_bytes()
    write("b", "Beta", "[[Nowhere]]")
    with pytest.raises(InvalidArticle):
        ensure_sample(target, folder)
    assert target.read_bytes() == before


def test_what_a_killed_build_left_behind_is_cleared(folder: Path, write: WriteArticle, tmp_path: Path) -> None:
    write("a", "Alpha")
    (tmp_path / ".sample.zim.building").mkdir()
    (tmp_path / ".sample.zim.building" / "fresh.zim.tmp").write_bytes(b"half")
    ensure_sample(tmp_path / "sample.zim", folder)
    assert {path.name for path in tmp_path.iterdir()} == {"articles", "sample.zim", ".sample.zim.lock"}


def test_a_target_that_cannot_be_replaced_is_an_error_that_leaves_nothing(
    folder: Path, write: WriteArticle, tmp_path: Path
) -> None:
    write("a", "Alpha")
    (tmp_path / "sample.zim").mkdir()
    with pytest.raises((OSError, BuildFailed)):
        build_zim(folder, tmp_path / "sample.zim")
    assert not (tmp_path / ".sample.zim.building").exists()


def test_processes_that_ask_at_once_build_one_file_and_never_see_half_of_it(
    folder: Path, write: WriteArticle, tmp_path: Path
) -> None:
    write("a", "Alpha", "word " * 20_000)
    target = tmp_path / "sample.zim"
    code = (
        "import sys; from pathlib import Path; from libzim.reader import Archive; from tools.encyclopaedia import *\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "archive = Archive(ensure_sample(Path(sys.argv[1]), Path(sys.argv[2])))\n"
        "print(archive.uuid, archive.check())"
    )
    command = [sys.executable, "-c", code, str(target), str(folder)]
    askers = [
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    try:
        for asker in askers:
            assert asker.stdout is not None
            assert asker.stdout.readline() == "ready\n"
        for asker in askers:
            assert asker.stdin is not None
            asker.stdin.write("\n")
            asker.stdin.flush()
        while any(asker.poll() is None for asker in askers):
            if target.exists():
                assert Archive(target).has_entry_by_path("Alpha")
        answers = {asker.communicate()[0] for asker in askers}
    finally:
        for asker in askers:
            asker.kill()
            asker.communicate()
    assert answers == {f"{Archive(target).uuid} True\n"}
