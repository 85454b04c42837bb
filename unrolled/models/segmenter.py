"""A segmenter: frames of video or of sensors, recurrent layers, and a label for every frame."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unrolled.cells import State
from unrolled.layers.dropout import Dropout
from unrolled.models.crf import CRF
from unrolled.models.encoder import Encoder
from unrolled.models.frames import Frames
from unrolled.models.readout_cell import ReadoutCell
from unrolled.models.step_labeller import StepLabeller
from unrolled.unroll import unroll


class Segmenter(StepLabeller):
    """Scores every label for every frame: layers of any cell, a readout, and maybe a CRF.

    input_size: the number of values in a frame. labels: how many labels there are.
    crf: whether a CRF scores sequences of labels, over the readout.
    dropout: on the input of the layers, between them, and on their output.
    """

    def __init__(
        self,
        input_size: int,
        labels: int,
        cell: str = "gru",
        *,
        hidden_size: int = 64,
        num_layers: int = 1,
        bidirectional: bool = True,
        dropout: float = 0.3,
        forget_bias: float = 1.0,
        crf: bool = False,
    ) -> None:
        super().__init__()
        self.input_size = input_size
        self.recurrent = Encoder(
            cell,
            input_size,
            hidden_size,
            num_layers,
            bidirectional=bidirectional,
            dropout=dropout,
            forget_bias=forget_bias,
        )
        self.dropout = Dropout(dropout)
        self.readout = nn.Linear(self.recurrent.output_size, labels)
        self.crf = CRF(labels) if crf else None

    @property
    def streams(self) -> bool:
        """Whether the model can label a frame before it has read the next one."""
        return self.crf is None and not self.recurrent.bidirectional

    def forward(self, batch: Frames) -> Tensor:
        """Return the score of every label for every frame, `[T, B, K]`.

        A model that can label frames as they come reads them, outside training, exactly as `feed` does.
        """
        if self.streams and not self.training:
            return unroll(self._as_cell(), batch.frames, lengths=batch.lengths)[0]
        outputs, _ = self.recurrent.run(self.dropout(batch.frames), lengths=batch.lengths)
        scores: Tensor = self.readout(self.dropout(outputs))
        return scores

    @torch.no_grad()
    def feed(self, frames: Tensor, state: State | None = None) -> tuple[Tensor, State | None]:
        """Return the scores `[T, B, K]` of the next frames, `[T, B, D]`, and the state after them.

        Only for models that can `stream`.
        """
        if not len(frames):
            return frames.new_zeros(0, frames.size(1), self.readout.out_features), state
        return unroll(self._as_cell(), frames, state)

    def _as_cell(self) -> ReadoutCell:
        if "_readout_cell" not in self.__dict__:  # not a submodule: its parameters are this module's own
            self.__dict__["_readout_cell"] = ReadoutCell(self.recurrent, self.readout, self.input_size)
        cell: ReadoutCell = self.__dict__["_readout_cell"]
        return cell
