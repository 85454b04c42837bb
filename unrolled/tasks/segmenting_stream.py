"""Labels frames as they come, with a model that reads forwards."""

from __future__ import annotations

import numpy as np
import torch

from unrolled.cells import State
from unrolled.data.labelled_frames import FrameSequence
from unrolled.errors import ConfigurationError
from unrolled.tasks.segmenting import SegmentingTask


class SegmentStream:
    """A sequence whose frames are labelled as they are fed: the labels are those of the whole sequence.

    Raises ConfigurationError if the run's model reads both ways or has a CRF, which need the whole sequence.
    """

    def __init__(self, task: SegmentingTask) -> None:
        if not task.model.streams:
            both, crf = task.config.model.bidirectional, task.config.model.crf
            what = " and ".join([*(["reads both ways"] * both), *(["has a CRF"] * crf)])
            advice = [*(["no_bidirectional"] * both), *(["no_crf"] * crf)]
            raise ConfigurationError(
                f"{task.run.path}: its model {what}, so it cannot label frames as they come: train one with "
                + " and ".join(f"`{each}`" for each in advice),
                setting=advice,
            )
        self.task = task
        self._state: State | None = None

    def feed(self, frames: np.ndarray) -> list[tuple[str, float]]:
        """Return the label of each of the next frames `[t, D]`, and its probability."""
        inputs = self.task.inputs_of(FrameSequence("the frame", frames))
        scores, self._state = self.task.model.feed(
            torch.from_numpy(inputs).unsqueeze(1).to(self.task.device), self._state
        )
        best, label = scores[:, 0].softmax(1).max(1)
        return [(self.task.labels.strings[k], sure) for k, sure in zip(label.tolist(), best.tolist(), strict=True)]
