"""Plans in words: why each step, what else there was; and the transcripts of docs/planner.md are what is said today."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from agents.spec import RunRequest
from graphs.explaining import describe_request, explain
from graphs.goals import GoalFile, load_goals
from graphs.planner import ReplayDiffers, Situation, decide, replay
from graphs.runs import Runner

ROOT = Path(__file__).parents[2]
QUESTION = "Who proved that the Mandelbrot set is connected?"
Lumina = Callable[..., AbstractAsyncContextManager[Runner]]


@pytest.fixture(scope="module")
def goals() -> GoalFile:
    return load_goals(ROOT / "goal_lattice.yml")


def said(goals: GoalFile, intent: str, *topics: str, holding: frozenset[str] = frozenset(), **known: Any) -> str:
    targets = goals.intents[intent].goals
    situation = Situation(targets=targets, topics=topics, holding=holding, **known)
    return explain(goals, intent, situation, decide(goals, situation))


def test_each_step_has_its_reason_and_each_other_way_its_price(goals: GoalFile) -> None:
    text = said(goals, "wiki_qa", "Fractal", holding=frozenset({"topics_found", "linked", "bridged"}))
    assert "1. crawled[Fractal] by links, now: agent crawl, 5 s." in text
    assert "steps 3 and 4 need it" in text
    assert "By quoted the whole plan would cost 55.1 s, 10 s more: quoted counts 15 s for its poorer result." in text
    assert "By map_reduce the whole plan would cost 95.1 s, 50 s more: map_reduce needs writer too." in text
    assert "it is what was asked for" in text


def test_steps_that_run_together_are_told(goals: GoalFile) -> None:
    text = said(goals, "index", "A", "B", holding=frozenset({"topics_found"}))
    assert "Now steps 1 and 3 would run, side by side" in text


def test_topics_that_are_not_known_yet_are_told(goals: GoalFile) -> None:
    assert "Once they are, crawled, searchable and summarised join the plan" in said(goals, "wiki_qa")
    assert "topics are not known" not in said(goals, "chat")


def test_a_learned_cost_is_told_beside_the_file_s(goals: GoalFile) -> None:
    assert "2.5 s as learned here (5 s in the goal file)" in said(goals, "chat", costs={"replied.chat": 2.5})


def test_nothing_to_do_and_nothing_to_be_done_are_told_apart(goals: GoalFile) -> None:
    assert "nothing is to be done" in said(goals, "chat", holding=frozenset({"replied"}))
    assert "cannot be had: no plan reaches «replied»" in said(goals, "chat", ruled_out=frozenset({"replied.chat"}))


def test_a_way_that_is_ruled_out_is_told_with_its_reason(goals: GoalFile) -> None:
    held = frozenset({"topics_found"})
    assert "By quoted there is no plan" in said(
        goals, "wiki_qa", "X", holding=held, ruled_out=frozenset({"answered.quoted"})
    )


def test_the_sentence_of_the_log_counts_its_steps_as_people_do(goals: GoalFile) -> None:
    def why(target: str, *topics: str) -> str:
        holding = frozenset({"topics_found", *(f"crawled[{topic}]" for topic in topics)})
        return decide(goals, Situation(targets=(target,), topics=topics, holding=holding)).why

    assert why("replied") == "replied.chat: the only step needed, 5 s, the least expected cost"
    assert "searchable.text[A]: first of 3 steps, 32.1 s in all" in why("summary_reported", "A")
    assert " together, for neither needs the other: first 2 of 3 steps, 2.1 s in all" in why("crawl_reported", "A", "B")
    assert " together, for neither needs the other: both steps, 2 s in all" in why("searchable", "A", "B")
    assert " together: all 3 steps, 3 s in all" in why("searchable", "A", "B", "C")


def test_a_replay_compares_choices_and_not_the_words_of_the_log(goals: GoalFile) -> None:
    situation = Situation(targets=("replied",), topics=(), holding=frozenset())
    logged = {**decide(goals, situation).to_json(), "why": "replied.chat: first of 1 steps, 5 s in all, the least"}
    (again,) = replay(goals, [{"round": 1, "situation": situation.to_json(), "decision": logged}])
    assert again.why != logged["why"]


def test_a_replay_tells_the_round_whose_choice_is_another(goals: GoalFile) -> None:
    situation = Situation(targets=("replied",), topics=(), holding=frozenset())
    logged = decide(goals, situation).to_json()
    entry = {"round": 7, "situation": situation.to_json(), "decision": logged}
    assert len(replay(goals, [entry, {"way": "x", "ok": True}])) == 1
    other = {**logged, "run": [{"goal": "replied", "way": "replied.song"}]}
    with pytest.raises(ReplayDiffers, match=r"round 7: .*replied\.song.*now it would be run replied\.chat"):
        replay(goals, [{**entry, "decision": other}])
    with pytest.raises(ReplayDiffers, match="«sung», which is no goal any more"):
        replay(goals, [{**entry, "situation": {**situation.to_json(), "targets": ["sung"]}}])


ASKED = [
    {"message": QUESTION, "intent": "wiki_qa", "topics": ["Mandelbrot set"]},
    {"message": "What are the main points?", "intent": "summarise", "topics": ["Julia set"]},
    {"message": QUESTION, "intent": "wiki_qa", "topics": ["Mandelbrot set"]},
]
"""The three requests of docs/planner.md; between the second and the third the first topic is crawled."""


async def test_the_transcripts_of_the_documentation_are_what_is_said(lumina: Lumina) -> None:
    page = (ROOT / "docs/planner.md").read_text()
    transcripts = re.findall(r"```console\n\$ lumina plan --explain [^\n]+\n(.*?)```", page, re.DOTALL)
    async with lumina(chat=None) as runner:  # the embedded model, which nothing here starts
        told = [await describe_request(runner, asked, "local") for asked in ASKED[:2]]
        async for _ in runner.stream(RunRequest(**{**ASKED[0], "intent": "crawl"}), "crawl"):
            pass
        told.append(await describe_request(runner, ASKED[2], "local"))
    assert [one["explanation"] for one in told] == transcripts
