"""Summaries of the rest of each article against its lead: Lumina's, lead-k, random sentences, and a bound."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from langchain_core.runnables import RunnableConfig

from agents.context import Context
from agents.summarise import SummariseInput, write_summary
from evaluation.articles import OWNER, HeldOut
from evaluation.rouge import Rouge, of_sentences, of_text
from evaluation.scores import mean, quantile
from tools.evidence import Evidence, Sentence
from tools.grounding import ground
from tools.reader import supported
from tools.splitter import sentences

Method = Literal["extract", "map_reduce"]
LUMINA, LEAD, RANDOM, BOUND = "Lumina", "lead", "random", "bound"
RESAMPLES = 2_000
"""Bootstrap samples of the articles."""
BOUND_POOL = 40
"""Sentences that the bound tries, those first that share most with the lead."""


@dataclass(frozen=True, slots=True)
class SummaryOutcome:
    """One article, summarised by one system."""

    title: str
    url: str
    text: str
    """The sentences without citation marks."""
    sentences: int
    words: int
    """Between white space."""
    precision: float
    recall: float
    f1: float
    """ROUGE-L, each text one sequence."""
    f1_sentences: float
    """ROUGE-L, sentence by sentence."""
    f1_same_words: float
    """ROUGE-L of the text cut to as many words as the shorter of Lumina's and lead-k's has."""
    supported: int
    """Sentences whose words stand at one place of the article that retrieval finds."""
    cited: int | None
    """Sentences whose words stand in the passage that they cite, at the article's revision; None without citations."""
    verbatim: int
    """Sentences that stand in the article word for word."""
    nearness: float
    """Mean cosine of the sentences with the article's nearest ones."""
    method: str = ""
    """How Lumina made it: extract where a model's text did not hold."""
    dropped: int = 0
    replaced: int = 0
    seconds: float = 0.0
    tokens_in: int = 0
    tokens_out: int = 0


FIGURES: Mapping[str, str] = {
    "f1": "ROUGE-L F1 with the lead",
    "f1_low": "lower end of its 95 % interval over the articles (bootstrap)",
    "f1_high": "upper end",
    "precision": "of the summary's words, those in the longest common subsequence",
    "recall": "of the lead's words, those in it",
    "f1_sentences": "ROUGE-L F1 sentence by sentence, whatever their order",
    "f1_same_words": "ROUGE-L F1, cut to as many words as the shorter of Lumina's and lead's summary has",
    "gain": "mean difference of F1 from lead, article by article",
    "gain_low": "lower end of its interval",
    "gain_high": "upper end",
    "gain_same_words": "mean difference of F1 from lead, cut to the same words",
    "gain_same_words_low": "lower end of its interval",
    "gain_same_words_high": "upper end",
    "wins": "articles with a higher F1 than lead's, ties half",
    "supported": "sentences that retrieval finds in the article",
    "cited": "sentences that stand in the passage they cite",
    "verbatim": "sentences that stand in the article word for word",
    "nearness": "mean cosine of a sentence with the article's nearest one",
    "by_model": "summaries that are shown in the chat model's words",
    "dropped": "sentences of the model that the article does not support, a summary",
    "replaced": "of these: the article's own sentence is shown instead, a summary",
    "sentences": "a summary",
    "words": "a summary",
    "p50_s": "median seconds a summary",
    "tokens_in": "tokens that the chat model read, a summary",
    "tokens_out": "tokens that it wrote, a summary",
}
"""What is reported, and what it means."""
SHARES = (
    *("f1", "precision", "recall", "f1_sentences", "f1_same_words", "wins"),
    *("supported", "cited", "verbatim", "nearness", "by_model"),
)
"""Figures between 0 and 1, which are drawn."""


async def summarise(
    context: Context,
    articles: Sequence[HeldOut],
    *,
    method: Method,
    length: int,
    seed: int,
    progress: Callable[[int], None],
) -> dict[str, list[SummaryOutcome]]:
    """Summarise each article without its lead, by each system, in as many sentences.

    Args:
        context: Open services.
        articles: The articles.
        method: How Lumina does it; see ``SummariseInput``.
        length: Sentences of a summary.
        seed: Of the random sentences.
        progress: Told after each article.
    """
    names = [f"{LUMINA}, {method}", *(f"{name}-{length}" for name in (LEAD, RANDOM, BOUND))]
    outcomes: dict[str, list[SummaryOutcome]] = {name: [] for name in names}
    for number, article in enumerate(articles, 1):
        start = time.perf_counter()
        request = SummariseInput(topic=article.title, method=method, max_sentences=length, owner=OWNER)
        output = await write_summary(context, request, article.passages, RunnableConfig())
        seconds = time.perf_counter() - start
        said = statements(output.text)
        own = [one.text for one in article.rest]
        texts = [
            [text for text, _ in said],
            own[:length],
            chosen_at_random(own, length, f"{seed} {article.title}"),
            bound(article.lead, own, length),
        ]
        room = min(len(" ".join(text).split()) for text in texts[:2])
        made = [await _outcome(context, article, text, room) for text in texts]
        cites = {one.number: one for one in output.citations}
        made[0] = replace(
            made[0],
            cited=sum(_stands_in(text, article, cites[at].passage_id, cites[at].revision) for text, at in said),
            method=output.method,
            dropped=output.dropped,
            replaced=output.replaced,
            seconds=seconds,
            tokens_in=output.usage.input_tokens,
            tokens_out=output.usage.output_tokens,
        )
        for name, one in zip(names, made, strict=True):
            outcomes[name].append(one)
        progress(number)
    return outcomes


async def _outcome(context: Context, article: HeldOut, texts: Sequence[str], room: int) -> SummaryOutcome:
    text = " ".join(texts)
    rouge = of_text(article.lead, text)
    lead = [article.lead[start:end] for start, end in sentences(article.lead)]
    checked = await ground(texts, article.rest, context.embedder)
    return SummaryOutcome(
        title=article.title,
        url=article.url,
        text=text,
        sentences=len(texts),
        words=len(text.split()),
        precision=rouge.precision,
        recall=rouge.recall,
        f1=rouge.f1,
        f1_sentences=of_sentences(lead, texts).f1,
        f1_same_words=cut(article.lead, text, room).f1,
        supported=sum(one.passage is not None for one in checked),
        cited=None,
        verbatim=sum(any(one in passage.text for passage in article.passages) for one in texts),
        nearness=mean([one.nearness for one in checked]) or 0.0,
    )


def statements(text: str) -> list[tuple[str, int]]:
    """The sentences of a summary, each with the number of its citation."""
    pieces = re.split(r" \[(\d+)\](?: |$)", text)
    return [(piece, int(number)) for piece, number in zip(pieces[0::2], pieces[1::2], strict=False)]


def chosen_at_random(own: Sequence[str], length: int, seed: str) -> list[str]:
    """So many sentences, in the article's order."""
    places = random.Random(seed).sample(range(len(own)), min(length, len(own)))
    return [own[place] for place in sorted(places)]


def bound(lead: str, own: Sequence[str], length: int) -> list[str]:
    """Sentences chosen one by one with the lead in view: about the most that an extract can reach."""

    def f1(places: Sequence[int]) -> float:
        return of_text(lead, " ".join(own[place] for place in sorted(places))).f1

    pool = sorted(range(len(own)), key=lambda place: -f1([place]))[:BOUND_POOL]
    chosen: list[int] = []
    for _ in range(min(length, len(pool))):
        tried = {place: f1([*chosen, place]) for place in pool if place not in chosen}
        chosen.append(max(tried, key=tried.__getitem__))
    return [own[place] for place in sorted(chosen)]


def cut(lead: str, text: str, room: int) -> Rouge:
    """ROUGE-L of the first ``room`` words, as white space has them."""
    return of_text(lead, " ".join(text.split()[:room]))


def _stands_in(text: str, article: HeldOut, passage_id: str, revision: str) -> bool:
    passage = next((one for one in article.passages if one.id == passage_id and one.revision == revision), None)
    if passage is None:
        return False
    borders = tuple(Sentence(at, to, passage.text[at:to], 0.0, ()) for at, to in sentences(passage.text))
    return supported(text, [Evidence(passage, 0.0, borders, 0)]).holds


def figures(outcomes: Sequence[SummaryOutcome], lead: Sequence[SummaryOutcome]) -> dict[str, float | None]:
    """``FIGURES`` of these outcomes; ``lead`` are lead-k's for the same articles.

    Intervals are percentile bootstraps over the articles (Efron 1979), with a seed of their own.
    """
    gains = [one.f1 - other.f1 for one, other in zip(outcomes, lead, strict=True)]
    same = [one.f1_same_words - other.f1_same_words for one, other in zip(outcomes, lead, strict=True)]
    total = sum(one.sentences for one in outcomes)
    cites = any(one.cited is not None for one in outcomes)
    asked = any(one.tokens_in for one in outcomes)
    timed = any(one.seconds for one in outcomes)

    def of_all(count: int) -> float | None:
        return count / total if total else None

    values: dict[str, float | None] = {
        "f1": mean([one.f1 for one in outcomes]),
        "precision": mean([one.precision for one in outcomes]),
        "recall": mean([one.recall for one in outcomes]),
        "f1_sentences": mean([one.f1_sentences for one in outcomes]),
        "f1_same_words": mean([one.f1_same_words for one in outcomes]),
        "gain": mean(gains),
        "gain_same_words": mean(same),
        "wins": mean([(gain > 0) + (gain == 0) / 2 for gain in gains]),
        "supported": of_all(sum(one.supported for one in outcomes)),
        "cited": of_all(sum(one.cited or 0 for one in outcomes)) if cites else None,
        "verbatim": of_all(sum(one.verbatim for one in outcomes)),
        "nearness": mean([one.nearness for one in outcomes]),
        "by_model": mean([one.method == "map_reduce" for one in outcomes]) if asked else None,
        "dropped": mean([one.dropped for one in outcomes]) if asked else None,
        "replaced": mean([one.replaced for one in outcomes]) if asked else None,
        "sentences": mean([one.sentences for one in outcomes]),
        "words": mean([one.words for one in outcomes]),
        "p50_s": quantile([one.seconds for one in outcomes], 0.5) if timed else None,
        "tokens_in": mean([one.tokens_in for one in outcomes]) if asked else None,
        "tokens_out": mean([one.tokens_out for one in outcomes]) if asked else None,
    }
    for name, each in (("f1", [one.f1 for one in outcomes]), ("gain", gains), ("gain_same_words", same)):
        values[f"{name}_low"], values[f"{name}_high"] = interval(each)
    return {name: values[name] for name in FIGURES}


def interval(values: Sequence[float]) -> tuple[float | None, float | None]:
    """The middle 95 % of the means of samples drawn with replacement; (None, None) of nothing."""
    if not values:
        return None, None
    drawn = np.random.default_rng(1).integers(0, len(values), (RESAMPLES, len(values)))
    low, high = np.quantile(np.asarray(values)[drawn].mean(axis=1), (0.025, 0.975))
    return float(low), float(high)
