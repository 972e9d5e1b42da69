"""What a turn of a conversation answers, as one document."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel, Field

from agents.spec import RunRequest
from graphs.goals import parse_instance

TOPICS_KNOWN = "topics_found"
"""The goal with which a run knows its topics, so that goals of them can be looked at."""
MAX_KEPT_BYTES = 131_072
"""Bytes of JSON that a conversation keeps of a run; half of what a message's metadata may have."""


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


def goals_of(done: dict[str, Any]) -> dict[str, list[str]]:
    """What a run reached and what it did not reach, for people.

    Returns:
        ``goals``: those that hold at the end and did not hold all the time, in the order in which they came. A goal of
        a topic is looked at from the moment in which the topic is known. ``failed``: those whose agent failed.
    """
    chain = done["chain"]
    held = set(chain[-1]) if chain else set()
    known = next((place for place, state in enumerate(chain) if TOPICS_KNOWN in state), 0)
    given = set(chain[0]).intersection(*chain) if chain else set()
    given |= {goal for goal in held.intersection(*chain[known:]) if parse_instance(goal)[1] is not None}
    came = dict.fromkeys(goal for state in chain for goal in state)
    failed = (step["goal"] for step in done["walked"] if not step["ok"] and step["goal"] not in held)
    return {
        "goals": [goal for goal in came if goal in held and goal not in given],
        "failed": list(dict.fromkeys(failed)),
    }


def kept_of(done: dict[str, Any]) -> dict[str, Any]:
    """What a conversation keeps of a run beside its answer, so that it can be shown again as it was.

    The members have the names and shapes of the ``done`` event; see ``goals_of``. Of a crawl the numbers are kept, for
    the titles may be thousands. Summaries that are too long to be kept are left out.
    """
    report, reply = done["report"], done["reply"] or {}
    kept: dict[str, Any] = {
        "outcome": done["outcome"],
        **goals_of(done),
        "report": {
            "summaries": report.get("summaries", []),
            "crawls": [
                {"topic": crawl.get("topic"), "pages": len(crawl["titles"]), "passages": crawl.get("passages", 0)}
                for crawl in report.get("crawls", [])
            ],
        },
        "reply": {name: reply[name] for name in ("abstained", "looked_at") if name in reply} if reply else None,
    }
    if len(json.dumps(kept)) > MAX_KEPT_BYTES:
        kept["report"]["summaries"] = []
    return kept
