"""The goal file: what it means, and every problem with its line."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from textwrap import dedent

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphs.goals import GoalFile, InvalidGoalFile, goal_schema, load_goals, parse_instance, schema_text
from graphs.search import plan

ROOT = Path(__file__).parents[2]

GOOD = """\
# yaml-language-server: $schema=goal_lattice.schema.json
version: 1
goals:
  - id: crawled
    title: The topic is read
    value: 2
    each: topic
    ways:
      - id: links
        agent: crawl
        cost: {seconds: 8}
        params: {hops: 1}
      - id: paid
        agent: crawl
        cost: {seconds: 1, usd: 0.01}
  - id: summarised
    title: The topic is summarised
    each: topic
    ways:
      - id: short
        agent: summarise
        requires: [crawled]
        cost: {seconds: 1, loss_s: 60}
  - id: answered
    title: The question is answered
    ways:
      - id: qa
        agent: qa
        requires: [crawled]
intents:
  wiki_qa: {goals: [answered], examples: [What is a fractal?]}
  summarise: {goals: [summarised]}
standing:
  - id: grows
    predicate: SELECT count(*) > 10 FROM nodes
    task: {kind: crawl, topics: [Fractal]}
    cooldown_s: 60
limits: {max_attempts: 2, seconds_per_usd: 1000}
"""
AGENTS = {"crawl": ["crawled"], "summarise": ["summarised"], "qa": ["answered"]}


def load(tmp_path: Path, text: str, agents: Mapping[str, Collection[str]] | None = None) -> GoalFile:
    path = tmp_path / "goal_lattice.yml"
    path.write_text(text, encoding="utf-8")
    return load_goals(path, agents=agents)


def problems(tmp_path: Path, text: str, agents: Mapping[str, Collection[str]] | None = None) -> list[str]:
    """The lines of the error."""
    with pytest.raises(InvalidGoalFile) as raised:
        load(tmp_path, text, agents)
    return str(raised.value).splitlines()


def changed(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


def test_a_good_file_is_read_whole(tmp_path: Path) -> None:
    loaded = load(tmp_path, GOOD, AGENTS)
    assert [goal.id for goal in loaded.goals] == ["crawled", "summarised", "answered"]
    assert loaded.intents["wiki_qa"].examples == ("What is a fractal?",)
    assert loaded.standing[0].task.model_dump() == {"kind": "crawl", "topics": ["Fractal"]}
    assert (loaded.limits.max_attempts, loaded.limits.max_retractions) == (2, 8)


def test_goals_for_each_topic_belong_to_their_topic(tmp_path: Path) -> None:
    lattice = load(tmp_path, GOOD).ground(["Fractal", "Chaos [theory]", "Fractal"])
    assert lattice.goals == {
        "crawled[Fractal]",
        "crawled[Chaos [theory]]",
        "summarised[Fractal]",
        "summarised[Chaos [theory]]",
        "answered",
    }
    assert lattice.way("summarised.short[Fractal]").requires == {"crawled[Fractal]"}
    assert lattice.way("answered.qa").requires == {"crawled[Fractal]", "crawled[Chaos [theory]]"}
    assert lattice.way("crawled.links[Fractal]").params == {"hops": 1}
    assert lattice.values["crawled[Fractal]"] == 2


def test_costs_are_seconds_with_dollars_converted_and_losses_added(tmp_path: Path) -> None:
    loaded = load(tmp_path, GOOD)
    lattice = loaded.ground(["A"])
    assert lattice.way("crawled.paid[A]").cost == 11
    assert lattice.way("summarised.short[A]").cost == 61
    assert [step.way for step in plan(lattice, (), loaded.instances(["answered"], ["A"])).steps] == [
        "crawled.links[A]",
        "answered.qa",
    ]


def test_without_topics_an_ordinary_goal_requires_nothing_of_each_topic(tmp_path: Path) -> None:
    loaded = load(tmp_path, GOOD)
    assert loaded.ground([]).goals == {"answered"}
    assert loaded.ground([]).fringe(()) == {"answered"}
    assert loaded.instances(["summarised", "answered"], []) == {"answered"}


@given(st.from_regex(r"[a-z][a-z0-9_-]*", fullmatch=True), st.text(min_size=1))
def test_instance_names_are_parsed_back(name: str, topic: str) -> None:
    assert parse_instance(f"{name}[{topic}]") == (name, topic)
    assert parse_instance(name) == (name, None)


@pytest.mark.parametrize(
    ("old", "new", "line", "text"),
    [
        ("requires: [crawled]\n        cost", "requires: [crawlt]\n        cost", 22,
         "unknown goal «crawlt» in requires of «summarised.short»; known: crawled, summarised, answered"),
        ("id: answered", "id: crawled", 24, "two goals are called «crawled»; the first is in line 4"),
        ("id: paid", "id: links", 13, "two ways are called «crawled.links»; the first is in line 9"),
        ("agent: qa", "agent: oracle", 28, "unknown agent «oracle» in way «answered.qa»; known: crawl, qa, summarise"),
        ("agent: summarise", "agent: qa", 21, "agent «qa» does not achieve goal «summarised»; it achieves: answered"),
        ("goals: [answered]", "goals: [answers]", 31,
         "unknown goal «answers» in intent «wiki_qa»; known: crawled, summarised, answered"),
        ("value: 2", "valeu: 2", 6,
         "unknown key «valeu» in goals[crawled]; known: id, title, why, value, each, ways"),
        ("title: The topic is summarised\n    ", "", 16, "goals[summarised] lacks «title»"),
        ("seconds: 8", "seconds: -8", 11,
         "goals[crawled].ways[links].cost.seconds is -8: input should be greater than or equal to 0"),
        ("seconds: 8", "seconds: '8'", 11,
         "goals[crawled].ways[links].cost.seconds is '8': input should be a valid number"),
        ("seconds: 8", "seconds: .inf", 11,
         "goals[crawled].ways[links].cost.seconds is inf: input should be a finite number"),
        ("id: answered", "id: Answered!", 24,
         "goals[Answered!].id is «Answered!»: an id is lower-case letters, digits, _ and -"),
        ("each: topic\n    ways:\n      - id: links", "each: planet\n    ways:\n      - id: links", 7,
         "goals[crawled].each is 'planet': input should be 'topic'"),
        ("version: 1", "version: 2", 2, "version is 2: input should be 1"),
        ("max_attempts: 2", "max_attempts: 0", 38,
         "limits.max_attempts is 0: input should be greater than or equal to 1"),
        ("value: 2", "value: 2\n    value: 3", 7, "key «value» occurs twice; first in line 6"),
        ("    cooldown_s: 60", "    cooldown_s: soon", 37,
         "standing[grows].cooldown_s is 'soon': input should be a valid number"),
    ],
)  # fmt: skip
def test_a_problem_is_told_with_its_line(tmp_path: Path, old: str, new: str, line: int, text: str) -> None:
    told = problems(tmp_path, changed(old, new), AGENTS)
    assert f"goal_lattice.yml:{line}: {text}" in told


def test_every_problem_is_told_at_once_in_the_order_of_lines(tmp_path: Path) -> None:
    text = changed("agent: qa", "agent: oracle").replace("value: 2", "valeu: 2").replace("[crawled]", "[nowhere]")
    told = problems(tmp_path, text, AGENTS)
    assert [int(line.split(":")[1]) for line in told] == [6, 22, 28, 29]


def test_a_circle_is_told_with_its_path_and_what_depends_on_it(tmp_path: Path) -> None:
    text = dedent(
        """\
        version: 1
        goals:
          - {id: hen, title: Hen, ways: [{id: hatch, agent: x, requires: [egg]}]}
          - {id: egg, title: Egg, ways: [{id: lay, agent: x, requires: [hen]}, {id: own, agent: x, requires: [egg]}]}
          - {id: cake, title: Cake, ways: [{id: bake, agent: x, requires: [egg]}]}
          - {id: tea, title: Tea, ways: [{id: brew, agent: x}]}
        """
    )
    assert problems(tmp_path, text) == [
        "goal_lattice.yml:3: no order reaches goal «hen»: hen requires egg requires hen",
        "goal_lattice.yml:5: goal «cake» is unreachable: every way requires a goal that is, as egg",
    ]


def test_a_circle_among_alternatives_is_legal(tmp_path: Path) -> None:
    text = dedent(
        """\
        version: 1
        goals:
          - {id: a, title: A, ways: [{id: one, agent: x, requires: [b]}, {id: two, agent: x}]}
          - {id: b, title: B, ways: [{id: one, agent: x, requires: [a]}]}
        """
    )
    assert load(tmp_path, text).ground([]).reachable() == {"a", "b"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "goal_lattice.yml:1: is empty; it needs version and goals"),
        ("# nothing\n", "goal_lattice.yml:1: is empty; it needs version and goals"),
        ("version: 1\ngoals: [\n", "goal_lattice.yml:3: not valid YAML"),
        ("version: 1\n\tgoals: 1\n", "goal_lattice.yml:2: not valid YAML"),
        ("- 1\n", "goal_lattice.yml:1: the file is [1]"),
        ("version: 1\ngoals: []\n", "goal_lattice.yml:2: goals is []"),
        ("version: 1\ngoals: &a [*a]\n", "goal_lattice.yml:2: goals"),
        ("version: 1\ngoals: !!python/object:os.system {}\n", "goal_lattice.yml:2: not valid YAML"),
        ("version: 1\ngoals: 2026-99-99\n", "goal_lattice.yml:"),
    ],
)
def test_what_is_no_goal_file_at_all_is_refused(tmp_path: Path, text: str, told: str) -> None:
    assert problems(tmp_path, text)[0].startswith(told)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    told = r"missing\.yml:1: cannot be read \(No such file or directory\); name another file, or set GOAL_FILE"
    with pytest.raises(InvalidGoalFile, match=told):
        load_goals(tmp_path / "missing.yml")
    (tmp_path / "latin.yml").write_bytes(b"version: 1 # caf\xe9\n")
    with pytest.raises(InvalidGoalFile, match=r"latin\.yml:1: is not UTF-8 text \(byte 16\)"):
        load_goals(tmp_path / "latin.yml")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["version", "goals", "id", "ways", "requires", "agent", "intents", "title", "standing"]),
            inner,
        )
    ),
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from(["version", "goals", "intents", "standing", "limits"]), JSON))
def test_any_data_is_either_a_goal_file_or_told_what_is_wrong(
    tmp_path_factory: pytest.TempPathFactory, data: object
) -> None:
    path = tmp_path_factory.mktemp("goals") / "any.yml"
    path.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(InvalidGoalFile, match=r"^any\.yml:\d+: "):
        load_goals(path)


def test_the_schema_in_the_repository_is_fresh() -> None:
    stored = (ROOT / "goal_lattice.schema.json").read_text(encoding="utf-8")
    assert stored == schema_text(), (
        "make it anew: .venv/bin/python -c 'from graphs.goals import schema_text as s; print(s(), end=\"\")'"
        " > goal_lattice.schema.json"
    )


def test_the_schema_describes_every_key() -> None:
    schema = goal_schema()
    for part in [schema, *schema["$defs"].values()]:
        for name, key in part.get("properties", {}).items():
            assert key.get("description"), name
