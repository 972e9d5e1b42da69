"""Fit the linear model of the sentence scores in ``tools/ranking.py`` where no token matcher is.

Each figure printed is held out: the model that answers an article's questions was fitted on the other articles.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from tools import ranking

if TYPE_CHECKING:
    from benchmarks.recall import Asked

Floats = NDArray[np.float64]

RIDGE = 0.003
"""Weight of the squared weights, on standardised features."""


def minimise(loss: Callable[[torch.Tensor], torch.Tensor], size: int, ridge: float = RIDGE) -> Floats:
    """The weights with the least loss, by L-BFGS."""
    weights = torch.zeros(size, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([weights], max_iter=80, line_search_fn="strong_wolfe")

    def step() -> torch.Tensor:
        optimiser.zero_grad()
        value = loss(weights) + ridge * (weights**2).sum()
        value.backward()  # type: ignore[no-untyped-call] # torch's own annotation is missing
        return value

    optimiser.step(step)  # type: ignore[no-untyped-call] # torch's own annotation is missing
    return weights.detach().numpy().astype(np.float64)


def fit_ranking(found: Sequence[Asked]) -> Floats:
    """Weights for ``ranking.FEATURES``: softmax over the sentences; right is a gold answer in the gold paragraph."""
    groups = []
    for one in found:
        features = np.array([sentence.features for each in one.evidence for sentence in each.sentences])
        right = np.array(
            [
                one.hit(sentence.text) and (each.passage.title, each.passage.index) == (one.title, one.paragraph)
                for each in one.evidence
                for sentence in each.sentences
            ]
        )
        if right.any():
            groups.append((features, right))
    spread = np.concatenate([features for features, _ in groups]).std(axis=0) + 1e-9
    tensors = [(torch.tensor(features / spread), torch.tensor(right)) for features, right in groups]

    def loss(weights: torch.Tensor) -> torch.Tensor:
        parts = []
        for features, right in tensors:
            scores = features @ weights
            parts.append(torch.logsumexp(scores, 0) - torch.logsumexp(scores[right], 0))
        return torch.stack(parts).mean()

    return np.asarray(minimise(loss, len(ranking.FEATURES)) / spread)


def ranking_figures(found: Sequence[Asked], weights: Floats) -> Floats:
    """For each question: right passage first, among three, best sentence holds a gold answer."""
    figures = []
    for one in found:
        best = []
        for each in one.evidence:
            scores = np.array([sentence.features for sentence in each.sentences]) @ weights
            sentence = each.sentences[int(scores.argmax())].text
            gold = (each.passage.title, each.passage.index) == (one.title, one.paragraph)
            best.append((float(scores.max()), gold, one.hit(sentence)))
        best.sort(key=lambda entry: -entry[0])
        figures.append((best[0][1], any(gold for _, gold, _ in best[:3]), best[0][2]))
    return np.array(figures, dtype=np.float64)


def fit(found: Sequence[Asked]) -> None:
    """Print held-out figures and the weights fitted on everything."""
    titles = np.array([one.title for one in found])
    figures = np.zeros((len(found), 3))
    for title in sorted(set(titles)):
        weights = fit_ranking([one for one in found if one.title != title])
        figures[titles == title] = ranking_figures([one for one in found if one.title == title], weights)
    print("held out: recall@1 {:.3f}, recall@3 {:.3f}, best sentence {:.3f}".format(*figures.mean(axis=0)))
    print("ranking.WEIGHTS_WITHOUT_TOKENS =", tuple(fit_ranking(found).round(2).tolist()))
