"""Questions in SQuAD's form: a folder with paragraphs, questions with gold answers, and questions without one."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from errors import LuminaError
from memory.passages import Passage

Row = TypeVar("Row", bound=BaseModel)
OWNER = "evaluation"
SOURCE = "squad"


class BadData(LuminaError):
    """The folder has no such questions."""


class Paragraph(BaseModel):
    """A line of paragraphs.jsonl."""

    model_config = ConfigDict(frozen=True)
    title: str = Field(min_length=1)
    paragraph: int = Field(ge=0)
    context: str = Field(min_length=1)


class Question(BaseModel):
    """A line of questions.jsonl or unanswerable.jsonl."""

    model_config = ConfigDict(frozen=True)
    id: str
    title: str
    paragraph: int
    question: str = Field(min_length=1)
    answers: list[str]


@dataclass(frozen=True, slots=True)
class Squad:
    """What the folder holds."""

    paragraphs: Sequence[Paragraph]
    answerable: Sequence[Question]
    unanswerable: Sequence[Question]

    def passages(self) -> list[Passage]:
        """Every paragraph as one passage; its place in the article is the passage's index."""
        return [
            Passage(
                owner=OWNER,
                source=SOURCE,
                title=one.title,
                url=f"squad:{one.title.replace(' ', '_')}#{one.paragraph}",
                revision="1",
                section=(),
                text=one.context,
                start=0,
                end=len(one.context),
                index=one.paragraph,
            )
            for one in self.paragraphs
        ]

    def sample(self, size: int | None, seed: int) -> list[Question]:
        """Questions in an order of their own; of both kinds as many as their share of the whole has."""
        every = [*self.answerable, *self.unanswerable]
        if size is None or size >= len(every):
            return every
        choose = random.Random(seed)
        possible = round(size * len(self.answerable) / len(every))
        return [
            *choose.sample(list(self.answerable), possible),
            *choose.sample(list(self.unanswerable), size - possible),
        ]


def read_squad(folder: Path) -> Squad:
    """Read paragraphs.jsonl, questions.jsonl and unanswerable.jsonl (which may be missing).

    Raises:
        BadData: a file is missing or empty, or a line is not of the form; the message names file and line.
    """
    if not folder.is_dir():
        raise BadData(f"{folder} is no folder; --data takes one with paragraphs.jsonl and questions.jsonl")
    paragraphs = _rows(folder / "paragraphs.jsonl", Paragraph)
    answerable = _rows(folder / "questions.jsonl", Question)
    missing = folder / "unanswerable.jsonl"
    unanswerable = _rows(missing, Question) if missing.exists() else []
    known = {(one.title, one.paragraph) for one in paragraphs}
    if len(known) < len(paragraphs):
        raise BadData(f"{folder / 'paragraphs.jsonl'} has a paragraph twice; title and number must be unique together")
    for one in (*answerable, *unanswerable):
        if (one.title, one.paragraph) not in known:
            raise BadData(f"question {one.id} is about paragraph {one.paragraph} of «{one.title}», which is not there")
    if empty := next((one for one in answerable if not any(answer.strip() for answer in one.answers)), None):
        raise BadData(f"question {empty.id} in questions.jsonl has no answer; it belongs in unanswerable.jsonl")
    return Squad(paragraphs, answerable, unanswerable)


def _rows(file: Path, form: type[Row]) -> list[Row]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadData(f"{file} cannot be read ({error})") from error
    rows = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            rows.append(form.model_validate(json.loads(line)))
        except (ValueError, ValidationError) as error:
            what = error.errors()[0] if isinstance(error, ValidationError) else None
            reason = f"{'.'.join(map(str, what['loc']))}: {what['msg']}" if what else str(error)
            raise BadData(f"{file}:{number}: {reason}; a line is a JSON object, see its README") from error
    if not rows:
        raise BadData(f"{file} is empty")
    return rows
