"""What each word adds to the log-odds of a class, and a page that shows it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unrolled.analysis.pages import page_with
from unrolled.data.class_batches import ClassBatch
from unrolled.models.classifier import Classifier, log_odds

#: The ways to attribute: by the change as each part is read, and by leaving each part out.
WAYS = ("reading", "leaving-out")
#: The most steps, padding included, that are read at once.
_STEPS_AT_ONCE = 16_384


@dataclass(frozen=True)
class Attribution:
    """What N parts of a sequence add to the log-odds of K classes.

    way: one of `WAYS`. changes: `[N, K]`. first, last: `[K]`, the log-odds of an empty sequence and of the whole. By
    "reading", the changes add up to `last - first`.
    """

    way: str
    changes: np.ndarray
    first: np.ndarray
    last: np.ndarray


def default_way(model: Classifier) -> str:
    """Return how the parts of a sequence are best examined.

    That is by reading if the model judges a sequence by its last state, and by leaving out if it pools all states or
    reads both ways: then the first words change the judgement most, whatever they are.
    """
    by_last_state = model.pooling.kind == "last" and model.pooling.directions == 1
    return "reading" if by_last_state else "leaving-out"


@torch.no_grad()
def attribute(model: Classifier, inputs: Tensor, sizes: Sequence[int], way: str = "") -> Attribution:
    """Attribute the log-odds of every class to the parts of a sequence.

    inputs: tokens `[T]` or frames `[T, I]`. sizes: the length of each part, which together are T; a part may be empty.
    way: "reading" takes the change of the log-odds as each part is read after those before it. "leaving-out" takes the
        log-odds of the whole minus those without the part (Li, Monroe & Jurafsky 2016). Default: `default_way`.

    The model must be in evaluation mode.
    """
    if sum(sizes) != len(inputs):
        raise ValueError(f"the parts have {sum(sizes)} steps, the sequence has {len(inputs)}")
    way = way or default_way(model)
    ends = [0, *accumulate(sizes)]
    borders = list(pairwise(ends))
    whole, empty = _log_odds(model, [inputs, inputs[:0]])
    if way == "leaving-out":
        filled = [k for k, (begin, end) in enumerate(borders) if end > begin]
        without = _log_odds(model, [torch.cat([inputs[: borders[k][0]], inputs[borders[k][1] :]]) for k in filled])
        changes = torch.zeros(len(sizes), len(whole), dtype=whole.dtype, device=whole.device)
        changes[filled] = whole - without
    elif model.pooling.directions == 1:  # the outputs of all prefixes are known after one pass
        changes = _judged_prefixes(model, inputs, ends).diff(dim=0)
    else:
        changes = _log_odds(model, [inputs[:end] for end in ends]).diff(dim=0)
    return Attribution(way, *(part.cpu().numpy() for part in (changes, empty, whole)))


def _log_odds(model: Classifier, sequences: Sequence[Tensor]) -> Tensor:
    """Return the log-odds of every class for each sequence, `[N, K]`."""
    longest = max(1, *map(len, sequences)) if sequences else 1
    return _in_chunks(sequences, longest, lambda some: model(_batch(some)), model)


def _batch(sequences: Sequence[Tensor]) -> ClassBatch:
    lengths = torch.tensor([len(one) for one in sequences], device=sequences[0].device)
    inputs = sequences[0].new_zeros(max(1, int(lengths.max())), len(sequences), *sequences[0].shape[1:])
    for row, one in enumerate(sequences):
        inputs[: len(one), row] = one
    return ClassBatch(inputs, lengths, torch.full_like(lengths, -1))


def _judged_prefixes(model: Classifier, inputs: Tensor, ends: Sequence[int]) -> Tensor:
    if not len(inputs):
        return _log_odds(model, [inputs] * len(ends))
    outputs = model.read(_batch([inputs]))

    def judge(some: Sequence[int]) -> Tensor:
        return model.judge(outputs.expand(-1, len(some), -1), torch.tensor(some, device=outputs.device))

    return _in_chunks(ends, len(inputs), judge, model)


def _in_chunks(
    items: Sequence[Any], longest: int, judge: Callable[[Sequence[Any]], Tensor], model: Classifier
) -> Tensor:
    """Return the log-odds of all items, of which `judge` computes so many at a time that they fit into the memory."""
    size = max(1, _STEPS_AT_ONCE // longest)
    scores = [judge(items[k : k + size]) for k in range(0, len(items), size)]
    joined = torch.cat(scores) if scores else model.readout.weight.new_zeros(0, model.readout.out_features)
    return log_odds(joined.double(), model.multi)


def attribution_page(data: dict[str, Any]) -> str:
    """Return a self-contained HTML page of texts whose words are coloured by what they add.

    data: `title`, `facts`, `way`, `classes`, and `texts`, each with `parts` (text and whether it is read), `changes`
        `[N, K]`, `first` and `last` `[K]`, `probabilities` `[K]`, `given` and `found`, lists of labels.
    """
    return page_with("attribution", data)
