"""Measure recall and the reader on SQuAD paragraphs, and fit the weights of the ranking.

    python benchmarks/recall.py ../shared/data/squad          measure with the weights as they are
    python benchmarks/recall.py ../shared/data/squad --fit    fit, held out article by article, and print weights

The folder holds paragraphs.jsonl, questions.jsonl and unanswerable.jsonl. ``--cache FILE.npz`` keeps the embeddings
between runs. All paragraphs are pooled in one collection of the embedded engine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))

from evaluation.scores import auroc, contains, token_f1
from memory.indexer import Indexer
from memory.passages import Passage
from memory.streams import Event
from memory.vectors import Mode, open_vectors
from models.embeddings import Embedder
from tools import reader
from tools.evidence import Evidence
from tools.recall import Recall
from tools.token_match import token_matcher

OWNER = "benchmark"
LIMIT = 5
"""Passages asked for, as an answer does."""


class CachedEmbedder:
    """The default embedder with its vectors in a file."""

    def __init__(self, embedder: Embedder, file: Path | None) -> None:
        self._embedder, self._file = embedder, file
        self._known: dict[str, NDArray[np.float32]] = {}
        if file and file.exists():
            with np.load(file) as kept:
                self._known = dict(zip(kept["texts"].tolist(), kept["vectors"], strict=True))

    @property
    def dimensions(self) -> int:
        return self._embedder.dimensions

    async def encode(
        self, texts: Sequence[str], *, query: bool = False, urgent: bool | None = None
    ) -> NDArray[np.float32]:
        missing = [text for text in dict.fromkeys(texts) if text not in self._known]
        if missing:
            vectors = await self._embedder.encode(missing, query=query, urgent=urgent)
            self._known.update(zip(missing, vectors, strict=True))
        return np.stack([self._known[text] for text in texts])

    def save(self) -> None:
        if self._file:
            np.savez(self._file, texts=np.array(list(self._known)), vectors=np.stack(list(self._known.values())))


class Silent:
    """Progress that nobody watches."""

    async def indexed(self, passages: Sequence[Passage]) -> None: ...

    async def embedded(self, passages: Sequence[Passage]) -> None: ...


@dataclass
class Delivered:
    event: Event


@dataclass
class Asked:
    """A question and what was found for it."""

    title: str
    answers: list[str]
    paragraph: int
    question: str
    evidence: list[Evidence]
    seconds: float

    @property
    def rank(self) -> int:
        for n, one in enumerate(self.evidence):
            if (one.passage.title, one.passage.index) == (self.title, self.paragraph):
                return n
        return 1000

    @property
    def sureness(self) -> float:
        reading = reader.read(self.question, self.evidence)
        return reading.confidence if reading else 0.0

    def hit(self, sentence: str) -> bool:
        return contains(sentence, self.answers)


def rows(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]


def passages(folder: Path) -> list[Passage]:
    return [
        Passage(
            owner=OWNER,
            source="squad",
            title=row["title"],
            url=f"squad:{row['title']}#{row['paragraph']}",
            revision="1",
            section=(),
            text=row["context"],
            start=0,
            end=len(row["context"]),
            index=row["paragraph"],
        )
        for row in rows(folder, "paragraphs")
    ]


async def ask(
    recall: Recall, row: dict[str, Any], mode: Mode, limit: int, titles: Sequence[str] | None = None
) -> Asked:
    start = time.perf_counter()
    evidence = await recall.search(row["question"], owner=OWNER, limit=limit, mode=mode, titles=titles)
    seconds = time.perf_counter() - start
    return Asked(row["title"], row["answers"], row["paragraph"], row["question"], evidence, seconds)


def report(name: str, answered: list[Asked], unanswerable: list[Asked], elsewhere: list[Asked]) -> None:
    ranks = np.array([one.rank for one in answered])
    readings = [reader.read(one.question, one.evidence) for one in answered]
    read = [(one, reading) for one, reading in zip(answered, readings, strict=True) if reading]
    sentence = np.mean([one.hit(reading.sentence) for one, reading in read])
    right = np.array([reading.confidence for one, reading in read if one.hit(reading.sentence)])
    f1 = np.mean([token_f1(reading.answer, one.answers) for one, reading in read])
    sure, unsure, off = (np.array([one.sureness for one in group]) for group in (answered, unanswerable, elsewhere))
    known = reader.ABSTAIN_BELOW
    times = sorted(one.seconds for one in answered)
    print(
        f"{name}: {len(answered)} answerable, {len(unanswerable)} unanswerable, {len(elsewhere)} about other pages\n"
        f"  recall@1 {np.mean(ranks < 1):.3f}  recall@3 {np.mean(ranks < 3):.3f}  recall@5 {np.mean(ranks < 5):.3f}"
        f"  MRR {np.mean(1 / (1 + ranks)):.3f}\n"
        f"  best sentence holds a gold answer {sentence:.3f}  short answer token F1 {f1:.3f}\n"
        f"  AUROC answerable/unanswerable {auroc(sure, unsure):.3f}, answerable/other pages {auroc(sure, off):.3f}\n"
        f"  confidence of right sentences, 10 % quantile {np.quantile(right, 0.1):.3f}; answered at {known}: right "
        f"{np.mean(right >= known):.3f}, unanswerable {np.mean(unsure >= known):.3f}, other pages "
        f"{np.mean(off >= known):.3f}\n"
        f"  seconds p50 {times[len(times) // 2]:.3f} p95 {times[int(len(times) * 0.95)]:.3f}"
    )


async def run(arguments: argparse.Namespace) -> None:
    choose = random.Random(arguments.seed)
    answerable = rows(arguments.data, "questions")
    impossible = rows(arguments.data, "unanswerable")
    answerable = choose.sample(answerable, min(arguments.questions, len(answerable)))
    impossible = choose.sample(impossible, min(arguments.unanswerable, len(impossible)))
    async with Embedder() as model:
        await model.load()
        embedder = CachedEmbedder(model, arguments.cache)
        with tempfile.TemporaryDirectory() as folder:
            async with open_vectors(
                None,
                Path(folder),
                collection="passages",
                dimensions=embedder.dimensions,
                model="benchmark",
                payload_indexes=("owner", "title"),
            ) as vectors:
                indexer = Indexer(vectors, embedder, Silent())
                every = passages(arguments.data)
                event = Event("passages.add", {"passages": [passage.to_dict() for passage in every]})
                await indexer.handle([Delivered(event)])
                start = time.perf_counter()
                while arguments.embed and await indexer.embed_pending():
                    pass
                print(f"{len(every)} passages embedded in {time.perf_counter() - start:.1f} s")
                recall = Recall(vectors, embedder, tokens=None if arguments.fit else token_matcher(model))
                titles = sorted({passage.title for passage in every})
                for mode in arguments.retriever:
                    found = [await ask(recall, row, mode, LIMIT) for row in answerable]
                    if arguments.fit:
                        from benchmarks.recall_fit import fit  # torch, for fitting only

                        fit(found)
                        continue
                    without = [await ask(recall, row, mode, LIMIT) for row in impossible]
                    elsewhere = [
                        await ask(recall, row, mode, LIMIT, [title for title in titles if title != row["title"]])
                        for row in answerable[: len(impossible)]
                    ]
                    report(mode, found, without, elsewhere)
        embedder.save()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--questions", type=int, default=300)
    parser.add_argument("--unanswerable", type=int, default=150)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--retriever", nargs="+", choices=["hybrid", "dense", "sparse"], default=["hybrid"])
    parser.add_argument("--cache", type=Path, help="npz file that keeps the embeddings")
    parser.add_argument("--no-embed", dest="embed", action="store_false", help="ask before phase 2 has run")
    parser.add_argument("--fit", action="store_true")
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
