"""At the limit of the budget: the local model answers, and every surface says so in one sentence."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from langchain_core.language_models import BaseChatModel, GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.messages.ai import UsageMetadata
from rich.console import Console

from agents.spec import RunRequest, Usage
from commands.terminal import show_outcome
from graphs.notices import budget_sentence
from graphs.runs import Runner
from models.budget import Budget
from models.chat import Chat
from models.fallback import FallbackChat
from models.prices import Price, PriceTable
from models.provider import Given
from server import create_app
from settings import load_settings

Connect = Callable[[FastAPI], AbstractAsyncContextManager[httpx.AsyncClient]]
Lumina = Callable[..., AbstractAsyncContextManager[Runner]]

QUESTION = "Who proved that the Mandelbrot set is connected?"
REQUEST = RunRequest(intent="wiki_qa", message=QUESTION, topics=["Mandelbrot set"], max_nodes=3)


def scripted() -> BaseChatModel:
    usage = UsageMetadata(input_tokens=10, output_tokens=10, total_tokens=20)

    def say() -> Any:
        while True:
            yield AIMessage("I would not know.", usage_metadata=usage)

    return GenericFakeChatModel(messages=say())


def on_budget(runner: Runner, limit_usd: float, *, local: bool = True) -> Runner:
    """The same runner with a dear model in front of a free one."""
    prices = PriceTable({"dear": Price(1.0, 1.0)})
    budget = Budget(runner.context.redis, limit_usd=limit_usd, prices=prices)
    providers = [Given(scripted(), name="dear", paid=True)]
    if local:
        providers.append(Given(scripted(), name="cheap"))
    chat = Chat(FallbackChat(providers=[*providers], budget=budget))
    return replace(runner, context=replace(runner.context, chat=chat, budget=budget))


async def ask(runner: Runner) -> dict[str, Any]:
    return {event.kind: event.data async for event in runner.stream(REQUEST, "task")}["done"]


async def test_a_spent_budget_is_told_by_the_outcome_and_in_the_terminal(lumina: Lumina) -> None:
    async with lumina() as opened:
        done = await ask(on_budget(opened, 0.000_01))
    [notice] = done["outcome"]["notices"]
    refused = done["usage"]["refused"]
    assert refused > 1
    assert notice == (
        f"the budget of 0.00001 USD is used up (0.0000 USD spent, {refused} paid calls were refused): "
        "the local model cheap answered"
    )
    assert done["outcome"]["status"] == "done"
    assert "Douady" in done["reply"]["answer"]
    console = Console(record=True, width=200, file=StringIO())
    show_outcome(console, done, seconds=1, details=False)
    assert notice in console.export_text()


async def test_a_budget_that_ends_in_the_middle_pays_until_then(lumina: Lumina) -> None:
    async with lumina() as opened:
        done = await ask(on_budget(opened, 0.004))
    usage, [notice] = done["usage"], done["outcome"]["notices"]
    assert usage["refused"] > 0
    assert 0 < usage["usd"] <= 0.004
    assert f"({usage['usd']:.4f} USD spent" in notice


async def test_without_a_local_model_what_was_read_is_quoted(lumina: Lumina) -> None:
    async with lumina() as opened:
        done = await ask(on_budget(opened, 0, local=False))
    [notice] = done["outcome"]["notices"]
    assert "no local model is there, so what was read is quoted" in notice
    assert done["outcome"]["status"] == "done"
    assert done["reply"]["phrased_by"] == "quote"
    assert {summary["method"] for summary in done["report"]["summaries"]} == {"extract"}


async def test_without_a_local_model_a_conversation_ends_with_the_budgets_own_line(lumina: Lumina) -> None:
    async with lumina() as opened:
        runner = on_budget(opened, 0, local=False)
        request = RunRequest(intent="chat", message="Hello!")
        done = {event.kind: event.data async for event in runner.stream(request, "task")}["done"]
    assert done["outcome"]["status"] == "failed"
    assert "does not fit into the budget of $0" in done["outcome"]["reason"]
    assert "raise LLM_BUDGET_USD or use a local model" in done["outcome"]["reason"]


async def test_within_the_budget_there_is_nothing_to_tell(lumina: Lumina) -> None:
    async with lumina() as opened:
        done = await ask(on_budget(opened, 1))
    assert done["outcome"]["notices"] == []
    assert done["usage"]["usd"] > 0
    assert (done["usage"]["refused"], done["usage"]["stand_in"]) == (0, "")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"mode": "wiki_qa", "topics": ["Mandelbrot set"], "max_nodes": 3}, "paid calls were refused"),
        ({"mode": "chat"}, "1 paid call was refused"),
    ],
)
async def test_the_json_answer_says_it(
    lumina: Lumina, tmp_path: Path, connect: Connect, body: dict[str, Any], words: str
) -> None:
    @asynccontextmanager
    async def open_one(_: Any) -> AsyncIterator[Runner]:
        async with lumina() as opened:
            yield on_budget(opened, 0.000_01)

    app = create_app(load_settings(data_dir=tmp_path / "data"), open_runner=open_one)
    async with connect(app) as client:
        answer = (await client.post("/masterchat/chat", json={"message": QUESTION, **body})).json()
    [notice] = answer["notices"]
    assert words in notice
    assert "the local model cheap answered" in notice
    assert answer["usage"]["refused"] >= 1


def test_the_sentence_counts_and_names() -> None:
    one = Usage(refused=1, stand_in="the local model m")
    assert budget_sentence(0.01, 0.0087, one + Usage()) == (
        "the budget of 0.01 USD is used up (0.0087 USD spent, 1 paid call was refused): the local model m answered"
    )
