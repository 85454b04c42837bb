"""Decoding: the next token, over any model with `start` and `step`; and tokens as text."""

from unrolled.decoding.sampling import Sampling, StepModel, generate
from unrolled.decoding.text import TextStream

__all__ = ["Sampling", "StepModel", "TextStream", "generate"]
