"""Passages and the records that a vector store keeps of them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

PASSAGE_NAMESPACE = uuid.UUID("6f6c1f0e-6b0f-5c55-9d7f-6c756d696e61")
"""Namespace of the point ids (RFC 9562, version 5), so that the same passage always has the same id."""


def passage_id(owner: str, source: str, title: str, revision: str, index: int) -> str:
    """A UUID that depends on these five only, so that indexing a passage again changes nothing."""
    return str(uuid.uuid5(PASSAGE_NAMESPACE, "\x1f".join((owner, source, title, revision, str(index)))))


@dataclass(frozen=True, slots=True)
class Record:
    """What a vector store keeps: a point id, the text that is searched, and a JSON payload."""

    id: str
    text: str
    payload: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Hit:
    """A record found, with the score of the query that found it (higher is better, comparable within one query)."""

    record: Record
    score: float


@dataclass(frozen=True, slots=True)
class Seen:
    """A record as a listing met it, without its text."""

    id: str
    version: str
    """Another one each time the record is stored, the same text again included; empty in stores older than this."""
    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Passage:
    """Some consecutive sentences of one section of one revision of a page."""

    owner: str
    """Whose memory it belongs to."""
    source: str
    """Name of the encyclopaedia, e.g. ``127.0.0.1:8090`` or ``sample``."""
    title: str
    """Title of the page, redirects followed."""
    url: str
    """Address of exactly this revision."""
    revision: str
    """Revision id as the source gives it."""
    section: tuple[str, ...]
    """Headings from the top down; empty for the lead section."""
    text: str
    """The passage itself, without the headings."""
    start: int
    """Offset of the first character in the page's plain text, in code points."""
    end: int
    """Offset after the last character."""
    index: int
    """Position of the passage in its page, from 0."""

    @property
    def id(self) -> str:
        """See ``passage_id``."""
        return passage_id(self.owner, self.source, self.title, self.revision, self.index)

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        return {**asdict(self), "section": list(self.section)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Passage:
        """The inverse of ``to_dict``; unknown keys are ignored."""
        return cls(
            owner=data["owner"],
            source=data["source"],
            title=data["title"],
            url=data["url"],
            revision=data["revision"],
            section=tuple(data["section"]),
            text=data["text"],
            start=data["start"],
            end=data["end"],
            index=data["index"],
        )

    def to_record(self) -> Record:
        """The record that a vector store keeps: searched with title and headings in front of the text."""
        heading = " > ".join((self.title, *self.section))
        return Record(self.id, f"{heading}\n{self.text}", self.to_dict())

    @classmethod
    def from_record(cls, record: Record) -> Passage:
        """The inverse of ``to_record``."""
        return cls.from_dict(record.payload)
