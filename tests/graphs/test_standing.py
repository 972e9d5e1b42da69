"""Standing goals and the planner by the clock, on a real Redis and a real DuckDB; the clock is passed in."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agents.spec import discover
from graphs.goals import Standing, load_goals
from graphs.scheduler import LOCK_NAME, LOOK_EVERY_S, Scheduler, SchedulerStuck
from graphs.standing import StandingGoals
from memory import keys
from memory.events import EventStore, open_events
from memory.locks import Held, Lock, LockLost
from memory.streams import Event, Streams, now_ms
from memory.task_records import Task
from memory.tasks import TaskQueue

Redis = Any
"""The stubs of redis-py give every reply as a union of all protocols' shapes."""
T0 = 1_790_000_100.0 - 1_790_000_100 % 900
"""A moment at which «every fifteen minutes» ticks."""
CRON = "*/15 * * * *"
DAY_MS = 24 * 3600 * 1000
ROOT = Path(__file__).parents[2]


class Clock:
    def __init__(self, now: float = T0 + 1) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class DiesBeforeWriting(Held):
    async def write(self, values: Any) -> None:
        raise LockLost("died")


@pytest.fixture
async def events(tmp_path: Path) -> AsyncIterator[EventStore]:
    async with open_events(tmp_path / "events.duckdb") as store:
        yield store


def goal(id_: str = "never", *, predicate: str = "SELECT false", cooldown_s: float = 0.0, **fields: Any) -> Standing:
    task = fields.pop("task", {"kind": "crawl", "topics": ["Fractal"]})
    return Standing.model_validate(
        {"id": id_, "predicate": predicate, "task": task, "cooldown_s": cooldown_s, **fields}
    )


def scheduler(redis: Redis, events: EventStore, clock: Clock, *goals: Standing) -> Scheduler:
    return Scheduler(
        StandingGoals(goals, events, TaskQueue(redis), Streams(redis)), Lock(redis, LOCK_NAME), CRON, clock=clock
    )


async def tasks(redis: Redis) -> list[Task]:
    return (await TaskQueue(redis).list()).tasks


async def end_all(redis: Redis) -> None:
    for task in await tasks(redis):
        await TaskQueue(redis).cancel(task.id)


async def started(redis: Redis, events: EventStore, clock: Clock, *goals: Standing) -> Scheduler:
    """A scheduler that has seen its first tick; the clock stands after the second one."""
    made = scheduler(redis, events, clock, *goals)
    assert await made.look() is None
    clock.now += 900
    return made


async def test_a_goal_that_does_not_hold_submits_its_task_once_a_tick(redis: Redis, events: EventStore) -> None:
    clock = Clock()
    planner = await started(redis, events, clock, goal(), goal("always", predicate="SELECT true"))
    kept = await planner.look()
    assert kept is not None
    assert list(kept.submitted) == ["never"]
    assert await planner.look() is None
    [task] = await tasks(redis)
    assert (task.kind, task.payload, task.owner) == ("crawl", {"topics": ["Fractal"]}, "local")
    assert await planner.check() == {
        "cron": CRON,
        "last_tick": "2026-09-21T14:30:00+00:00",
        "next_tick": "2026-09-21T14:45:00+00:00",
        "standing": ["never", "always"],
    }


async def told(redis: Redis) -> list[dict[str, Any]]:
    return [dict(entry.event.data) for entry in await Streams(redis).tail(keys.PLANNER_STREAM)]


async def test_what_was_submitted_is_in_the_planners_log_of_its_owner(redis: Redis, events: EventStore) -> None:
    subjects = "SELECT * FROM (VALUES ('ada', ['A']), ('bob', ['B']), ('ada', ['C'])) AS t(owner, topics)"
    planner = await started(redis, events, Clock(), goal(subjects=subjects), goal("always", predicate="SELECT true"))
    await planner.look()
    ids = {tuple(task.payload["topics"]): task.id for task in await tasks(redis)}
    assert [(one["owner"], one["standing"], one["holds"]) for one in await told(redis)] == [
        ("ada", "never", False),
        ("bob", "never", False),
    ]
    assert [(one["id"], one["kind"], one["topics"]) for one in (await told(redis))[0]["tasks"]] == [
        (ids["A",], "crawl", ["A"]),
        (ids["C",], "crawl", ["C"]),
    ]


async def test_a_predicate_that_breaks_is_in_the_planners_log(redis: Redis, events: EventStore) -> None:
    planner = await started(redis, events, Clock(), goal(predicate="SELECT 7"))
    await planner.look()
    [one] = await told(redis)
    assert (one["standing"], one["holds"]) == ("never", None)
    assert "accepted: one true or false" in one["why"]


async def test_at_the_very_first_start_nothing_was_missed(redis: Redis, events: EventStore) -> None:
    assert await scheduler(redis, events, Clock(), goal()).look() is None
    assert await tasks(redis) == []


async def test_missed_ticks_are_one(redis: Redis, events: EventStore) -> None:
    clock = Clock()
    planner = await started(redis, events, clock, goal())
    clock.now += 40 * 900
    assert await planner.look() is not None
    assert await planner.look() is None
    assert len(await tasks(redis)) == 1


async def test_a_restarted_process_takes_up_the_tick_that_nobody_was_there_for(
    redis: Redis, events: EventStore
) -> None:
    clock = Clock()
    await started(redis, events, clock, goal())
    assert await scheduler(redis, events, clock, goal()).look() is not None


async def test_a_clock_that_was_set_back_costs_one_look_and_ticks_go_on(redis: Redis, events: EventStore) -> None:
    clock = Clock()
    planner = await started(redis, events, clock, goal(cooldown_s=3600))
    assert await planner.look() is not None
    await end_all(redis)
    clock.now -= 30 * 24 * 3600
    assert await planner.look() is not None
    assert await planner.look() is None
    clock.now += 900
    kept = await planner.look()
    assert kept is not None
    assert not kept.submitted  # in cooldown, counted from the clock as it is now
    assert len(await tasks(redis)) == 2


@pytest.mark.parametrize("jump", [-1e9, -901, -0.5, 0.0, 899.99, 1e8])
async def test_the_wait_is_never_negative_and_never_long(redis: Redis, events: EventStore, jump: float) -> None:
    assert 0 < scheduler(redis, events, Clock(T0 + jump)).wait_s() <= LOOK_EVERY_S


async def test_the_cooldown_and_an_unfinished_task_hold_the_next_one_back(redis: Redis, events: EventStore) -> None:
    clock = Clock()
    planner = await started(redis, events, clock, goal("cool", cooldown_s=1000), goal("busy"))
    await planner.look()
    assert len(await tasks(redis)) == 2
    clock.now += 900
    await planner.look()
    assert len(await tasks(redis)) == 2
    await end_all(redis)
    clock.now += 900
    await planner.look()
    assert len(await tasks(redis)) == 4


async def test_two_processes_never_submit_twice(redis: Redis, events: EventStore) -> None:
    clock = Clock()
    one = await started(redis, events, clock, goal())
    two = scheduler(redis, events, clock, goal())
    lock = Lock(redis, LOCK_NAME)
    held = await lock.acquire()
    assert held is not None
    assert await one.look() is None, "another process holds the lock"
    with pytest.raises(LockLost):
        await StandingGoals([goal()], events, TaskQueue(redis), Streams(redis)).keep(
            DiesBeforeWriting(lock, held.fence), await lock.state(), clock.now
        )
    assert len(await tasks(redis)) == 1
    await held.release()
    assert await two.look() is not None
    assert await one.look() is None
    assert len(await tasks(redis)) == 1


async def test_each_row_of_the_subjects_is_a_task(redis: Redis, events: EventStore) -> None:
    clock = Clock()
    subjects = "SELECT * FROM (VALUES ('ada', ['Fractal']), ('bob', ['Chaos'])) AS t (owner, topics) ORDER BY owner"
    planner = await started(redis, events, clock, goal(subjects=subjects, task={"kind": "crawl", "hops": 2}))
    await planner.look()
    found = {task.owner: task.payload for task in await tasks(redis)}
    assert found == {"ada": {"hops": 2, "topics": ["Fractal"]}, "bob": {"hops": 2, "topics": ["Chaos"]}}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"predicate": "SELECT 1"}, "one true or false"),
        ({"predicate": "SELECT nothing FROM nowhere"}, "nowhere"),
        ({"predicate": "DROP TABLE events"}, "one statement that reads"),
        ({"task": {"kind": "dance"}}, "accepted: crawl"),
        ({"task": {"kind": "crawl", "hops": 9}}, "hops"),
        ({"task": {"kind": "prune", "older_than": "soon"}}, "older_than"),
    ],
)
async def test_a_broken_goal_is_told_of_and_does_not_hold_up_the_others(
    redis: Redis, events: EventStore, fields: dict[str, Any], words: str
) -> None:
    clock = Clock()
    planner = await started(redis, events, clock, goal("broken", **fields), goal())
    kept = await planner.look()
    assert kept is not None
    assert list(kept.submitted) == ["never"]
    assert words in kept.problems["broken"]
    with pytest.raises(SchedulerStuck, match="broken"):
        await planner.check()


def entry(type_: str, number: int, ts: int, data: dict[str, Any], task_id: str = "") -> tuple[str, str, Event]:
    stream = keys.PLANNER_STREAM if type_.startswith("plan.") else keys.GRAPH_STREAM
    return stream, f"{ts}-{number}", Event(type_, {"owner": "ada", **data}, "", task_id, ts)


def grown(ts: int) -> list[tuple[str, str, Event]]:
    """Three articles; two link to the third, and a crawl started from it or, without ``ts``, from none."""
    found = [entry("node.add", n, ts, {"id": f"N{n}", "title": f"T{n}", "data": {}}) for n in range(3)]
    pairs = [("N0", "N2"), ("N1", "N2"), ("N2", "N1")]
    return found + [
        entry("edge.add", 10 + n, ts, {"source": a, "target": b, "type": "links_to", "data": {}})
        for n, (a, b) in enumerate(pairs)
    ]


def step(way: str, topic: str, ts: int, number: int = 0, *, ok: bool = True) -> tuple[str, str, Event]:
    return entry("plan.step", number, ts, {"way": f"{way}[{topic}]", "topic": topic, "ok": ok, "seconds": 1, "usd": 0})


async def shipped(redis: Redis, events: EventStore, id_: str) -> list[tuple[str, str, Any]]:
    """What one of the shipped goals submits now."""
    goals = load_goals(ROOT / "goal_lattice.yml", agents=discover().achievable()).standing
    planner = await started(redis, events, Clock(), next(g for g in goals if g.id == id_))
    kept = await planner.look()
    assert kept is not None
    assert not kept.problems
    return [(task.kind, task.owner, task.payload) for new in kept.submitted.values() for task in new]


async def test_the_graph_grows_on_from_the_most_linked_article(redis: Redis, events: EventStore) -> None:
    await events.append(grown(now_ms() - 2 * DAY_MS))
    crawl = {"hops": 1, "max_nodes": 30}
    assert await shipped(redis, events, "graph_grows") == [("crawl", "ada", {**crawl, "topics": ["T2"]})]


async def test_the_graph_does_not_grow_twice_from_the_same_article(redis: Redis, events: EventStore) -> None:
    old = now_ms() - 2 * DAY_MS
    await events.append([*grown(old), step("crawled.links", "T2", old)])
    [(_, _, payload)] = await shipped(redis, events, "graph_grows")
    assert payload["topics"] == ["T1"]


async def test_a_graph_that_grew_today_or_that_nobody_began_is_left_alone(redis: Redis, events: EventStore) -> None:
    assert await shipped(redis, events, "graph_grows") == []
    await redis.flushall()
    await events.append(grown(now_ms() - DAY_MS // 2))
    assert await shipped(redis, events, "graph_grows") == []


async def test_a_crawled_topic_without_a_summary_is_summarised(redis: Redis, events: EventStore) -> None:
    now = now_ms()
    await events.append(
        [
            step("crawled.links", "Done", now, 1),
            step("summarised.extract", "Done", now, 2),
            step("crawled.links", "Failed a moment ago", now, 3),
            step("summarised.extract", "Failed a moment ago", now, 4, ok=False),
            step("crawled.links", "Failed to crawl", now, 5, ok=False),
        ]
    )
    assert await shipped(redis, events, "articles_summarised") == []
    await redis.flushall()
    await events.append([step("crawled.links", "New", now, 6), step("crawled.links", "New", now, 7)])
    assert await shipped(redis, events, "articles_summarised") == [("summarise", "ada", {"topics": ["New"]})]


async def test_a_dead_letter_is_reported_until_it_was(redis: Redis, events: EventStore) -> None:
    now = now_ms()
    await events.append([entry("task.dead", 1, now, {"kind": "crawl", "attempts": 5, "error": "x"}, "t1")])
    assert await shipped(redis, events, "dead_letters_reported") == [("report", "local", {})]
    await redis.flushall()
    await events.append([entry("error", 2, now, {"kind": "dead_letter", "finished_ms": now}, "t1")])
    assert await shipped(redis, events, "dead_letters_reported") == []


def read(revision: str, number: int, ts: int, owner: str = "ada", source: str = "wiki") -> tuple[str, str, Event]:
    node = {"owner": owner, "id": "N", "title": "T", "revision": revision, "source": source, "data": {}}
    return entry("node.add", number, ts, node)


def pruned(seen: str, number: int, ts: int, **data: Any) -> tuple[str, str, Event]:
    return entry("prune.done", number, ts, {"superseded": True, "unsettled": 0, "seen": seen, **data})


async def test_a_page_that_came_with_another_revision_is_pruned_once(redis: Redis, events: EventStore) -> None:
    now = now_ms()
    await events.append([read("1", 1, now), read("1", 2, now, "bob"), read("2", 3, now, "bob", "other wiki")])
    assert await shipped(redis, events, "stale_vectors_pruned") == []
    await redis.flushall()
    await events.append([read("2", 10, now)])
    assert await shipped(redis, events, "stale_vectors_pruned") == [("prune", "ada", {})]
    await redis.flushall()
    await events.append([pruned(f"{now}-9", 11, now), pruned(f"{now}-10", 12, now, superseded=False)])
    assert await shipped(redis, events, "stale_vectors_pruned") == [("prune", "ada", {})], "it began too early"
    await redis.flushall()
    await events.append([pruned(f"{now}-10", 13, now, unsettled=1)])
    assert await shipped(redis, events, "stale_vectors_pruned") == []
    await events.append([read("1", 14, now)])
    await redis.flushall()
    assert await shipped(redis, events, "stale_vectors_pruned") == [("prune", "ada", {})], "it came back"


async def test_a_prune_that_could_not_be_sure_is_repeated_after_a_day(redis: Redis, events: EventStore) -> None:
    old = now_ms() - 2 * DAY_MS
    await events.append([read("1", 1, old), read("2", 2, old), pruned(f"{old}-2", 3, old, unsettled=1)])
    assert await shipped(redis, events, "stale_vectors_pruned") == [("prune", "ada", {})]
    await redis.flushall()
    await events.append([pruned(f"{old}-2", 4, old + 1)])
    assert await shipped(redis, events, "stale_vectors_pruned") == []
