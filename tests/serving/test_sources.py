"""What the console draws and opens: the lattice as data, passages, summaries."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

import httpx
import pytest

Live = Callable[..., AbstractAsyncContextManager[str]]
ASK = {"message": "Who proved that the Mandelbrot set is connected?", "mode": "wiki_qa", "topics": ["Mandelbrot set"]}


@pytest.fixture
async def client(live: Live) -> AsyncIterator[httpx.AsyncClient]:
    async with live() as url, httpx.AsyncClient(base_url=url, timeout=60) as opened:
        yield opened


async def test_what_was_cited_can_be_read_in_its_passage(client: httpx.AsyncClient) -> None:
    answered = (await client.post("/masterchat/chat", json={**ASK, "max_nodes": 3})).json()
    cited = answered["citations"][0]
    passage = (await client.get(f"/passages/{cited['passage_id']}")).json()
    assert cited["quote"] in passage["text"]
    assert {name: passage[name] for name in ("title", "url", "revision", "section")} == {
        name: cited[name] for name in ("title", "url", "revision", "section")
    }
    assert passage["end"] - passage["start"] >= len(cited["quote"])
    found = (await client.get("/summaries", params={"topic": "Mandelbrot set"})).json()["summaries"]
    assert [one["text"] for one in found] == [one["text"] for one in answered["summaries"]]
    assert (await client.get("/summaries", params={"topic": "Nobody"})).json() == {"summaries": []}


async def test_a_passage_that_is_not_there_is_said_to_be_missing(client: httpx.AsyncClient) -> None:
    missing = await client.get(f"/passages/{uuid.uuid4()}")
    assert missing.status_code == 404
    assert "pruned, or never read" in missing.json()["detail"]
    assert (await client.get("/passages/1")).status_code == 422


async def test_the_lattice_of_a_request_has_its_goals_states_and_covers(client: httpx.AsyncClient) -> None:
    drawn = (await client.get("/planner/lattice", params={"intent": "wiki_qa", "topics": "Fractal"})).json()
    ids = [goal["id"] for goal in drawn["goals"]]
    assert ids == sorted(ids)
    assert "crawled[Fractal]" in ids
    assert "replied" not in ids  # nothing of a question needs it
    assert drawn["targets"] == ["answer_reported"]
    assert drawn["complete"]
    states = [frozenset(state) for state in drawn["states"]]
    assert states[0] == frozenset()
    requires = {goal["id"]: [set(way["requires"]) for way in goal["ways"]] for goal in drawn["goals"]}
    for lower, upper in drawn["covers"]:
        (added,) = states[upper] - states[lower]
        held = {ids[number] for number in states[lower]}
        assert any(wanted <= held for wanted in requires[ids[added]])
    assert {upper for _, upper in drawn["covers"]} == set(range(1, len(states)))


async def test_a_lattice_that_is_too_large_to_draw_still_has_its_goals(client: httpx.AsyncClient) -> None:
    topics = [f"Topic {number}" for number in range(8)]
    drawn = (await client.get("/planner/lattice", params={"topics": topics})).json()
    assert not drawn["complete"]
    assert (drawn["states"], drawn["covers"]) == ([], [])
    assert len(drawn["goals"]) > 30


async def test_what_cannot_be_drawn_is_refused(client: httpx.AsyncClient) -> None:
    unknown = await client.get("/planner/lattice", params={"intent": "fly"})
    assert unknown.status_code == 422
    assert "there are: " in unknown.json()["detail"]
    crowd = await client.get("/planner/lattice", params={"topics": [str(number) for number in range(21)]})
    assert crowd.status_code == 422
