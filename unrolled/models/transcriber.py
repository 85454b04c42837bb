"""A transcriber: frames of sound or columns of a picture, recurrent layers, and a label or a blank for every step."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import ctc_loss, max_pool2d, pad

from unrolled.cells import State
from unrolled.layers.dropout import Dropout
from unrolled.models.encoder import Encoder
from unrolled.models.frames import Frames
from unrolled.models.readout_cell import ReadoutCell
from unrolled.unroll import unroll
from unrolled.unroll.padding import steps_inside

#: The label of a step at which nothing is written.
BLANK = 0


class Projection(nn.Module):
    """A linear layer, normalised, and ReLU."""

    def __init__(self, input_size: int, output_size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(input_size, output_size)
        self.norm = nn.LayerNorm(output_size)

    def forward(self, inputs: Tensor) -> Tensor:
        found: Tensor = self.norm(self.linear(inputs)).relu()
        return found


class Joined(nn.Module):
    """Joins each `stride` frames into the input of one step: a linear layer, normalised, and ReLU.

    The last step of a sequence is filled up with zeros.
    """

    def __init__(self, input_size: int, output_size: int, stride: int) -> None:
        super().__init__()
        self.stride, self.output_size = stride, output_size
        self.projection = Projection(stride * input_size, output_size)

    def steps(self, lengths: Tensor) -> Tensor:
        """Return how many steps sequences of these lengths have."""
        return -(-lengths // self.stride)

    def join(self, frames: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return `frames [T, B, D]` as steps `[S, B, stride · D]`, with zeros after the end of a sequence."""
        if lengths is not None:
            frames = frames.where(steps_inside(len(frames), lengths), 0)
        steps, rows = -(-len(frames) // self.stride), frames.size(1)
        whole = pad(frames, (0, 0, 0, 0, 0, steps * self.stride - len(frames)))
        return whole.view(steps, self.stride, rows, -1).transpose(1, 2).reshape(steps, rows, -1)

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        found: Tensor = self.projection(self.join(frames, lengths))
        return found


class Convolved(nn.Module):
    """Two layers of 3 × 3 convolution over columns of a picture, each with normalised columns, ReLU, and 2 × 2 pooling.

    A step is 4 columns. Columns after a sequence's end are 0 in every layer, as those beyond the picture's edge are.
    """

    def __init__(self, height: int, channels: tuple[int, int] = (16, 32)) -> None:
        super().__init__()
        first, second = channels
        half = -(-height // 2)
        self.layers = nn.ModuleList([nn.Conv2d(1, first, 3, padding=1), nn.Conv2d(first, second, 3, padding=1)])
        self.norms = nn.ModuleList([nn.BatchNorm2d(first), nn.BatchNorm2d(second)])
        self.output_size = second * -(-half // 2)

    def steps(self, lengths: Tensor) -> Tensor:
        """Return how many steps sequences of these lengths have."""
        return (lengths + 3) // 4

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        values = frames.permute(1, 2, 0).unsqueeze(1)  # [B, 1, H, T]
        for convolve, norm in zip(self.layers, self.norms, strict=True):
            inside = steps_inside(values.size(3), lengths).permute(1, 2, 0).unsqueeze(1)  # [B, 1, 1, T]
            values = norm(convolve(values.where(inside, 0))).relu().where(inside, 0)
            values = max_pool2d(values, 2, ceil_mode=True)
            lengths = -(-lengths // 2)
        return values.permute(3, 0, 1, 2).flatten(2)


class Transcriber(nn.Module):
    """Scores every label, and the blank, for every step of a sequence of frames.

    input_size: the number of values in a frame, or the height of a picture.
    labels: how many labels there are, with the blank, which is number 0.
    front: "join": `stride` frames make a step; "convolve": a small convolution over a picture, 4 columns a step.
    dropout: on the input of the layers, between them, and on their output.

    `loss` is that of connectionist temporal classification, summed over all ways to place the labels.
    Source: Graves et al. 2006, "Connectionist Temporal Classification".
    """

    def __init__(
        self,
        input_size: int,
        labels: int,
        cell: str = "lstm",
        *,
        front: str = "join",
        stride: int = 3,
        hidden_size: int = 256,
        num_layers: int = 3,
        bidirectional: bool = True,
        dropout: float = 0.3,
        forget_bias: float = 1.0,
    ) -> None:
        super().__init__()
        self.front: Joined | Convolved
        self.front = Convolved(input_size) if front == "convolve" else Joined(input_size, hidden_size, stride)
        self.recurrent = Encoder(
            cell,
            self.front.output_size,
            hidden_size,
            num_layers,
            bidirectional=bidirectional,
            dropout=dropout,
            forget_bias=forget_bias,
        )
        self.dropout = Dropout(dropout)
        self.readout = nn.Linear(self.recurrent.output_size, labels)

    @property
    def streams(self) -> bool:
        """Whether the model can read a sequence as it comes."""
        return isinstance(self.front, Joined) and not self.recurrent.bidirectional

    def forward(self, batch: Frames) -> tuple[Tensor, Tensor]:
        """Return the log-probability of every label at every step, `[S, B, K]`, and the lengths in steps, `[B]`.

        A model that can read a sequence as it comes reads it, outside training, exactly as `feed` does.
        """
        lengths = self.front.steps(batch.lengths)
        if self.streams and not self.training:
            scores, _ = unroll(self._as_cell(), self._joined(batch.frames, batch.lengths), lengths=lengths)
            return scores.log_softmax(2), lengths
        inputs = self.dropout(self.front(batch.frames, batch.lengths))
        outputs, _ = self.recurrent.run(inputs, lengths=lengths)
        return self.readout(self.dropout(outputs)).log_softmax(2), lengths

    def loss(self, batch: Frames, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the negative log-likelihood of the labels `targets [U, B]`, summed, in nats, and the share of blanks.

        Targets below 0 are padding. A sequence with fewer steps than its labels need has no loss, and no gradient.
        The share is that of the steps at which the blank is the most probable label.
        """
        scores, lengths = self(batch)
        counts = (targets >= 0).sum(0)
        labels = targets.clamp_min(0).t()
        total = ctc_loss(scores.float(), labels, lengths, counts, BLANK, reduction="none", zero_infinity=True)
        inside = steps_inside(len(scores), lengths).squeeze(2)
        blanks = (scores.detach().argmax(2) == BLANK) & inside
        return total.sum(), blanks.sum() / inside.sum().clamp_min(1)

    @torch.no_grad()
    def feed(self, frames: Tensor, state: State | None = None) -> tuple[Tensor, State | None]:
        """Return the log-probabilities `[S, B, K]` of the next steps and the state after them, for `[T, B, D]` frames.

        T must be a multiple of the stride, except at the end of the sequences. Only for models that can `stream`.
        """
        if not len(frames):
            return frames.new_zeros(0, frames.size(1), self.readout.out_features), state
        scores, state = unroll(self._as_cell(), self._joined(frames), state)
        return scores.log_softmax(2), state

    def _joined(self, frames: Tensor, lengths: Tensor | None = None) -> Tensor:
        assert isinstance(self.front, Joined)
        return self.front.join(frames, lengths)

    def _as_cell(self) -> ReadoutCell:
        if "_readout_cell" not in self.__dict__:  # not a submodule: its parameters are this module's own
            front = self.front
            assert isinstance(front, Joined)
            size = front.projection.linear.in_features
            self.__dict__["_readout_cell"] = ReadoutCell(self.recurrent, self.readout, size, front.projection)
        cell: ReadoutCell = self.__dict__["_readout_cell"]
        return cell
