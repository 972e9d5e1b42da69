"""Fit the token matcher of ``tools/token_match.py`` and the ranking on top of it, and measure both held out.

    python benchmarks/token_match_fit.py ../shared/data/squad            held-out figures, ranking.WEIGHTS
    python benchmarks/token_match_fit.py ../shared/data/squad --write    and fit on everything, write the weights

Softmax over all sentences of the passages that recall finds, those of the right passage that hold a gold answer being
right. The projection begins as the main directions of the token states (PCA), so that a short training at a small rate
is enough; linear weights are fitted with it and once more after it. Held out means that nothing answers a question
about an article that it was fitted on. ``--cache`` is that of ``reader_fit.py``.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from torch import Tensor, nn

from benchmarks.reader_data import HIDDEN, Asked, ask_all, default_cache
from benchmarks.reader_fit import ELSEWHERE
from benchmarks.recall_fit import minimise
from evaluation.scores import contains
from models.embeddings import Embedder
from models.token_states import TokenStates
from tools.ranking import FEATURES
from tools.token_match import LIMIT, WEIGHTS, rareness

Floats = NDArray[np.float64]

PLAIN = len(FEATURES) - 2
"""Features that need no tokens; they come first."""
SIZE = 64
RATE, IMPORTANCE_RATE, LINEAR_RATE = 1.5e-4, 1.5e-3, 4.5e-3
BATCH = 16
WARM = 20
SLICE = 64


@dataclass
class Example:
    """A question with the sentences of the passages that were found."""

    title: str
    plain: NDArray[np.float32]
    """The features that need no tokens, shape (sentences, PLAIN)."""
    passage: NDArray[np.int64]
    """Of which passage each sentence is."""
    first: Tensor
    """Whether it is its passage's first."""
    gold: NDArray[np.bool_]
    """Whether its passage is the one that the question was written for."""
    hit: NDArray[np.bool_]
    """Whether it holds a gold answer."""
    asked: Tensor
    """Rows of the question's tokens."""
    rare: Tensor
    rows: Tensor
    """Rows of the sentences' tokens, shape (sentences, most tokens), padded with 0."""
    there: Tensor
    """Where ``rows`` is no padding."""

    @property
    def right(self) -> NDArray[np.bool_]:
        return self.gold & self.hit


class Matcher(nn.Module):
    """The projection, the tokens' shares and linear weights for all features, in torch."""

    def __init__(self, states: Tensor, spread: Floats) -> None:
        super().__init__()
        self.states = states
        self.spread = torch.tensor(np.append(spread, [1.0, 1.0]), dtype=torch.float32)
        directions = torch.linalg.eigh(states.T @ states / len(states)).eigenvectors[:, -SIZE:]
        self.matrix = nn.Parameter(directions.contiguous())
        self.importance = nn.Parameter(torch.zeros(HIDDEN))
        self.linear = nn.Parameter(torch.zeros(len(FEATURES)))

    def met(self, one: Example) -> Tensor:
        """What ``ranking.tokens_met`` says, shape (sentences, 2)."""
        asked = self.states[one.asked]
        tokens = nn.functional.normalize(self.states[one.rows[one.there]] @ self.matrix, dim=1)
        cosines = nn.functional.normalize(asked @ self.matrix, dim=1) @ tokens.T
        every = torch.full((len(asked), *one.rows.shape), -1.0)
        best = every.masked_scatter(one.there[None].expand_as(every), cosines).amax(2).T
        before = torch.cat([torch.full_like(best[:1], -1.0), best[:-1]])
        before = before.masked_fill(one.first[:, None], -1.0)
        weights = one.rare * torch.exp((asked @ self.importance).clamp(-LIMIT, LIMIT))
        return torch.stack([best, torch.maximum(best, before)], 2).transpose(1, 2) @ (weights / weights.sum())

    def scores(self, one: Example) -> Tensor:
        """One for each sentence."""
        return (torch.cat([torch.from_numpy(one.plain), self.met(one)], 1) / self.spread) @ self.linear

    def fit_linear(self, examples: Sequence[Example]) -> Floats:
        """Fit the linear weights with the rest as it is; returns them for features as they are."""
        weights = fit_linear(examples, all_met(self, examples))
        self.linear.data = torch.tensor(weights, dtype=torch.float32) * self.spread
        return weights


def fit_linear(examples: Sequence[Example], met: Sequence[Floats]) -> Floats:
    """Weights for all features: softmax over the sentences of each question, padded to one length."""
    longest = max(len(one.plain) for one in examples)
    features = np.zeros((len(examples), longest, len(FEATURES)))
    there, right = np.zeros((2, len(examples), longest), bool)
    for n, (one, tokens) in enumerate(zip(examples, met, strict=True)):
        features[n, : len(one.plain)] = np.hstack([one.plain, tokens])
        there[n, : len(one.plain)] = True
        right[n, : len(one.plain)] = one.right
    spread = features[there].std(axis=0) + 1e-9
    inputs, padding, wrong = torch.tensor(features / spread), torch.tensor(~there), torch.tensor(~right)

    def loss(weights: Tensor) -> Tensor:
        scores = inputs @ weights
        every, best = scores.masked_fill(padding, -1e9), scores.masked_fill(wrong, -1e9)
        return (torch.logsumexp(every, 1) - torch.logsumexp(best, 1)).mean()

    return np.asarray(minimise(loss, len(FEATURES)) / spread)


def train(examples: Sequence[Example], states: Tensor, *, epochs: int, seed: int) -> Matcher:
    """Fit a matcher on the examples that have a right sentence."""
    torch.manual_seed(seed)
    choose = random.Random(seed)
    usable = [one for one in examples if one.right.any()]
    matcher = Matcher(states, np.concatenate([one.plain for one in usable]).std(axis=0) + 1e-9)
    matcher.fit_linear(usable)
    rates = {"matrix": RATE, "importance": IMPORTANCE_RATE, "linear": LINEAR_RATE}
    optimiser = torch.optim.Adam([{"params": [getattr(matcher, name)], "lr": rate} for name, rate in rates.items()])
    steps, total = 0, epochs * (-(-len(usable) // BATCH))
    for epoch in range(epochs):
        choose.shuffle(usable)
        losses = []
        for begin in range(0, len(usable), BATCH):
            parts = []
            for one in usable[begin : begin + BATCH]:
                scores, right = matcher.scores(one), torch.from_numpy(one.right)
                parts.append(torch.logsumexp(scores, 0) - torch.logsumexp(scores[right], 0))
            loss = torch.stack(parts).mean()
            for group, rate in zip(optimiser.param_groups, rates.values(), strict=True):
                group["lr"] = rate * min(1, (steps + 1) / WARM) * (1 - steps / total)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch's own annotation is missing
            optimiser.step()
            losses.append(loss.item())
            steps += 1
        print(f"epoch {epoch}: loss {np.mean(losses):.3f}", flush=True)
    return matcher


def all_met(matcher: Matcher, examples: Sequence[Example]) -> list[Floats]:
    """What the matcher says about each example."""
    with torch.inference_mode():
        return [matcher.met(one).numpy().astype(np.float64) for one in examples]


def figures(examples: Sequence[Example], met: Sequence[Floats], linear: Floats) -> Floats:
    """For each question: right passage first, among the first three, best sentence holds a gold answer."""
    found = []
    for one, tokens in zip(examples, met, strict=True):
        scores = np.hstack([one.plain, tokens]) @ linear
        order = list(dict.fromkeys(one.passage[np.argsort(-scores, kind="stable")].tolist()))
        gold = set(one.passage[one.gold].tolist())
        found.append((order[0] in gold, bool(gold.intersection(order[:3])), one.hit[int(scores.argmax())]))
    return np.array(found, dtype=np.float64)


async def read(asked: Sequence[Asked]) -> tuple[list[Example], Tensor]:
    """The examples, and the states of all their tokens."""
    sentences = [[f"{each.passage.title}: {s.text}" for each in one.evidence for s in each.sentences] for one in asked]
    texts = list(dict.fromkeys([*(one.question for one in asked), *(text for each in sentences for text in each)]))
    texts.sort(key=len)
    states: dict[str, TokenStates] = {}
    async with Embedder() as model:
        for begin in range(0, len(texts), SLICE):
            part = texts[begin : begin + SLICE]
            states.update(zip(part, await model.read_tokens(part), strict=True))
    begins = dict(zip(texts, np.cumsum([0, *(len(states[text].ids) for text in texts[:-1])]).tolist(), strict=True))
    examples = []
    for one, here in zip(asked, sentences, strict=True):
        lengths = torch.tensor([len(states[text].ids) for text in here])
        columns = torch.arange(int(lengths.max()))
        there = columns[None] < lengths[:, None]
        rows = torch.tensor([begins[text] for text in here])[:, None] + columns
        passage = np.repeat(np.arange(len(one.evidence)), [len(each.sentences) for each in one.evidence])
        gold = [(each.passage.title, each.passage.index) == (one.title, one.paragraph) for each in one.evidence]
        own, begin = states[one.question].ids, begins[one.question]
        examples.append(
            Example(
                one.title,
                np.array([s.features[:PLAIN] for each in one.evidence for s in each.sentences], np.float32),
                passage,
                torch.tensor(np.append(True, passage[1:] != passage[:-1])),
                np.array(gold)[passage],
                np.array([contains(s.text, one.answers) for each in one.evidence for s in each.sentences]),
                torch.arange(begin, begin + len(own)),
                torch.from_numpy(rareness(own)),
                rows.masked_fill(~there, 0),
                there,
            )
        )
    return examples, torch.from_numpy(np.concatenate([states[text].states for text in texts]))


def report(name: str, titles: NDArray[np.str_], found: Floats) -> None:
    """Print the means over the questions and over the articles."""
    for what, values in (
        ("questions", found.mean(axis=0)),
        ("articles", np.mean([found[titles == title].mean(axis=0) for title in sorted(set(titles))], axis=0)),
    ):
        print("{}, mean of {}: recall@1 {:.3f}, recall@3 {:.3f}, best sentence {:.3f}".format(name, what, *values))


def held_out(examples: Sequence[Example], states: Tensor, arguments: argparse.Namespace) -> Floats:
    """Measure by article folds: without tokens, with the untrained projection, and trained.

    Returns:
        The linear weights to ship. They are fitted on what each fold's matcher says about articles that it has not
        seen: on its own it is too good, and would be trusted too much.
    """
    titles = np.array([one.title for one in examples])
    names = sorted(set(titles))
    found = {name: np.zeros((len(examples), 3)) for name in ("without tokens", "tokens, PCA only", "tokens, trained")}
    met: list[Floats] = [np.zeros((0, 2))] * len(examples)
    for n in range(arguments.folds):
        held = np.isin(titles, names[n :: arguments.folds])
        print(f"held out: {', '.join(names[n :: arguments.folds])}", flush=True)
        seen = [one for one, out in zip(examples, held, strict=True) if not out and one.right.any()]
        new = [one for one, out in zip(examples, held, strict=True) if out]
        for name, rows in found.items():
            matcher = train(
                seen, states, epochs=arguments.epochs if name == "tokens, trained" else 0, seed=arguments.seed
            )
            known, unknown = all_met(matcher, seen), all_met(matcher, new)
            if name == "without tokens":
                known, unknown = ([0 * each for each in some] for some in (known, unknown))
            rows[held] = figures(new, unknown, fit_linear(seen, known))
        for place, tokens in zip(np.flatnonzero(held), unknown, strict=True):
            met[place] = tokens
    found["tokens, trained, weights across folds"] = across(examples, met, titles)
    for name, rows in found.items():
        report(name, titles, rows)
    for title in names:
        means = [rows[titles == title].mean(axis=0).round(3).tolist() for rows in found.values()]
        print(f"  {title} ({(titles == title).sum()}): {means[0]} -> {means[-1]}")
    return fit_right(examples, met)


def across(examples: Sequence[Example], met: Sequence[Floats], titles: NDArray[np.str_]) -> Floats:
    """The figures of linear weights fitted on the other articles, on what held-out matchers said about those."""
    rows = np.zeros((len(examples), 3))
    for title in set(titles):
        own, others = (np.flatnonzero(some).tolist() for some in (titles == title, titles != title))
        weights = fit_right([examples[n] for n in others], [met[n] for n in others])
        rows[own] = figures([examples[n] for n in own], [met[n] for n in own], weights)
    return rows


def fit_right(examples: Sequence[Example], met: Sequence[Floats]) -> Floats:
    """``fit_linear`` on the examples that have a right sentence."""
    usable = [(one, tokens) for one, tokens in zip(examples, met, strict=True) if one.right.any()]
    return fit_linear([one for one, _ in usable], [tokens for _, tokens in usable])


async def run(arguments: argparse.Namespace) -> None:
    """Do what the command line says."""
    torch.set_num_threads(1)  # the same sums in the same order on every run
    asked = await ask_all(arguments.data, arguments.cache, elsewhere=ELSEWHERE, seed=arguments.seed)
    examples, states = await read([one for one in asked if one.kind == "answerable" and one.evidence])
    linear = held_out(examples, states, arguments)
    print(f"ranking.WEIGHTS = {tuple(linear.round(2).tolist())}", flush=True)
    if arguments.write:
        matcher = train(examples, states, epochs=arguments.epochs, seed=arguments.seed)
        arrays = {"matrix": matcher.matrix, "importance": matcher.importance}
        kept = {name: array.detach().numpy().astype(np.float16) for name, array in arrays.items()}
        np.savez_compressed(arguments.out, allow_pickle=False, **kept)
        print(f"{arguments.out}: {arguments.out.stat().st_size} bytes")


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--cache", type=Path, default=default_cache(), help="folder of what was found and read")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--write", action="store_true", help="fit on all articles and write the matcher's weights")
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
