"""Fit the reader: its confidence and its span reader; and measure both held out.

    python benchmarks/reader_fit.py ../shared/data/squad            held-out figures
    python benchmarks/reader_fit.py ../shared/data/squad --write    fit on everything, write the span reader's weights

The folder holds paragraphs.jsonl, questions.jsonl and unanswerable.jsonl. The first run asks all questions, lets the
transformer read 2,500 pairs and keeps both (``--cache``, 0.4 GB); a training takes minutes. Held out means that nothing
answers a question about an article that it was fitted on. The confidence is seven numbers, printed for
``tools/reader.py``; the span reader goes into a file.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from benchmarks.reader_confidence import confidence
from benchmarks.reader_data import Asked, Example, ask_all, default_cache, with_states
from benchmarks.reader_network import train
from evaluation.scores import exact_match, token_f1
from tools import reader
from tools.evidence import with_spans
from tools.span_network import NetworkInput, SpanNetwork, TokenScores
from tools.span_reader import WEIGHTS, PassageSpans

ELSEWHERE = 700
"""Questions asked while their article is not in memory."""


def examples(asked: Sequence[Asked]) -> list[Example]:
    """What may be trained on: the passage that a question was written for, unless its answer was cut off."""
    return [one.gold for one in asked if one.kind == "answerable" and one.gold and one.gold.tokens()[0] >= 0]


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


def figures(read: Sequence[Read]) -> None:
    """Print held-out figures: of networks that have not seen these articles, the passages found and not given."""
    for kind in ("cues", "spans"):
        scores = []
        for one, spans in read:
            evidence = list(one.evidence)
            if kind == "spans":
                evidence[0] = with_spans(evidence[0], spans[0])
            reading = reader.read(one.question, evidence)
            answer = reading.answer if reading else ""
            scores.append((exact_match(answer, one.answers), token_f1(answer, one.answers)))
        match, f1 = np.mean(scores, axis=0)
        print(f"{kind}: {len(scores)} answerable, exact match {match:.3f}, F1 {f1:.3f}")


async def run(arguments: argparse.Namespace) -> None:
    """Do what the command line says."""
    torch.set_num_threads(1)  # the same sums in the same order on every run
    asked = await ask_all(arguments.data, arguments.cache, elsewhere=ELSEWHERE, seed=arguments.seed)
    confidence(asked)
    if arguments.confidence_only:
        return
    asked = [one for one in await with_states(asked, arguments.cache) if one.kind == "answerable"]
    if arguments.write:
        network = train(examples(asked), epochs=arguments.epochs, seed=arguments.seed)
        np.savez_compressed(
            arguments.out, allow_pickle=False, **{f"0.{name}": array for name, array in network.arrays().items()}
        )
        print(f"{arguments.out}: {arguments.out.stat().st_size} bytes")
        return
    titles = sorted({one.title for one in asked})
    read: list[Read] = []
    folds = [set(titles[n :: arguments.folds]) for n in range(arguments.folds)]
    for held in [set(arguments.held)] if arguments.held else folds:
        print(f"held out: {', '.join(sorted(held))}", flush=True)
        network = train(
            examples([one for one in asked if one.title not in held]), epochs=arguments.epochs, seed=arguments.seed
        )
        shipped = SpanNetwork(network.arrays())
        read += [(one, spans_of(shipped, one)) for one in asked if one.title in held and one.found]
    figures(read)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--cache", type=Path, default=default_cache(), help="folder of what was found and read")
    parser.add_argument("--folds", type=int, default=2)
    parser.add_argument("--held", nargs="+", metavar="TITLE", help="one fold only: hold these articles out")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--confidence-only", action="store_true", help="no span reader: minutes instead of an hour")
    parser.add_argument("--write", action="store_true", help="fit on all articles and write the span reader's weights")
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
