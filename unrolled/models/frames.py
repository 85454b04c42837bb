"""What a model of frames reads: sound, video, columns of a picture."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Frames(Protocol):
    """A batch of sequences: `frames [T, B, D]` of `lengths [B]`."""

    @property
    def frames(self) -> Tensor: ...
    @property
    def lengths(self) -> Tensor: ...
