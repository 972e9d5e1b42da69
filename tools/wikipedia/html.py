"""HTML of a rendered article to prose and links; for ``action=parse`` and for the pages of ZIM archives."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from selectolax.lexbor import LexborHTMLParser, LexborNode

from tools.wikipedia.prose import Outline, latex, superscript
from tools.wikipedia.source import Section

Selectors = tuple[tuple[str, str], ...]
"""(selector, the tag or class that it cannot match without; empty for an id)."""


def _selectors(listed: str) -> Selectors:
    """Simple selectors: tags, classes, ids, tags with a class or an attribute."""
    named = ((one, re.search(r"\.[\w-]+", one) or re.match(r"\w+", one)) for one in listed.split(", "))
    return tuple((one, name[0] if name else "") for one, name in named)


_NO_CONTENT = _selectors(
    "style, script, noscript, template, link, nav, header, footer, form, #toc, .toc, .mw-editsection, .navbox, "
    ".navbox-styles, .vertical-navbox, .sidebar, .reflist, .references, .reference, .mw-cite-backlink, a.autonumber, "
    ".catlinks, .printfooter, .noprint, .mw-jump-link, .metadata, .ambox, .error, .mw-empty-elt, .sistersitebox, "
    ".authority-control"
)
"""What holds neither prose nor links of the article."""
_NO_PROSE = _selectors(
    "table, pre, figure, figcaption, .infobox, .thumb, .gallery, .hatnote, .dablink, .rellink, .shortdescription, "
    "audio, video, svg, .mwe-math-fallback-image-inline, .mwe-math-fallback-image-display"
)
"""What holds links but no prose; a picture without a caption says nothing and may stay."""
_FORMULAS = _selectors("math, .mwe-math-element")
_RAISED = _selectors("sup")
_BREAKS = _selectors("br")
_LINKS = _selectors("h1, h2, h3, h4, h5, h6, a[href]")
_WANTED = _selectors("h1, h2, h3, h4, h5, h6, p, li, dd, dt, blockquote")
_DISAMBIGUATION = _selectors(".disambig, #disambigbox, .dmbox-disambig, .mw-disambig-page, .disambigbox")
_ARTICLE = ".mw-parser-output"
_TAG = re.compile(r"<(\w+)")
_LISTS = frozenset({"ul", "ol", "dl"})
_BLOCKS_INSIDE = frozenset({"p", "ul", "ol", "dl", "blockquote", "div"})
_ITEMS = frozenset({"li", "dd", "dt"})
_LISTS_AND_ITEMS = _LISTS | _ITEMS
_DISPLAY_STYLE = re.compile(r"^\{\\displaystyle (.*)\}$", re.S)
_OLD_REVISION = re.compile(r"[?&]oldid=(\d+)")


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
    look = _Look(source, tree)
    revision, url = _revision(tree)
    meta = tree.css_first("meta[name='disambiguation']") if "meta" in look.names else None
    marked = meta is not None and (meta.attributes.get("content") or "").strip().lower() in ("true", "1", "yes")
    disambiguation = marked or bool(look.css(tree.root, _DISAMBIGUATION))
    root = tree.css_first(_ARTICLE) if _ARTICLE in look.names else None
    root = root or tree.body
    if root is None:
        return Rendered("", (), (), revision, url, disambiguation)
    title = _title(tree, look)
    for node in look.css(root, _NO_CONTENT):
        node.decompose()
    links = _links(look.css(root, _LINKS), title_of)
    for node in look.css(root, _NO_PROSE):
        node.decompose()
    _simplify(root, look)
    return Rendered(title, _sections(look.css(root, _WANTED)), links, revision, url, disambiguation)


class _Look:
    """Looks for simple selectors on one page, but only for those that can match anything there.

    Each selector of a query is tried on each node, and of some forty most name what a page does not have.
    """

    def __init__(self, source: str, tree: LexborHTMLParser) -> None:
        classes = {node.attributes.get("class") or "" for node in tree.css("[class]")}
        # Lower case, for the classes of a page without doctype match in any; the parser itself adds p and br.
        self.names = {"", "p", "br", *map(str.lower, set(_TAG.findall(source)))}
        self.names |= {f".{name}" for value in classes for name in value.lower().split()}

    def css(self, root: LexborNode | None, selectors: Selectors) -> list[LexborNode]:
        """What ``root.css`` finds for these selectors."""
        wanted = ",".join([selector for selector, name in selectors if name in self.names])
        return root.css(wanted) if root is not None and wanted else []


def _title(tree: LexborHTMLParser, look: _Look) -> str:
    for selector in ("h1", "title"):
        node = tree.css_first(selector) if selector in look.names else None
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


def _links(nodes: Iterable[LexborNode], title_of: Callable[[str], str | None]) -> tuple[str, ...]:
    """The articles that headings and links, in order, lead to."""
    outline = Outline()
    links: dict[str, None] = {}
    for node in nodes:
        if node.tag != "a":
            outline.heading(int((node.tag or "h2")[1]), node.text())
        elif outline.links_count and (title := title_of(_href(node))):
            links.setdefault(title)
    return tuple(links)


def _simplify(root: LexborNode, look: _Look) -> None:
    """Formulas become their LaTeX, raised text becomes raised characters, line breaks become spaces."""
    for node in look.css(root, _FORMULAS):
        formula = node if node.tag == "math" else node.css_first("math")
        note = node.css_first("annotation")
        source = (formula.attributes.get("alttext") if formula is not None else None) or (note.text() if note else "")
        node.replace_with(latex(_DISPLAY_STYLE.sub(r"\1", (source or node.text()).strip())))
    for node in look.css(root, _RAISED):
        node.replace_with(superscript(node.text()))
    for node in look.css(root, _BREAKS):
        node.replace_with(" ")


def _sections(nodes: Iterable[LexborNode]) -> tuple[Section, ...]:
    """The prose of headings, paragraphs and items of lists, in order."""
    outline = Outline()
    places = _Places()
    items: list[str] = []
    last_list: LexborNode | None = None
    for node in nodes:
        tag = node.tag or ""
        is_heading = tag[0] == "h"
        if outline.in_apparatus and not is_heading:
            continue
        if tag in _ITEMS:
            top = places.outermost_list(node)
            if items and top != last_list:
                outline.block(items)
                items = []
            last_list = top
            items.append(_own_text(node))
            continue
        if places.inside_item(node):
            continue
        outline.block(items)
        items = []
        if is_heading:
            if tag != "h1":  # the title, which is no section
                outline.heading(int(tag[1]), node.text())
        elif tag != "blockquote" or not _holds_blocks(node):
            outline.block([node.text()])
    outline.block(items)
    return outline.sections()


def _own_text(node: LexborNode) -> str:
    """The text of a list item without the lists inside it."""
    return "".join([child.text() for child in node.iter(include_text=True) if child.tag not in _LISTS])


class _Places:
    """Where nodes stand; found once for all that have the same parent."""

    def __init__(self) -> None:
        self._in_item: dict[int, bool] = {}
        self._lists: dict[int, LexborNode | None] = {}

    def inside_item(self, node: LexborNode) -> bool:
        """Whether the node is part of an item of a list."""
        parent = node.parent
        if parent is None:
            return False
        if (known := self._in_item.get(parent.mem_id)) is None:
            known = self._in_item[parent.mem_id] = _is_inside_item(parent)
        return known

    def outermost_list(self, node: LexborNode) -> LexborNode | None:
        """The list that an item belongs to, with all lists around it."""
        parent = node.parent
        if parent is None:
            return None
        if parent.mem_id not in self._lists:
            self._lists[parent.mem_id] = _outermost_list(parent)
        return self._lists[parent.mem_id]


def _is_inside_item(node: LexborNode | None) -> bool:
    while node is not None and (tag := node.tag) not in ("body", "section", "html"):
        if tag in _ITEMS:
            return True
        node = node.parent
    return False


def _outermost_list(node: LexborNode | None) -> LexborNode | None:
    top: LexborNode | None = None
    while node is not None and node.tag in _LISTS_AND_ITEMS:
        top, node = node, node.parent
    return top


def _holds_blocks(node: LexborNode) -> bool:
    return any(child.tag in _BLOCKS_INSIDE for child in node.iter())
