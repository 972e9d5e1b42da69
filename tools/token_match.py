"""Late interaction: how well each word of a question is met by some word of a sentence, in meaning and not in letters.

Question and sentence are read apart by the embedding model's transformer; each token's state is cut down to 64 numbers,
and a token of the question counts for the most similar token of the sentence (ColBERT's MaxSim, Khattab and Zaharia
2020). Tokens weigh by how rare they are and by a learned share. ``benchmarks/token_match_fit.py`` fits the projection
and that share to one embedding model; with any other there is no matcher, and ``tools/ranking.py`` goes without.
"""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from errors import LuminaError
from tools.span_reader import FITTED_TO

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from models.embeddings import Embedder
    from models.token_states import TokenStates

    Floats = NDArray[np.float32]

WEIGHTS = Path(__file__).with_name("token_match.npz")
KEPT = 4_000
"""Texts whose tokens are kept in memory: 6 KB each for a sentence of 36 tokens."""
WORDS_FROM = 1996
"""First place of a word in BERT's vocabulary, which is ordered by frequency; before it are marks, letters and signs."""
LIMIT = 2.0
"""Of the logarithm of a token's learned share."""


class NoTokenMatcher(LuminaError):
    """The matcher's weights cannot be read."""


class TokenReader(Protocol):
    """Reads texts token by token; ``models.embeddings.Embedder`` does."""

    async def read_tokens(self, texts: Sequence[str]) -> list[TokenStates]:
        """The states of the tokens of each text."""
        ...


@dataclass(frozen=True, slots=True)
class TextTokens:
    """A text as it is matched."""

    vector: Floats
    """Of the whole text, length 1."""
    tokens: NDArray[np.float16]
    """Shape (tokens, 64), each of length 1."""
    weights: Floats
    """What each token weighs in a question, shape (tokens,); they sum to 1."""


@dataclass(frozen=True, slots=True)
class Projection:
    """What was fitted."""

    matrix: Floats
    """Shape (hidden size, 64)."""
    importance: Floats
    """Shape (hidden size,): its product with a state is the logarithm of the token's share."""

    def __call__(self, read: TokenStates) -> TextTokens:
        """A text's tokens, cut down."""
        import numpy as np  # not at import time: the module is imported at start

        tokens = read.states @ self.matrix
        tokens /= np.maximum(np.linalg.norm(tokens, axis=1, keepdims=True), 1e-12)
        share = np.exp(np.clip(read.states @ self.importance, -LIMIT, LIMIT))
        weights = rareness(read.ids) * share
        if not weights.any():
            weights = share
        return TextTokens(read.vector, tokens.astype(np.float16), weights / max(float(weights.sum()), 1e-12))


def rareness(ids: NDArray[np.int64]) -> Floats:
    """How rare tokens are, by their place in a vocabulary that begins with the commonest words (Zipf's law)."""
    import numpy as np  # not at import time: the module is imported at start

    rare: Floats = np.log1p(np.maximum(ids - (WORDS_FROM - 1), 0)).astype(np.float32)
    return rare


def match(question: TextTokens, texts: Sequence[TextTokens]) -> Floats:
    """For each text and each token of the question the best cosine, shape (texts, tokens); -1 where a text has none."""
    import numpy as np  # not at import time: the module is imported at start

    asked = question.tokens.astype(np.float32)
    best = np.full((len(texts), len(asked)), -1.0, np.float32)
    some = [number for number, text in enumerate(texts) if len(text.tokens)]
    if some:
        tokens = np.concatenate([texts[number].tokens for number in some]).astype(np.float32)
        starts = [0, *accumulate(len(texts[number].tokens) for number in some)][:-1]
        best[some] = np.maximum.reduceat(tokens @ asked.T, starts, axis=0)
    return best


class TokenMatcher:
    """Reads questions and sentences for the match, and keeps what it has read. Its weights are loaded by first use.

    Args:
        embedder: With one of the models of ``span_reader.FITTED_TO``.
        weights: An .npz file, as ``benchmarks/token_match_fit.py`` writes it.
        kept: Texts that are kept, the latest used.
    """

    def __init__(self, embedder: TokenReader, weights: Path = WEIGHTS, *, kept: int = KEPT) -> None:
        self._embedder = embedder
        self._file = weights
        self._kept: OrderedDict[str, TextTokens] = OrderedDict()
        self._size = kept
        self._projection: Projection | None = None
        self._loading = threading.Lock()

    async def read(self, texts: Sequence[str]) -> list[TextTokens]:
        """The tokens of each text.

        Raises:
            NoTokenMatcher: the weights are not there, or not such weights.
            LuminaError: the embedding model fails; see ``Embedder.read_tokens``.
        """
        found = {text: self._kept[text] for text in texts if text in self._kept}
        missing = [text for text in dict.fromkeys(texts) if text not in found]
        if missing:
            states = await self._embedder.read_tokens(missing)
            found.update(zip(missing, await asyncio.to_thread(self._project, states), strict=True))
        for text in found:
            self._kept[text] = found[text]
            self._kept.move_to_end(text)
        while len(self._kept) > self._size:
            self._kept.popitem(last=False)
        return [found[text] for text in texts]

    def _project(self, states: Sequence[TokenStates]) -> list[TextTokens]:
        with self._loading:
            if self._projection is None:
                self._projection = load_projection(self._file)
        return [self._projection(one) for one in states]


def load_projection(file: Path) -> Projection:
    """The projection in a file.

    Raises:
        NoTokenMatcher: the file is not there, or has no such weights.
    """
    import zipfile

    import numpy as np  # not at import time: the module is imported at start

    try:
        with np.load(file, allow_pickle=False) as kept:
            found = Projection(kept["matrix"].astype(np.float32), kept["importance"].astype(np.float32))
        if found.matrix.ndim != 2 or found.importance.shape != found.matrix.shape[:1]:
            raise ValueError(f"shapes {found.matrix.shape} and {found.importance.shape} do not fit")
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise NoTokenMatcher(
            f"the token matcher's weights {file} cannot be read ({error}); "
            "get them from the repository again, or write them with benchmarks/token_match_fit.py"
        ) from error
    return found


def token_matcher(embedder: Embedder) -> TokenMatcher | None:
    """The matcher on this embedder; None where it was not fitted to the model."""
    return TokenMatcher(embedder) if embedder.model_name in FITTED_TO else None
