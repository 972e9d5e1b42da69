"""What Prometheus and people are told of a running server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus

from graphs.runs import Runner
from server import create_app
from settings import load_settings

Lumina = Callable[..., AbstractAsyncContextManager[Runner]]
Connect = Callable[[FastAPI], AbstractAsyncContextManager[httpx.AsyncClient]]
Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]
ASK = {"message": "Who proved that it is connected?", "mode": "wiki_qa", "topics": ["Mandelbrot set"], "max_nodes": 3}


@pytest.fixture
def serve(lumina: Lumina, tmp_path: Path, connect: Connect) -> Serve:
    @asynccontextmanager
    async def open_app(keys: str | None = None) -> AsyncIterator[httpx.AsyncClient]:
        settings = load_settings(data_dir=tmp_path / "data", lumina_api_keys=keys)
        app = create_app(settings, open_runner=lambda _: lumina())
        async with connect(app) as client:
            yield client

    return open_app


def samples(text: str) -> dict[tuple[str, ...], float]:
    """(name, label value, …) → value, the labels in the order of their names."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in prometheus(text)
        for sample in family.samples
    }


async def scraped(client: httpx.AsyncClient) -> dict[tuple[str, ...], float]:
    response = await client.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain")
    return samples(response.text)


async def taken_in(client: httpx.AsyncClient, wanted: int, type_: str) -> list[Any]:
    """Wait until the event store has so many events of a type, before the figures are read for the first time."""
    sql = f"SELECT data FROM events WHERE type = '{type_}' ORDER BY stream_order(id)"
    while len(rows := (await client.post("/events/query", json={"sql": sql})).json()["rows"]) < wanted:
        await asyncio.sleep(0.02)
    return [row[0] for row in rows]


async def test_every_agent_has_its_figures_before_it_ever_ran(serve: Serve) -> None:
    async with serve() as client:
        found = await scraped(client)
    for agent in ("crawl", "orchestrator", "qa", "summarise"):
        assert found["lumina_agent_runs_total", agent, "ok"] == 0
        assert found["lumina_agent_tokens_total", agent, "output"] == 0
    assert found["lumina_tasks", "dead"] == 0
    assert found["lumina_stream_lag", "workers", "tasks/v1"] == 0
    assert found["lumina_llm_budget_left_usd",] == found["lumina_llm_budget_usd",]


async def test_what_a_run_did_is_counted(serve: Serve) -> None:
    async with serve() as client:
        answer = (await client.post("/masterchat/chat", json=ASK)).json()
        await taken_in(client, 1, "plan.done")
        while not (found := await scraped(client))["lumina_graph_nodes",]:
            await asyncio.sleep(0.1)  # another stream, and the figures are read again in their own time
        summary = (await client.get("/metrics/summary")).json()
    assert found["lumina_agent_runs_total", "crawl", "ok"] == 1
    assert found["lumina_agent_seconds_count", "qa"] == found["lumina_agent_runs_total", "qa", "ok"] == 1
    assert found["lumina_agent_seconds_bucket", "qa", "+Inf"] == 1
    assert found["lumina_graph_nodes",] >= 3
    assert found["lumina_graph_newest_node_age_seconds",] < 3600
    assert found["lumina_passages", "all"] > 0
    assert found["lumina_http_requests_total", "POST", "/masterchat/chat", "200"] == 1
    assert answer["outcome"]["status"] == "done"
    assert summary["agents"]["crawl"]["runs"] == 1
    assert summary["graph"]["nodes"] == found["lumina_graph_nodes",]
    assert (
        summary["tokens"]["output"]
        == sum(agent["tokens"] for agent in summary["agents"].values()) - (summary["tokens"]["input"])
    )


async def test_a_turn_counts_its_conversation_and_its_text_is_told_to_nobody(serve: Serve) -> None:
    async with serve() as client:
        said = (await client.post("/chat", json={"message": "Zanzibar is an island"})).json()
        told = await taken_in(client, 2, "chat.message")
        found = await scraped(client)
    assert found["lumina_events_total", "chat.message"] == 2
    assert found["lumina_conversations",] == 1
    assert [(one["role"], one["characters"], one["conversation_id"]) for one in told] == [
        ("user", 21, said["conversation_id"]),
        ("assistant", len(said["answer"]), said["conversation_id"]),
    ]
    assert all(set(one) == {"owner", "conversation_id", "turn_id", "role", "characters"} for one in told)


async def test_what_models_and_caches_and_streams_did_is_counted(serve: Serve) -> None:
    async with serve() as client:
        await client.post("/masterchat/chat", json={**ASK, "mode": "summarise"})
        await taken_in(client, 1, "plan.done")
        found = await scraped(client)
    model = ("ScriptedModel", "given")
    calls = found["lumina_llm_calls_total", *model]
    assert calls == found["lumina_llm_first_token_seconds_count", *model] > 0
    assert found["lumina_llm_first_token_seconds_bucket", "+Inf", *model] == calls
    # Tokens a second are the one over the other.
    assert found["lumina_llm_output_tokens_total", *model] > 0
    assert found["lumina_llm_seconds_total", *model] > 0
    assert found["lumina_llm_input_tokens_total", *model] == sum(
        value
        for (name, *labels), value in found.items()
        if name == "lumina_agent_tokens_total" and labels[1] == "input"
    )
    assert found["lumina_llm_usd_total", *model] == found["lumina_agent_usd_total", "summarise"] == 0
    for counted in ("fallbacks", "refused"):
        assert found[f"lumina_llm_{counted}_total", *model] == 0
    for source in ("hits_memory", "hits_redis", "misses", "shared"):
        assert found["lumina_embedding_cache_texts_total", source] >= 0
    for stream, group in (("graph_stream/v1", "masterchat"), ("tasks/v1", "workers"), ("passages/v1", "indexer")):
        assert found["lumina_stream_pending", group, stream] >= 0


async def test_what_was_refused_is_counted_by_agent(serve: Serve) -> None:
    async with serve() as client:
        while (await client.post("/masterchat/chat", json={**ASK, "mode": "crawl"})).status_code != 429:
            pass
        found = await scraped(client)
        summary = (await client.get("/metrics/summary")).json()
    assert found["lumina_rate_limited_total", "crawl"] == 1
    assert found["lumina_rate_limited_total", "qa"] == 0
    assert summary["rate_limited"]["crawl"] == 1


async def test_decisions_of_the_planner_are_timed(serve: Serve) -> None:
    async with serve() as client:
        await client.post("/masterchat/chat", json=ASK)
        await taken_in(client, 1, "plan.done")
        found = await scraped(client)
    assert found["lumina_planner_seconds_bucket", "+Inf"] == found["lumina_planner_seconds_count",]
    assert 0 < found["lumina_planner_seconds_sum",] < 60
    assert found["lumina_planner_seconds_bucket", "5.0"] > 0


async def test_what_is_still_to_be_done_has_its_figures(serve: Serve) -> None:
    async with serve() as client:
        found = await scraped(client)
    for kind in ("crawl", "ask", "summarise", "plan", "report", "prune"):
        for status in ("queued", "retrying", "running"):
            assert found["lumina_open_tasks", kind, status] == 0
    for stream in ("graph_stream/v1", "tasks/v1", "planner_log/v1", "passages/v1"):
        assert found["lumina_dead_letters", stream] == 0
    assert found["lumina_leases",] == found["lumina_lease_age_seconds",] == found["lumina_queue_age_seconds",] == 0
    assert found["lumina_followers", "events"] == found["lumina_followers", "runs"] == 0
    assert found["lumina_followers_dropped_total",] == 0
    assert [value for key, value in found.items() if key[0] == "lumina_build_info"] == [1]


async def test_paths_and_methods_that_nobody_knows_make_no_labels(serve: Serve) -> None:
    async with serve() as client:
        for number in range(3):
            await client.get(f"/tasks/none-{number}")
            await client.request("BREW", f"/pot-{number}")
        found = await scraped(client)
    counted = {key[1:]: value for key, value in found.items() if key[0] == "lumina_http_requests_total"}
    assert counted["GET", "/tasks/{task_id}", "404"] == 3
    assert sum(value for (method, _, _), value in counted.items() if method == "other") == 3
    assert not any("pot" in label or "none-" in label for key in counted for label in key)


async def test_openmetrics_is_spoken_to_who_asks_for_it(serve: Serve) -> None:
    async with serve() as client:
        response = await client.get("/metrics", headers={"Accept": "application/openmetrics-text;version=1.0.0"})
    assert response.headers["content-type"].startswith("application/openmetrics-text")
    families = openmetrics(response.text)  # type: ignore[no-untyped-call]  # the package has no types here
    assert {"lumina_agent_runs", "lumina_tasks"} <= {family.name for family in families}


async def test_with_keys_the_figures_need_one(serve: Serve) -> None:
    async with serve("ada:secret") as client:
        assert (await client.get("/metrics")).status_code == 401
        assert (await client.get("/metrics", headers={"Authorization": "Bearer secret"})).status_code == 200
