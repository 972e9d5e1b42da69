"""HTML of a rendered article to prose and links; for ``action=parse`` and for the pages of ZIM archives."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from selectolax.lexbor import LexborHTMLParser, LexborNode

from tools.wikipedia.prose import Outline, latex, superscript
from tools.wikipedia.source import Section

_NO_CONTENT = (
    "style, script, noscript, template, link, nav, header, footer, form, #toc, .toc, .mw-editsection, .navbox, "
    ".navbox-styles, .vertical-navbox, .sidebar, .reflist, .references, .reference, .mw-cite-backlink, a.autonumber, "
    ".catlinks, .printfooter, .noprint, .mw-jump-link, .metadata, .ambox, .error, .mw-empty-elt, .sistersitebox, "
    ".authority-control"
)
"""What holds neither prose nor links of the article."""
_NO_PROSE = (
    "table, pre, figure, figcaption, .infobox, "
    " .thumb, .gallery, .hatnote, .dablink, .rellink, .shortdescription, audio, "
    "video, img, svg, .mwe-math-fallback-image-inline, .mwe-math-fallback-image-display"
)
"""What holds links but no prose."""
_FORMULAS = "math, .mwe-math-element"
_WANTED = "h1, h2, h3, h4, h5, h6, p, li, dd, dt, blockquote"
_LISTS = frozenset({"ul", "ol", "dl"})
_BLOCKS_INSIDE = frozenset({"p", "ul", "ol", "dl", "blockquote", "div"})
_ITEMS = frozenset({"li", "dd", "dt"})
_DISPLAY_STYLE = re.compile(r"^\{\\displaystyle (.*)\}$", re.S)
_OLD_REVISION = re.compile(r"[?&]oldid=(\d+)")
_DISAMBIGUATION = ".disambig, #disambigbox, .dmbox-disambig, .mw-disambig-page, .disambigbox"


@dataclass(frozen=True, slots=True)
class Rendered:
    """What one HTML page says."""

    title: str
    """Text of the first ``h1`` or of ``title``; empty when there is neither."""
    sections: tuple[Section, ...]
    links: tuple[str, ...]
    """Titles as ``title_of`` gave them, in order of appearance, without duplicates."""
    revision: str
    """Revision id that the page itself states, or empty."""
    revision_url: str
    """Address of that revision at the original wiki, or empty."""
    disambiguation: bool


def read_html(source: str, title_of: Callable[[str], str | None]) -> Rendered:
    """Read a rendered article.

    Args:
        source: A whole HTML page, or the body that ``action=parse`` gives.
        title_of: The article's title that an ``href`` leads to; ``None`` when it leads to no article.
    """
    tree = LexborHTMLParser(source)
    revision, url = _revision(tree)
    meta = tree.css_first("meta[name='disambiguation']")
    marked = meta is not None and (meta.attributes.get("content") or "").strip().lower() in ("true", "1", "yes")
    disambiguation = marked or tree.css_first(_DISAMBIGUATION) is not None
    root = tree.css_first(".mw-parser-output") or tree.body
    if root is None:
        return Rendered("", (), (), revision, url, disambiguation)
    title = _title(tree)
    for node in root.css(_NO_CONTENT):
        node.decompose()
    links = _links(root, title_of)
    for node in root.css(_NO_PROSE):
        node.decompose()
    _simplify(root)
    return Rendered(title, _sections(root), links, revision, url, disambiguation)


def _title(tree: LexborHTMLParser) -> str:
    for selector in ("h1", "title"):
        node = tree.css_first(selector)
        if node is not None and (text := " ".join(node.text().split())):
            return text
    return ""


def _revision(tree: LexborHTMLParser) -> tuple[str, str]:
    """The revision of a ``meta`` element, or of the last link to a permanent revision (mwoffliner's footer)."""
    meta = tree.css_first("meta[name='revision']")
    stated = (meta.attributes.get("content") or "").strip() if meta is not None else ""
    permanent = [
        (found[1], href)
        for node in tree.css("a[href*='oldid=']")
        if (found := _OLD_REVISION.search(href := _href(node)))
    ]
    if stated:
        return stated, next((href for revision, href in permanent if revision == stated and "://" in href), "")
    return permanent[-1] if permanent else ("", "")


def _href(node: LexborNode) -> str:
    return node.attributes.get("href") or ""


def _links(root: LexborNode, title_of: Callable[[str], str | None]) -> tuple[str, ...]:
    outline = Outline()
    links: dict[str, None] = {}
    for node in root.css("h1, h2, h3, h4, h5, h6, a[href]"):
        if node.tag != "a":
            outline.heading(int((node.tag or "h2")[1]), node.text())
        elif outline.links_count and (title := title_of(_href(node))):
            links.setdefault(title)
    return tuple(links)


def _simplify(root: LexborNode) -> None:
    """Formulas become their LaTeX, raised text becomes raised characters, line breaks become spaces."""
    for node in root.css(_FORMULAS):
        formula = node if node.tag == "math" else node.css_first("math")
        note = node.css_first("annotation")
        source = (formula.attributes.get("alttext") if formula is not None else None) or (note.text() if note else "")
        node.replace_with(latex(_DISPLAY_STYLE.sub(r"\1", (source or node.text()).strip())))
    for node in root.css("sup"):
        node.replace_with(superscript(node.text()))
    for node in root.css("br"):
        node.replace_with(" ")


def _sections(root: LexborNode) -> tuple[Section, ...]:
    outline = Outline()
    items: list[str] = []
    last_list: LexborNode | None = None
    for node in root.css(_WANTED):
        tag = node.tag or ""
        if tag in _ITEMS:
            top = _outermost_list(node)
            if items and top != last_list:
                outline.block("\n".join(items))
                items = []
            last_list = top
            if text := _own_text(node):
                items.append(text)
            continue
        if _inside_item(node):
            continue
        if items:
            outline.block("\n".join(items))
            items = []
        if tag[0] == "h":
            if tag == "h1":  # the title, which is no section
                continue
            outline.heading(int(tag[1]), node.text())
        elif tag != "blockquote" or not _holds_blocks(node):
            outline.block(" ".join(node.text().split()))
    if items:
        outline.block("\n".join(items))
    return outline.sections()


def _own_text(node: LexborNode) -> str:
    """The text of a list item without the lists inside it."""
    parts = [child.text() for child in node.iter(include_text=True) if child.tag not in _LISTS]
    return " ".join("".join(parts).split())


def _outermost_list(node: LexborNode) -> LexborNode | None:
    top: LexborNode | None = None
    parent = node.parent
    while parent is not None and parent.tag in (_LISTS | _ITEMS):
        top, parent = parent, parent.parent
    return top


def _inside_item(node: LexborNode) -> bool:
    parent = node.parent
    while parent is not None and parent.tag not in ("body", "section", "html"):
        if parent.tag in _ITEMS:
            return True
        parent = parent.parent
    return False


def _holds_blocks(node: LexborNode) -> bool:
    return any(child.tag in _BLOCKS_INSIDE for child in node.iter())
