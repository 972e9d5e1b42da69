"""Fit the span reader, the weights that its spans have in the ranking, and the confidence.

    python benchmarks/reader_fit.py ../shared/data/squad            held-out figures and constants
    python benchmarks/reader_fit.py ../shared/data/squad --write    fit on everything, write the weights

The folder holds paragraphs.jsonl, questions.jsonl and unanswerable.jsonl. The first run lets the transformer read some
12,000 pairs and keeps what it makes of them (``--cache``, 2 GB); a training takes minutes. Held out means that a
network answers only questions about articles that it was not trained on.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from benchmarks.reader_data import Asked, Example, load
from benchmarks.reader_network import train
from benchmarks.recall_fit import auroc, fit_confidence, minimise
from evaluation.scores import contains, token_f1
from tools import reader
from tools.evidence import Evidence, with_spans
from tools.span_network import NetworkInput, SpanNetwork, TokenScores
from tools.span_reader import WEIGHTS, PassageSpans

if TYPE_CHECKING:
    Floats = NDArray[np.float64]

SHARES = {"answerable": 1900, "unanswerable": 900}
"""Examples of an epoch."""


def examples(asked: Sequence[Asked]) -> dict[str, list[Example]]:
    """What may be trained on, by kind: the passage that a question was written for, unless its answer was cut off."""
    found: dict[str, list[Example]] = {kind: [] for kind in SHARES}
    for one in asked:
        if one.gold and (one.kind == "unanswerable" or (one.kind == "answerable" and one.gold.tokens()[0] >= 0)):
            found[one.kind].append(one.gold)
    return found


def epochs_of(asked: Sequence[Asked]) -> Callable[[random.Random], list[Example]]:
    """Draws the examples of an epoch."""
    every = examples(asked)

    def sample(choose: random.Random) -> list[Example]:
        return [
            one for kind, share in SHARES.items() for one in choose.sample(every[kind], min(share, len(every[kind])))
        ]

    return sample


def spans_of(network: SpanNetwork, one: Asked) -> list[PassageSpans]:
    """What the network says about the passages that were found."""
    inputs = []
    for each in one.found:
        assert each.asked_features is not None
        assert each.features is not None
        pair = each.pair()
        inputs.append(NetworkInput(pair.question, pair.text, each.asked_features, each.features))
    scores: list[TokenScores] = network(inputs)
    return [PassageSpans(e.text, e.pair().offsets, s) for e, s in zip(one.found, scores, strict=True)]


Read = tuple[Asked, list[PassageSpans]]


def fit_spans(read: Sequence[Read]) -> Floats:
    """``ranking.SPAN_WEIGHTS``: softmax over the sentences of the passages that were read."""
    groups = []
    for one, spans in read:
        rows, right = [], []
        for each, found in zip(one.evidence, spans, strict=False):
            whole = found.best()
            gold = (each.passage.title, each.passage.index) == (one.title, one.paragraph)
            for sentence in each.sentences:
                span = found.best(sentence.start, sentence.end)
                if whole is not None and span is not None:
                    rows.append((sentence.score, span.score, whole.score))
                    right.append(gold and contains(sentence.text, one.answers))
        if any(right):
            groups.append((torch.tensor(np.array(rows)), torch.tensor(right)))

    def loss(weights: torch.Tensor) -> torch.Tensor:
        parts = [
            torch.logsumexp(rows @ weights, 0) - torch.logsumexp((rows @ weights)[right], 0) for rows, right in groups
        ]
        return torch.stack(parts).mean()

    weights = minimise(loss, 3)
    return np.asarray(weights[1:] / weights[0])


def ordered(one: Asked, spans: list[PassageSpans], weights: Floats) -> list[Evidence]:
    """As ``Recall.search`` gives it."""
    return sorted(with_spans(one.evidence, spans, weights.tolist()), key=lambda each: -each.score)


def by_article(read: Sequence[Read], fit: Callable[[list[Read]], Floats]) -> dict[str, Floats]:
    """What is fitted on the other articles, for each article."""
    titles = sorted({one.title for one, _ in read})
    return {title: fit([each for each in read if each[0].title != title]) for title in titles}


def figures(read: Sequence[Read]) -> None:
    """Print held-out figures of networks that have not seen these articles, and the constants from all of them."""
    answerable = [each for each in read if each[0].kind == "answerable"]
    weights = by_article(answerable, fit_spans)
    final = fit_spans(answerable)
    kept = [(one, ordered(one, spans, weights.get(one.title, final))) for one, spans in read]
    plain = [(one, one.evidence) for one, _ in kept]
    for name, group in (("without spans", plain), ("with spans", kept)):
        mine = [(one, evidence) for one, evidence in group if one.kind == "answerable"]
        places = np.array([_rank(one, evidence) for one, evidence in mine])
        readings = [(one, reader.read(one.question, evidence)) for one, evidence in mine]
        f1 = np.mean([token_f1(r.answer, one.answers) for one, r in readings if r])
        sentence = np.mean([contains(r.sentence, one.answers) for one, r in readings if r])
        print(
            f"{name}: {len(mine)} answerable; recall@1 {np.mean(places < 1):.3f} @3 {np.mean(places < 3):.3f}, "
            f"best sentence {sentence:.3f}, F1 {f1:.3f}"
        )
    print("ranking.SPAN_WEIGHTS =", tuple(final.round(3).tolist()))
    _confidence(kept)


def _confidence(kept: Sequence[tuple[Asked, list[Evidence]]]) -> None:
    rows = np.array([reader.span_signals(one.question, evidence) for one, evidence in kept])
    readings = [reader.read(one.question, evidence) for one, evidence in kept]
    right = np.array(
        [
            one.kind == "answerable" and r is not None and contains(r.sentence, one.answers)
            for (one, _), r in zip(kept, readings, strict=True)
        ]
    )
    kinds, titles = np.array([one.kind for one, _ in kept]), np.array([one.title for one, _ in kept])
    held = np.zeros(len(rows))
    for title in sorted(set(titles)):
        train_on = titles != title
        weights = fit_confidence(rows[train_on], right[train_on])
        held[titles == title] = rows[titles == title] @ weights[:-1] + weights[-1]
    sure = 1 / (1 + np.exp(-held))
    can, cannot, off = (sure[kinds == kind] for kind in ("answerable", "unanswerable", "elsewhere"))
    print(
        f"AUROC answerable/unanswerable {auroc(can, cannot):.3f}, /other pages {auroc(can, off):.3f}, right/wrong "
        f"{auroc(sure[right], sure[~right]):.3f}; quantiles of right 5, 10, 20 %: "
        f"{np.quantile(sure[right], [0.05, 0.1, 0.2]).round(3).tolist()}"
    )
    for limit in (0.3, 0.35, 0.4, 0.45, 0.5):
        print(
            f"  at {limit}: right shown {np.mean(sure[right] >= limit):.3f}, unanswerable answered "
            f"{np.mean(cannot >= limit):.3f}, other pages answered {np.mean(off >= limit):.3f}"
        )
    print("reader.SPAN_CONFIDENCE_WEIGHTS, BIAS =", fit_confidence(rows, right).round(3).tolist())


def _rank(one: Asked, evidence: Sequence[Evidence]) -> int:
    keys = [(each.passage.title, each.passage.index) for each in evidence]
    return keys.index((one.title, one.paragraph)) if (one.title, one.paragraph) in keys else 1000


async def run(arguments: argparse.Namespace) -> None:
    """Do what the command line says."""
    torch.set_num_threads(1)
    asked = await load(arguments.data, arguments.cache, elsewhere=400, seed=arguments.seed)
    titles = sorted({one.title for one in asked})
    if arguments.write:
        networks = [train(epochs_of(asked), epochs=arguments.epochs, seed=arguments.seed + n) for n in range(1)]
        arrays = {f"{n}.{name}": array for n, one in enumerate(networks) for name, array in one.arrays().items()}
        np.savez_compressed(arguments.out, allow_pickle=False, **arrays)
        print(f"{arguments.out}: {arguments.out.stat().st_size} bytes")
        return
    read: list[Read] = []
    for fold in range(arguments.folds):
        held = set(titles[fold :: arguments.folds])
        print(f"held out: {', '.join(sorted(held))}", flush=True)
        network = train(
            epochs_of([one for one in asked if one.title not in held]), epochs=arguments.epochs, seed=arguments.seed
        )
        shipped = SpanNetwork(network.arrays())
        read += [(one, spans_of(shipped, one)) for one in asked if one.title in held and one.found]
        if arguments.first_only:
            break
    figures([(replace(one), spans) for one, spans in read])


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "lumina-reader-fit")
    parser.add_argument("--folds", type=int, default=2)
    parser.add_argument("--first-only", action="store_true", help="only the first fold")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--write", action="store_true", help="fit on all articles and write the weights")
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
