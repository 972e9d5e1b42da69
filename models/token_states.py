"""What the embedding model's transformer says about each token of a text that it reads alone, and the text's vector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from models.pair_states import LAYERS

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

SLICE_CHARS = 2_400
"""Text read at a time: about fifteen sentences, so that a short one is not padded to the longest of all."""


@dataclass(frozen=True, slots=True)
class TokenStates:
    """A text, token by token; the marks of its start and its end are left out."""

    vector: NDArray[np.float32]
    """Of the whole text, length 1, as ``Embedder.encode`` gives it; shape (dimensions,)."""
    states: NDArray[np.float32]
    """Shape (tokens, hidden size): the mean of the last ``pair_states.LAYERS`` layers."""
    ids: NDArray[np.int64]
    """Places of the tokens in the model's vocabulary, shape (tokens,)."""


def compute_tokens(model: SentenceTransformer, texts: Sequence[str], bfloat16: bool) -> list[TokenStates]:
    """The states of each text, in order; texts beyond the model's length are cut."""
    # Tokenizers refuse lone surrogates.
    plain = [text.encode("utf-8", "replace").decode() for text in texts]
    found: dict[int, TokenStates] = {}
    left = sorted(range(len(plain)), key=lambda n: len(plain[n]))
    while left:
        places = [left.pop()]
        while left and (len(places) + 1) * len(plain[places[0]]) <= SLICE_CHARS:
            places.append(left.pop())
        found.update(zip(places, _read(model, [plain[place] for place in places], bfloat16), strict=True))
    return [found[place] for place in range(len(plain))]


def _read(model: SentenceTransformer, texts: list[str], bfloat16: bool) -> list[TokenStates]:
    import torch

    tokenizer: Any = model.tokenizer
    transformer: Any = model[0].auto_model
    read = tokenizer(
        texts,
        truncation=True,
        max_length=model.max_seq_length,
        padding=True,
        return_special_tokens_mask=True,
        return_tensors="pt",
    )
    inside = ~read.pop("special_tokens_mask").numpy().astype(bool)
    with torch.inference_mode(), torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=bfloat16):
        layers = transformer(**read.to(model.device), output_hidden_states=True).hidden_states
        features: Any = {"token_embeddings": layers[-1], "attention_mask": read["attention_mask"]}
        for module in list(model)[1:]:
            features = module(features)
        vectors = torch.nn.functional.normalize(features["sentence_embedding"].float(), dim=1).cpu().numpy()
        hidden = torch.stack([layer.float() for layer in layers[-LAYERS:]]).mean(0).cpu().numpy()
    ids = read["input_ids"].cpu().numpy().astype(np.int64)
    return [TokenStates(vectors[row], hidden[row, one], ids[row, one]) for row, one in enumerate(inside)]
