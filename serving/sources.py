"""What an answer rests on: ``GET /passages/{id}`` and ``GET /summaries``."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, HTTPException, Query
from pydantic import BaseModel, Field

from memory.passages import Passage
from serving.auth import Owner
from serving.dependencies import OpenRunner

router = APIRouter(tags=["graph"])

_UNKNOWN: dict[int | str, dict[str, Any]] = {404: {"description": "The caller's memory has no such thing."}}
_NO_VECTORS: dict[int | str, dict[str, Any]] = {503: {"description": "This process does not hold the passages."}}


class PassageView(BaseModel):
    """Some consecutive sentences of one section of one revision of a page."""

    id: str = Field(description="The `passage_id` of a citation.")
    title: str
    url: str = Field(description="Address of exactly this revision.")
    revision: str
    section: list[str] = Field(description="Headings from the top down; empty for the lead.")
    text: str
    start: int = Field(description="Offset in the page's plain text, in code points.")
    end: int


class SummaryView(BaseModel):
    """The summary of a topic."""

    topic: str
    text: str = Field(description="With the numbers of its citations in brackets.")
    citations: list[dict[str, Any]]


class SummaryList(BaseModel):
    """What is summarised of what was asked for."""

    summaries: list[SummaryView] = Field(description="None where nobody has asked for one yet; see the mode summarise.")


@router.get("/passages/{passage_id}", responses={**_UNKNOWN, **_NO_VECTORS})
async def passage(passage_id: UUID, owner: Owner, runner: OpenRunner) -> PassageView:
    """A passage that was cited, whole."""
    vectors = runner.context.vectors
    if vectors is None:
        raise HTTPException(503, "this process does not hold the passages; ask the one that does, or set QDRANT_URL")
    passages = [Passage.from_record(record) for record in await vectors.get([str(passage_id)])]
    found = [one for one in passages if one.owner == owner]
    if not found:
        raise HTTPException(404, f"no passage {passage_id}: it was pruned, or never read")
    one = found[0]
    fields = {name: getattr(one, name) for name in ("title", "url", "revision", "text", "start", "end")}
    return PassageView(id=one.id, section=list(one.section), **fields)


@router.get("/summaries")
async def summaries(
    topic: Annotated[str, Query(min_length=1, max_length=512, examples=["Mandelbrot set"])],
    owner: Owner,
    runner: OpenRunner,
) -> SummaryList:
    """The kept summary of a topic, if there is one."""
    context = runner.context
    kept = await context.library.summary(owner, context.source.name, topic)
    found = [SummaryView(topic=topic, text=kept["text"], citations=kept["citations"])] if kept else []
    return SummaryList(summaries=found)
