"""Articles written in Markdown: read, checked against each other, rendered to HTML.

An article is a file with front matter (``title``, ``revision``, optional ``redirects`` and ``disambiguation``) and
CommonMark below it, in which ``[[Title]]`` and ``[[Title|words shown]]`` lead to other articles.
"""

from __future__ import annotations

import html
import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from errors import LuminaError

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.rules_inline import StateInline
    from markdown_it.token import Token

_LINK = re.compile(r"\[\[([^\[\]|]+)(?:\|([^\[\]|]+))?\]\]")
_FORBIDDEN = re.compile(r"[#<>\[\]|{}_\x00-\x1f]")
_KNOWN_KEYS = {"title", "revision", "redirects", "disambiguation"}


class InvalidArticle(LuminaError):
    """An article that cannot be built; the text starts with ``file:line``."""

    def __init__(self, path: Path, line: int, reason: str) -> None:
        super().__init__(f"{path}:{line}: {reason}")
        self.path = path
        self.line = line
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Article:
    """One Markdown file, checked on its own but not yet against the others."""

    file: Path
    title: str
    revision: int
    redirects: Mapping[str, int]
    """Other titles that lead here → line that names them."""
    disambiguation: bool
    body: str
    body_line: int
    """Line of the file, from 1, on which ``body`` begins."""
    title_line: int = 1
    revision_line: int = 1

    @property
    def entry(self) -> str:
        """Path inside the ZIM: the title with underscores."""
        return entry_path(self.title)


def entry_path(title: str) -> str:
    """The ZIM path of a title."""
    return title.replace(" ", "_")


def normal_title(text: str) -> str:
    """``text`` as MediaWiki would read it in a link: blanks collapsed, the first letter upper case."""
    title = " ".join(text.replace("_", " ").split())
    return title[:1].upper() + title[1:]


def read_articles(folder: Path) -> list[Article]:
    """All articles of ``folder`` in order of title, checked for double titles, redirects and revisions.

    Raises:
        InvalidArticle: for bad front matter, or a name or revision that two articles claim; names file and line.
    """
    articles = sorted((_parse(file) for file in sorted(folder.glob("*.md"))), key=lambda article: article.title)
    if not articles:
        raise InvalidArticle(folder, 0, "no *.md file here; give the folder that holds the articles")
    owners: dict[str, tuple[Path, int]] = {}
    revisions: dict[int, Path] = {}
    for article in articles:
        for name, line in ((article.title, article.title_line), *article.redirects.items()):
            if name in owners:
                other, other_line = owners[name]
                raise InvalidArticle(article.file, line, f"{name!r} is already taken by {other.name}:{other_line}")
            owners[name] = (article.file, line)
        if article.revision in revisions:
            other = revisions[article.revision]
            line = article.revision_line
            raise InvalidArticle(article.file, line, f"revision {article.revision} is already used by {other.name}")
        revisions[article.revision] = article.file
    return articles


def render(article: Article, names: Mapping[str, str]) -> tuple[str, list[str]]:
    """The article as an HTML document, and the titles it links to in order, repetitions included.

    Args:
        article: what to render.
        names: every title and redirect → its path inside the ZIM.

    Raises:
        InvalidArticle: for a link that leads nowhere, a broken ``[[link``, or a first-level heading.
    """
    markdown = _markdown()
    tokens = markdown.parse(article.body)
    targets = [target for block in tokens for target in _resolve_links(article, block, names)]
    for opening, inline in itertools.pairwise(tokens):
        if opening.type != "heading_open":
            continue
        if opening.tag == "h1":
            line = article.body_line + (opening.map[0] if opening.map else 0)
            raise InvalidArticle(article.file, line, "a heading with one #; the title is the only one, use ## below it")
        opening.attrSet("id", entry_path(inline.content))
    title = html.escape(article.title)
    kind = '<meta name="disambiguation" content="true">\n' if article.disambiguation else ""
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
        f'<meta name="revision" content="{article.revision}">\n{kind}</head>\n<body>\n<h1>{title}</h1>\n'
        f"{markdown.renderer.render(tokens, markdown.options, {})}</body>\n</html>\n"
    ), targets


def _parse(file: Path) -> Article:
    from ruamel.yaml import YAML  # Thirty milliseconds that nobody needs who does not build.
    from ruamel.yaml.error import MarkedYAMLError

    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise InvalidArticle(file, 1, f"not UTF-8 ({error.reason} at byte {error.start})") from error
    if lines[0].rstrip() != "---" or "---" not in (line.rstrip() for line in lines[1:]):
        raise InvalidArticle(
            file, 1, "no front matter; begin with a line ---, `title: …`, `revision: …` and a line ---"
        )
    end = next(number for number, line in enumerate(lines[1:], 1) if line.rstrip() == "---")
    try:
        front = YAML(typ="rt").load("\n".join(lines[1:end]))
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise InvalidArticle(file, (mark.line if mark else 0) + 2, f"bad front matter: {error.problem}") from error
    if not isinstance(front, dict):
        raise InvalidArticle(file, 2, "bad front matter: expected `key: value` lines with title and revision")
    return _article(file, front, "\n".join(lines[end + 1 :]), end + 2)


def _article(file: Path, front: Any, body: str, body_line: int) -> Article:
    """``front`` is ruamel's mapping, which knows the line of each key."""

    def line_of(key: str) -> int:
        return int(front.lc.key(key)[0]) + 2

    for key in front:
        if key not in _KNOWN_KEYS:
            raise InvalidArticle(file, line_of(key), f"unknown key {key!r}; known are {', '.join(sorted(_KNOWN_KEYS))}")
    for key in ("title", "revision"):
        if key not in front:
            raise InvalidArticle(file, 1, f"no {key} in the front matter; add `{key}: …`")
    revision, kind = front["revision"], front.get("disambiguation", False)
    if not isinstance(revision, int) or isinstance(revision, bool) or revision < 1:
        raise InvalidArticle(file, line_of("revision"), f"revision is {revision!r}; give a whole number from 1")
    if not isinstance(kind, bool):
        raise InvalidArticle(file, line_of("disambiguation"), f"disambiguation is {kind!r}; give true or false")
    redirects = _redirects(file, front["redirects"], line_of("redirects")) if "redirects" in front else {}
    title = _checked_title(file, line_of("title"), front["title"])
    if not body.strip():
        raise InvalidArticle(file, body_line, "no text below the front matter")
    return Article(file, title, revision, redirects, kind, body, body_line, line_of("title"), line_of("revision"))


def _redirects(file: Path, names: Any, key_line: int) -> dict[str, int]:
    """Checked titles → their lines, from ruamel's sequence."""
    if not isinstance(names, list):
        raise InvalidArticle(file, key_line, f"redirects is {names!r}; give a list of titles")
    lines: dict[str, int] = {}
    positions: Any = names
    for index, name in enumerate(names):
        line = int(positions.lc.item(index)[0]) + 2
        title = _checked_title(file, line, name)
        if title in lines:
            raise InvalidArticle(file, line, f"{title!r} is already taken by {file.name}:{lines[title]}")
        lines[title] = line
    return lines


def _checked_title(file: Path, line: int, title: object) -> str:
    """``title`` when MediaWiki would accept it as well, so that both kinds of source behave alike."""
    if not isinstance(title, str) or not title or title != normal_title(title) or _FORBIDDEN.search(title):
        reason = f"{title!r} is no title; give text that starts with a capital, without any of # < > [ ] | {{ }} _"
        raise InvalidArticle(file, line, reason)
    if len(title.encode()) > 255:
        raise InvalidArticle(file, line, f"the title {title[:40]!r}… has more than 255 bytes")
    return title


def _markdown() -> MarkdownIt:
    from markdown_it import MarkdownIt

    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    markdown.inline.ruler.before("link", "wiki_link", _wiki_link)
    return markdown


def _wiki_link(state: StateInline, silent: bool) -> bool:
    """Rule of markdown-it for ``[[Title]]`` and ``[[Title|words shown]]``; ``_resolve_links`` fills in the address."""
    match = _LINK.match(state.src, state.pos)
    if match is None:
        return False
    if not silent:
        state.push("link_open", "a", 1).meta = {"target": match[1], "offset": state.pos}
        state.push("text", "", 0).content = " ".join((match[2] or match[1]).split())
        state.push("link_close", "a", -1)
    state.pos = match.end()
    return True


def _resolve_links(article: Article, block: Token, names: Mapping[str, str]) -> Iterator[str]:
    first_line = article.body_line + (block.map[0] if block.map else 0)
    for token in block.children or ():
        if token.type == "text" and ("[[" in token.content or "]]" in token.content):
            raise InvalidArticle(article.file, first_line, f"broken link in {token.content[:60]!r}; write [[Title]]")
        if "target" in token.meta:
            title = normal_title(token.meta["target"])
            if title not in names:
                line = first_line + block.content.count("\n", 0, token.meta["offset"])
                raise InvalidArticle(
                    article.file, line, f"dead link [[{title}]]; no article or redirect has this title"
                )
            token.attrSet("href", quote(names[title], safe="'(),!*"))
            yield title
