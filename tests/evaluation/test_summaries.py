"""``lumina eval summaries``: what is held out, a run on embedded engines, and what it writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import cli
from evaluation.articles import HeldOut, NoArticles, draw, hold_out, read_titles
from evaluation.report import table, write_json, write_plot
from evaluation.rouge import of_text
from evaluation.summaries import (
    FIGURES,
    SHARES,
    SummaryOutcome,
    bound,
    chosen_at_random,
    cut,
    figures,
    interval,
    statements,
    summarise,
)
from graphs.runs import Runner
from tools.wikipedia.source import Page, Section
from tools.wikipedia.zim import Zim

Lumina = Callable[..., AbstractAsyncContextManager[Runner]]
SILENT: dict[str, Any] = {"progress": lambda done: None}

LEAD = (
    "Otters are carnivorous mammals of rivers, lakes and coasts; they live on nearly every continent, "
    "swim and dive well, and eat fish."
)
REST = "Otters eat fish. They dive for crabs. Their fur is dense. Cubs are born in spring. Dens are called holts. " * 2


def page(lead: str = LEAD, rest: str = REST, **more: Any) -> Page:
    sections = (Section((), lead), Section(("Life",), rest.strip()))
    return Page("Otter", "wiki:otter", "7", tuple(one for one in sections if one.text), **more)


def outcome(f1: float, **more: Any) -> SummaryOutcome:
    base = {"title": "Otter", "url": "u", "text": "Otters swim.", "sentences": 2, "words": 4, "precision": 0.5}
    rest = {"recall": 0.2, "f1_sentences": 0.3, "f1_same_words": f1, "supported": 2, "cited": None, "verbatim": 1}
    return SummaryOutcome(**{**base, **rest, "f1": f1, "nearness": 0.9, **more})


def test_the_lead_is_the_reference_and_in_no_passage() -> None:
    held = hold_out(page(), "zoo", 3)
    assert isinstance(held, HeldOut)
    assert held.lead == LEAD
    assert {one.section for one in held.passages} == {("Life",)}
    assert not any("carnivorous" in one.text for one in held.passages)
    assert [one.text for one in held.rest][:2] == ["Otters eat fish.", "They dive for crabs."]


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (page(lead="Otters swim."), "a lead of fewer than 20 words"),
        (page(lead=""), "a lead of fewer than 20 words"),
        (page(rest="Otters eat fish. They dive."), "fewer than 6 sentences after the lead"),
        (page(rest=""), "fewer than 6 sentences after the lead"),
        (page(disambiguation=True), "a list of meanings"),
    ],
)
def test_an_article_that_nothing_can_be_held_out_of_is_left_out(given: Page, why: str) -> None:
    assert hold_out(given, "zoo", 3) == why


async def test_a_sample_is_drawn_by_its_seed(sample: Path) -> None:
    zim = Zim(sample)
    one = await draw(zim, None, size=5, seed=1, sentences=3, **SILENT)
    again = await draw(zim, None, size=5, seed=1, sentences=3, **SILENT)
    other = await draw(zim, None, size=5, seed=2, sentences=3, **SILENT)
    every = await draw(zim, None, size=None, seed=1, sentences=3, **SILENT)
    listed = await zim.titles(1000)
    few = await zim.titles(3)
    await zim.aclose()
    assert [held.title for held in one.articles] == [held.title for held in again.articles]
    assert [held.title for held in one.articles] != [held.title for held in other.articles]
    assert len(every.articles) + every.left_out.total() == len(listed) > 60
    assert "Mandelbrot set" in listed
    assert "M-set" not in listed
    assert few == listed[:3]


async def test_named_articles_are_read_once_and_what_is_missing_is_counted(sample: Path) -> None:
    zim = Zim(sample)
    names = ["M-set", "Julia set", "Mandelbrot set", "No such thing"]
    drawn = await draw(zim, names, size=None, seed=1, sentences=3, **SILENT)
    with pytest.raises(NoArticles, match="1 × no such article"):
        await draw(zim, ["No such thing"], size=None, seed=1, sentences=3, **SILENT)
    await zim.aclose()
    assert sorted(held.title for held in drawn.articles) == ["Julia set", "Mandelbrot set"]
    assert drawn.left_out["no such article"] == 1


async def test_summaries_are_made_by_the_agents_code_and_compared(lumina: Lumina) -> None:
    done: list[int] = []
    async with lumina() as runner:
        context = runner.context
        drawn = await draw(context.source, ["Julia set", "Fractal"], size=None, seed=1, sentences=3, **SILENT)
        made = await summarise(context, drawn.articles, method="extract", length=3, seed=1, progress=done.append)
        again = await summarise(context, drawn.articles, method="extract", length=3, seed=1, **SILENT)
    assert done == [1, 2]
    assert list(made) == ["Lumina, extract", "lead-3", "random-3", "bound-3"]
    assert [one.text for one in again["random-3"]] == [one.text for one in made["random-3"]]
    for system, outcomes in made.items():
        assert [one.sentences for one in outcomes] == [3, 3]
        assert all(one.supported == one.verbatim == 3 for one in outcomes)
        assert all(one.cited == (3 if system.startswith("Lumina") else None) for one in outcomes)
        assert all(one.f1_same_words > 0 for one in outcomes)
    lead = made["lead-3"]
    assert lead[0].text.startswith(drawn.articles[0].rest[0].text)
    assert all(best.f1 >= one.f1 for one, best in zip(lead, made["bound-3"], strict=True))
    found = figures(made["Lumina, extract"], lead)
    assert (found["supported"], found["cited"], found["verbatim"]) == (1.0, 1.0, 1.0)
    assert found["gain"] == pytest.approx(found["f1"] - figures(lead, lead)["f1"])  # type: ignore[operator]  # both are


async def test_a_models_invention_is_in_no_summary(lumina: Lumina) -> None:
    invented = "Julia sets were found by Isaac Newton on Mars."
    async with lumina(answers=[f"{invented} The filled Julia set is connected."]) as runner:
        drawn = await draw(runner.context.source, ["Julia set"], size=None, seed=1, sentences=3, **SILENT)
        made = await summarise(runner.context, drawn.articles, method="map_reduce", length=3, seed=1, **SILENT)
    [one] = made["Lumina, map_reduce"]
    assert "Newton" not in one.text
    assert one.dropped >= 1
    assert (one.supported, one.cited) == (one.sentences, one.sentences)
    assert one.tokens_in > 0


def test_figures_of_two_articles() -> None:
    ours = [outcome(0.4, cited=2, method="extract", seconds=1.0), outcome(0.2, cited=1, method="extract", seconds=3.0)]
    lead = [outcome(0.3), outcome(0.2)]
    found = figures(ours, lead)
    assert list(found) == list(FIGURES)
    assert found["f1"] == pytest.approx(0.3)
    assert found["gain"] == pytest.approx(0.05)
    assert found["wins"] == 0.75  # one won, one a tie
    assert (found["supported"], found["cited"], found["verbatim"]) == (1.0, 0.75, 0.5)
    assert (found["p50_s"], found["tokens_in"], found["by_model"]) == (2.0, None, None)
    assert found["gain_low"] == pytest.approx(0.0)
    assert found["gain_high"] == pytest.approx(0.1)
    assert figures(lead, lead)["wins"] == 0.5
    assert set(figures([], []).values()) == {None}


def test_an_interval_holds_the_mean_and_narrows() -> None:
    few, many = interval([0.0, 1.0] * 5), interval([0.0, 1.0] * 100)
    assert few[0] is not None
    assert few[1] is not None
    assert many[0] is not None
    assert many[1] is not None
    assert few[0] < many[0] < 0.5 < many[1] < few[1]
    assert interval([]) == (None, None)


def test_summaries_are_taken_apart_and_cut() -> None:
    found = statements("Otters swim in a[0]. [1] They eat 5 fish. [12]")
    assert found == [("Otters swim in a[0].", 1), ("They eat 5 fish.", 12)]
    assert statements("") == []
    assert cut("otters eat fish", "otters eat crabs and fish", 2) == of_text("otters eat fish", "otters eat")


def test_random_sentences_keep_their_order_and_the_bound_is_the_best() -> None:
    own = ["Cubs are born in spring.", "Otters eat fish.", "Dens are holts.", "Otters are mammals of rivers."]
    drawn = chosen_at_random(own, 3, "1 Otter")
    assert drawn == chosen_at_random(own, 3, "1 Otter")
    assert [own.index(one) for one in drawn] == sorted(own.index(one) for one in drawn)
    assert len(chosen_at_random(own, 9, "1 Otter")) == 4
    assert bound("Otters are mammals of rivers that eat fish.", own, 1) == ["Otters are mammals of rivers."]
    assert bound("Otters", [], 3) == []


def test_a_list_of_titles_is_read(tmp_path: Path) -> None:
    file = tmp_path / "titles.txt"
    file.write_text("Otter\n\n  Paris, Texas \n", encoding="utf-8")
    assert read_titles(file) == ["Otter", "Paris, Texas"]
    file.write_text("\n \n", encoding="utf-8")
    with pytest.raises(NoArticles, match="names no article"):
        read_titles(file)
    file.write_bytes(b"\xff")
    with pytest.raises(NoArticles, match="cannot be read"):
        read_titles(file)


def test_figures_are_written_and_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib draws it; it is not there")
    ours, lead = [outcome(0.4)], [outcome(0.3)]
    systems = {"Lumina": figures(ours, lead), "lead-3": figures(lead, lead)}
    write_json(tmp_path / "summaries.json", {"seed": 1}, systems, {"Lumina": ours, "lead-3": lead})
    write_plot(tmp_path / "summaries.png", systems, "one article", SHARES)
    kept = json.loads((tmp_path / "summaries.json").read_text(encoding="utf-8"))
    assert kept["outcomes"]["Lumina"][0]["f1"] == 0.4
    assert (tmp_path / "summaries.png").read_bytes().startswith(b"\x89PNG")
    rows = list(table(systems, FIGURES).columns[0].cells)
    assert "f1" in rows
    assert "tokens_in" not in rows  # nobody was asked


def test_bad_options_are_refused_before_anything_is_opened(tmp_path: Path) -> None:
    run = CliRunner().invoke
    for option in (["--sample", "0"], ["--sentences", "0"], ["--sentences", "21"], ["--method", "magic"]):
        assert run(cli.app, ["eval", "summaries", *option]).exit_code == 2
    missing = run(cli.app, ["eval", "summaries", "--titles", str(tmp_path / "absent"), "--no-plot"])
    assert isinstance(missing.exception, NoArticles)
