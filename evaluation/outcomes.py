"""What came out for each question, and the figures over all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evaluation.scores import auroc, contains, exact_match, mean, quantile, share, token_f1

Key = tuple[str, int]
"""Title and number of a paragraph."""
DEPTH = 10
"""Paragraphs that are looked at for recall."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One question, asked of one system."""

    id: str
    question: str
    answers: Sequence[str]
    """Gold; empty for an unanswerable question."""
    paragraph: Key
    """What the question was written for."""
    found: Sequence[Key]
    """Paragraphs in the system's order, each once, at most ``DEPTH``."""
    best: str | None
    """The short answer that the system thinks most likely, shown or not; None where it has none."""
    sentence: str | None
    """The sentence that it stands in, shown or not; None where the system does not choose one."""
    answer: str | None
    """What was said, a refusal too; None where the system says nothing without a model that is not used."""
    cited: str | None
    """Text of the passage that the answer cites first; None where it cites none."""
    abstained: bool
    confidence: float | None
    seconds: float
    tokens_in: int = 0
    tokens_out: int = 0


FIGURES: Mapping[str, str] = {
    "recall@1": "the question's paragraph comes first",
    "recall@3": "it is among the first three",
    "recall@10": "it is among the first ten",
    "mrr": "mean of 1/rank, 0 beyond ten",
    "sentence": "the sentence of the main citation holds a gold answer, shown or not",
    "containment": "what is said holds a gold answer; a refusal does not",
    "exact_match": "the likeliest short answer is a gold answer",
    "f1": "words it shares with a gold answer",
    "exact_match_shown": "the same, a refusal counting as wrong",
    "f1_shown": "the same, a refusal counting as wrong",
    "citation": "of the answers given to answerable questions: the passage cited first holds a gold answer",
    "abstention_precision": "of the refusals: the question was unanswerable",
    "abstention_recall": "of the unanswerable questions: it was refused",
    "auroc": "a random answerable question gets a higher confidence than a random unanswerable one",
    "p50_s": "median seconds a question",
    "p95_s": "95 % quantile of the seconds",
    "tokens_in": "tokens that the chat model read, a question",
    "tokens_out": "tokens that it wrote, a question",
}
"""What is reported, and what it means."""


def figures(outcomes: Sequence[Outcome]) -> dict[str, float | None]:
    """``FIGURES`` of these outcomes; None where there is nothing to count, or the system does no such thing."""
    possible = [one for one in outcomes if one.answers]
    impossible = [one for one in outcomes if not one.answers]
    ranks = [one.found.index(one.paragraph) + 1 if one.paragraph in one.found else None for one in possible]
    guessed = [one for one in possible if one.best is not None]
    chosen = [one for one in possible if one.sentence is not None]
    said = [one for one in possible if one.answer is not None]
    cited = [one for one in possible if one.cited is not None and not one.abstained]
    refuses = any(one.answer is not None for one in outcomes)
    refused = [not one.answers for one in outcomes if one.abstained]
    sure = [[one.confidence for one in group if one.confidence is not None] for group in (possible, impossible)]
    seconds = [one.seconds for one in outcomes]
    return {
        "recall@1": share([rank == 1 for rank in ranks]),
        "recall@3": share([rank is not None and rank <= 3 for rank in ranks]),
        "recall@10": share([rank is not None and rank <= DEPTH for rank in ranks]),
        "mrr": mean([1 / rank if rank and rank <= DEPTH else 0.0 for rank in ranks]),
        "sentence": share([contains(one.sentence or "", one.answers) for one in chosen]),
        "containment": share([not one.abstained and contains(one.answer or "", one.answers) for one in said]),
        "exact_match": share([exact_match(one.best or "", one.answers) for one in guessed]),
        "f1": mean([token_f1(one.best or "", one.answers) for one in guessed]),
        "exact_match_shown": share([not one.abstained and exact_match(one.best or "", one.answers) for one in guessed]),
        "f1_shown": mean([0.0 if one.abstained else token_f1(one.best or "", one.answers) for one in guessed]),
        "citation": share([contains(one.cited or "", one.answers) for one in cited]),
        "abstention_precision": share(refused) if refuses else None,
        "abstention_recall": share([one.abstained for one in impossible]) if refuses else None,
        "auroc": auroc(*sure),
        "p50_s": quantile(seconds, 0.5),
        "p95_s": quantile(seconds, 0.95),
        "tokens_in": mean([one.tokens_in for one in outcomes]),
        "tokens_out": mean([one.tokens_out for one in outcomes]),
    }
