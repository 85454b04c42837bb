"""Layers over the engine: any cell stacked and in both directions, drop-ins for `torch.nn`'s, and highway layers."""

from unrolled.layers.highway import Highway
from unrolled.layers.recurrent import Recurrent
from unrolled.layers.torch_like import GRU, LSTM, RNN

__all__ = ["GRU", "LSTM", "RNN", "Highway", "Recurrent"]
