"""A small network that finds the span of a text that answers a question; the forward pass, in NumPy.

Its inputs are the token states of a frozen transformer that read question and text together, and the features of
``tools/span_features.py``. Each token of the text is joined with the question's words it resembles (the aligned
attention of DrQA's document reader, Chen et al. 2017), two small bidirectional GRUs run over that, and each token gets
a score as first and as last of the answer. «No answer» has a score of its own (Levy et al. 2017), from what the network
looks at and from how many of the question's words are found at all, and found near that place.

``benchmarks/reader_network.py`` is the same network in torch, for training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tools.span_features import question_features, text_features

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from models.pair_states import PairStates

    Floats = NDArray[np.float32]

REACH = 24
"""Tokens around an answer in which the question's words count as near."""
FALL = 8.0
"""Tokens after which nearness has fallen to 1/e."""
BILINEAR_SCALE = 0.1


@dataclass(frozen=True, slots=True)
class TokenScores:
    """Logarithms of probabilities: each token as first and as last of the answer, and no answer at all."""

    start: Floats
    end: Floats
    null: float
    """Sum for first and last."""


@dataclass(frozen=True, slots=True)
class NetworkInput:
    """One pair."""

    question: Floats
    text: Floats
    question_features: Floats
    text_features: Floats


def network_input(question: str, text: str, states: PairStates) -> NetworkInput:
    """The states of a pair with the features of its words."""
    return NetworkInput(
        states.question,
        states.text,
        question_features(question, text, states.question_offsets),
        text_features(question, text, states.offsets),
    )


def average(members: Sequence[Sequence[TokenScores]]) -> list[TokenScores]:
    """The mean of what several networks say about the same pairs."""
    return [
        TokenScores(
            np.mean([one.start for one in each], axis=0),
            np.mean([one.end for one in each], axis=0),
            float(np.mean([one.null for one in each])),
        )
        for each in zip(*members, strict=True)
    ]


class SpanNetwork:
    """One trained network.

    Args:
        weights: By the names that torch gives them.
    """

    def __init__(self, weights: Mapping[str, NDArray[np.generic]]) -> None:
        self._weights = {name: np.asarray(array, np.float32) for name, array in weights.items()}
        self._grus = [_Gru(self._weights, name) for name in ("first", "second")]

    def __call__(self, inputs: Sequence[NetworkInput]) -> list[TokenScores]:
        """The scores of each pair's text; texts without a token get none and a null of 0."""
        read = [self._align(one) for one in inputs]
        hidden = [aligned for _, aligned, _ in read]
        for gru in self._grus:
            hidden = gru(hidden)
        return [self._score(*each, one) for one, each in zip(inputs, zip(read, hidden, strict=True), strict=True)]

    def _align(self, one: NetworkInput) -> tuple[Floats, Floats, Floats]:
        """The question's projected states, what the first GRU reads, and the cosines (tokens of text, of question)."""
        text, asked = np.tanh(self._linear("project", one.text)), np.tanh(self._linear("project", one.question))
        cosines = _unit(text) @ _unit(asked).T
        attention = _softmax(cosines * self._weights["sharpness"], axis=1)
        nearest = cosines.max(axis=1, keepdims=True, initial=-1.0)
        return asked, np.concatenate([text, attention @ asked, one.text_features, nearest], axis=1), cosines

    def _score(self, read: tuple[Floats, Floats, Floats], hidden: Floats, one: NetworkInput) -> TokenScores:
        asked, _, cosines = read
        if not len(hidden) or not len(asked):
            return TokenScores(np.zeros(len(hidden), np.float32), np.zeros(len(hidden), np.float32), 0.0)
        weights = _softmax(self._linear("weigh", asked)[:, 0], axis=0)
        query = weights @ asked
        bilinear = self._linear("bilinear", query).reshape(2, -1)
        logits = self._linear("out", hidden) + hidden @ bilinear.T * BILINEAR_SCALE
        likely = _softmax(logits, axis=0)
        there, meaningful = one.question_features.T
        found = cosines.max(axis=0)
        near = (cosines * np.minimum(smoothed(likely[:, 0]), 1.0)[:, None]).max(axis=0)
        cues = np.array(
            [
                weights @ found,
                weights @ near,
                found[meaningful > 0].min(initial=1.0),
                (there * meaningful).sum() / max(meaningful.sum(), 1.0),
            ],
            np.float32,
        )
        seen = np.concatenate([likely[:, 0] @ hidden, likely[:, 1] @ hidden, query, cues])
        null = float(self._linear("null.2", np.tanh(self._linear("null.0", seen)))[0])
        starts, ends = (_log_softmax(np.append(column, null)) for column in logits.T)
        return TokenScores(starts[:-1], ends[:-1], float(starts[-1] + ends[-1]))

    def _linear(self, name: str, values: Floats) -> Floats:
        result: Floats = values @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"]
        return result


class _Gru:
    """A bidirectional GRU (torch's equations), over several sequences at a time."""

    def __init__(self, weights: Mapping[str, Floats], name: str) -> None:
        def both(kind: str) -> Floats:
            return np.stack([weights[f"{name}.{way}.{kind}_l0"] for way in (0, 1)])

        self._inward, self._bias = both("weight_ih"), both("bias_ih")
        self._again = both("weight_hh").transpose(0, 2, 1)
        self._again_bias = both("bias_hh")[:, None]
        self._size = self._again.shape[1]

    def __call__(self, sequences: Sequence[Floats]) -> list[Floats]:
        size, longest = self._size, max(map(len, sequences), default=0)
        read = np.zeros((longest, 2, len(sequences), 3 * size), np.float32)
        for n, sequence in enumerate(sequences):
            for way, ordered in enumerate((sequence, sequence[::-1])):
                read[: len(sequence), way, n] = ordered @ self._inward[way].T + self._bias[way]
        state = np.zeros((2, len(sequences), size), np.float32)
        states = np.empty((longest, 2, len(sequences), size), np.float32)
        for step, given in enumerate(read):
            own = state @ self._again + self._again_bias
            gates = 1 / (1 + np.exp(-np.clip(given[..., : 2 * size] + own[..., : 2 * size], -30, 30)))
            keep = gates[..., size:]
            fresh = np.tanh(given[..., 2 * size :] + gates[..., :size] * own[..., 2 * size :])
            state = fresh + keep * (state - fresh)
            states[step] = state
        return [
            np.concatenate([states[: len(one), 0, n], states[: len(one), 1, n][::-1]], axis=1)
            for n, one in enumerate(sequences)
        ]


def smoothed(likely: Floats) -> Floats:
    """The sum of the probabilities around each token, those further off counting less."""
    distances = np.arange(-REACH, REACH + 1)
    kernel = np.exp(-np.abs(distances) / FALL).astype(np.float32)
    return np.convolve(likely, kernel)[REACH : REACH + len(likely)].astype(np.float32)


def _unit(rows: Floats) -> Floats:
    unit: Floats = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return unit


def _softmax(values: Floats, axis: int) -> Floats:
    powers = np.exp(values - values.max(axis=axis, keepdims=True, initial=-1e30))
    shares: Floats = powers / np.maximum(powers.sum(axis=axis, keepdims=True), 1e-30)
    return shares


def _log_softmax(values: Floats) -> Floats:
    top = values.max()
    result: Floats = values - top - np.log(np.exp(values - top).sum())
    return result
