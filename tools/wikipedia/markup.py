"""Wikitext as a tree of plain objects.

The tokens are mwparserfromhell's; so is the grammar. Its own tree can be edited, and is checked at each assignment: for
reading alone, building it costs several times what the tokens do. This one is built in one pass and only read.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass

from mwparserfromhell import parser
from mwparserfromhell.nodes import HTMLEntity
from mwparserfromhell.parser import ParserError, tokens
from mwparserfromhell.parser.tokenizer import Tokenizer

from tools.wikipedia.source import SourceError

Token = tokens.Token
_TOKENIZER = parser.CTokenizer or Tokenizer  # type: ignore[attr-defined]  # it is there, but not in __all__


@dataclass(slots=True)
class Wikilink:
    """``[[title|text]]``."""

    title: Code
    text: Code | None

    def __str__(self) -> str:
        return f"[[{source(self.title)}]]" if self.text is None else f"[[{source(self.title)}|{source(self.text)}]]"


@dataclass(slots=True)
class Parameter:
    """One argument of a template; a positional one has no name."""

    name: Code | None
    value: Code

    def __str__(self) -> str:
        return source(self.value) if self.name is None else f"{source(self.name)}={source(self.value)}"


@dataclass(slots=True)
class Template:
    """``{{name|value|name=value}}``."""

    name: Code
    params: list[Parameter]

    def __str__(self) -> str:
        return "{{" + "|".join([source(self.name), *map(str, self.params)]) + "}}"


@dataclass(slots=True)
class Argument:
    """``{{{name|default}}}``."""

    name: Code
    default: Code | None

    def __str__(self) -> str:
        return "{{{" + source(self.name) + ("" if self.default is None else f"|{source(self.default)}") + "}}}"


@dataclass(slots=True)
class ExternalLink:
    """``[url title]``, or an address that stands by itself."""

    url: Code
    title: Code | None
    brackets: bool
    separator: str
    """What stands between address and title."""

    def __str__(self) -> str:
        if not self.brackets:
            return source(self.url)
        title = "" if self.title is None else self.separator + source(self.title)
        return f"[{source(self.url)}{title}]"


@dataclass(slots=True)
class Heading:
    """``== title ==``."""

    level: int
    title: Code

    def __str__(self) -> str:
        return f"{'=' * self.level}{source(self.title)}{'=' * self.level}"


@dataclass(slots=True)
class Comment:
    """``<!-- contents -->``."""

    contents: Code

    def __str__(self) -> str:
        return f"<!--{source(self.contents)}-->"


@dataclass(slots=True)
class Tag:
    """``<name attributes>contents</name>``, or wikitext's own way of writing it (``*``, ``{|``, ``----``)."""

    name: Code
    attributes: str
    contents: Code
    wiki_markup: str
    """How wikitext writes the tag; empty for one between angle brackets."""
    opening: str
    """Source of what stands before the contents."""
    closing: str
    """Source of what stands after them."""

    def __str__(self) -> str:
        return self.opening + source(self.contents) + self.closing


Node = str | Wikilink | Template | Tag | HTMLEntity | ExternalLink | Heading | Argument | Comment
Code = list[Node]


def source(code: Code) -> str:
    """The wikitext that the nodes were read from."""
    return "".join(map(str, code))


def tree_of(wikitext: str) -> Code:
    """The nodes of a piece of wikitext, quotes (``''``) left in the text.

    Raises:
        SourceError: when the parser itself fails, which it should not on any text.
    """
    code: Code = []
    try:
        _until(_NOTHING, iter(_TOKENIZER().tokenize(wikitext, 0, True)), code)
    except (ParserError, KeyError) as error:
        raise SourceError(f"wikitext that cannot be parsed: {wikitext[:80]!r}: {error}") from error
    return code


def _until(stops: Container[type[Token]], left: Iterator[Token], code: Code) -> Token:
    """Append the nodes before the first token of ``stops``, and give that token; at the end, an empty one."""
    for token in left:
        kind = type(token)
        if kind is tokens.Text:
            code.append(token["text"])
        elif kind in stops:
            return token
        else:
            code.append(_READERS[kind](token, left))
    if stops is not _NOTHING:
        raise KeyError("a closing token is missing")
    return _END


def _wikilink(_: Token, left: Iterator[Token]) -> Wikilink:
    title: Code = []
    if type(_until(_LINK_STOPS, left, title)) is tokens.WikilinkClose:
        return Wikilink(title, None)
    text: Code = []
    _until((tokens.WikilinkClose,), left, text)
    return Wikilink(title, text)


def _template(_: Token, left: Iterator[Token]) -> Template:
    name: Code = []
    params: list[Parameter] = []
    end = _until(_VALUE_STOPS, left, name)
    while type(end) is tokens.TemplateParamSeparator:
        key: Code | None = None
        value: Code = []
        end = _until(_PARAMETER_STOPS, left, value)
        if type(end) is tokens.TemplateParamEquals:
            key, value = value, []
            end = _until(_VALUE_STOPS, left, value)
        params.append(Parameter(key, value))
    return Template(name, params)


def _argument(_: Token, left: Iterator[Token]) -> Argument:
    name: Code = []
    if type(_until(_ARGUMENT_STOPS, left, name)) is tokens.ArgumentClose:
        return Argument(name, None)
    default: Code = []
    _until((tokens.ArgumentClose,), left, default)
    return Argument(name, default)


def _external_link(start: Token, left: Iterator[Token]) -> ExternalLink:
    url: Code = []
    end = _until(_ADDRESS_STOPS, left, url)
    if type(end) is tokens.ExternalLinkClose:
        return ExternalLink(url, None, bool(start.brackets), "")
    title: Code = []
    _until((tokens.ExternalLinkClose,), left, title)
    return ExternalLink(url, title, bool(start.brackets), "" if end.suppress_space else " ")


def _entity(_: Token, left: Iterator[Token]) -> HTMLEntity:
    parts = []
    for token in left:
        if type(token) is tokens.HTMLEntityEnd:
            break
        parts.append(token)
    *kinds, text = parts
    hexadecimal = len(kinds) == 2
    sign = str(kinds[1].char) if hexadecimal else "x"
    return HTMLEntity(text["text"], named=not kinds, hexadecimal=hexadecimal, hex_char=sign)


def _heading(start: Token, left: Iterator[Token]) -> Heading:
    title: Code = []
    _until((tokens.HeadingEnd,), left, title)
    return Heading(start["level"], title)


def _comment(_: Token, left: Iterator[Token]) -> Comment:
    contents: Code = []
    _until((tokens.CommentEnd,), left, contents)
    return Comment(contents)


def _tag(start: Token, left: Iterator[Token]) -> Tag:
    name: Code = []
    attributes = ""
    markup = str(start.wiki_markup or "")
    end = _until(_TAG_STOPS, left, name)
    while type(end) is tokens.TagAttrStart:
        attribute, end = _attribute(end, left)
        attributes += attribute
    begin = markup or ("</" if start.invalid else "<") + source(name)
    opening = begin + attributes + str(end.padding or "")
    if type(end) is tokens.TagCloseSelfclose:
        return Tag(name, attributes, [], markup, opening + ("" if markup else ">" if end.implicit else "/>"), "")
    opening += str(end.wiki_markup or "") if markup else ">"
    contents: Code = []
    closing = _until((tokens.TagOpenClose,), left, contents).wiki_markup
    closing_name: Code = []
    _until((tokens.TagCloseClose,), left, closing_name)
    if markup:
        return Tag(name, attributes, contents, markup, opening, markup if closing is None else str(closing))
    return Tag(name, attributes, contents, markup, opening, f"</{source(closing_name)}>")


def _attribute(start: Token, left: Iterator[Token]) -> tuple[str, Token]:
    """The attribute's source, and the token after it."""
    code: Code = []
    quote = ""
    end = _until(_ATTRIBUTE_STOPS, left, code)
    text = f"{start.pad_first or ''}{source(code)}{start.pad_before_eq or ''}"
    if type(end) is not tokens.TagAttrEquals:
        return text, end
    value: Code = []
    while type(end := _until(_ATTRIBUTE_STOPS, left, value)) is tokens.TagAttrQuote:
        quote = str(end.char)
    return f"{text}={start.pad_after_eq or ''}{quote}{source(value)}{quote}", end


_END = Token()
_NOTHING: frozenset[type[Token]] = frozenset()
_LINK_STOPS = frozenset({tokens.WikilinkSeparator, tokens.WikilinkClose})
_VALUE_STOPS = frozenset({tokens.TemplateParamSeparator, tokens.TemplateClose})
_PARAMETER_STOPS = _VALUE_STOPS | {tokens.TemplateParamEquals}
_ARGUMENT_STOPS = frozenset({tokens.ArgumentSeparator, tokens.ArgumentClose})
_ADDRESS_STOPS = frozenset({tokens.ExternalLinkSeparator, tokens.ExternalLinkClose})
_TAG_STOPS = frozenset({tokens.TagAttrStart, tokens.TagCloseOpen, tokens.TagCloseSelfclose})
_ATTRIBUTE_STOPS = _TAG_STOPS | {tokens.TagAttrEquals, tokens.TagAttrQuote}
_READERS: dict[type[Token], Callable[[Token, Iterator[Token]], Node]] = {
    tokens.WikilinkOpen: _wikilink,
    tokens.TemplateOpen: _template,
    tokens.ArgumentOpen: _argument,
    tokens.ExternalLinkOpen: _external_link,
    tokens.HTMLEntityStart: _entity,
    tokens.HeadingStart: _heading,
    tokens.CommentStart: _comment,
    tokens.TagOpenOpen: _tag,
}
