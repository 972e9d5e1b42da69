"""``POST /v1/chat/completions``: to the graph, or through to the chat model behind."""

from __future__ import annotations

import time
import uuid
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from graphs.runs import Runner
from memory.streams import Event
from models.completions import Completion, features_of
from serving.auth import Owner
from serving.dependencies import OpenRunner
from serving.disconnects import WatchedStream, unless_gone
from serving.openai.catalogue import Model, resolve
from serving.openai.documents import CHAT, REFUSALS, json_reply
from serving.openai.errors import OpenAIError, unsupported
from serving.openai.graph import open_turn
from serving.openai.side_prompts import is_side_prompt
from serving.openai.wire import ChatRequest, parse

router = APIRouter(prefix="/v1", tags=["openai"], responses=REFUSALS)

STREAM_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


@router.post("/chat/completions", openapi_extra=CHAT, responses={200: {"content": {"text/event-stream": {}}}})
async def chat_completions(request: Request, owner: Owner, runner: OpenRunner) -> Response:
    """Answer a conversation, whole or as a stream.

    ``lumina`` runs the whole graph, ``lumina-…`` one agent's part of it; every other model is passed through. A
    conversation with the graph is kept under ``metadata.conversation_id``, the header ``X-Conversation-Id``, or the
    history that is sent.
    """
    asked, body = parse(ChatRequest, await request.body())
    model = resolve(runner, asked.model, request.state.model_alias)
    if model.kind == "embeddings":
        raise OpenAIError(f"The model '{model.id}' does not chat.", param="model", code="model_not_supported")
    if model.kind == "graph" and is_side_prompt(asked.messages):
        return await _pass_through(request, runner, owner, body, None)
    _check_features(model, asked, body)
    if model.kind == "chat":
        return await _pass_through(request, runner, owner, body, model.root)
    turn = await open_turn(request, runner, owner, model, asked)
    headers = {"X-Conversation-Id": turn.conversation_id}
    if asked.stream:
        return WatchedStream(turn.stream(), media_type="text/event-stream", headers={**STREAM_HEADERS, **headers})
    return json_reply(await unless_gone(request, turn.answer()), headers)


def _check_features(model: Model, asked: ChatRequest, body: dict[str, Any]) -> None:
    """Refuse what the model does not have.

    Raises:
        OpenAIError: names the parameter.
    """
    for feature in sorted(features_of(body) - model.features):
        if feature != "images":
            raise unsupported(feature, model.id)
        place = next(
            f"messages[{i}].content[{j}]"
            for i, message in enumerate(asked.messages)
            for j, part in enumerate(message.content or ())
            if part.type != "text"
        )
        raise unsupported(place, model.id, instead="It takes text only.")


async def _pass_through(
    request: Request, runner: Runner, owner: str, body: dict[str, Any], model_id: str | None
) -> Response:
    started = time.perf_counter()
    scope = f"chatcmpl-{uuid.uuid4().hex}"
    call = runner.context.chat.complete(body, scope=scope, model_id=model_id)
    completion = await unless_gone(request, call)
    headers = {"X-Lumina-Model": completion.provider.model_id}
    if completion.tried:
        headers["X-Lumina-Fallbacks"] = ", ".join(completion.tried)

    def note() -> None:
        request.state.usage_log.add(_usage_event(completion, owner, scope, time.perf_counter() - started))

    if body.get("stream"):
        return WatchedStream(
            completion.body(), media_type=completion.media_type, headers={**STREAM_HEADERS, **headers}, after=note
        )
    return WatchedStream(completion.body(), media_type=completion.media_type, headers=headers, after=note)


def _usage_event(completion: Completion, owner: str, task_id: str, seconds: float) -> Event:
    usage = completion.usage or {}
    provider = completion.provider
    data = {
        "input_tokens": usage.get("prompt_tokens") or 0,
        "output_tokens": usage.get("completion_tokens") or 0,
        "usd": completion.usd,
        "refused": int(completion.budget_exhausted),
        "stand_in": f"the model {provider.model_id}" if completion.budget_exhausted else "",
        "owner": owner,
        "provider": provider.name,
        "model": provider.model_id,
        "seconds": round(seconds, 3),
        "ok": completion.whole,
    }
    return Event("llm.usage", data, agent="gateway", task_id=task_id)
