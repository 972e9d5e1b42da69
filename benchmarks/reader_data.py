"""What the reader is fitted on: questions with the passages that recall finds for them, read by the transformer.

Asking 4,400 questions and reading 2,500 pairs takes minutes, so that both are kept in a folder (0.4 GB) between runs.
"""

from __future__ import annotations

import hashlib
import pickle
import random
import re
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.recall import OWNER, CachedEmbedder, Delivered, Silent, passages, rows
from memory.indexer import Indexer
from memory.streams import Event
from memory.vectors import open_vectors
from models.embeddings import Embedder
from models.pair_states import PairStates
from tools.evidence import Evidence
from tools.lexical import stems
from tools.recall import Recall
from tools.span_features import question_features, text_features
from tools.splitter import sentences
from tools.token_match import token_matcher

TOP = 1
"""Passages read of what recall finds, as an answer does."""
SLICE = 16
WINDOW = 90
"""Tokens of a text that are trained on at a time: twice as fast as whole passages, and windows of a passage without its
answer teach what no answer is."""
WITH_ANSWER = 0.85
"""Share of the windows of an answerable question that hold its answer."""
HIDDEN = 384
Key = tuple[str, int]


@dataclass
class Example:
    """A question with one passage."""

    question: str
    text: str
    key: Key
    span: tuple[int, int] | None
    """The gold answer in the text; None where there is none."""
    place: int = 0
    """Where its states begin in the file."""
    asked_offsets: NDArray[np.int64] | None = None
    offsets: NDArray[np.int64] | None = None
    asked_features: NDArray[np.float32] | None = None
    features: NDArray[np.float32] | None = None
    states: NDArray[np.float16] | None = None
    window: tuple[int, int | None] = (0, None)
    """The tokens of the text that are trained on."""

    def part(self, choose: random.Random) -> Example:
        """The same, cut to a window: mostly one with the answer, else one where the question's words are."""
        assert self.features is not None
        size = len(self.features)
        first, last = self.tokens()
        if first >= 0 and choose.random() < WITH_ANSWER:
            begin = choose.randint(max(0, last + 1 - WINDOW), max(first, last + 1 - WINDOW))
        else:
            hits = np.flatnonzero(self.features[:, 0]).tolist() or [size // 2]
            begin = choose.choice(hits) - choose.randrange(WINDOW)
        begin = max(0, min(begin, size - WINDOW))
        return replace(self, window=(begin, begin + WINDOW))

    def tokens(self) -> tuple[int, int]:
        """The span in tokens, first and last; (-1, -1) where there is none or it was cut off."""
        if self.span is None or self.offsets is None:
            return -1, -1
        start, end = self.span
        offsets = self.offsets[slice(*self.window)]
        first = np.flatnonzero((offsets[:, 0] <= start) & (start < offsets[:, 1]))
        last = np.flatnonzero((offsets[:, 0] < end) & (end <= offsets[:, 1]))
        return (int(first[0]), int(last[0])) if len(first) and len(last) else (-1, -1)

    def pair(self) -> PairStates:
        """As the embedder gave it."""
        assert self.states is not None
        assert self.asked_offsets is not None
        assert self.offsets is not None
        cut = len(self.asked_offsets)
        states = self.states.astype(np.float32)
        return PairStates(
            states[:cut], states[cut:][slice(*self.window)], self.asked_offsets, self.offsets[slice(*self.window)]
        )


@dataclass
class Asked:
    """A question, what recall found, and its examples."""

    kind: str
    """answerable, unanswerable, or elsewhere (its article is not in memory)."""
    title: str
    paragraph: int
    question: str
    answers: list[str]
    evidence: list[Evidence]
    found: list[Example]
    """One for each of the first passages found."""
    gold: Example | None
    """The passage it was written for; one of ``found`` when it was found."""


def gold_span(question: str, answers: Sequence[str], text: str) -> tuple[int, int] | None:
    """Where the answer stands: in the sentence that shares most words with the question, the commonest answer first."""
    asked, votes = set(stems(question)), Counter(answers)
    borders = sentences(text)
    best: tuple[tuple[int, int, int], tuple[int, int]] | None = None
    for answer in sorted(set(answers)):
        for match in re.finditer(re.escape(answer), text):
            around = next((text[s:e] for s, e in borders if s <= match.start() < e), "")
            rank = (len(asked.intersection(stems(around))), votes[answer], -len(answer))
            if best is None or rank > best[0]:
                best = rank, match.span()
    return best[1] if best else None


async def collect(data: Path, *, elsewhere: int, seed: int) -> list[Asked]:
    """Ask recall every question, and the passages of each as examples without states."""
    choose = random.Random(seed)
    every = passages(data)
    texts = {(one.title, one.index): one.text for one in every}
    answerable, impossible = rows(data, "questions"), rows(data, "unanswerable")
    tasks: list[tuple[str, dict[str, Any]]] = [("answerable", row) for row in answerable]
    tasks += [("unanswerable", row) for row in impossible]
    tasks += [("elsewhere", row) for row in choose.sample(answerable, min(elsewhere, len(answerable)))]
    titles = sorted({one.title for one in every})
    asked = []
    async with Embedder() as model:
        await model.load()
        embedder = CachedEmbedder(model, None)
        with tempfile.TemporaryDirectory() as folder:
            async with open_vectors(
                None, Path(folder), collection="passages", dimensions=embedder.dimensions, model="fit"
            ) as vectors:
                indexer = Indexer(vectors, embedder, Silent())
                event = Event("passages.add", {"passages": [passage.to_dict() for passage in every]})
                await indexer.handle([Delivered(event)])
                while await indexer.embed_pending():
                    pass
                recall = Recall(vectors, embedder, tokens=token_matcher(model))
                for kind, row in tasks:
                    where = [title for title in titles if title != row["title"]] if kind == "elsewhere" else None
                    evidence = await recall.search(row["question"], owner=OWNER, limit=5, titles=where)
                    asked.append(_asked(kind, row, evidence, texts))
    return asked


def _asked(kind: str, row: dict[str, Any], evidence: list[Evidence], texts: dict[Key, str]) -> Asked:
    key = (row["title"], row["paragraph"])
    question = row["question"]
    span = gold_span(question, row["answers"], texts[key]) if kind == "answerable" else None
    gold = None if kind == "elsewhere" else Example(question, texts[key], key, span)
    found = []
    for one in evidence[:TOP]:
        here = (one.passage.title, one.passage.index)
        found.append(gold if gold and here == key else Example(question, one.passage.text, here, None))
    return Asked(kind, row["title"], row["paragraph"], question, row["answers"], evidence, found, gold)


async def read_states(asked: Sequence[Asked], file: Path) -> None:
    """Let the transformer read every example; the states go to the file, the rest into the examples."""
    every = {id(one): one for each in asked for one in examples_of(each)}
    ordered = sorted(every.values(), key=lambda one: len(one.text))
    place, start = 0, time.perf_counter()
    async with Embedder() as model:
        with file.open("wb") as out:
            for begin in range(0, len(ordered), SLICE):
                part = ordered[begin : begin + SLICE]
                for one, states in zip(part, await model.read_pairs([(p.question, p.text) for p in part]), strict=True):
                    one.place, one.asked_offsets, one.offsets = place, states.question_offsets, states.offsets
                    one.features = text_features(one.question, one.text, states.offsets)
                    one.asked_features = question_features(one.question, one.text, states.question_offsets)
                    both = np.concatenate([states.question, states.text]).astype(np.float16)
                    out.write(both.tobytes())
                    place += len(both)
                if begin % (SLICE * 40) == 0:
                    print(f"{begin} of {len(ordered)} pairs read, {time.perf_counter() - start:.0f} s", flush=True)


def examples_of(one: Asked) -> list[Example]:
    """What the transformer has to read; nothing for questions without an answer: the span reader learns from spans."""
    return [each for each in (*one.found, one.gold) if each is not None] if one.kind == "answerable" else []


def default_cache() -> Path:
    """A folder for what this code found: any change of what finds and reads asks everything again."""
    changed = hashlib.sha256()
    for folder in ("tools", "memory", "models", "benchmarks"):
        for file in sorted(Path(__file__).parents[1].joinpath(folder).rglob("*.py")):
            changed.update(file.read_bytes())
    return Path(tempfile.gettempdir()) / f"lumina-reader-fit-{changed.hexdigest()[:12]}"


async def ask_all(data: Path, cache: Path, *, elsewhere: int, seed: int) -> list[Asked]:
    """All questions with what recall finds, from the cache where it is there."""
    file = cache / "asked.pickle"
    if not file.exists():  # nothing else runs
        cache.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240  # nothing else runs
        file.write_bytes(pickle.dumps(await collect(data, elsewhere=elsewhere, seed=seed)))
    asked: list[Asked] = pickle.loads(file.read_bytes())  # written by this script
    return asked


async def with_states(asked: list[Asked], cache: Path) -> list[Asked]:
    """The same with token states, from the cache where they are there."""
    index, file = cache / "examples.pickle", cache / "states.f16"
    if not index.exists():
        await read_states(asked, file)
        index.write_bytes(pickle.dumps(asked))
    loaded: list[Asked] = pickle.loads(index.read_bytes())  # written by this script
    states = np.memmap(file, np.float16, "r").reshape(-1, HIDDEN)
    for one in (example for each in loaded for example in examples_of(each)):
        assert one.offsets is not None
        assert one.asked_offsets is not None
        one.states = states[one.place : one.place + len(one.asked_offsets) + len(one.offsets)]
    return loaded
