"""Word vectors that a run's embedding starts from. They are copied into the run, so that it needs no other file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from unrolled.data.vectors import read_vectors
from unrolled.errors import ConfigurationError, RunError

VECTORS_FILE = "vectors.safetensors"


@dataclass(frozen=True)
class _Known:
    """The words that have a token, as they are or in a form of theirs."""

    number: Mapping[str, int]
    form: Callable[[str], str]

    def __contains__(self, word: object) -> bool:
        return isinstance(word, str) and (word in self.number or self.form(word) in self.number)


def store_vectors(
    folder: Path,
    given: str,
    number: Mapping[str, int],
    width: int | None,
    std: float = 0.0,
    form: Callable[[str], str] = str,
) -> None:
    """Copy the vectors of the words in `number` from the file `given` into a run's directory.

    number: the token of each word.
    width: the width of the embedding, None if there is none.
    std: scale the values to this standard deviation; 0: leave them unchanged.
    form: the form in which the words of the file are looked up if `number` lacks them as they are. A word that is there
        as it is goes before others with the same form, and of these the first counts.

    Raises ConfigurationError if the vectors have another width.
    """
    vectors = read_vectors(given, only=_Known(number, form))
    if vectors.width != width:
        raise ConfigurationError(
            f"{given}: vectors of {vectors.width} numbers; add `embedding_size={vectors.width}`",
            setting="embedding_size",
        )
    rows = {number[word]: row for row, word in enumerate(vectors.words) if word in number}
    for row, word in enumerate(vectors.words):
        if word not in number:
            rows.setdefault(number[form(word)], row)
    values = torch.from_numpy(vectors.values)[list(rows.values())]
    if std:
        values = values / values.std().clamp_min(torch.finfo(values.dtype).tiny) * std
    save_file({"tokens": torch.tensor(list(rows)), "vectors": values}, str(folder / VECTORS_FILE))


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
