"""Attention inside a recurrence: each step first attends to the whole source."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unrolled.cells import Cell, State
from unrolled.layers.wrap import as_cell
from unrolled.unroll.adapt import step


@dataclass(frozen=True)
class Memory:
    """What a decoder attends to, computed once for each sentence.

    values: `[B, S, C]`. keys: `[B, S, A]`. mask: `[B, S]`, 0 at positions that count and -inf elsewhere.
    """

    values: Tensor
    keys: Tensor
    mask: Tensor

    def select(self, sentences: Tensor) -> Memory:
        """Return the memory of the chosen sentences `[B']`."""
        return Memory(*(part.index_select(0, sentences) for part in (self.values, self.keys, self.mask)))

    def reorder(self, rows: Tensor, count: int) -> Memory:
        """Return the memory for states that are reordered to `rows [B', n]` of `count` states; see `Decodable`."""
        sentences = rows[:, 0] // (count // len(self.mask))
        if len(sentences) == len(self.mask) and torch.equal(sentences, torch.arange(len(sentences)).to(rows)):
            return self
        return self.select(sentences)


class AdditiveAttention(nn.Module):
    """Additive attention: `e_j = vᵀ tanh(W s + U h_j)`, `α = softmax(e)`, `c = Σ α_j h_j`.

    Source: Bahdanau, Cho & Bengio 2014, "Neural Machine Translation by Jointly Learning to Align and Translate".
    """

    def __init__(self, query_size: int, memory_size: int, size: int) -> None:
        super().__init__()
        self.query = nn.Linear(query_size, size, bias=False)
        self.key = nn.Linear(memory_size, size)
        self.energy = nn.Linear(size, 1, bias=False)

    def build_memory(self, values: Tensor, lengths: Tensor | None = None, mask: Tensor | None = None) -> Memory:
        """Build the memory of `values [S, B, C]`, whose keys are computed once for all steps.

        The first `lengths [B]` positions count, or those where `mask [S, B]` is true. Without either, all count.
        """
        values = values.transpose(0, 1).contiguous()
        if mask is not None:
            outside = ~mask.t()
        elif lengths is not None:
            outside = torch.arange(values.size(1), device=values.device) >= lengths.unsqueeze(-1)
        else:
            outside = torch.zeros(values.shape[:2], dtype=torch.bool, device=values.device)
        added = torch.zeros_like(outside, dtype=values.dtype).masked_fill_(outside, -torch.inf)
        return Memory(values, self.key(values), added)

    def forward(self, query: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """Return `(context [N, C], weights [N, S])` for queries `[N, H]`. Each sentence has N/B adjacent queries."""
        sentences, steps, _ = memory.keys.shape
        asked = self.query(query).view(sentences, -1, 1, memory.keys.size(-1))
        energy = torch.tanh_(memory.keys.unsqueeze(1) + asked) @ self.energy.weight[0]
        weights = torch.softmax(energy + memory.mask.unsqueeze(1), -1)
        context = weights @ memory.values
        return context.view(len(query), -1), weights.view(len(query), steps)


class AttendingLayer(nn.Module):
    """A recurrent layer over `[x_t; c_t]`, where the context `c_t` is what the previous state `s_{t-1}` attends to.

    gate: multiply the context by `σ(w · s_{t-1} + b)` (Xu et al. 2015, 4.2.1).
    """

    def __init__(
        self,
        make: Callable[..., Cell],
        input_size: int,
        hidden_size: int,
        memory_size: int,
        *,
        input_projection: bool = False,
        gate: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        size = input_size + memory_size
        self.projection = nn.Linear(size, hidden_size) if input_projection and size != hidden_size else nn.Identity()
        width = hidden_size if input_projection else size
        self.cell = as_cell(make(width, hidden_size, **options), width, hidden_size)
        self.attention = AdditiveAttention(self.cell.state_sizes[0], memory_size, hidden_size)
        self.gate = nn.Linear(self.cell.state_sizes[0], 1) if gate else None

    def step(
        self, x: Tensor, state: State, memory: Memory, weights: list[Tensor] | None = None
    ) -> tuple[Tensor, Tensor, State]:
        """Return `(output [N, H], context [N, C], state)` after one more input `x [N, I]`.

        weights: a list to which the weights of the memory's positions, `[N, S]`, are appended.
        """
        context, attended = self.attention(state[0], memory)
        if weights is not None:
            weights.append(attended)
        if self.gate is not None:
            context = context * torch.sigmoid(self.gate(state[0]))
        output, state = step(self.cell, self.projection(torch.cat([x, context], -1)), state)
        return output, context, state

    def forward(
        self, inputs: Tensor, state: State, memory: Memory, weights: list[Tensor] | None = None
    ) -> tuple[Tensor, Tensor, State]:
        """Return `(outputs [T, B, H], contexts [T, B, C], state)` over `inputs [T, B, I]`; `weights`: see `step`."""
        outputs, contexts = [], []
        for x in inputs:
            output, context, state = self.step(x, state, memory, weights)
            outputs.append(output)
            contexts.append(context)
        return torch.stack(outputs), torch.stack(contexts), state
