"""Layers over the engine: any cell, stacked or bidirectional; drop-ins for `torch.nn`'s layers; highway layers."""

from unrolled.layers.highway import Highway
from unrolled.layers.recurrent import Recurrent
from unrolled.layers.torch_like import GRU, LSTM, RNN

__all__ = ["GRU", "LSTM", "RNN", "Highway", "Recurrent"]
