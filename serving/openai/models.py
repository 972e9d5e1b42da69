"""``GET /v1/models`` and ``GET /v1/models/{model}``."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from serving.auth import Owner
from serving.dependencies import OpenRunner
from serving.openai.catalogue import catalogue, resolve
from serving.openai.documents import REFUSALS, json_reply

router = APIRouter(prefix="/v1", tags=["openai"], responses=REFUSALS)


@router.get("/models")
async def list_models(request: Request, owner: Owner, runner: OpenRunner) -> Response:
    """Every model: the graph, one for each agent that people can call, the chat models behind, the embedder."""
    models = catalogue(runner, request.state.model_alias).values()
    return json_reply({"object": "list", "data": [model.to_json() for model in models]})


@router.get("/models/{model:path}")
async def retrieve_model(model: str, request: Request, owner: Owner, runner: OpenRunner) -> Response:
    """One of them."""
    return json_reply(resolve(runner, model, request.state.model_alias).to_json())
