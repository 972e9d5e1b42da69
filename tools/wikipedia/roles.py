"""What the nodes of a rendered article are to its reader, told by their tags, classes and ids.

Lexbor tries each selector of a query on each node, and a page has hundreds of nodes. So it is asked for the nodes that
have a class at all, and what a class means is looked up; tags are told by whoever goes through the article anyway.
"""

from __future__ import annotations

from collections import defaultdict
from enum import Enum, auto
from functools import lru_cache

from selectolax.lexbor import LexborHTMLParser, LexborNode


class Role(Enum):
    """What a node is."""

    ARTICLE = auto()
    """The article, without what the site puts around it."""
    DISAMBIGUATION = auto()
    """Says that the page lists meanings of its title."""
    NO_CONTENT = auto()
    """Holds neither prose nor links of the article."""
    NO_PROSE = auto()
    """Holds links but no prose; a picture without a caption says nothing and may stay."""
    FORMULA = auto()
    RAISED = auto()
    BREAK = auto()


SELECTORS = {
    Role.ARTICLE: ".mw-parser-output",
    Role.DISAMBIGUATION: ".disambig, #disambigbox, .dmbox-disambig, .mw-disambig-page, .disambigbox",
    Role.NO_CONTENT: (
        "style, script, noscript, template, link, nav, header, footer, form, #toc, .toc, .mw-editsection, .navbox, "
        ".navbox-styles, .vertical-navbox, .sidebar, .reflist, .references, .reference, .mw-cite-backlink, "
        "a.autonumber, .catlinks, .printfooter, .noprint, .mw-jump-link, .metadata, .ambox, .error, .mw-empty-elt, "
        ".sistersitebox, .authority-control"
    ),
    Role.NO_PROSE: (
        "table, pre, figure, figcaption, .infobox, .thumb, .gallery, .hatnote, .dablink, .rellink, .shortdescription, "
        "audio, video, svg, .mwe-math-fallback-image-inline, .mwe-math-fallback-image-display"
    ),
    Role.FORMULA: "math, .mwe-math-element",
    Role.RAISED: "sup",
    Role.BREAK: "br",
}
"""Tags, classes, ids and tags with a class."""
_ROLES = {selector: role for role, listed in SELECTORS.items() for selector in listed.split(", ")}
BY_TAG = {selector: role for selector, role in _ROLES.items() if selector.isalpha()}
"""Tag → role of all nodes with it."""
_IDS = [selector for selector in _ROLES if selector.startswith("#")]
_SELECTORS_BY_CLASS = {selector.partition(".")[2]: selector for selector in _ROLES if "." in selector}
_SHORT_CLASS = 200
"""Characters; longer attributes are rare, and not worth the memory."""


def roles_by_name(tree: LexborHTMLParser) -> defaultdict[Role, list[LexborNode]]:
    """The nodes of a page whose class or id gives them a role, in no order, some of them twice."""
    found = defaultdict[Role, list[LexborNode]](list)
    doubtful: set[str] = set()
    classed = tree.css("[class]")
    values = [node.attributes["class"] or "" for node in classed]
    meanings = {value: meant for value in set(values) if (meant := _meaning(value))}
    for node, value in zip(classed, values, strict=True):
        if value in meanings:
            for selector, tag, is_sure in meanings[value]:
                if not is_sure:
                    doubtful.add(selector)
                elif not tag or tag == node.tag:
                    found[_ROLES[selector]].append(node)
    for node in tree.css(", ".join(_IDS)):
        found[_ROLES[f"#{(node.id or '').lower()}"]].append(node)
    for selector in doubtful:
        found[_ROLES[selector]] += tree.css(selector)
    return found


def _meaning(value: str) -> tuple[tuple[str, str, bool], ...]:
    """The selectors that a ``class`` matches, each with the tag it wants, and whether it matches on every page."""
    return (_known_meaning if len(value) <= _SHORT_CLASS else _known_meaning.__wrapped__)(value)


@lru_cache(maxsize=2_048)
def _known_meaning(value: str) -> tuple[tuple[str, str, bool], ...]:
    # Upper case counts as lower on a page without doctype; no white space but that of ASCII stands between two.
    is_sure = value.isprintable() and value == value.lower()
    selectors = [_SELECTORS_BY_CLASS[name] for name in value.lower().split() if name in _SELECTORS_BY_CLASS]
    return tuple((selector, selector.partition(".")[0], is_sure) for selector in selectors)
