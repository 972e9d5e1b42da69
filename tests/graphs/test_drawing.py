"""Pictures: complete where the lattice is small, honest where it is not, and safe for any name."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from graphs.drawing import goals_mermaid, hasse_mermaid, hasse_svg, plan_mermaid
from graphs.lattice import Lattice, Way
from graphs.search import plan

SVG = "{http://www.w3.org/2000/svg}"

DIAMOND = Lattice(
    {
        "base": [Way("base.1", "base", "x")],
        "left": [Way("left.1", "left", "x", frozenset({"base"}))],
        "right": [Way("right.1", "right", "x", frozenset({"base"})), Way("right.2", "right", "x", cost=7)],
    }
)
WALK = [frozenset[str](), frozenset({"base"}), frozenset({"base", "left", "right"})]
WIDE = Lattice({f"g{n:02}": [Way(f"g{n:02}.1", f"g{n:02}", "x")] for n in range(30)})


def test_the_goal_picture_shows_requirements_and_alternatives() -> None:
    text = goals_mermaid(DIAMOND, WALK[:2])
    assert text.startswith("flowchart BT\n")
    assert "g0 --> g1" in text
    assert 'w2_1{{"2<br/>7 s"}}' in text
    assert "g0 -.-> w2_0" in text
    assert "class g0 held" in text


def test_the_hasse_diagram_has_every_state_and_every_cover() -> None:
    states = DIAMOND.states()
    covers = sum(len(DIAMOND.covers(state)) for state in states)
    text = hasse_mermaid(DIAMOND)
    assert len(re.findall(r"^  s\d+\(\[", text, re.MULTILINE)) == len(states) == 6
    assert len(re.findall(r"^  s\d+ ---\|", text, re.MULTILINE)) == covers
    picture = ElementTree.fromstring(hasse_svg(DIAMOND))
    assert len(picture.findall(f"{SVG}g")) == len(states)
    assert len(picture.findall(f"{SVG}line")) == covers


def test_the_walked_chain_is_marked_even_where_it_adds_two_goals_at_once() -> None:
    text = hasse_mermaid(DIAMOND, WALK)
    assert re.search(r's\d ==>\|"\+base"\| s\d', text)
    assert re.search(r's\d ==>\|"\+left, \+right"\| s\d', text)
    assert len(re.search(r"class (\S+) walked", text)[1].split(",")) == 3  # type: ignore[index]  # fails if absent
    picture = hasse_svg(DIAMOND, WALK)
    assert ">+left</tspan>" in picture
    assert ">+right</tspan>" in picture
    assert len(ElementTree.fromstring(picture).findall(f"{SVG}path")) == 2


def test_a_plan_is_drawn_with_its_order_what_holds_and_what_runs_now() -> None:
    text = plan_mermaid(plan(DIAMOND, {"base"}, {"left", "right"}))
    assert 'h0(["base"])' in text
    assert 's1["1 left<br/>1, 0 s"]' in text
    assert "h0 --> s1" in text
    assert "class h0 held" in text
    assert "class s1,s2 now" in text


def test_a_retracted_goal_and_a_state_that_is_not_feasible_are_drawn() -> None:
    walk = [frozenset({"left"}), frozenset({"left", "base"}), frozenset({"left"}), frozenset({"left", "ghost"})]
    text = hasse_mermaid(DIAMOND, walk)
    assert "−base" in text
    assert "ghost" not in text
    assert ElementTree.fromstring(hasse_svg(DIAMOND, walk)).findall(f"{SVG}line")


def test_of_a_lattice_too_large_the_walked_chain_and_its_covers_are_drawn() -> None:
    walk = [frozenset[str](), frozenset({"g00"}), frozenset({"g00", "g01"})]
    text = hasse_mermaid(WIDE, walk)
    assert "more than 120 feasible states of 30 goals; drawn: the walked chain and the states above it" in text
    assert len(re.findall(r"^  s\d+\(\[", text, re.MULTILINE)) == 3 + 29 + 28 + 28
    picture = hasse_svg(WIDE, walk)
    assert "more than 120 feasible states" in picture
    ElementTree.fromstring(picture)


def test_of_a_large_lattice_without_a_walk_some_chain_to_the_top_is_drawn() -> None:
    assert "one chain from the bottom to the top" in hasse_svg(WIDE)


def test_names_cannot_break_out_of_a_picture() -> None:
    evil = 'a"]<script>&|`{}#;\n'
    lattice = Lattice({evil: [Way("x", evil, "x"), Way("y", evil, "x")]})
    for text in (goals_mermaid(lattice), hasse_mermaid(lattice, [(), [evil]])):
        assert "<script" not in text
        assert 'a"' not in text
    root = ElementTree.fromstring(hasse_svg(lattice, [(), [evil]]))
    assert not root.findall(f".//{SVG}script")


def test_pictures_are_the_same_every_time() -> None:
    turned = Lattice({goal: DIAMOND.ways_of(goal) for goal in ("right", "left", "base")})
    assert hasse_svg(turned, WALK) == hasse_svg(DIAMOND, WALK)
    assert goals_mermaid(turned) == goals_mermaid(DIAMOND)
