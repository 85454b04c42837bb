"""What differs between the versions of PyTorch that the package works on."""

from __future__ import annotations

import torch
from torch.torch_version import TorchVersion

BEFORE_2_12 = TorchVersion(torch.__version__) < "2.12"
BEFORE_2_13 = TorchVersion(torch.__version__) < "2.13"


def is_exporting() -> bool:
    """Whether `torch.export` traces the caller.

    Before PyTorch 2.13, TorchDynamo takes `torch.compiler.is_exporting()` for True in every graph that it captures; the
    flag that the function returns is read as it is.
    """
    return torch.compiler._is_exporting_flag if BEFORE_2_13 else torch.compiler.is_exporting()


def settle_fake_tensors() -> None:
    """Let any thread trace: to be called once, before the first of them does.

    In a CUDA build of PyTorch 2.11 without a GPU, the process crashes when a second thread enters `FakeTensorMode`,
    unless the mode was entered outside the threads before.
    """
    if BEFORE_2_12:
        from torch._subclasses.fake_tensor import FakeTensorMode

        with FakeTensorMode():
            pass
