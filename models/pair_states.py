"""What the embedding model's transformer says about each token of a question and a text that it reads together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

MAX_TOKENS = 320
"""Of a question and a text together: a passage of Lumina (900 characters) has about 185, a long question 40."""
MAX_QUESTION_CHARS = 300
"""What is read of a question: 65 tokens of English and never more than 300, so that the text has room."""
LAYERS = 3
"""The mean over so many of the last layers is taken: more of the words themselves than the last one alone has."""

Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class PairStates:
    """A question and a text, token by token."""

    question: NDArray[np.float32]
    """Shape (tokens of the question, hidden size)."""
    text: NDArray[np.float32]
    """Shape (tokens of the text, hidden size); what is beyond ``MAX_TOKENS`` is not there."""
    question_offsets: NDArray[np.int64]
    """Shape (tokens of the question, 2): start and end in the question, in code points."""
    offsets: NDArray[np.int64]
    """The same for the text."""


def compute_pairs(model: SentenceTransformer, pairs: Sequence[Pair], bfloat16: bool) -> list[PairStates]:
    """The states of each pair, in order."""
    import torch

    tokenizer: Any = model.tokenizer
    transformer: Any = model[0].auto_model
    # Tokenizers refuse lone surrogates; one character stands for each, so offsets hold.
    plain = [[part.encode("utf-8", "replace").decode() for part in pair] for pair in pairs]
    questions, texts = [question[:MAX_QUESTION_CHARS] for question, _ in plain], [text for _, text in plain]
    read = tokenizer(
        questions,
        texts,
        truncation="only_second",
        max_length=MAX_TOKENS,
        padding=True,
        return_offsets_mapping=True,
        return_tensors="pt",
    )
    offsets = read.pop("offset_mapping").numpy().astype(np.int64)
    with torch.inference_mode(), torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=bfloat16):
        layers = transformer(**read.to(model.device), output_hidden_states=True).hidden_states[-LAYERS:]
        hidden = torch.stack([layer.float() for layer in layers]).mean(0).cpu().numpy()
    found = []
    for row in range(len(pairs)):
        part = np.array([-1 if one is None else one for one in read.sequence_ids(row)])
        asked, there = part == 0, part == 1
        found.append(PairStates(hidden[row, asked], hidden[row, there], offsets[row, asked], offsets[row, there]))
    return found
