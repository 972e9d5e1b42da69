"""What a turn of a conversation answers, as one document."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from agents.spec import RunRequest


class ChatResponse(BaseModel):
    """The JSON answer."""

    conversation_id: str
    task_id: str
    mode: str
    answer: str
    abstained: bool = False
    citations: list[dict[str, Any]] = Field(default_factory=list)
    recalled: list[dict[str, Any]] = Field(
        default_factory=list, description="Earlier messages that the model was given: id, conversation_id, similarity."
    )
    summaries: list[dict[str, Any]] = Field(default_factory=list)
    usage: dict[str, Any] = Field(default_factory=dict, description="Tokens as the provider counted them.")
    chain: list[list[str]] = Field(default_factory=list)
    outcome: dict[str, Any] | None = None
    notices: list[str] = Field(default_factory=list, description="What to know of it, e.g. that the budget is used up.")


def reply_to(request: RunRequest, done: dict[str, Any]) -> ChatResponse:
    """The answer to a request whose run left this behind."""
    report, reply = done["report"], done["reply"] or {}
    outcome = done["outcome"] or {}
    texts = [reply.get("answer")] if reply else [s["text"] for s in report.get("summaries", [])]
    crawls = [f"Read {len(c['titles'])} pages around «{c['title']}»." for c in report.get("crawls", [])]
    answer = "\n\n".join(text for text in texts if text) or "\n".join(crawls) or outcome.get("reason", "")
    return ChatResponse(
        conversation_id=request.conversation_id or "",
        task_id=done["task_id"],
        mode=request.intent,
        answer=answer,
        abstained=bool(reply.get("abstained")),
        citations=reply.get("citations") or [],
        recalled=reply.get("recalled") or [],
        summaries=report.get("summaries", []),
        usage=done["usage"],
        chain=done["chain"],
        outcome=done["outcome"],
        notices=outcome.get("notices", []),
    )
