"""The `torch` backend: PyTorch's own fused kernels, for the three cells that they compute.

A kernel serves only cells of exactly the class it is listed under, because a subclass may change the formula.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from unrolled.cells import ElmanCell, GRUResetAfterCell, LSTMCell, State
from unrolled.unroll.padding import choose, fill_states, without_padding
from unrolled.unroll.signature import has_hooks

Weights = list[Tensor]


def _biases(bias: Tensor | None, recurrent: Tensor | None = None) -> Weights:
    """Return the bias vectors as the kernels take them: two, or none."""
    if bias is None:
        return []
    return [bias, torch.zeros_like(bias) if recurrent is None else recurrent]


def _elman_weights(cell: ElmanCell) -> Weights:
    return [cell.weight_ih, cell.weight_hh, *_biases(cell.bias)]


def _lstm_weights(cell: LSTMCell) -> Weights:
    projection = [cell.weight_hr] if cell.proj_size else []
    return [cell.weight_ih, cell.weight_hh, *_biases(cell.bias), *projection]


def _gru_weights(cell: GRUResetAfterCell) -> Weights:
    if cell.bias is None or cell.bias_hn is None:
        return [cell.weight_ih, cell.weight_hh]
    recurrent = torch.cat([cell.bias_hn.new_zeros(2 * cell.hidden_size), cell.bias_hn])
    # Like the cell, the kernel computes h = (1-z)∘n + z∘h' and orders its gates r, z, n.
    return [cell.weight_ih, cell.weight_hh, *_biases(cell.bias, recurrent)]


#: For each cell that PyTorch computes: its kernel, and the cell's parameters as the kernel takes them.
_KERNELS: dict[type, tuple[Callable[[Any], Callable], Callable[[Any], Weights]]] = {
    ElmanCell: (lambda cell: torch.rnn_tanh if cell.nonlinearity == "tanh" else torch.rnn_relu, _elman_weights),
    LSTMCell: (lambda cell: torch.lstm, _lstm_weights),
    GRUResetAfterCell: (lambda cell: torch.gru, _gru_weights),
}


#: The formulas that the kernels compute. A class whose `forward` was replaced has a different one.
_FORMULAS = {kind: vars(kind)["forward"] for kind in _KERNELS}


def has_kernel(cell: nn.Module) -> bool:
    """Return whether PyTorch has a fused kernel for exactly this cell and the cell's step is unchanged."""
    kind = type(cell)
    if kind not in _KERNELS or vars(kind).get("forward") is not _FORMULAS[kind] or "forward" in vars(cell):
        return False
    return not has_hooks(cell)


def _run(cell: nn.Module, inputs: Tensor | PackedSequence, state: State) -> tuple[Tensor, State]:
    find_kernel, find_weights = _KERNELS[type(cell)]
    kernel, weights = find_kernel(cell), find_weights(cell)
    stacked = tuple(part.unsqueeze(0).contiguous() for part in state)
    hidden = stacked if len(stacked) > 1 else stacked[0]
    # has_biases, num_layers, dropout, train, bidirectional; also batch_first if there is a batch axis.
    # cuDNN keeps what backward needs only if `train` is set. Dropout is 0, so that `train` has no other effect.
    settings: tuple = (weights, len(weights) > 3, 1, 0.0, torch.is_grad_enabled(), False)
    if isinstance(inputs, PackedSequence):
        output, *final = kernel(inputs.data, inputs.batch_sizes, hidden, *settings)
    else:
        output, *final = kernel(inputs, hidden, *settings, False)
    return output, tuple(part.squeeze(0) for part in final)


def _flip(padded: Tensor, lengths: Tensor) -> Tensor:
    """Reverse each sequence within its own length. Steps after its length stay where they are."""
    time = torch.arange(padded.size(0), device=padded.device).unsqueeze(-1)
    source = torch.where(time < lengths, lengths - 1 - time, time)
    return padded.gather(0, source.unsqueeze(-1).expand_as(padded))


def unroll_kernel(
    cell: nn.Module, inputs: Tensor, state: State, lengths: Tensor | None, reverse: bool
) -> tuple[Tensor, State]:
    """Do what `unroll_eager` does, for a cell that `has_kernel`."""
    if lengths is None or not len(lengths):
        outputs, final = _run(cell, inputs.flip(0) if reverse else inputs, state)
        return outputs.flip(0) if reverse else outputs, final
    if bool((lengths == 0).any()):  # PackedSequence has no empty sequences: run one step, then restore the first state
        some = (lengths > 0).unsqueeze(-1)
        filled = without_padding(inputs, lengths, reverse)
        start = choose(some, state, fill_states(state, lengths))
        outputs, final = unroll_kernel(cell, filled, start, lengths.clamp(min=1), reverse)
        return torch.where(some, outputs, torch.zeros_like(outputs)), choose(some, final, state)
    padded = _flip(inputs, lengths) if reverse else inputs
    packed = pack_padded_sequence(padded, lengths.cpu(), enforce_sorted=False)
    data, final = _run(cell, packed, tuple(part[packed.sorted_indices] for part in state))
    outputs, _ = pad_packed_sequence(packed._replace(data=data), total_length=inputs.size(0))
    return _flip(outputs, lengths) if reverse else outputs, tuple(part[packed.unsorted_indices] for part in final)
