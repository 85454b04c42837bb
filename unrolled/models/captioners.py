"""The decoders of captions that the field knows by name, each with layers of any cell.

In all formulas x_t is the embedding of the word before, v the embedding of the picture, h_t the output of the layers.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, pad

from unrolled.models.attention import AttendingLayer
from unrolled.models.captioner import Captioner, CaptionState, PictureFeatures, Trace, each_step, with_layers


class Plain(Captioner):
    """The lectures' form: `h_t = cell([x_t; v], h_{t-1})`, with an Elman cell `tanh(W_xh x + W_hh h' + W_ih v)`."""

    def _build(self) -> int:
        self.layers = self._layers(2 * self.embedding_size, self.num_layers)
        return self.layers.output_size

    def _start(self, picture: PictureFeatures) -> CaptionState:
        return CaptionState(len(picture), vector=self.dropout(self.picture(picture.vector)))

    def _run(self, embedded: Tensor, state: CaptionState, trace: Trace) -> tuple[Tensor, CaptionState]:
        assert state.vector is not None
        features, layers = self.layers.run(each_step(state.vector, embedded), state.layers)
        return features, with_layers(state, layers)


class KarpathyLi(Plain):
    """The picture is read at the first step alone: `h_t = relu(W_xh x_t + W_hh h_{t-1} + b + [t=1] W_ih v)`.

    Source: Karpathy & Li 2015, "Deep Visual-Semantic Alignments for Generating Image Descriptions".
    """

    def _run(self, embedded: Tensor, state: CaptionState, trace: Trace) -> tuple[Tensor, CaptionState]:
        if state.vector is None:
            inputs = pad(embedded, (0, self.embedding_size))
        else:
            later = pad(embedded[1:], (0, self.embedding_size))
            inputs = torch.cat([each_step(state.vector, embedded[:1]), later])
        features, layers = self.layers.run(inputs, state.layers)
        return features, CaptionState(state.count, layers)


class ShowAndTell(Captioner):
    """The picture is the first input, before all words.

    Source: Vinyals et al. 2015, "Show and Tell: A Neural Image Caption Generator".
    """

    def _build(self) -> int:
        self.layers = self._layers(self.embedding_size, self.num_layers)
        return self.layers.output_size

    def _start(self, picture: PictureFeatures) -> CaptionState:
        return CaptionState(len(picture), vector=self.dropout(self.picture(picture.vector)))

    def _run(self, embedded: Tensor, state: CaptionState, trace: Trace) -> tuple[Tensor, CaptionState]:
        if state.vector is None:
            features, layers = self.layers.run(embedded, state.layers)
        else:  # one sequence with the words: a step of its own costs a pass over all weights
            features, layers = self.layers.run(torch.cat([state.vector.unsqueeze(0), embedded]))
            features = features[1:]
        return features, CaptionState(state.count, layers)


class LRCN(Captioner):
    """Two layers or more: the lower read words alone, and the last reads `[their output; v]` at every step.

    This is the factored form of Donahue et al. 2015, "Long-term Recurrent Convolutional Networks for Visual Recognition
    and Description". With one layer it reads `[x_t; v]`.
    """

    def _build(self) -> int:
        lower = self.num_layers - 1
        self.lower = self._layers(self.embedding_size, lower) if lower else None
        width = self.lower.output_size if self.lower is not None else self.embedding_size
        self.last = self._layers(width + self.embedding_size, 1)
        return self.last.output_size

    def _start(self, picture: PictureFeatures) -> CaptionState:
        return CaptionState(len(picture), (None, None), self.dropout(self.picture(picture.vector)))

    def _run(self, embedded: Tensor, state: CaptionState, trace: Trace) -> tuple[Tensor, CaptionState]:
        assert state.vector is not None
        lower, last = state.layers
        if self.lower is not None:
            embedded, lower = self.lower.run(embedded, lower)
            embedded = self.dropout(embedded)
        features, last = self.last.run(each_step(state.vector, embedded), last)
        return features, with_layers(state, (lower, last))


class MRNN(Captioner):
    """The picture is read after the recurrence: `m_t = g(V_w x_t + V_r h_t + V_I v)`, `p = softmax(W m_t)`.

    `g(x) = 1.7159 tanh(2x / 3)`. Source: Mao et al. 2015, "Deep Captioning with Multimodal Recurrent Neural Networks".
    """

    def _build(self) -> int:
        self.layers = self._layers(self.embedding_size, self.num_layers)
        self.from_words = nn.Linear(self.embedding_size + self.layers.output_size, self.hidden_size)
        self.from_picture = nn.Linear(self.embedding_size, self.hidden_size, bias=False)
        return self.hidden_size

    def _start(self, picture: PictureFeatures) -> CaptionState:
        return CaptionState(len(picture), vector=self.from_picture(self.dropout(self.picture(picture.vector))))

    def _run(self, embedded: Tensor, state: CaptionState, trace: Trace) -> tuple[Tensor, CaptionState]:
        outputs, layers = self.layers.run(embedded, state.layers)
        sums = self.from_words(torch.cat([embedded, self.dropout(outputs)], -1)) + state.vector
        return 1.7159 * torch.tanh(sums * (2 / 3)), with_layers(state, layers)


class ChenZitnick(Captioner):
    """A second recurrence, the visual memory `u`, reads words alone and rebuilds the picture's vector from them.

    `h_t = cell([x_t; v], h_{t-1})`, `u_t = cell(x_t, u_{t-1})`, `p = softmax(W [h_t; u_t])`, and training adds
    `|R u_t - v̂|²` at each step, where v̂ is the picture's vector divided by its norm.
    Source: Chen & Zitnick 2015, "Mind's Eye: A Recurrent Visual Representation for Image Caption Generation".
    """

    def _build(self) -> int:
        self.layers = self._layers(2 * self.embedding_size, self.num_layers)
        self.visual = self._layers(self.embedding_size, 1)
        self.rebuild = nn.Linear(self.visual.output_size, self.vector_size)
        return self.layers.output_size + self.visual.output_size

    def _start(self, picture: PictureFeatures) -> CaptionState:
        return CaptionState(len(picture), (None, None), self.dropout(self.picture(picture.vector)))

    def _run(self, embedded: Tensor, state: CaptionState, trace: Trace) -> tuple[Tensor, CaptionState]:
        assert state.vector is not None
        outputs, layers = self.layers.run(each_step(state.vector, embedded), state.layers[0])
        memories, visual = self.visual.run(embedded, state.layers[1])
        if self.training:
            trace.rebuilt = self.rebuild(memories)
        return torch.cat([outputs, memories], -1), with_layers(state, (layers, visual))

    def penalty(self, trace: Trace, counted: Tensor, picture: PictureFeatures) -> Tensor:
        """Return the squared error of the rebuilt vectors, summed over the steps that count."""
        assert trace.rebuilt is not None
        wanted = normalize(picture.vector, dim=-1).repeat_interleave(counted.size(1) // len(picture), 0)
        return ((trace.rebuilt - wanted).square().sum(-1) * counted).sum()


class ShowAttendTell(Captioner):
    """The first layer attends to the grid before each word, and the readout reads what it attended to.

    The first states come from the mean of the grid, the context has a gate, and training adds
    `Σ_p (1 - Σ_t α_tp)²` for each caption. Source: Xu et al. 2015, "Show, Attend and Tell", soft attention.
    """

    reads_grid = True

    def _build(self) -> int:
        size, options = self.embedding_size, self._options
        self.grid = nn.Linear(self.grid_size, self.hidden_size)
        self.attending = AttendingLayer(
            *(self._make, size, self.hidden_size, self.hidden_size),
            input_projection=self._projected,
            gate=True,
            **options,
        )
        upper = self.num_layers - 1
        self.upper = self._layers(self.hidden_size, upper) if upper else None
        sizes = self.attending.cell.state_sizes
        self.first = nn.Linear(self.vector_size, sum(sizes))
        self.output = nn.Linear(size + 2 * self.hidden_size, size)
        return size

    def _start(self, picture: PictureFeatures) -> CaptionState:
        assert picture.grid is not None
        first = torch.tanh(self.first(picture.vector)).split(self.attending.cell.state_sizes, -1)  # type: ignore[no-untyped-call]
        values = torch.relu(self.grid(self.dropout(picture.grid)))
        memory = self.attending.attention.build_memory(values.transpose(0, 1))
        return CaptionState(len(picture), (tuple(first), None), memory=memory)

    def _run(self, embedded: Tensor, state: CaptionState, trace: Trace) -> tuple[Tensor, CaptionState]:
        assert state.memory is not None
        outputs, contexts, first = self.attending(embedded, state.layers[0], state.memory, trace.weights)
        rest = None
        if self.upper is not None:
            outputs, rest = self.upper.run(self.dropout(outputs), state.layers[1])
        features = torch.tanh(self.output(torch.cat([embedded, self.dropout(outputs), contexts], -1)))
        return features, with_layers(state, (first, rest))

    def penalty(self, trace: Trace, counted: Tensor, picture: PictureFeatures) -> Tensor:
        """Return the doubly stochastic penalty, summed over the captions."""
        seen = (torch.stack(trace.weights) * counted.unsqueeze(-1)).sum(0)
        return ((1 - seen).square().sum(-1) * counted.any(0)).sum()


#: The decoders by the names that the user types.
CAPTIONERS: dict[str, type[Captioner]] = {
    "plain": Plain,
    "karpathy-li": KarpathyLi,
    "show-and-tell": ShowAndTell,
    "lrcn": LRCN,
    "m-rnn": MRNN,
    "chen-zitnick": ChenZitnick,
    "show-attend-tell": ShowAttendTell,
}
