"""Texts with classes as numbers: what a run stores of them, how they are cut and split, and batches of them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import Tensor

from unrolled.data.batch import Batch, by_similar_length
from unrolled.errors import RunError


@dataclass(frozen=True)
class ClassBatch(Batch):
    """Sequences with their classes.

    inputs: tokens `[T, B]`, or frames `[T, B, I]`. lengths: `[B]`.
    targets: the class of each sequence, `[B]`, or for each class whether the sequence has it, `[B, K]`. Targets below 0
        are not counted.
    """

    inputs: Tensor
    lengths: Tensor
    targets: Tensor

    axes: ClassVar[dict[str, int]] = {"lengths": 0, "targets": 0}


@dataclass(frozen=True)
class EncodedTexts:
    """Texts as tokens, an array each, and their targets: classes `[N]`, or `[N, K]` of 0 and 1."""

    tokens: Sequence[np.ndarray]
    targets: np.ndarray

    def __len__(self) -> int:
        return len(self.tokens)

    def batch(self, rows: Sequence[int]) -> ClassBatch:
        """Return a batch of the texts with these numbers."""
        return make_batch([self.tokens[row] for row in rows], self.targets[rows])


def make_batch(tokens: Sequence[np.ndarray], targets: np.ndarray | None = None) -> ClassBatch:
    """Return a batch of sequences: tokens `[T]` or frames `[T, I]`; without targets, they are -1."""
    lengths = np.array([len(one) for one in tokens], np.int64)
    first = tokens[0]
    kind = np.dtype(np.float32) if first.ndim == 2 else np.dtype(np.int64)
    inputs = np.zeros((int(lengths.max()), len(tokens), *first.shape[1:]), kind)
    for row, one in enumerate(tokens):
        inputs[: len(one), row] = one
    wanted = np.full(len(tokens), -1) if targets is None else targets
    return ClassBatch(
        torch.from_numpy(inputs), torch.from_numpy(lengths), torch.from_numpy(np.asarray(wanted, np.int64))
    )


def cut(tokens: np.ndarray, length: int, keep: str) -> np.ndarray:
    """Return at most `length` tokens: those at the "start", at the "end", or, for "both", half of them from each."""
    if not length or len(tokens) <= length:
        return tokens
    if keep == "start":
        return tokens[:length]
    if keep == "end":
        return tokens[-length:]
    head = length // 2
    return np.concatenate([tokens[:head], tokens[len(tokens) - (length - head) :]])


def stratified(strata: Sequence[Hashable], fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Split numbers at random into two parts, each in order. `fraction` of each stratum, give or take one, is in the
    second.
    """
    order = np.random.default_rng(seed).permutation(len(strata)).tolist()
    groups: dict[Hashable, list[int]] = {}
    for number in order:
        groups.setdefault(strata[number], []).append(number)
    in_groups = [number for group in groups.values() for number in group]
    # An entry is held out where the running total of fractions passes a whole number.
    totals = np.floor(np.arange(len(strata) + 1) * fraction + 0.5)
    held = {number for number, passed in zip(in_groups, np.diff(totals) > 0, strict=True) if passed}
    return [k for k in range(len(strata)) if k not in held], sorted(held)


class ClassBatches:
    """One pass over encoded texts: batches of similar lengths, in an order that depends only on `seed`.

    token_dropout: the probability that a token is left out of its text (Iyyer et al. 2015); one token is always kept.
    """

    def __init__(self, texts: EncodedTexts, batch_size: int, seed: Sequence[int], token_dropout: float = 0.0) -> None:
        self.texts, self.seed, self.token_dropout = texts, list(seed), token_dropout
        lengths = np.array([len(one) for one in texts.tokens])
        self.batches = by_similar_length(lengths, batch_size, np.random.default_rng(list(seed)), 50)

    def __len__(self) -> int:
        return len(self.batches)

    def batch(self, number: int) -> ClassBatch:
        rows = self.batches[number]
        if not self.token_dropout:
            return self.texts.batch(rows.tolist())
        draw = np.random.default_rng([*self.seed, number])
        tokens = []
        for row in rows:
            one = self.texts.tokens[row]
            kept = draw.random(len(one)) >= self.token_dropout
            kept[draw.integers(len(one))] = True
            tokens.append(one[kept])
        return make_batch(tokens, self.texts.targets[rows])


def save_texts(path: Path, parts: Mapping[str, EncodedTexts]) -> None:
    """Write encoded texts, in parts with a name each."""
    arrays: dict[str, np.ndarray] = {}
    for name, part in parts.items():
        arrays[f"{name}.tokens"] = np.concatenate([np.zeros(0, np.int32), *part.tokens]).astype(np.int32)
        arrays[f"{name}.lengths"] = np.array([len(one) for one in part.tokens], np.int64)
        arrays[f"{name}.targets"] = np.ascontiguousarray(part.targets, np.int32)
    save_file(arrays, path)


def load_texts(path: Path) -> dict[str, EncodedTexts]:
    """Read a file of `save_texts`. Raises RunError if it is missing or is not such a file."""
    try:
        arrays = load_file(path)
        found = {}
        for name in dict.fromkeys(key.split(".")[0] for key in arrays):
            tokens, lengths, targets = (arrays[f"{name}.{what}"] for what in ("tokens", "lengths", "targets"))
            if lengths.sum() != len(tokens) or len(lengths) != len(targets) or lengths.min(initial=1) < 1:
                raise ValueError("its lengths do not fit its tokens")
            found[name] = EncodedTexts(np.split(tokens, np.cumsum(lengths)[:-1]) if len(lengths) else [], targets)
        return found
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise RunError(f"{path}: no encoded texts here ({type(error).__name__}: {error})") from error
