"""Bridges: from the evidence for what a question describes to the article that says what is asked of it.

A question such as «where was the man after whom the Julia set is named born?» finds the sentence that has the words of
its description; «born» is left over. The article that this sentence names is the bridge, and the question is asked
again with that name in the place of the description (bridge questions as in HotpotQA, Yang et al. 2018; the rewriting
follows DecompRC, Min et al. 2019, without its trained parts).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from tools.descriptions import Described, Split, descriptions, split
from tools.evidence import Evidence, Sentence
from tools.lexical import stems

DESCRIBED = 0.6
"""Share of a description's words that the evidence has to have, in a sentence, its title and the sentence before."""
LEFT_OVER = 0.5
"""Share of what is asked that the best sentence must lack; one that says more answers by itself."""


def steps(question: str, evidence: Sequence[Evidence]) -> list[Split]:
    """How a question may go in two steps, most likely first; none for a question that one sentence answers.

    Args:
        question: As it was asked.
        evidence: What was found for it.
    """
    if not evidence:
        return []
    top = max(evidence, key=lambda one: one.score)
    said = set(stems(top.passage.title)) | set(stems(top.best_sentence.text))
    found = []
    for description in descriptions(question):
        splits = [
            ((made.found, sentence.score), made)
            for one in evidence
            for sentence, there in _with_context(one)
            if (made := split(description, there))
        ]
        best = max(splits, key=lambda pair: pair[0])[1] if splits else None
        if best and best.coverage >= DESCRIBED and len(best.asked - said) > LEFT_OVER * len(best.asked):
            found.append(best)
    return found


def _with_context(one: Evidence) -> list[tuple[Sentence, frozenset[int]]]:
    """Each sentence with the stems of itself, the sentence before and the title."""
    title, before, found = set(stems(one.passage.title)), set[int](), []
    for sentence in one.sentences:
        words = set(stems(sentence.text))
        found.append((sentence, frozenset(words | title | before)))
        before = words
    return found


_QUALIFIER = re.compile(r"\s*\([^)]*\)$")
_PERSONAL = re.compile(
    r"(?:[A-ZÀ-Ž][\w.'’-]*|(?:de|der|di|du|la|le|van|von|of))(?:\s+(?:[A-ZÀ-Ž][\w.'’-]*|de|der|di|du|la|le|van|von|of))+$"
)


def spoken(title: str) -> str:
    """A title as people say it, without «(mathematician)»."""
    return _QUALIFIER.sub("", title)


def _is_personal(title: str) -> bool:
    return bool(_PERSONAL.match(spoken(title)))


def _fits(title: str, kind: Described) -> bool:
    """Whether a title may be the name of such a thing: people's names are capitalised in every word."""
    return kind is Described.PLACE or _is_personal(title) == (kind is Described.PERSON)


def bridges(question: str, split: Split, title: str, sentence: str, links: Sequence[str]) -> list[str]:
    """Titles of the articles that may be on what a question describes, most likely first.

    The page itself where the question does not name it, then the pages that the sentence names.

    Args:
        question: As it was asked.
        split: Its two steps.
        title: Of the page that the sentence is from.
        sentence: Says which thing the question describes.
        links: What the page links to.
    """
    asked, kind = question.lower(), split.description.kind
    linked = named_links(sentence, [link for link in links if link != title], besides=(title,))
    return [name for name in (title, *linked) if _fits(name, kind) and spoken(name).lower() not in asked]


def named_links(sentence: str, links: Sequence[str], besides: Sequence[str] = ()) -> list[str]:
    """Those of the links that a sentence names, in its order.

    A longer name goes first, so that «Mandelbrot set» does not name Mandelbrot. People are named by their last name
    too, for an encyclopaedia has the whole name, and the link, only once in an article.

    Args:
        sentence: The sentence.
        links: Titles.
        besides: Titles that are looked for and not returned.
    """
    left, places = sentence, dict[str, int]()
    forms = [(spoken(title), title) for title in (*links, *besides)]
    last = [(name.rpartition(" ")[2], title) for name, title in forms if _is_personal(title)]
    for name, title in (*sorted(forms, key=lambda form: -len(form[0])), *last):
        if title in places:
            continue
        flags = 0 if name[:1].isupper() and (name, title) in last else re.IGNORECASE
        found = re.search(rf"\b{re.escape(name)}(?:s|es)?\b", left, flags)
        if found:
            places[title] = found.start()
            left = left[: found.start()] + "\0" * len(found.group()) + left[found.end() :]
    return sorted((title for title in places if title not in besides), key=places.__getitem__)
