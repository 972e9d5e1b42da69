"""HTML of a rendered article to prose and links; for ``action=parse`` and for the pages of ZIM archives."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from selectolax.lexbor import LexborHTMLParser, LexborNode

from tools.wikipedia.prose import Outline, latex, superscript
from tools.wikipedia.roles import BY_TAG, SELECTORS, Role, roles_by_name
from tools.wikipedia.source import Section

Nodes = list[tuple[str, LexborNode]]
"""Tags and nodes in the order of the page."""
_LEVELS = {f"h{level}": level for level in range(1, 7)}
_LISTS = frozenset({"ul", "ol", "dl"})
_BLOCKS_INSIDE = frozenset({"p", "ul", "ol", "dl", "blockquote", "div"})
_ITEMS = frozenset({"li", "dd", "dt"})
_LISTS_AND_ITEMS = _LISTS | _ITEMS
_READ = frozenset({"a", "p", "blockquote", *_ITEMS, *_LEVELS})
"""What links and prose are taken from."""
_ABOUT = "h1, title, meta[name], a[href*='oldid=']"
"""What counts beside the article too."""
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


def read_html(source: str | bytes, title_of: Callable[[str], str | None]) -> Rendered:
    """Read a rendered article.

    Args:
        source: A whole HTML page, or the body that ``action=parse`` gives; bytes are UTF-8.
        title_of: The article's title that an ``href`` leads to; ``None`` when it leads to no article.
    """
    tree = LexborHTMLParser(source if isinstance(source, str) else _valid(source))
    found = roles_by_name(tree)
    about = _about(tree)
    title = next((text for tag in ("h1", "title") if (text := _text_of_first(about[tag]))), "")
    revision, url = _revision(about)
    marked = _stated(about, "disambiguation").lower() in ("true", "1", "yes")
    disambiguation = marked or bool(found[Role.DISAMBIGUATION])
    root = tree.css_first(SELECTORS[Role.ARTICLE]) if found[Role.ARTICLE] else None
    root = root or tree.body
    if root is None:
        return Rendered("", (), (), revision, url, disambiguation)
    around = _around(root, tree)
    _remove(found.pop(Role.NO_CONTENT, ()), around)
    nodes = _nodes(root, found)
    _remove(found[Role.NO_CONTENT], around)
    links = _links(nodes, title_of)
    _remove(found[Role.NO_PROSE], around)
    _simplify(root, found)
    return Rendered(title, _sections(nodes), links, revision, url, disambiguation)


def _valid(source: bytes) -> bytes:
    """The source with U+FFFD for what is no UTF-8, which the parser would let pass."""
    try:
        source.decode()
    except UnicodeDecodeError:
        return source.decode("utf-8", "replace").encode()
    return source


def _about(tree: LexborHTMLParser) -> Mapping[str, list[LexborNode]]:
    """Tag → the nodes with that tag that say something of the page as a whole."""
    about: dict[str, list[LexborNode]] = {"h1": [], "title": [], "meta": [], "a": []}
    for node in tree.css(_ABOUT):
        about[node.tag or ""].append(node)
    return about


def _text_of_first(nodes: Sequence[LexborNode]) -> str:
    return " ".join(nodes[0].text().split()) if nodes else ""


def _stated(about: Mapping[str, list[LexborNode]], name: str) -> str:
    """Content of the first ``meta`` element of that name."""
    for node in about["meta"]:
        attributes = node.attributes
        if attributes.get("name") == name:
            return (attributes.get("content") or "").strip()
    return ""


def _revision(about: Mapping[str, list[LexborNode]]) -> tuple[str, str]:
    """The revision of a ``meta`` element, or of the last link to a permanent revision (mwoffliner's footer)."""
    permanent = [
        (found[1], href) for node in about["a"] if (found := _OLD_REVISION.search(href := _href(node))) is not None
    ]
    if stated := _stated(about, "revision"):
        return stated, next((href for revision, href in permanent if revision == stated and "://" in href), "")
    return permanent[-1] if permanent else ("", "")


def _href(node: LexborNode) -> str:
    return node.attributes.get("href") or ""


def _nodes(root: LexborNode, found: Mapping[Role, list[LexborNode]]) -> Nodes:
    """What links and prose are taken from; what has a role by its tag is added to what was found."""
    nodes = root.css("*")
    tags = [node.tag or "" for node in nodes]
    for tag, node in zip(tags, nodes, strict=True):
        if tag in BY_TAG:
            found[BY_TAG[tag]].append(node)
    return [(tag, node) for tag, node in zip(tags, nodes, strict=True) if tag in _READ]


def _around(root: LexborNode, tree: LexborHTMLParser) -> set[int]:
    """Identities of the nodes that hold the article, and of the document, which cannot be taken out."""
    around = {tree.root.mem_id} if tree.root is not None else set()
    node = root.parent
    while node is not None:
        around.add(node.mem_id)
        node = node.parent
    return around


def _remove(nodes: Iterable[LexborNode], around: set[int]) -> None:
    """Take nodes with all that they hold off the page, but never the article with them; each then has no parent."""
    for node in nodes:
        if node.mem_id not in around:
            node.decompose()


def _links(nodes: Nodes, title_of: Callable[[str], str | None]) -> tuple[str, ...]:
    """The articles that headings and links, in order, lead to."""
    outline = Outline()
    counts = outline.links_count
    links: dict[str, None] = {}
    for tag, node in nodes:
        if tag == "a":
            if counts and node.parent is not None and (title := title_of(_href(node))):
                links.setdefault(title)
        elif tag in _LEVELS and node.parent is not None:
            outline.heading(_LEVELS[tag], node.text())
            counts = outline.links_count
    return tuple(links)


def _simplify(root: LexborNode, found: Mapping[Role, Sequence[LexborNode]]) -> None:
    """Formulas become their LaTeX, raised text becomes raised characters, line breaks become spaces."""
    for node in _inside(root, root.css(SELECTORS[Role.FORMULA]) if found[Role.FORMULA] else ()):
        formula = node if node.tag == "math" else node.css_first("math")
        note = node.css_first("annotation")
        source = (formula.attributes.get("alttext") if formula is not None else None) or (note.text() if note else "")
        _replace(node, latex(_DISPLAY_STYLE.sub(r"\1", (source or node.text()).strip())))
    for node in _inside(root, found[Role.RAISED]):
        _replace(node, superscript(node.text()))
    for node in _inside(root, found[Role.BREAK]):
        _replace(node, " ")


def _inside(root: LexborNode, nodes: Iterable[LexborNode]) -> Iterator[LexborNode]:
    """Those of the nodes that are still on the page when it is their turn."""
    return (node for node in nodes if node.parent is not None and node.mem_id != root.mem_id)


def _replace(node: LexborNode, text: str) -> None:
    node.replace_with(text)
    node.decompose()  # so that what it holds is seen to be gone


def _sections(nodes: Nodes) -> tuple[Section, ...]:
    """The prose of headings, paragraphs and items of lists, in order."""
    outline = Outline()
    places = _Places()
    items: list[str] = []
    last_list = 0
    is_read = not outline.in_apparatus
    for tag, node in nodes:
        if tag == "a" or not (is_read or tag in _LEVELS) or (parent := node.parent) is None:
            continue
        if tag in _ITEMS:
            top = places.outermost_list(parent)
            if items and top != last_list:
                outline.block(items)
                items = []
            last_list = top
            items.append(_own_text(node))
            continue
        if places.inside_item(parent):
            continue
        if items:
            outline.block(items)
            items = []
        if tag in _LEVELS:
            if tag != "h1":  # the title, which is no section
                outline.heading(_LEVELS[tag], node.text())
                is_read = not outline.in_apparatus
        elif tag != "blockquote" or not _holds_blocks(node):
            outline.paragraph(node.text())
    if items:
        outline.block(items)
    return outline.sections()


def _own_text(node: LexborNode) -> str:
    """The text of a list item without the lists inside it."""
    for child in node.iter():
        if child.tag in _LISTS:
            return "".join([child.text() for child in node.iter(include_text=True) if child.tag not in _LISTS])
    return node.text()


class _Places:
    """Where nodes stand, by their parents; found once for each of these."""

    def __init__(self) -> None:
        self._in_item: dict[int, bool] = {}
        self._lists: dict[int, int] = {}

    def inside_item(self, parent: LexborNode) -> bool:
        """Whether the parent is, or is part of, an item of a list."""
        if (known := self._in_item.get(parent.mem_id)) is None:
            known = self._in_item[parent.mem_id] = _is_inside_item(parent)
        return known

    def outermost_list(self, parent: LexborNode) -> int:
        """Identity of the list that an item with this parent belongs to, with all lists around it; 0 for none."""
        if (known := self._lists.get(parent.mem_id)) is None:
            known = self._lists[parent.mem_id] = _outermost_list(parent)
        return known


def _is_inside_item(node: LexborNode | None) -> bool:
    while node is not None and (tag := node.tag) not in ("body", "section", "html"):
        if tag in _ITEMS:
            return True
        node = node.parent
    return False


def _outermost_list(node: LexborNode | None) -> int:
    top: LexborNode | None = None
    while node is not None and node.tag in _LISTS_AND_ITEMS:
        top, node = node, node.parent
    return 0 if top is None else top.mem_id


def _holds_blocks(node: LexborNode) -> bool:
    return any(child.tag in _BLOCKS_INSIDE for child in node.iter())
