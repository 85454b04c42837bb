"""Differences between the versions of PyTorch that the package supports."""

from __future__ import annotations

import torch
from torch.torch_version import TorchVersion

BEFORE_2_12 = TorchVersion(torch.__version__) < "2.12"
BEFORE_2_13 = TorchVersion(torch.__version__) < "2.13"


def is_exporting() -> bool:
    """Return whether `torch.export` traces the caller.

    Before PyTorch 2.13, TorchDynamo treats `torch.compiler.is_exporting()` as True in every graph that it captures, but
    reads the flag that it returns correctly.
    """
    return torch.compiler._is_exporting_flag if BEFORE_2_13 else torch.compiler.is_exporting()


def settle_fake_tensors() -> None:
    """Enter `FakeTensorMode` once, so that any thread can trace. Call this before the first thread traces.

    In a CUDA build of PyTorch 2.11 without a GPU, the process crashes when a second thread enters `FakeTensorMode`,
    unless the mode was entered outside the threads before.
    """
    if BEFORE_2_12:
        from torch._subclasses.fake_tensor import FakeTensorMode

        with FakeTensorMode():
            pass
