"""The checkpointer under real graphs."""

from __future__ import annotations

import asyncio
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command, Send, interrupt
from redis.asyncio import Redis
from typing_extensions import TypedDict

from errors import LuminaError
from memory.checkpoint_records import BadCheckpointRequest, UnstorableState
from memory.checkpoints import RedisSaver


class Counting(TypedDict):
    steps: Annotated[list[str], operator.add]
    total: int


def thread(thread_id: str, **more: Any) -> RunnableConfig:
    return {"configurable": {"thread_id": thread_id, **more}}


def chain(saver: Any, nodes: int = 3, *, pause_at: int = -1) -> Any:
    """A chain of nodes that each note their name and add one; one of them may ask a human first."""
    builder: Any = StateGraph(Counting)
    names = [f"n{number}" for number in range(nodes)]

    def node(name: str, pauses: bool) -> Any:
        def step(state: Counting) -> dict[str, Any]:
            said = interrupt(f"may {name} go on?") if pauses else ""
            return {"steps": [name + said], "total": state["total"] + 1}

        return step

    for number, name in enumerate(names):
        builder.add_node(name, node(name, number == pause_at))
    for source, target in zip([START, *names], [*names, END], strict=True):
        builder.add_edge(source, target)
    return builder.compile(checkpointer=saver)


async def history(graph: Any, config: RunnableConfig) -> list[Any]:
    return [
        (state.values, state.next, state.metadata["step"], [(task.name, task.result) for task in state.tasks])
        async for state in graph.aget_state_history(config)
    ]


async def test_run_interrupt_resume_and_history_are_as_with_the_reference_saver(redis: Redis) -> None:
    found = []
    for saver in (RedisSaver(redis), InMemorySaver()):
        graph = chain(saver, pause_at=1)
        paused = await graph.ainvoke({"steps": [], "total": 0}, thread("t"))
        assert [pause.value for pause in paused["__interrupt__"]] == ["may n1 go on?"]
        waiting = await graph.aget_state(thread("t"))
        ended = await graph.ainvoke(Command(resume=" yes"), thread("t"))
        found.append((waiting.next, ended, await history(graph, thread("t"))))

    assert found[0] == found[1]
    assert found[0][1] == {"steps": ["n0", "n1 yes", "n2"], "total": 3}
    assert len(found[0][2]) == 5


async def test_a_second_saver_resumes_what_the_first_left(redis: Redis, redis_url: str) -> None:
    await chain(RedisSaver(redis), pause_at=1).ainvoke({"steps": [], "total": 0}, thread("t"))

    async with RedisSaver.from_conn_string(redis_url) as other:
        ended = await chain(other, pause_at=1).ainvoke(Command(resume="!"), thread("t"))

    assert ended["steps"] == ["n0", "n1!", "n2"]


async def test_a_node_that_failed_runs_again_and_its_finished_neighbour_does_not(redis: Redis) -> None:
    calls: list[str] = []
    is_good_done = asyncio.Event()

    async def good(state: Counting) -> dict[str, Any]:
        calls.append("good")
        is_good_done.set()
        return {"steps": ["good"]}

    async def bad(state: Counting) -> dict[str, Any]:
        await is_good_done.wait()
        calls.append("bad")
        if calls.count("bad") == 1:
            raise ConnectionError("down")
        return {"steps": ["bad"]}

    builder: Any = StateGraph(Counting)
    for name, node in (("good", good), ("bad", bad)):
        builder.add_node(name, node)
        builder.add_edge(START, name)
    graph = builder.compile(checkpointer=RedisSaver(redis))
    with pytest.raises(ConnectionError):
        await graph.ainvoke({"steps": [], "total": 0}, thread("t"))
    state = await graph.aget_state(thread("t"))
    failed = {task.name: task.error for task in state.tasks}

    ended = await graph.ainvoke(None, thread("t"))

    assert failed["good"] is None
    assert "down" in str(failed["bad"])
    assert sorted(ended["steps"]) == ["bad", "good"]
    assert calls == ["good", "bad", "bad"]


async def test_time_travel_forks_without_touching_the_first_branch(redis: Redis) -> None:
    saver = RedisSaver(redis)
    graph = chain(saver)
    await graph.ainvoke({"steps": [], "total": 0}, thread("t"))
    past = [state async for state in graph.aget_state_history(thread("t"))]
    after_n0 = next(state for state in past if state.next == ("n1",))

    fork = await graph.aupdate_state(after_n0.config, {"steps": ["edit"], "total": 100})
    forked = await graph.ainvoke(None, fork)

    assert forked == {"steps": ["n0", "edit", "n1", "n2"], "total": 102}
    assert (await graph.aget_state(past[0].config)).values == {"steps": ["n0", "n1", "n2"], "total": 3}


async def test_subgraphs_keep_their_own_namespace(redis: Redis) -> None:
    saver = RedisSaver(redis)
    builder: Any = StateGraph(Counting)
    builder.add_node("inner", chain(True, nodes=2, pause_at=1))
    builder.add_edge(START, "inner")
    graph = builder.compile(checkpointer=saver)

    await graph.ainvoke({"steps": [], "total": 0}, thread("t"))
    inside = (await graph.aget_state(thread("t"), subgraphs=True)).tasks[0].state
    namespaces = {saved.config["configurable"]["checkpoint_ns"] async for saved in saver.alist(thread("t"))}
    ended = await graph.ainvoke(Command(resume="!"), thread("t"))

    assert inside.values == {"steps": ["n0"], "total": 1}
    assert len(namespaces) == 2
    assert "" in namespaces
    assert ended == {"steps": ["n0", "n1!"], "total": 2}


async def test_sends_keep_their_order(redis: Redis) -> None:
    builder: Any = StateGraph(Counting)
    builder.add_node("work", lambda state: {"steps": [str(state["total"])]})
    builder.add_conditional_edges(START, lambda state: [Send("work", {"total": n}) for n in range(12)], ["work"])
    graph = builder.compile(checkpointer=RedisSaver(redis))

    ended = await graph.ainvoke({"steps": [], "total": 0}, thread("t"))

    assert ended["steps"] == [str(n) for n in range(12)]


@pytest.mark.parametrize("connections", [4, 100])
async def test_thirty_two_graphs_run_at_once_on_one_client(redis_url: str, connections: int) -> None:
    async with Redis.from_url(redis_url, max_connections=connections) as client:
        await client.flushall()
        saver = RedisSaver(client, ttl_s=60)
        graph = chain(saver, nodes=5)
        ended = await asyncio.gather(
            *(graph.ainvoke({"steps": [f"{n}"], "total": n}, thread(f"t{n}")) for n in range(32))
        )

        assert [state["total"] for state in ended] == [n + 5 for n in range(32)]
        for n in range(32):
            saved = [state async for state in saver.alist(thread(f"t{n}"))]
            assert len(saved) == 7
            assert saved[0].checkpoint["channel_values"]["steps"][0] == str(n)


@pytest.mark.parametrize("strategy", ["keep_latest", "copy"])
async def test_a_pruned_and_a_copied_thread_resume(redis: Redis, strategy: str) -> None:
    saver = RedisSaver(redis)
    graph = chain(saver, pause_at=2, nodes=4)
    await graph.ainvoke({"steps": [], "total": 0}, thread("t"))

    if strategy == "copy":
        await saver.acopy_thread("t", "copy")
        await saver.adelete_thread("t")
    else:
        await saver.aprune(["t"])
    where = thread("copy" if strategy == "copy" else "t")
    ended = await graph.ainvoke(Command(resume="!"), where)

    assert ended == {"steps": ["n0", "n1", "n2!", "n3"], "total": 4}


async def test_a_copy_goes_its_own_way(redis: Redis) -> None:
    saver = RedisSaver(redis)
    graph = chain(saver)
    await graph.ainvoke({"steps": [], "total": 0}, thread("t"))
    before = await history(graph, thread("t"))

    await saver.acopy_thread("t", "copy")
    await graph.ainvoke({"steps": ["again"], "total": 10}, thread("copy"))
    await saver.aprune(["copy"])

    assert await history(graph, thread("t")) == before
    assert (await graph.aget_state(thread("copy"))).values["total"] == 13
    assert len(await history(graph, thread("copy"))) == 1


def extend(state: list[str], writes: Sequence[list[str]]) -> list[str]:
    return [*state, *(one for write in writes for one in write)]


class Delta(TypedDict):
    log: Annotated[list[str], DeltaChannel(extend, snapshot_frequency=4)]


def delta_chain(saver: Any) -> Any:
    builder: Any = StateGraph(Delta)
    names = [f"n{number}" for number in range(10)]
    for name in names:
        builder.add_node(name, lambda state, name=name: {"log": [name]})
    for source, target in zip([START, *names], [*names, END], strict=True):
        builder.add_edge(source, target)
    return builder.compile(checkpointer=saver)


async def test_delta_channels_are_rebuilt_from_ancestors_also_after_pruning(redis: Redis) -> None:
    expected = ["in", *(f"n{number}" for number in range(10))]
    saver, reference = RedisSaver(redis), InMemorySaver()
    graph, peer = delta_chain(saver), delta_chain(reference)
    for one in (graph, peer):
        await one.ainvoke({"log": ["in"]}, thread("t"))
    states = [state async for state in graph.aget_state_history(thread("t"))]
    peers = [state async for state in peer.aget_state_history(thread("t"))]

    await saver.aprune(["t"])
    pruned = [state async for state in saver.alist(thread("t"))]

    assert [state.values for state in states] == [state.values for state in peers]
    assert states[0].values["log"] == expected
    assert 1 < len(pruned) < len(states)
    assert (await graph.aget_state(thread("t"))).values["log"] == expected
    ended = await graph.ainvoke({"log": ["more"]}, thread("t"))
    assert ended["log"] == [*expected, "more", *expected[1:]]


async def test_the_blocking_twins_serve_a_thread_beside_the_loop(redis: Redis) -> None:
    saver = RedisSaver(redis)
    graph = chain(saver)
    await graph.ainvoke({"steps": [], "total": 0}, thread("t"))

    def notebook() -> tuple[dict[str, Any], int, dict[str, Any]]:
        ended = graph.invoke({"steps": [], "total": 5}, thread("sync"))
        count = len(list(saver.list(thread("t"))))
        saver.copy_thread("sync", "other")
        saver.prune(["other"])
        saver.delete_for_runs(["none"])
        values = graph.get_state(thread("other")).values
        saver.delete_thread("other")
        assert saver.get_tuple(thread("other")) is None
        return ended, count, values

    ended, count, values = await asyncio.to_thread(notebook)

    assert ended["total"] == 8
    assert values == ended
    assert count == 5
    with pytest.raises(BadCheckpointRequest, match="await"):
        saver.get_tuple(thread("t"))


@dataclass
class Foreign:
    """A type that is on nobody's list of safe ones."""

    secret: str


async def test_strict_msgpack_rebuilds_messages_and_refuses_foreign_objects(redis: Redis) -> None:
    saver = RedisSaver(redis)

    def reply(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage("hello", id="2")]}

    builder: Any = StateGraph(MessagesState)
    builder.add_node("reply", reply)
    builder.add_edge(START, "reply")
    graph = builder.compile(checkpointer=saver)
    await graph.ainvoke({"messages": [HumanMessage("hi", id="1")]}, thread("chat"))
    said = (await graph.aget_state(thread("chat"))).values["messages"]

    await saver.aput_writes(thread("t", checkpoint_id="1"), [("channel", {"value": Foreign("x")})], "task")
    await saver.aput(thread("t"), checkpoint("1", {"channel": Foreign("y")}), {}, {"channel": "1"})
    saved = await saver.aget_tuple(thread("t"))

    assert said == [HumanMessage("hi", id="1"), AIMessage("hello", id="2")]
    assert saved is not None
    assert saved.checkpoint["channel_values"] == {"channel": {"secret": "y"}}
    assert saved.pending_writes == [("task", "channel", {"value": {"secret": "x"}})]


async def test_what_msgpack_cannot_hold_is_refused_with_the_name_of_its_channel(redis: Redis) -> None:
    saver = RedisSaver(redis)
    with pytest.raises(UnstorableState, match=r"thread 't'.*'channel'"):
        await saver.aput(thread("t"), checkpoint("1", {"channel": print}), {}, {"channel": "1"})
    with pytest.raises(UnstorableState, match="'other'"):
        await saver.aput_writes(thread("t", checkpoint_id="1"), [("other", print)], "task")
    assert await redis.dbsize() == 0


async def test_bad_requests_are_explained(redis: Redis, redis_url: str) -> None:
    saver = RedisSaver(redis)
    with pytest.raises(LuminaError, match="thread_id"):
        await saver.aget_tuple({"configurable": {}})
    with pytest.raises(LuminaError, match="keep_latest or delete"):
        await saver.aprune(["t"], strategy="halve")
    with pytest.raises(LuminaError, match="ttl_s=0"):
        RedisSaver(redis, ttl_s=0)
    async with Redis.from_url(redis_url, decode_responses=True) as decoding:
        with pytest.raises(LuminaError, match="decode_responses=False"):
            RedisSaver(decoding)


def checkpoint(checkpoint_id: str, values: dict[str, Any], version: str = "1") -> Any:
    return {
        "v": 4,
        "id": checkpoint_id,
        "ts": "2026-01-01T00:00:00+00:00",
        "channel_values": values,
        "channel_versions": dict.fromkeys(values, version),
        "versions_seen": {},
        "updated_channels": None,
    }


async def test_versions_sort_as_text_and_differ_between_forks(redis: Redis) -> None:
    saver = RedisSaver(redis)
    versions = [saver.get_next_version(None, None)]
    for _ in range(1100):
        versions.append(saver.get_next_version(versions[-1], None))

    assert versions == sorted(versions)
    assert saver.get_next_version(versions[3], None) != saver.get_next_version(versions[3], None)
    foreign = f"{7:032}.{0.5:016}"
    assert saver.get_next_version(foreign, None) > foreign
