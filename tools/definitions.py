"""Questions that ask what something is, and the sentence of an encyclopaedia that says so: the first of its article."""

from __future__ import annotations

import re

from memory.passages import Passage
from tools.lexical import Stems, stems

_ASKS_WHAT = re.compile(
    r"""^\s*(?:please\s+)?(?:
        what(?:'s|’s|\s+is|\s+are|\s+was|\s+were)|who(?:'s|’s|\s+is|\s+are|\s+was|\s+were)
        |define|describe|explain(?:\s+what(?:\s+is|\s+are))?|tell\s+me\s+(?:about|what(?:\s+is|\s+are))|what\s+do\s+you\s+know\s+about
    )\s+(?:an?\s+|the\s+)?(?P<subject>.+?)(?:\s+(?:is|are|was|were))?\s*[?.!]*\s*$""",
    re.IGNORECASE | re.VERBOSE,
)


def subject_text(question: str) -> str | None:
    """X of «what is X»; None when the question asks something else."""
    found = _ASKS_WHAT.match(question)
    return found["subject"].strip(" \"'«»“”‘’") if found else None


def subject_of(question: str) -> Stems | None:
    """The words of X in «what is X», stemmed; None when the question asks something else."""
    text = subject_text(question)
    return stems(text) or None if text else None


def possible_titles(question: str) -> list[str]:
    """Titles that an article on the subject may have: as written, capitalised, in the singular."""
    text = subject_text(question)
    if not text:
        return []
    forms = [text, text.rstrip("s")]
    return list(
        dict.fromkeys(spelled for form in forms for spelled in (form, form[:1].upper() + form[1:], form.title()))
    )


def opens_article_on(passage: Passage, subject: Stems | None) -> bool:
    """Whether this is the beginning of the article whose title is the subject."""
    return subject is not None and passage.index == 0 and set(stems(passage.title)) == set(subject)
