"""Fit the confidence of ``tools/reader.py``, and measure it held out article by article.

Right are the questions that memory can answer; wrong the unanswerable ones, and those about articles that are not in
memory. An article may have none of a kind, and its questions may be easy or hard as a whole: each article therefore
weighs the same, and within it the answerable and the unanswerable ones, so that nothing is won by knowing the article.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.recall_fit import minimise
from evaluation.scores import auroc, contains
from tools import reader

if TYPE_CHECKING:
    from benchmarks.reader_data import Asked

Floats = NDArray[np.float64]

WEIGHTS = {"answerable": 2.0, "unanswerable": 1.0, "elsewhere": 1.0}
"""Of an article's questions of a kind: right and wrong weigh the same."""
LONE = 0.25
"""Of that the share that the answerable questions of an article without unanswerable ones weigh."""
RIDGE = 0.0003
"""Weight of the squared weights, on standardised features."""
SHOWN = 0.9
"""Share of the right sentences that must lie above ``reader.ABSTAIN_BELOW``."""


def confidence(asked: Sequence[Asked]) -> None:
    """Print the held-out figures and the constants for ``tools/reader.py``."""
    rows = np.array([reader.signals(one.question, one.evidence) for one in asked])
    kinds = np.array([one.kind for one in asked])
    titles = np.array([one.title for one in asked])
    right = np.array([_right(one) for one in asked])
    held = np.zeros(len(asked))
    for title in sorted(set(titles)):
        train = titles != title
        weights = fit(rows[train], kinds[train], titles[train])
        held[titles == title] = rows[titles == title] @ weights[:-1] + weights[-1]
    print(f"confidence, held out by article, {len(asked)} questions:")
    for name, column in zip(reader.SIGNALS, rows.T, strict=True):
        _report(f"{name} alone", column, kinds, titles, right)
    _report("all together", held, kinds, titles, right)
    sure = 1 / (1 + np.exp(-held))
    threshold = float(np.quantile(sure[right], 1 - SHOWN))
    shares = ", ".join(
        f"{kind} {np.mean(sure[kinds == kind] >= threshold):.3f}" for kind in ("unanswerable", "elsewhere")
    )
    print(f"  {SHOWN:.0%} of the right sentences lie above {threshold:.3f}; above it too: {shares}")
    *weights, bias = fit(rows, kinds, titles).round(2).tolist()
    print(f"reader.CONFIDENCE_WEIGHTS = {tuple(weights)}\nreader.CONFIDENCE_BIAS = {bias}")


def fit(rows: Floats, kinds: NDArray[np.str_], titles: NDArray[np.str_]) -> Floats:
    """Weights for the columns of ``rows`` and, last, the bias: logistic regression."""
    spread = rows.std(axis=0) + 1e-9
    features = torch.tensor(np.hstack([rows / spread, np.ones((len(rows), 1))]))
    signs = torch.tensor(np.where(kinds == "answerable", 1.0, -1.0))
    shares = torch.tensor(shares_of(kinds, titles))

    def loss(weights: torch.Tensor) -> torch.Tensor:
        return (shares * torch.nn.functional.softplus(-signs * (features @ weights))).sum()

    return np.asarray(minimise(loss, rows.shape[1] + 1, RIDGE) / np.append(spread, 1.0))


def shares_of(kinds: NDArray[np.str_], titles: NDArray[np.str_]) -> Floats:
    """What each question weighs, 1 in all."""
    shares = np.zeros(len(kinds))
    for title in set(titles):
        here = titles == title
        lone = not (here & (kinds == "unanswerable")).any()
        for kind, weight in WEIGHTS.items():
            group = here & (kinds == kind)
            shares[group] = weight * (LONE if lone and kind == "answerable" else 1.0) / max(group.sum(), 1)
    return np.asarray(shares / shares.sum())


def _right(one: Asked) -> bool:
    reading = reader.read(one.question, one.evidence) if one.kind == "answerable" else None
    return reading is not None and contains(reading.sentence, one.answers)


def _report(
    name: str, values: Floats, kinds: NDArray[np.str_], titles: NDArray[np.str_], right: NDArray[np.bool_]
) -> None:
    def area(positive: NDArray[np.bool_], negative: NDArray[np.bool_]) -> float:
        return auroc(values[positive].tolist(), values[negative].tolist()) or 0.0

    possible, impossible = kinds == "answerable", kinds == "unanswerable"
    within = [area(possible & (titles == title), impossible & (titles == title)) for title in set(titles[impossible])]
    print(
        f"  {name}: AUROC answerable/unanswerable {area(possible, impossible):.3f}, mean within an article "
        f"{np.mean(within):.3f}; answerable/other pages {area(possible, kinds == 'elsewhere'):.3f}; "
        f"right/everything wrong {area(right, ~right):.3f}"
    )
