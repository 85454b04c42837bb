"""The sizes that are timed and the implementations to compare with."""

from __future__ import annotations

#: Sequence length, batch size, input size, hidden size.
SIZES: dict[str, tuple[int, int, int, int]] = {
    "S1": (25, 1, 64, 100),
    "S2": (50, 50, 65, 128),
    "S3": (64, 32, 128, 256),
    "S4": (50, 64, 512, 512),
    "S5": (35, 20, 650, 650),
}
#: The implementations that this engine can be compared with.
PEERS = ("torch.nn", "eager", "torch.compile", "jax")
