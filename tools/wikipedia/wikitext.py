"""Wikitext to prose and links, without asking the wiki.

The grammar is mwparserfromhell's; what the pieces mean for a reader is decided here and in ``templates``. Templates
inside a sentence whose meaning is not known are collected, so that the wiki can be asked for all of them at once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from mwparserfromhell.nodes import HTMLEntity

from tools.wikipedia.balance import balanced_parts
from tools.wikipedia.lines import PLACEHOLDER, QUOTES, blocks_of, strip_stray
from tools.wikipedia.markup import (
    Argument,
    Code,
    ExternalLink,
    Heading,
    Node,
    Tag,
    Template,
    Wikilink,
    source,
    tree_of,
)
from tools.wikipedia.preparation import END, HEAD, LINE, MARKUP, PRIVATE, RAW, UNKNOWN, chunks, prepare
from tools.wikipedia.prose import Outline, latex, superscript
from tools.wikipedia.site import CATEGORY, FILE, Site
from tools.wikipedia.source import Section
from tools.wikipedia.templates import canonical_name, is_silent, marks_disambiguation, spoken
from tools.wikipedia.titles import clean_title, upper_first, why_invalid

_RAW_PLACEHOLDER = re.compile(f"{RAW}(\\d+){END}")
_HIDDEN_STYLE = re.compile(r"display\s*:\s*none|\b(?:noprint|navbox|infobox|thumb|metadata|ambox|toccolours)\b", re.I)
_TITLES_AS_ARGUMENTS = frozenset(
    "main|main article|main articles|mainarticle|see also|seealso|further|further information|details|see".split("|")
)
_SOURCES = re.compile(r"cit|sfn|harv|ref|note|efn|web ")
_DROPPED_TAGS = frozenset(
    "ref references gallery table timeline imagemap score graph templatedata templatestyles section categorytree "
    "inputbox syntaxhighlight source pre mapframe maplink hiero style script indicator seo data".split()
)
_BLOCK_TAGS = frozenset("p div center blockquote poem ul ol dl h1 h2 h3 h4 h5 h6 caption section".split())
_ITEM_TAGS = frozenset("li dt dd".split())


@dataclass(frozen=True, slots=True)
class Draft:
    """A page read from its wikitext, complete but for the templates in ``unknown``."""

    blocks: tuple[tuple[int, str], ...]
    """(level, text): headings have levels 1 to 6, paragraphs and lists 0."""
    links: tuple[str, ...]
    unknown: tuple[str, ...]
    """Sources of the templates inside sentences whose meaning is not known, in order."""
    disambiguation: bool
    site: Site

    def sections(self, expansions: Mapping[str, str] | None = None) -> tuple[Section, ...]:
        """The prose, by heading.

        Args:
            expansions: Template source → the wikitext it expands to; templates not in it say nothing.
        """
        said = [self._plain((expansions or {}).get(source, "")) for source in self.unknown]
        outline = Outline()
        for level, text in self.blocks:
            finished = PLACEHOLDER.sub(lambda match: said[int(match[1])], text) if UNKNOWN in text else text
            if level:
                outline.heading(level, finished)
            else:
                outline.block(finished.split("\n"))
        return outline.sections()

    def _plain(self, expansion: str) -> str:
        if not expansion.strip() or "{|" in expansion or "<table" in expansion:
            return ""
        draft = read_wikitext(expansion, self.site)
        return PLACEHOLDER.sub("", " ".join(text for level, text in draft.blocks if not level)).replace("\n", " ")


def read_wikitext(wikitext: str, site: Site, title: str = "") -> Draft:
    """Read a page's source.

    Args:
        wikitext: The source of one revision.
        site: The wiki, for its namespaces and neighbours.
        title: The page's title; links to itself are not counted.
    """
    return _Reader(site, title).read(wikitext)


class _Reader:
    def __init__(self, site: Site, title: str) -> None:
        self._site, self._title = site, title
        self._links: dict[str, None] = {}
        self._unknown: dict[str, int] = {}
        self._raw: list[str] = []
        self._muted = 0
        self._outline = Outline()  # only to know where links count

    def read(self, wikitext: str) -> Draft:
        text = prepare(wikitext)
        flat: list[str] = []
        for level, heading, chunk in chunks(text):
            if level:
                flat.append(
                    self._heading(level, "".join(self._flatten(tree_of(part)) for part in balanced_parts(heading)))
                )
            if not self._outline.in_apparatus or self._outline.links_count:
                flat += [self._flatten(tree_of(part)) for part in balanced_parts(chunk)]
        blocks, used = self._finish("".join(flat))
        links = tuple(link for link in self._links if link != self._title)
        return Draft(blocks, links, used, marks_disambiguation(text), self._site)

    # Nodes to flat text: one line a paragraph or list item, headings and unknown templates marked.

    def _flatten(self, code: Code) -> str:
        return "".join([node if isinstance(node, str) else self._node(node) for node in code])

    def _node(self, node: Node) -> str:
        match node:
            case Wikilink():
                return self._wikilink(node)
            case Template():
                return self._template(node)
            case Tag():
                return self._tag(node)
            case HTMLEntity():
                char = node.normalize()
                return self._keep(char) if char in MARKUP else char
            case ExternalLink():
                return self._external_link(node)
            case Heading():
                return self._heading(node.level, self._flatten(node.title))
            case Argument():
                return self._flatten(node.default) if node.default is not None else ""
        return ""

    def _mute(self, code: Code | None) -> None:
        """Read for the links only."""
        if code is not None:
            self._muted += 1
            self._flatten(code)
            self._muted -= 1

    def _keep(self, text: str) -> str:
        """Text that no later step may take for markup."""
        self._raw.append(text)
        return f"{RAW}{len(self._raw) - 1}{END}"

    def _heading(self, level: int, title: str) -> str:
        plain = " ".join(self._restore(strip_stray(title)).split())
        self._outline.heading(level, plain)
        return f"\n{HEAD}{level}{plain}\n"

    def _wikilink(self, node: Wikilink) -> str:
        target = source(node.title).strip()
        explicit = target.startswith(":")
        bare = target.removeprefix(":").strip()
        namespace = self._site.namespace_of(bare)
        if not explicit and (namespace in (FILE, CATEGORY) or namespace < 0):
            self._mute(node.text)
            return ""
        if self._site.is_interwiki(bare):
            return self._flatten(node.text) if node.text is not None else bare.partition(":")[2] if explicit else ""
        if namespace == 0:
            self._link(bare)
        return self._flatten(node.text) if node.text else self._flatten(node.title).removeprefix(":")

    def _link(self, target: str) -> None:
        if not self._outline.links_count or target.startswith("/"):
            return
        title = clean_title(target)
        if title and not why_invalid(title) and not self._site.is_interwiki(title):
            self._links.setdefault(title if self._site.keeps_first_letter else upper_first(title))

    def _external_link(self, node: ExternalLink) -> str:
        if node.title is not None:
            return self._flatten(node.title)
        return "" if node.brackets else self._keep(source(node.url))

    def _template(self, node: Template) -> str:
        name = canonical_name(source(node.name))
        if is_silent(name):
            if name in _TITLES_AS_ARGUMENTS:
                for parameter in node.params:
                    if parameter.name is None:
                        self._link(source(parameter.value).partition("{{!}}")[0])
            elif not _SOURCES.match(name):
                for parameter in node.params:
                    self._mute(parameter.value)
            return ""
        positional = [self._argument(param.value) for param in node.params if param.name is None]
        named = {
            source(param.name).strip(): self._argument(param.value) for param in node.params if param.name is not None
        }
        text = spoken(name, (positional, named), self._title)
        if text is not None:
            return text
        if self._muted or name.startswith("#"):
            return ""
        return f"{UNKNOWN}{self._unknown.setdefault(str(node), len(self._unknown))}{END}"

    def _argument(self, value: Code) -> str:
        return self._restore(self._flatten(value)).strip()

    def _tag(self, node: Tag) -> str:
        name = source(node.name).strip().lower()
        contents = node.contents
        if name == "table":
            self._mute(contents)
        if name in _DROPPED_TAGS or (node.attributes and _HIDDEN_STYLE.search(node.attributes)):
            return ""
        if node.wiki_markup and name in _ITEM_TAGS:
            return node.wiki_markup
        if name in ("math", "ce", "chem"):
            return self._keep(latex(PRIVATE.sub("", source(contents))))
        if name == "nowiki":
            return self._keep(PRIVATE.sub("", source(contents)))
        if name in ("br", "wbr", "hr"):
            return "\n\n" if name == "hr" else " " if name == "br" else ""
        inside = self._flatten(contents)
        if name == "sup":
            return superscript(QUOTES.sub("", self._restore(inside)))
        if name in _BLOCK_TAGS:
            return f"\n\n{inside}\n\n"
        return f"\n* {inside}" if name in _ITEM_TAGS else inside

    # Flat text to blocks.

    def _finish(self, flat: str) -> tuple[tuple[tuple[int, str], ...], tuple[str, ...]]:
        """Blocks, and the unknown templates that stand inside one of them, numbered anew."""
        sources = list(self._unknown)
        used: dict[str, int] = {}

        def renumber(match: re.Match[str]) -> str:
            return f"{UNKNOWN}{used.setdefault(sources[int(match[1])], len(used))}{END}"

        blocks: list[tuple[int, str]] = []
        for level, text in blocks_of(flat):
            finished = text if level else self._restore(strip_stray(PLACEHOLDER.sub(renumber, text)))
            if finished.strip():
                blocks.append((level, finished))
        return tuple(blocks), tuple(used)

    def _restore(self, text: str) -> str:
        text = text.replace(LINE, "")
        return _RAW_PLACEHOLDER.sub(lambda match: self._raw[int(match[1])], text) if RAW in text else text
