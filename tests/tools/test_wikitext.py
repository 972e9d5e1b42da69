"""Wikitext becomes prose that a reader would take for the article's own."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tools.wikipedia.site import Site
from tools.wikipedia.wikitext import Draft, read_wikitext

SITE = Site(interwikis=frozenset({"fr", "de", "wikt"}))


def read(wikitext: str, title: str = "Here") -> Draft:
    return read_wikitext(wikitext, SITE, title)


def prose(wikitext: str) -> str:
    return "\n\n".join(section.text for section in read(wikitext).sections())


@pytest.mark.parametrize(
    ("wikitext", "expected"),
    [
        ("A '''bold''' and ''slanted'' '''''word'''''.", "A bold and slanted word."),
        ("See [[Mandelbrot set|the set]] and [[Julia set]]s.", "See the set and Julia sets."),
        ("[[Image:A.jpg|thumb|left|The [[Koch snowflake]] grows.]] A curve.", "A curve."),
        ("[[File:A.jpg|300px]]\nA curve.", "A curve."),
        ("Stated.<ref name=a>Book, [[Author]]</ref> Again.<ref name=a/> Done.<ref name=\"x/y\"/>",
         "Stated. Again. Done."),
        ("Before<!-- hidden [[Link]] -->after.", "Beforeafter."),
        ("One.\n<!-- a line of its own -->\nTwo.", "One. Two."),
        ("{{Infobox person|name=[[X]]|born=1924}}\n'''X''' lived.", "X lived."),
        ("{| class=wikitable\n|-\n| cell [[Y]]\n|}\nAfter the table.", "After the table."),
        ("<table style=\"float:right\"><tr><td>cell</td></tr></table>After.", "After."),
        ("The map <math>\\displaystyle z_{n+1} = z_n^2 + c\\,</math> is iterated.",
         "The map z_{n+1} = z_n^2 + c is iterated."),
        ("About 10<sup>6</sup> m<sup>2</sup>, H<sub>2</sub>O, the 19<sup>th</sup>.", "About 10⁶ m², H2O, the 19th."),
        ("A [http://example.org label], a [http://example.org] number.", "A label, a number."),
        ("An area of 30&nbsp;km&sup2; &mdash; large.", "An area of 30 km² — large."),
        ("A path of {{convert|100|km|mi}} and {{convert|3|to|5|ft|m}}.", "A path of 100 km and 3 to 5 feet."),
        ("A {{convert|5|mi|km|adj=on}} crater.", "A 5-mile crater."),
        ("The {{lang|fr|école}} ({{lang-la|schola}}) {{citation needed|date=May 2020}}was small.",
         "The école (Latin: schola) was small."),
        ("Tokyo ({{IPAc-en|t|o}}) is large.", "Tokyo is large."),
        ("Calls of f() stay.", "Calls of f() stay."),
        ("{{nowrap|about 3}}{{ndash}}4 {{frac|1|2}} of it", "about 3–4 1/2 of it"),
        ("__NOTOC__\nText.", "Text."),
        ("* One [[A]]\n* Two\n** Deeper", "One A\nTwo\nDeeper"),
        ("; Term : its meaning\n:indented", "Term: its meaning\nindented"),
        (":''This article is about the set. For other uses, see [[Set (other)]].''\nText.", "Text."),
        ("''Main article: [[History of X]]''\nText.", "Text."),
        ("<nowiki>[[not a link]]</nowiki> and <code>x = 1</code>", "[[not a link]] and x = 1"),
        ("<blockquote>Said he.</blockquote>", "Said he."),
        ("{{quote|All is [[number]].|Pythagoras}}", "All is number."),
        ("<gallery>\nFile:A.jpg|One\n</gallery>\nText.", "Text."),
        ("Broken [[File:A.jpg|thumb|no end", "Broken"),
        ("Broken <div class=x>tag and <br> break</div", "Broken tag and break"),
        ("[[Category:Sets]][[fr:Ensemble]]Text [[:Category:Sets|of sets]] [[wikt:set|word]].", "Text of sets word."),
        ("f<nowiki>''</nowiki>(x) = 0", "f''(x) = 0"),
    ],
)  # fmt: skip
def test_markup_becomes_prose(wikitext: str, expected: str) -> None:
    assert prose(wikitext) == expected


def test_sections_carry_their_path_and_apparatus_is_dropped() -> None:
    draft = read(
        "Lead.\n== History ==\nOld.\n=== Early ''years'' ===\nEarlier.\n== See also ==\n* [[Julia set]]\n"
        "== References ==\n{{reflist}}\n* [[Some Press]]\n=== Books ===\nMore books.\n== Afterwards ==\nLate."
    )
    assert [(section.path, section.text) for section in draft.sections()] == [
        ((), "Lead."),
        (("History",), "Old."),
        (("History", "Early years"), "Earlier."),
        (("Afterwards",), "Late."),
    ]
    assert draft.links == ("Julia set",), "links of «See also» count, those of references do not"


def test_links_stand_in_order_of_appearance_without_duplicates_or_other_namespaces() -> None:
    draft = read(
        "{{Main|History of sets}}\n[[zeta function|Zeta]] [[Alpha#History|a]] [[File:X.png|[[In caption]]]] [[alpha]] "
        "[[Category:C]] [[fr:D]] [[Talk:E]] [[#Here]] [[Here]] [[:Template:F]]\n{|\n| [[In table]]\n|}\n[[Last_one]]"
    )
    assert draft.links == ("History of sets", "Zeta function", "Alpha", "In caption", "In table", "Last one")


def test_templates_inside_a_sentence_are_asked_for_and_boxes_are_not() -> None:
    draft = read("{{Some box|a=1}}\nThe island has {{population of|Malta}} people.\n\n{{Other box}}")
    assert draft.unknown == ("{{population of|Malta}}",)
    assert draft.sections({"{{population of|Malta}}": "'''519,562''' [[Person|living]]"})[0].text == (
        "The island has 519,562 living people."
    )
    assert draft.sections()[0].text == "The island has people."


@pytest.mark.parametrize("marker", ["{{disambiguation}}", "{{Disambig|geo}}", "{{hndis|name=X}}", "{{dab}}"])
def test_disambiguation_templates_are_recognised(marker: str) -> None:
    assert read(f"'''X''' may be:\n* [[A]]\n{marker}").disambiguation
    assert not read("'''X''' is a set. {{convert|1|km}}").disambiguation


PIECES = [
    *"[]{}|=*#:;'<>/!- \nabT0&",
    "{{",
    "}}",
    "[[",
    "]]",
    "{|",
    "|}",
    "<ref>",
    "<div>",
    "</div>",
    "''",
    "\n==",
    "\ue001",
]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=60).map("".join))
def test_no_input_crashes_or_leaves_private_marks(wikitext: str) -> None:
    draft = read(wikitext)
    text = "\n".join(section.text for section in draft.sections({}))
    assert not re.search("[\ue000-\ue00f]", text)


@pytest.mark.parametrize(
    "unit",
    [
        "[[",
        "{{",
        "{{a|",
        "<div>",
        "<ref>",
        "{|\n",
        "'''",
        "[[a|",
        "==a==\n",
        "* ",
        "<!--",
        "(",
        "[http://a ",
        "<i {{a}}",
        "{{a|<b>}}</b>",
        "\n<!-- ",
        "<includeonly>",
    ],
)
def test_hostile_repetition_is_read_to_its_end(unit: str) -> None:
    read(unit * (200_000 // len(unit))).sections()


def test_two_megabytes_of_prose_are_read() -> None:
    paragraph = "A '''set''' of [[number]]s is [[closed set|closed]].<ref>Book</ref>\n\n"
    sections = read(paragraph * (2 * 2**20 // len(paragraph))).sections()
    assert sections[0].text.count("A set of numbers is closed.") == 2 * 2**20 // len(paragraph)
