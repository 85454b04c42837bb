"""Word vectors that a run's embedding starts from. They are copied into the run, so that it needs no other file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from unrolled.data.vectors import read_vectors
from unrolled.errors import ConfigurationError, RunError

VECTORS_FILE = "vectors.safetensors"


def store_vectors(folder: Path, given: str, number: Mapping[str, int], width: int | None, std: float = 0.0) -> None:
    """Copy the vectors of the words in `number` from the file `given` into a run's directory.

    number: the token of each word.
    width: the width of the embedding, None if there is none.
    std: scale the values to this standard deviation; 0: leave them unchanged.

    Raises ConfigurationError if the vectors have another width.
    """
    vectors = read_vectors(given, only=set(number))
    if vectors.width != width:
        raise ConfigurationError(
            f"{given}: vectors of {vectors.width} numbers; add `embedding_size={vectors.width}`",
            setting="embedding_size",
        )
    values = torch.from_numpy(vectors.values)
    if std:
        values = values / values.std().clamp_min(torch.finfo(values.dtype).tiny) * std
    places = torch.tensor([number[word] for word in vectors.words])
    save_file({"tokens": places, "vectors": values}, str(folder / VECTORS_FILE))


def start_embedding(embedding: nn.Embedding, folder: Path, *, fixed: bool = False) -> int:
    """Copy the stored vectors into an embedding, and return how many words have one; `fixed`: do not train it."""
    path = folder / VECTORS_FILE
    try:
        stored = load_file(str(path))
        with torch.no_grad():
            embedding.weight[stored["tokens"]] = stored["vectors"].to(embedding.weight)
    except (OSError, SafetensorError, KeyError, IndexError, RuntimeError) as error:
        raise RunError(f"{path}: missing or damaged ({error})") from error
    embedding.weight.requires_grad_(not fixed)
    return len(stored["tokens"])
