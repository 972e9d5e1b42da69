"""The span reader: where in a passage the answer stands, and how likely it stands there at all.

Two things read a passage: the embedding model's own transformer, question and passage together, and a small network
over its token states, whose weights lie beside this module (``benchmarks/reader_fit.py`` fits them). They fit one
embedding model; with any other there is no span reader, and the cues of ``tools/reader.py`` find the short answer.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from errors import LuminaError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from models.embeddings import Embedder
    from models.pair_states import Pair, PairStates
    from tools.span_network import SpanNetwork, TokenScores

FITTED_TO = frozenset({"sentence-transformers/all-MiniLM-L6-v2", "all-MiniLM-L6-v2"})
"""Embedding models whose token states the network knows (two names of one model)."""
WEIGHTS = Path(__file__).with_name("span_reader.npz")
LONGEST = 16
"""Tokens of a span at most; 97 % of SQuAD's answers are shorter."""


class NoSpanReader(LuminaError):
    """The span reader's weights cannot be read."""


@dataclass(frozen=True, slots=True)
class FoundSpan:
    """A piece of a passage that may be the answer."""

    start: int
    """Offset in the passage's text, in code points."""
    end: int
    score: float
    """Logarithm of the odds against «no answer in this passage»."""


@dataclass(frozen=True, slots=True)
class PassageSpans:
    """What the network says about one passage."""

    text: str
    offsets: NDArray[np.int64]
    """Where the tokens lie in the text, shape (tokens, 2)."""
    scores: TokenScores

    def best(self, start: int = 0, end: int | None = None) -> FoundSpan | None:
        """The best span between two offsets, on word borders; None where no token was read there."""
        import numpy as np  # not at import time: the module is imported at start

        stop = len(self.text) if end is None else end
        inside = np.flatnonzero((self.offsets[:, 0] >= start) & (self.offsets[:, 1] <= stop))
        if not len(inside):
            return None
        firsts, lasts = self.scores.start[inside], self.scores.end[inside]
        pairs = np.triu(np.ones((len(inside), len(inside)), bool)) & ~np.triu(
            np.ones((len(inside),) * 2, bool), LONGEST
        )
        together = np.where(pairs, firsts[:, None] + lasts[None, :], -np.inf)
        first, last = np.unravel_index(int(together.argmax()), together.shape)
        begin, finish = int(self.offsets[inside[first], 0]), int(self.offsets[inside[last], 1])
        while begin > start and self.text[begin - 1].isalnum() and self.text[begin].isalnum():
            begin -= 1
        while finish < stop and self.text[finish - 1].isalnum() and self.text[finish].isalnum():
            finish += 1
        return FoundSpan(begin, finish, float(together[first, last]) - self.scores.null)


class SpanFinder(Protocol):
    """Finds spans that answer a question."""

    async def find(self, question: str, texts: Sequence[str]) -> list[PassageSpans]:
        """What is to be said about each text."""
        ...


class PairReader(Protocol):
    """Reads a question and a text together; ``models.embeddings.Embedder`` does."""

    async def read_pairs(self, pairs: Sequence[Pair]) -> list[PairStates]:
        """The states of the tokens of each (question, text)."""
        ...


class SpanReader:
    """The trained span reader. Its weights are loaded by the first question.

    Args:
        embedder: With one of the models of ``FITTED_TO``.
        weights: An .npz file, as ``benchmarks/reader_fit.py`` writes it.
    """

    def __init__(self, embedder: PairReader, weights: Path = WEIGHTS) -> None:
        self._embedder = embedder
        self._file = weights
        self._networks: list[SpanNetwork] = []
        self._loading = threading.Lock()

    async def find(self, question: str, texts: Sequence[str]) -> list[PassageSpans]:
        """What the network says about each text.

        Raises:
            NoSpanReader: the weights are not there, or not such weights.
            LuminaError: the embedding model fails; see ``Embedder.read_pairs``.
        """
        states = await self._embedder.read_pairs([(question, text) for text in texts])
        return await asyncio.to_thread(self._score, question, texts, states)

    def _score(self, question: str, texts: Sequence[str], states: Sequence[PairStates]) -> list[PassageSpans]:
        from tools.span_network import average, network_input

        inputs = [network_input(question, text, one) for text, one in zip(texts, states, strict=True)]
        scores = average([network(inputs) for network in self._loaded()])
        return [PassageSpans(text, one.offsets, each) for text, one, each in zip(texts, states, scores, strict=True)]

    def _loaded(self) -> list[SpanNetwork]:
        with self._loading:
            if not self._networks:
                self._networks = load_networks(self._file)
            return self._networks


def load_networks(file: Path) -> list[SpanNetwork]:
    """The networks of a file; their scores are averaged.

    Raises:
        NoSpanReader: the file is not there, or has no such weights.
    """
    import zipfile

    import numpy as np  # not at import time: the module is imported at start

    from tools.span_network import SpanNetwork

    parts: dict[str, dict[str, NDArray[np.generic]]] = {}
    try:
        with np.load(file, allow_pickle=False) as kept:
            for name in kept.files:
                number, _, rest = name.partition(".")
                parts.setdefault(number, {})[rest] = kept[name]
        networks = [SpanNetwork(parts[number]) for number in sorted(parts)]
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise NoSpanReader(
            f"the span reader's weights {file} cannot be read ({error}); "
            "get them from the repository again, or write them with benchmarks/reader_fit.py"
        ) from error
    if not networks:
        raise NoSpanReader(f"the span reader's weights {file} are empty; write them with benchmarks/reader_fit.py")
    return networks


def span_reader(embedder: Embedder) -> SpanReader | None:
    """The span reader on this embedder; None where it was not fitted to the model."""
    return SpanReader(embedder) if embedder.model_name in FITTED_TO else None
