"""The graph as a model: what runs, what is said, and which conversation it belongs to."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from langchain_openai import ChatOpenAI
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionMessageParam
from redis.asyncio import Redis

from graphs.application import load_application
from graphs.runs import Runner
from memory.conversations import Conversations
from memory.histories import Histories
from serving.openai.catalogue import agent_intents
from serving.openai.graph import StopCut
from serving.openai.side_prompts import is_side_prompt
from serving.openai.wire import Message

Live = Callable[..., AbstractAsyncContextManager[tuple[str, Runner]]]
Said = list[ChatCompletionMessageParam]
QUESTION = "Who proved that the Mandelbrot set is connected?"
ASK: Said = [{"role": "user", "content": QUESTION}]
TOPIC: Any = {"topics": ["Mandelbrot set"], "max_nodes": 5}
GREETING = "Hello!"
KITCHEN = Path(__file__).parents[3] / "docs/examples/kitchen/goal_lattice.yml"


def client(url: str, key: str = "any") -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)


def user(text: str) -> ChatCompletionMessageParam:
    return {"role": "user", "content": text}


def assistant(text: str) -> ChatCompletionMessageParam:
    return {"role": "assistant", "content": text}


async def turns(runner: Runner, owner: str = "local") -> list[list[tuple[str, str]]]:
    """What every conversation of an owner holds, the earliest first."""
    page = await runner.context.conversations.page(owner)
    by_age = sorted(page.conversations, key=lambda one: one.created)
    kept = [await runner.context.conversations.turns(owner, one.id) for one in by_age]
    return [[(turn.role, turn.content) for turn in one] for one in kept]


async def test_the_graph_streams_its_answer_with_progress_citations_and_usage(live: Live) -> None:
    async with live() as (url, _), client(url) as api:
        stream = await api.chat.completions.create(
            model="lumina", messages=ASK, stream=True, stream_options={"include_usage": True}, extra_body=TOPIC
        )
        chunks = [chunk async for chunk in stream]
        whole = await api.chat.completions.create(model="lumina-qa", messages=ASK, extra_body=TOPIC)
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    text = "".join(delta.content or "" for delta in deltas)
    assert deltas[0].role == "assistant"
    assert "Douady" in text
    kinds = {(chunk.model_extra or {}).get("lumina", {}).get("kind") for chunk in chunks}
    assert {"plan", "agent", "progress"} <= kinds
    annotations = [one for delta in deltas for one in (delta.model_extra or {}).get("annotations", [])]
    place = annotations[0]["url_citation"]
    assert text[place["start_index"] : place["end_index"]] == "[1]"
    assert "Mandelbrot" in place["title"]
    assert chunks[-1].usage
    assert not chunks[-1].choices
    assert chunks[-2].choices[0].finish_reason == "stop"
    ending = (chunks[-2].model_extra or {})["lumina"]
    assert ending["mode"] == "wiki_qa"
    assert uuid.UUID(ending["conversation_id"])
    message = whole.choices[0].message
    assert "Douady" in (message.content or "")
    assert message.annotations
    assert message.annotations[0].url_citation.url == place["url"]


async def test_langchain_talks_to_the_graph(live: Live) -> None:
    async with live() as (url, _), openai.DefaultAsyncHttpxClient() as http:
        model = ChatOpenAI(
            model="lumina-crawl",
            base_url=f"{url}/v1",
            api_key=lambda: "any",
            extra_body=TOPIC,
            stream_usage=True,
            http_async_client=http,
        )
        whole = await model.ainvoke("Read the Mandelbrot set.")
        pieces = [piece async for piece in model.astream("Read it again.")]
    assert whole.text.startswith("Read 5 pages")
    assert "".join(piece.text for piece in pieces).startswith("Read 5 pages")
    assert any(piece.usage_metadata for piece in pieces)


async def test_a_resent_history_is_stored_once_and_an_edited_one_branches_off(live: Live, upstream: Any) -> None:
    async def say(api: AsyncOpenAI, said: Said) -> str:
        answer = await api.chat.completions.create(model="lumina", messages=said)
        return answer.choices[0].message.content or ""

    async with live() as (url, runner), client(url) as api:
        upstream.words = ["Hi, Ada."]
        first: Said = [user(GREETING)]
        said = await say(api, first)
        await say(api, first)
        assert await turns(runner) == [[("user", GREETING), ("assistant", "Hi, Ada.")]]

        upstream.words = ["Fine."]
        second: Said = [
            {"role": "system", "content": "now"},
            *first,
            assistant(f"{said}\n"),
            user("How are you today?"),
        ]
        await say(api, second)
        long = [("user", GREETING), ("assistant", "Hi, Ada."), ("user", "How are you today?"), ("assistant", "Fine.")]
        assert await turns(runner) == [long]
        history = upstream.bodies[-1]["messages"]
        assert [one["content"] for one in history[1:]] == [GREETING, "Hi, Ada.", "How are you today?"]

        upstream.words = ["Bye."]
        await say(api, [*first, assistant(said), user("bye for now")])
        branch = [("user", GREETING), ("assistant", "Hi, Ada."), ("user", "bye for now"), ("assistant", "Bye.")]
        assert await turns(runner) == [long, branch]

        await say(api, [user("from"), assistant("elsewhere"), user("ok")])
        assert (await turns(runner))[-1][:2] == [("user", "from"), ("assistant", "elsewhere")]


async def test_a_conversation_is_kept_by_the_name_that_the_client_gives(live: Live, upstream: Any) -> None:
    id_, other = str(uuid.uuid4()), str(uuid.uuid4())
    async with live(keys="ada:k1,bob:k2") as (url, runner), client(url, "k1") as ada, client(url, "k2") as bob:
        for _ in range(2):
            await ada.chat.completions.create(model="lumina", messages=[user("ok")], metadata={"conversation_id": id_})
        raw = await ada.chat.completions.with_raw_response.create(
            model="lumina", messages=[user("ok")], extra_headers={"X-Conversation-Id": other}
        )
        await bob.chat.completions.create(model="lumina", messages=[user("ok")], metadata={"conversation_id": id_})
        with pytest.raises(openai.BadRequestError) as refused:
            await ada.chat.completions.create(model="lumina", messages=[user("ok")], metadata={"conversation_id": "x"})
        assert [len(one) for one in await turns(runner, "ada")] == [4, 2]
        assert [len(one) for one in await turns(runner, "bob")] == [2]
        ada.api_key = "wrong"
        with pytest.raises(openai.AuthenticationError) as nobody:
            await ada.models.list()
    assert raw.headers["x-conversation-id"] == other
    assert refused.value.param == "metadata.conversation_id"
    assert nobody.value.code == "invalid_api_key"


async def test_titles_and_tags_do_not_run_the_graph(live: Live, upstream: Any) -> None:
    title = (
        "### Task:\nGenerate a concise, 3-5 word title.\n### Chat History:\n<chat_history>\nUSER: Hi\n</chat_history>"
    )
    async with live() as (url, runner), client(url) as api:
        answer = await api.chat.completions.create(model="lumina", messages=[user(title)])
        assert await turns(runner) == []
    assert answer.model == "local-model"
    assert upstream.bodies[0]["messages"] == [user(title)]


@pytest.mark.parametrize(
    ("text", "side"),
    [
        ("### Task:\nSuggest 3-5 relevant follow-up questions\n<chat_history>x</chat_history>", True),
        ("### Task:\nYou are an autocompletion system.", True),
        ("Provide a concise, 5-word-or-less title for the conversation, using title case", True),
        ("### Task:\nRespond to the user query using the provided context.\n<context>x</context>\nWhat is red?", False),
        ("### Task:\nWhat is red?", False),
        ("What does a <chat_history> tag do?", False),
    ],
)
def test_side_prompts_are_known_by_how_they_begin(text: str, side: bool) -> None:
    assert is_side_prompt([Message.model_validate({"role": "user", "content": text})]) is side


async def test_a_client_that_goes_away_ends_the_run_and_the_models_call_at_once(live: Live, upstream: Any) -> None:
    upstream.hold_after = 0
    for streamed in (True, False):
        upstream.began.clear()
        upstream.hung_up.clear()
        body = {"model": "lumina", "messages": [user(GREETING)], "stream": streamed}
        async with live() as (url, runner):
            async with httpx.AsyncClient(base_url=url, timeout=30) as http:
                asking = asyncio.create_task(http.post("/v1/chat/completions", json=body))
                await asyncio.wait_for(upstream.began.wait(), 30)
                asking.cancel()
            async with asyncio.timeout(10):  # half of what the run would wait for the model
                await upstream.hung_up.wait()
            assert (await turns(runner))[0] == [("user", GREETING)], "the question is kept, for when it comes again"


async def test_stop_sequences_cut_what_the_graph_says(live: Live, upstream: Any) -> None:
    upstream.words = ["one two STOP three"]
    async with live() as (url, _), client(url) as api:
        answer = await api.chat.completions.create(model="lumina", messages=[user(GREETING)], stop="STOP")
    assert answer.choices[0].message.content == "one two "


def test_a_stop_sequence_is_found_across_pieces() -> None:
    cut = StopCut(["END", "\n\n"])
    assert [cut.feed("so far E"), cut.feed("N"), cut.feed("D of it"), cut.end()] == ["so far", " ", "", ""]
    assert cut.given == "so far "
    other = StopCut(["END"])
    assert other.feed("EN") + other.feed("ough") + other.end() == "ENough"


async def test_a_run_that_fails_says_why_and_is_not_repeated(live: Live) -> None:
    async with live() as (url, _), client(url) as api:
        with pytest.raises(openai.BadRequestError, match="Mandelbrot set") as whole:
            await api.chat.completions.create(
                model="lumina-crawl", messages=ASK, extra_body={"topics": ["Mandelbort set"]}
            )
        stream = await api.chat.completions.create(
            model="lumina-crawl", messages=ASK, stream=True, extra_body={"topics": ["Mandelbort set"]}
        )
        with pytest.raises(openai.APIError, match="Mandelbrot set"):
            [chunk async for chunk in stream]
    assert whole.value.code == "run_failed"


def test_agents_are_models_by_themselves_in_any_application() -> None:
    shipped = agent_intents(*load_application(KITCHEN.parents[3] / "goal_lattice.yml"))
    assert shipped == {"crawl": "crawl", "qa": "wiki_qa", "summarise": "summarise"}
    assert agent_intents(*load_application(KITCHEN)) == {"cook": "dinner"}


async def test_only_one_of_many_claims_goes_on_from_a_state(redis: Redis) -> None:
    histories, conversations = Histories(redis), Conversations(redis)
    first = await histories.claim("ada", [("user", "a")])
    await conversations.create("ada", conversation_id=first.conversation_id)
    before = [("user", "a"), ("assistant", "b")]
    await histories.keep("ada", before, first.conversation_id)
    claims = await asyncio.gather(*(histories.claim("ada", [*before, ("user", str(i))]) for i in range(20)))
    went_on = [claim for claim in claims if claim.conversation_id == first.conversation_id]
    assert len(went_on) == 1
    assert went_on[0].stored == 2
    assert len({claim.conversation_id for claim in claims}) == 20
    again = await asyncio.gather(*(histories.claim("ada", [*before, ("user", "0")]) for _ in range(5)))
    assert {claim.conversation_id for claim in again} == {claims[0].conversation_id}
    other = await histories.claim("bob", [*before, ("user", "0")])
    assert other.stored == 0
    assert other.conversation_id not in {claim.conversation_id for claim in claims}
