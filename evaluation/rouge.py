"""ROUGE-L: how long a subsequence of words two texts share (Lin, «ROUGE: A Package for Automatic Evaluation of
Summaries», 2004).

``of_text`` takes each text as one sequence (section 3.1 there, ``rougeL`` of the package rouge-score); ``of_sentences``
unites what each sentence of the reference shares with every sentence of the summary (section 3.2, ``rougeLsum``), so
that the order of the sentences does not count. Words are compared in lower case, without stemming; unlike in
rouge-score they are runs of letters and digits of any script. Precision and recall weigh the same (β = 1).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True, slots=True)
class Rouge:
    """Shares of words, 0 to 1."""

    precision: float
    """Of the summary's words."""
    recall: float
    """Of the reference's words."""

    @property
    def f1(self) -> float:
        """The harmonic mean; 0 when nothing is shared."""
        both = self.precision + self.recall
        return 2 * self.precision * self.recall / both if both else 0.0


def words(text: str) -> list[str]:
    """The words that are compared."""
    return _WORD.findall(text.lower())


def of_text(reference: str, summary: str) -> Rouge:
    """ROUGE-L of two texts, each one sequence of words."""
    wanted, said = words(reference), words(summary)
    return _rouge(_length(wanted, said), len(wanted), len(said))


def of_sentences(reference: Sequence[str], summary: Sequence[str]) -> Rouge:
    """ROUGE-L of two lists of sentences; a word counts as often as both have it, at most."""
    wanted, said = [words(one) for one in reference], [words(one) for one in summary]
    left_wanted = Counter(word for sentence in wanted for word in sentence)
    left_said = Counter(word for sentence in said for word in sentence)
    sizes = left_wanted.total(), left_said.total()
    hits = 0
    for sentence in wanted:
        united = {place for other in said for place in _common(sentence, other)}
        for place in united:
            word = sentence[place]
            if left_wanted[word] > 0 and left_said[word] > 0:
                left_wanted[word] -= 1
                left_said[word] -= 1
                hits += 1
    return _rouge(hits, *sizes)


def _rouge(hits: int, wanted: int, said: int) -> Rouge:
    return Rouge(hits / said if said else 0.0, hits / wanted if wanted else 0.0)


def _length(one: Sequence[str], other: Sequence[str]) -> int:
    """Length of a longest common subsequence, a row of the table in one whole number (Hyyrö,
    «Bit-Parallel LCS-Length Computation Revisited», 2004)."""
    places: dict[str, int] = {}
    for at, word in enumerate(one):
        places[word] = places.get(word, 0) | 1 << at
    every = (1 << len(one)) - 1
    row = every
    for word in other:
        hits = row & places.get(word, 0)
        row = (row + hits | row - hits) & every
    return (every ^ row).bit_count()


def _common(one: Sequence[str], other: Sequence[str]) -> list[int]:
    """Places in ``one`` of a longest common subsequence."""
    lengths = [[0] * (len(other) + 1)]
    for word in one:
        above = lengths[-1]
        row = [0]
        for at, against in enumerate(other):
            row.append(above[at] + 1 if word == against else max(above[at + 1], row[at]))
        lengths.append(row)
    places = []
    i, j = len(one), len(other)
    while i and j:
        if one[i - 1] == other[j - 1]:
            places.append(i - 1)
            i, j = i - 1, j - 1
        elif lengths[i - 1][j] >= lengths[i][j - 1]:
            i -= 1
        else:
            j -= 1
    return places[::-1]
