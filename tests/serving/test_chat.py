"""``POST /chat`` and the conversations behind it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any
from unittest.mock import ANY

import httpx
import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatResult
from pydantic import PrivateAttr

from agents.replying import EARLIER_TOKENS
from models.chat import Chat
from serving.replies import goals_of, kept_of

Live = Callable[..., AbstractAsyncContextManager[str]]


class Listener(BaseChatModel):
    """Keeps what it was told, and says «Noted.»"""

    _told: list[list[BaseMessage]] = PrivateAttr(default_factory=list)

    @property
    def _llm_type(self) -> str:
        return "listener"

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        self._told.append(messages)
        usage = UsageMetadata(input_tokens=31, output_tokens=2, total_tokens=33)
        return ChatResult(generations=[ChatGeneration(message=AIMessage("Noted.", usage_metadata=usage))])


async def say(client: httpx.AsyncClient, message: str, **more: Any) -> dict[str, Any]:
    response = await client.post("/chat", json={"message": message, **more})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def test_the_model_hears_the_latest_turns_and_the_three_most_similar_messages(live: Live) -> None:
    model = Listener()
    async with live(chat=Chat.from_model(model)) as url, httpx.AsyncClient(base_url=url, timeout=30) as client:
        earlier = [
            await say(client, text)
            for text in ("My cat is called Ada.", "My cat likes fish.", "My cat sleeps.", "It rains in Rome.")
        ]
        first = await say(client, "Good evening.")
        answer = await say(client, "What is my cat called?", conversation_id=first["conversation_id"])
    system, *turns = model._told[-1]
    assert [(turn.type, turn.content) for turn in turns] == [
        ("human", "Good evening."),
        ("ai", "Noted."),
        ("human", "What is my cat called?"),
    ]
    assert len(answer["recalled"]) == 3
    assert "My cat is called Ada." in system.content
    assert {one["conversation_id"] for one in answer["recalled"]} <= {one["conversation_id"] for one in earlier}
    assert answer["recalled"][0]["conversation_id"] == earlier[0]["conversation_id"]
    similarities = [one["similarity"] for one in answer["recalled"]]
    assert similarities == sorted(similarities, reverse=True)
    assert 0 < similarities[0] <= 1
    assert (answer["usage"]["input_tokens"], answer["usage"]["output_tokens"]) == (31, 2)


async def test_turns_beyond_the_bound_are_recalled_instead_of_shown(live: Live) -> None:
    model = Listener()
    async with live(chat=Chat.from_model(model)) as url, httpx.AsyncClient(base_url=url, timeout=30) as client:
        answer = await say(client, "The treasure lies under the oak.")
        id_ = answer["conversation_id"]
        for letter in "xyz":
            await say(client, letter * EARLIER_TOKENS, conversation_id=id_)
        answer = await say(client, "Where does the treasure lie?", conversation_id=id_)
        messages = (await client.get(f"/conversations/{id_}")).json()["messages"]
    system, *turns = model._told[-1]
    shown = "".join(str(turn.content) for turn in turns)
    assert "treasure lies" not in shown
    assert "x" * EARLIER_TOKENS not in shown
    assert "z" * EARLIER_TOKENS in shown
    assert "The treasure lies under the oak." in system.content
    assert answer["recalled"][0]["id"] == messages[0]["id"]


async def test_recall_stays_with_its_owner_and_ends_with_the_conversation(live: Live) -> None:
    ada, bob = {"X-API-Key": "k1"}, {"X-API-Key": "k2"}
    async with (
        live(answers=["Hi."], keys="ada:k1,bob:k2") as url,
        httpx.AsyncClient(base_url=url, timeout=30) as client,
    ):
        secret = {"message": "The secret word is melon."}
        asked = {"message": "What is the secret word?"}
        told = (await client.post("/chat", json=secret, headers=ada)).json()
        path = f"/conversations/{told['conversation_id']}"
        assert (await client.post("/chat", json=asked, headers=bob)).json()["recalled"] == []
        assert (await client.get(path, headers=bob)).status_code == 404
        assert (await client.delete(path, headers=bob)).status_code == 404
        assert (await client.post("/chat", json=asked, headers=ada)).json()["recalled"]
        listed = [(await client.get("/conversations", headers=one)).json()["conversations"] for one in (ada, bob)]
        assert [len(one) for one in listed] == [2, 1]
        assert (await client.delete(path, headers=ada)).status_code == 204
        assert (await client.get(path, headers=ada)).status_code == 404
        again = (await client.post("/chat", json=asked, headers=ada)).json()
    assert told["conversation_id"] not in {one["conversation_id"] for one in again["recalled"]}


async def test_conversations_and_their_messages_come_in_pages(live: Live) -> None:
    async with live(answers=["Hi."]) as url, httpx.AsyncClient(base_url=url, timeout=30) as client:
        ids = [(await say(client, f"Talk {number}"))["conversation_id"] for number in range(3)]
        for number in range(2, 5):
            await say(client, f"Message {number}", conversation_id=ids[0])
        page = (await client.get("/conversations", params={"limit": 2})).json()
        rest = (await client.get("/conversations", params={"limit": 2, "after": page["next"]})).json()
        numbers: list[int] = []
        before: int | None = 0
        while before is not None:
            params = {"limit": 3, **({"before": before} if before else {})}
            found = (await client.get(f"/conversations/{ids[0]}", params=params)).json()
            numbers = [message["number"] for message in found["messages"]] + numbers
            before = found["before"]
    assert [one["id"] for one in page["conversations"] + rest["conversations"]] == [ids[0], ids[2], ids[1]]
    assert rest["next"] is None
    assert numbers == list(range(1, 9))
    assert (page["conversations"][0]["title"], page["conversations"][0]["turns"]) == ("Talk 0", 8)


async def test_chat_streams_when_it_is_asked_to(live: Live) -> None:
    async with live(answers=["Hi there."]) as url, httpx.AsyncClient(base_url=url, timeout=30) as client:
        response = await client.post("/chat", json={"message": "Hello"}, headers={"Accept": "text/event-stream"})
    assert response.headers["content-type"].startswith("text/event-stream")
    assert "event: token\ndata: " in response.text
    assert response.text.rstrip().rpartition("\n\n")[2].startswith("event: done\n")


@pytest.mark.parametrize(
    ("method", "path", "asked", "status", "words"),
    [
        ("POST", "/chat", {"json": {"message": ""}}, 422, "message"),
        ("POST", "/chat", {"json": {"message": "x", "mode": "crawl"}}, 422, "mode"),
        ("POST", "/chat", {"json": {"message": "x", "conversation_id": "../x"}}, 404, "no conversation"),
        ("POST", "/chat", {"json": {"message": "\ud800"}}, 422, ""),
        ("GET", "/conversations", {"params": {"after": "never"}}, 422, "next"),
        ("GET", "/conversations", {"params": {"limit": 0}}, 422, "limit"),
        ("GET", "/conversations/x", {}, 404, "no conversation"),
        ("GET", "/conversations/x", {"params": {"before": "-1"}}, 422, "before"),
        ("DELETE", "/conversations/x", {}, 404, "no conversation"),
        ("DELETE", "/masterchat/chat/x", {}, 404, "no run"),
    ],
)
async def test_bad_input_is_explained(
    live: Live, method: str, path: str, asked: dict[str, Any], status: int, words: str
) -> None:
    if "json" in asked:  # as ASCII, for half a surrogate pair has no UTF-8
        import json

        asked = {"content": json.dumps(asked["json"]), "headers": {"Content-Type": "application/json"}}
    async with live() as url, httpx.AsyncClient(base_url=url, timeout=30) as client:
        response = await client.request(method, path, **asked)
    assert response.status_code == status, response.text
    assert words in response.json()["detail"]


async def test_a_conversation_keeps_what_is_needed_to_show_its_runs_again(live: Live) -> None:
    async with live(answers=["Hi."]) as url, httpx.AsyncClient(base_url=url, timeout=60) as client:
        asked = {"message": "Who proved that the Mandelbrot set is connected?", "mode": "wiki_qa", "max_nodes": 3}
        said = (await client.post("/masterchat/chat", json=asked)).json()
        messages = (await client.get(f"/conversations/{said['conversation_id']}")).json()["messages"]
    metadata = messages[-1]["metadata"]
    run = metadata["run"]
    assert messages[0]["metadata"] == {"task_id": metadata["task_id"]}  # whoever reads it before the answer can follow
    assert metadata["citations"] == said["citations"] != []
    assert run["outcome"] == said["outcome"]
    assert run["report"]["summaries"] == said["summaries"] != []
    assert run["report"]["crawls"] == [{"topic": "Mandelbrot set", "pages": 3, "passages": ANY}]
    assert run["reply"]["abstained"] is False
    assert run["goals"][-1] == "answer_reported"
    assert set(run["goals"]) == set(said["chain"][-1]) - set(said["chain"][0])
    assert run["failed"] == []


def test_goals_that_a_run_did_not_have_to_reach_are_not_its_goals() -> None:
    given, again, topic, new = "bridged", "linked", "crawled[Old]", "crawled[New]"
    chain = [
        [given, again],
        [given, "topics_found", topic],
        [given, "topics_found", topic, new],
        [given, again, "topics_found", topic, new, "answered"],
    ]
    found = goals_of({"chain": chain, "walked": []})
    assert found == {"goals": [again, "topics_found", new, "answered"], "failed": []}
    assert goals_of({"chain": [], "walked": [{"goal": new, "ok": False}]}) == {"goals": [], "failed": [new]}
    assert goals_of({"chain": [["topics_found", topic]], "walked": []})["goals"] == []


def test_what_is_kept_of_a_run_is_bounded() -> None:
    summaries = [{"topic": f"Topic {n}", "text": "word " * 20_000, "citations": []} for n in range(2)]
    chain = [[], ["a"], ["a", "b"], ["a", "c"]]
    walked = [{"goal": "d", "ok": False}, {"goal": "c", "ok": False}, {"goal": "d", "ok": False}]
    done = {
        "outcome": {"status": "done", "notices": ["The budget is used up."]},
        "report": {"summaries": summaries, "crawls": [{"title": "T", "titles": ["x"] * 5_000, "passages": 2}]},
        "reply": None,
        "chain": chain,
        "walked": walked,
    }
    kept = kept_of(done)
    assert kept["report"] == {"summaries": [], "crawls": [{"topic": None, "pages": 5_000, "passages": 2}]}
    assert (kept["goals"], kept["failed"]) == (["a", "c"], ["d"])
    assert kept["outcome"]["notices"] == ["The budget is used up."]
    done["report"] = {"summaries": summaries[:1]}
    assert kept_of(done)["report"]["summaries"] == summaries[:1]
