"""The tree that pages are read from says the same as mwparserfromhell's own."""

from __future__ import annotations

from typing import Any

import mwparserfromhell
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mwparserfromhell import nodes

from tools.wikipedia import markup

PIECES = (
    "word", " ", "\n", "\n\n", "[[", "]]", "[[a|b]]", "{{", "}}", "{{t|x|k=v}}", "{{{", "}}}", "{{{p|d}}}", "|", "=",
    "\n== h ==\n", "&amp;", "&#33;", "&#X2f;", "&", "<b>", "</b>", "<br>", "</br>", "<br/>", "<ref name = 'a b' c>",
    "</ref>", "<math>", "</math>", "<nowiki>", "</nowiki>", "<!--", "-->", "\n*", "\n#", "\n; t : d", "\n----\n",
    "\n{|", "\n|-", "\n|}", "\n! a || b", "[http://a.b c]", "[//a.b", "http://a.b/c", "mailto:a@b", "''", "'''", "é—",
)  # fmt: skip


def by_parser(code: Any) -> list[Any]:
    """mwparserfromhell's tree as plain values."""
    return [_by_parser(node) for node in code.nodes]


def _by_parser(node: Any) -> Any:
    def inner(code: Any) -> Any:
        return None if code is None else by_parser(code)

    match node:
        case nodes.Text():
            return str(node)
        case nodes.Wikilink():
            return ("link", inner(node.title), inner(node.text))
        case nodes.Template():
            values = [(inner(one.name) if one.showkey else None, inner(one.value)) for one in node.params]
            return ("template", inner(node.name), values)
        case nodes.Argument():
            return ("argument", inner(node.name), inner(node.default))
        case nodes.ExternalLink():
            return ("address", inner(node.url), inner(node.title), node.brackets)
        case nodes.HTMLEntity():
            return ("entity", str(node), node.normalize())
        case nodes.Heading():
            return ("heading", node.level, inner(node.title))
        case nodes.Tag():
            attributes = "".join(map(str, node.attributes))
            return ("tag", inner(node.tag), attributes, inner(node.contents), node.wiki_markup or "")
    return ("comment", str(node))


def by_markup(code: markup.Code) -> list[Any]:
    """Lumina's tree as the same plain values."""
    return [_by_markup(node) for node in code]


def _by_markup(node: Any) -> Any:
    def inner(code: Any) -> Any:
        return None if code is None else by_markup(code)

    match node:
        case str():
            return node
        case markup.Wikilink():
            return ("link", inner(node.title), inner(node.text))
        case markup.Template():
            return ("template", inner(node.name), [(inner(one.name), inner(one.value)) for one in node.params])
        case markup.Argument():
            return ("argument", inner(node.name), inner(node.default))
        case markup.ExternalLink():
            return ("address", inner(node.url), inner(node.title), node.brackets)
        case nodes.HTMLEntity():
            return ("entity", str(node), node.normalize())
        case markup.Heading():
            return ("heading", node.level, inner(node.title))
        case markup.Tag():
            return ("tag", inner(node.name), node.attributes, inner(node.contents), node.wiki_markup)
    return ("comment", str(node))


@example(list(PIECES))
@example(["<ref =x>", "a", "</ref>"])
@example(["\n{| class='a b' x", "\n|-\n| c || style=d | e\n|}"])
@given(st.lists(st.sampled_from(PIECES), max_size=24))
@settings(max_examples=300, deadline=None)
def test_tree_is_that_of_the_parser(pieces: list[str]) -> None:
    text = "".join(pieces)
    theirs = mwparserfromhell.parse(text, skip_style_tags=True)
    ours = markup.tree_of(text)
    assert by_markup(ours) == by_parser(theirs)
    assert markup.source(ours) == str(theirs)


@pytest.mark.parametrize(
    "text", ["{{a|b=[[c|d]]|<ref name=e>f</ref>}}", "[http://a b] [http://c] [http://d''e'']", "&nbsp;&#x3a3;&#931;"]
)
def test_source_of_a_tree_is_what_was_read(text: str) -> None:
    assert markup.source(markup.tree_of(text)) == text
