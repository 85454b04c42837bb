"""Layers over the engine: any cell stacked and in both directions, and drop-ins for `torch.nn`'s."""

from unrolled.layers.recurrent import Recurrent
from unrolled.layers.torch_like import GRU, LSTM, RNN

__all__ = ["GRU", "LSTM", "RNN", "Recurrent"]
