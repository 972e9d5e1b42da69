"""``POST /v1/embeddings``: the embedder of the memory, for others."""

from __future__ import annotations

import base64
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from serving.auth import Owner
from serving.dependencies import OpenRunner
from serving.disconnects import unless_gone
from serving.openai.catalogue import resolve
from serving.openai.documents import EMBEDDINGS, REFUSALS, json_reply
from serving.openai.errors import OpenAIError
from serving.openai.wire import EmbeddingsRequest, parse

router = APIRouter(prefix="/v1", tags=["openai"], responses=REFUSALS)


@router.post("/embeddings", openapi_extra=EMBEDDINGS)
async def embeddings(request: Request, owner: Owner, runner: OpenRunner) -> Response:
    """Vectors of texts, in their order, each of length one (L2), as floats or as base64 of little-endian float32."""
    asked, _ = parse(EmbeddingsRequest, await request.body())
    model = resolve(runner, asked.model, request.state.model_alias)
    if model.kind != "embeddings":
        raise OpenAIError(
            f"The model '{model.id}' makes no embeddings; '{runner.context.embedder.model_name}' does.",
            param="model",
            code="model_not_supported",
        )
    embedder = runner.context.embedder
    dimensions = await embedder.find_dimensions()
    if asked.dimensions not in (None, dimensions):
        raise OpenAIError(
            f"Invalid value for 'dimensions': the vectors of '{model.id}' have {dimensions} and cannot be shortened.",
            param="dimensions",
            code="invalid_value",
        )
    vectors = await unless_gone(request, embedder.encode(asked.input, query=asked.input_type == "query"))
    rows: list[Any] = vectors.tolist()
    if asked.encoding_format == "base64":
        rows = [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in vectors]
    tokens = await embedder.count_tokens(asked.input)
    return json_reply(
        {
            "object": "list",
            "data": [{"object": "embedding", "index": number, "embedding": row} for number, row in enumerate(rows)],
            "model": model.id,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
    )
