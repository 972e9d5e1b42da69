"""The network of ``tools/span_network.py`` in torch, and its training."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from benchmarks.reader_data import HIDDEN, Example
from tools.span_network import BILINEAR_SCALE, FALL, REACH

WIDTH, FIRST, SECOND, TEXT_FEATURES = 96, 64, 48, 15
RATE = 2e-3
BATCH = 32
MASKED = -1e4


class Network(nn.Module):
    """See ``tools/span_network.py``; names of the parts must be the same."""

    def __init__(self, dropout: float = 0.3) -> None:
        super().__init__()
        self.project = nn.Linear(HIDDEN, WIDTH)
        self.first = _both_ways(2 * WIDTH + TEXT_FEATURES + 1, FIRST)
        self.second = _both_ways(2 * FIRST, SECOND)
        self.out = nn.Linear(2 * SECOND, 2)
        self.weigh = nn.Linear(WIDTH, 1)
        self.bilinear = nn.Linear(WIDTH, 4 * SECOND)
        self.null = nn.Sequential(nn.Linear(4 * SECOND + WIDTH + 4, 32), nn.Tanh(), nn.Linear(32, 1))
        self.sharpness = nn.Parameter(torch.tensor(8.0))
        self.drop = nn.Dropout(dropout)
        distances = torch.arange(-REACH, REACH + 1)
        self._kernel = torch.exp(-distances.abs() / FALL)[None, None]

    def forward(
        self, text: Tensor, text_mask: Tensor, asked: Tensor, asked_mask: Tensor, features: Tensor, cues: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Logits as first and as last token, shape (batch, 1 + tokens); column 0 is «no answer»."""
        text, asked = torch.tanh(self.project(self.drop(text))), torch.tanh(self.project(self.drop(asked)))
        cosines = nn.functional.normalize(text, dim=-1) @ nn.functional.normalize(asked, dim=-1).transpose(1, 2)
        cosines = cosines.masked_fill(~asked_mask[:, None], -1.0)
        similar = (cosines * self.sharpness).masked_fill(~asked_mask[:, None], MASKED)
        aligned = similar.softmax(-1) @ asked
        read = torch.cat([text, aligned, features, cosines.amax(-1, keepdim=True)], -1)
        hidden = self._run(self.first, read, text_mask)
        hidden = self.drop(self._run(self.second, hidden, text_mask))
        weights = self.weigh(asked).squeeze(-1).masked_fill(~asked_mask, MASKED).softmax(-1)
        query = (weights[..., None] * asked).sum(1)
        bilinear = self.bilinear(query).view(len(query), 2, -1)
        logits = self.out(hidden) + torch.einsum("btd,bkd->btk", hidden, bilinear) * BILINEAR_SCALE
        logits = logits.masked_fill(~text_mask[..., None], MASKED)
        likely = logits.softmax(1)
        cosines = cosines.masked_fill(~text_mask[..., None], -1.0)
        around = nn.functional.conv1d(likely[:, None, :, 0], self._kernel, padding=REACH)[:, 0].clamp(max=1)
        found = cosines.amax(1)
        near = (cosines * around[..., None]).masked_fill(~text_mask[..., None], -1.0).amax(1)
        there, meaningful = cues[..., 0], cues[..., 1]
        numbers = torch.stack(
            [
                (weights * found).sum(1),
                (weights * near).sum(1),
                found.masked_fill(meaningful <= 0, 1.0).amin(1),
                (there * meaningful).sum(1) / meaningful.sum(1).clamp(min=1),
            ],
            1,
        )
        seen = torch.cat([(likely[..., :1] * hidden).sum(1), (likely[..., 1:] * hidden).sum(1), query, numbers], -1)
        null = self.null(seen)
        return torch.cat([null, logits[..., 0]], 1), torch.cat([null, logits[..., 1]], 1)

    def _run(self, both: nn.Module, values: Tensor, mask: Tensor) -> Tensor:
        """Both directions; the backward one begins at each text's own end, so that padding has no say."""
        forwards, backwards = both.children()
        values = self.drop(values)
        places = torch.arange(mask.shape[1])[None]
        lengths = mask.sum(1, keepdim=True)
        turned = torch.where(places < lengths, lengths - 1 - places, places)[..., None]

        def turn(rows: Tensor) -> Tensor:
            return rows.gather(1, turned.expand(-1, -1, rows.shape[2]))

        return torch.cat([forwards(values)[0], turn(backwards(turn(values))[0])], -1)

    def arrays(self) -> dict[str, NDArray[np.float16]]:
        """What is shipped."""
        return {name: value.detach().numpy().astype(np.float16) for name, value in self.state_dict().items()}


def _both_ways(size: int, hidden: int) -> nn.ModuleList:
    return nn.ModuleList(nn.GRU(size, hidden, batch_first=True) for _ in range(2))


def batch_of(examples: Sequence[Example]) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
    """The inputs of the network, padded, and the gold columns; 0 is «no answer»."""
    pairs = [one.pair() for one in examples]

    def padded(arrays: Sequence[NDArray[np.float32] | None]) -> Tensor:
        return pad_sequence([torch.from_numpy(np.asarray(array, np.float32)) for array in arrays], batch_first=True)

    def mask(lengths: Sequence[int]) -> Tensor:
        return torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]

    inputs = (
        padded([pair.text for pair in pairs]),
        mask([len(pair.text) for pair in pairs]),
        padded([pair.question for pair in pairs]),
        mask([len(pair.question) for pair in pairs]),
        padded([one.features[slice(*one.window)] if one.features is not None else None for one in examples]),
        padded([one.asked_features for one in examples]),
    )
    gold = torch.tensor([one.tokens() for one in examples]) + 1
    return inputs, gold[:, 0], gold[:, 1]


def train(examples: Sequence[Example], *, epochs: int, seed: int, log: Callable[[str], None] = print) -> Network:
    """Fit a network.

    Args:
        examples: Each is seen once an epoch, in another window each time.
        epochs: How many.
        seed: Of the weights, the order and the dropout.
        log: Told the loss after each epoch.
    """
    torch.manual_seed(seed)
    choose = random.Random(seed)
    network = Network()
    optimiser = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=1e-2)
    total = epochs * (len(examples) // BATCH + 1)
    step = 0
    for epoch in range(epochs):
        start, losses = time.perf_counter(), []
        network.train()
        for part in _batches([one.part(choose) for one in examples], choose):
            inputs, first, last = batch_of(part)
            rate = RATE * min(1, step / 40) * max(0.0, 1 - step / total)
            for group in optimiser.param_groups:
                group["lr"] = rate
            starts, ends = network(*inputs)
            loss = (nn.functional.cross_entropy(starts, first) + nn.functional.cross_entropy(ends, last)) / 2
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch's own annotation is missing
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            losses.append(loss.item())
            step += 1
        log(f"epoch {epoch}: loss {np.mean(losses):.3f}, {time.perf_counter() - start:.0f} s")
    return network.eval()


def _batches(examples: list[Example], choose: random.Random) -> list[list[Example]]:
    """Texts of a like length together, in random order."""
    choose.shuffle(examples)
    found = []
    for begin in range(0, len(examples), 16 * BATCH):
        part = sorted(examples[begin : begin + 16 * BATCH], key=lambda one: len(one.text))
        found += [part[n : n + BATCH] for n in range(0, len(part), BATCH)]
    choose.shuffle(found)
    return found
