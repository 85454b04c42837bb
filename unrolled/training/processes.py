"""The processes that train one model together: only this one, or those that `torchrun` started.

Several processes, or a precision other than float32, need Lightning Fabric; one process in float32 does not import it.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from unrolled.errors import ConfigurationError, ElsewhereError, FallbackWarning

Result = TypeVar("Result")
Loss = Callable[[Any, Any], tuple[Tensor, Any]]

#: How long a process waits for the others: the main process may be validating or reading the text.
PATIENCE = timedelta(minutes=30)


def rank() -> int:
    """Return the number of this process, from 0."""
    return int(os.environ.get("RANK", 0))


def size() -> int:
    """Return the number of processes that `torchrun` started on all hosts; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", 1))


class Processes:
    """A single process."""

    rank, size = 0, 1

    @property
    def is_main(self) -> bool:
        """Whether this is the main process, which writes files and prints for all."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """Return the columns of a batch of `count` that belong to this process."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def wrap(self, model: nn.Module, loss: Loss) -> Loss:
        """Wrap `loss`, which calls `model`, so that gradients are averaged over all processes."""
        return loss

    def alone(self) -> AbstractContextManager[Any]:
        """Return a context in which gradients are not exchanged but added to those of the next pass."""
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        loss.backward()  # type: ignore[no-untyped-call]

    def all_reduce(self, *values: float) -> tuple[float, ...]:
        """Return each value summed over all processes."""
        return values

    def gather(self, value: Any) -> list[Any]:
        """Return the value of every process, in the order of their ranks."""
        return [value]

    def on_main(self, work: Callable[[], Result]) -> Result:
        """Run `work` in the main process; all processes return its result or raise an error."""
        return work()


class FabricProcesses(Processes):
    """Processes of Lightning Fabric, with DDP over gloo or NCCL, and Fabric's precision."""

    def __init__(self, device: torch.device, precision: str) -> None:
        from lightning_fabric import Fabric
        from lightning_fabric.strategies.ddp import DDPStrategy

        if device.type not in ("cpu", "cuda", "mps"):
            said = f"`device={device}`: several processes and bf16 need cpu, cuda or mps"
            raise ConfigurationError(said, setting="device")
        logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
        self.rank, self.size = rank(), size()
        here = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
        alone = [device.index or 0] if device.type == "cuda" else 1
        self.fabric = Fabric(
            accelerator=device.type,
            devices=here if self.size > 1 else alone,
            num_nodes=self.size // here,
            strategy=DDPStrategy(timeout=PATIENCE) if self.size > 1 else "auto",
            precision="bf16-mixed" if precision == "bf16" else "32-true",
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Fabric's hints are for the loop's authors
            self.fabric.launch()

    def wrap(self, model: nn.Module, loss: Loss) -> Loss:
        self._wrapped = self.fabric.setup_module(_Lossy(model, loss))
        return lambda batch, state: self._wrapped(_Given(batch, state))

    def alone(self) -> AbstractContextManager[Any]:
        return self.fabric.no_backward_sync(self._wrapped, enabled=self.size > 1)

    def backward(self, loss: Tensor) -> None:
        self.fabric.backward(loss)

    def all_reduce(self, *values: float) -> tuple[float, ...]:
        if self.size == 1:
            return values
        summed = torch.tensor(values, dtype=torch.float64, device=self.fabric.device)
        torch.distributed.all_reduce(summed)
        return tuple(summed.tolist())

    def gather(self, value: Any) -> list[Any]:
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(values, value)
        return values

    def on_main(self, work: Callable[[], Result]) -> Result:
        if self.size == 1:
            return work()
        outcome: list[Any] = [None, False]
        failure: BaseException | None = None
        if self.is_main:
            try:
                outcome = [work(), True]
            except BaseException as error:
                failure = error
        torch.distributed.broadcast_object_list(outcome, src=0)
        if failure is not None:
            raise failure
        if not outcome[1]:
            raise ElsewhereError("the main process reports the error")
        result: Result = outcome[0]
        return result


class _Given:
    """The arguments of a loss in an object that Fabric does not look into; it copies lists, tuples and dataclasses."""

    def __init__(self, batch: Any, state: Any) -> None:
        self.batch, self.state = batch, state


class _Lossy(nn.Module):
    """A model's loss as a module, because DDP and Fabric's precision wrap modules."""

    def __init__(self, model: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, given: _Given) -> tuple[Tensor, Any]:
        return self.loss(given.batch, given.state)


def join(device: torch.device, precision: str) -> Processes:
    """Return the processes that train together; ConfigurationError if the device lacks the precision."""
    if precision == "bf16":
        _check_bf16(device)
    return FabricProcesses(device, precision) if size() > 1 or precision != "float32" else Processes()


def _check_bf16(device: torch.device) -> None:
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        said = f"`precision=bf16`: {torch.cuda.get_device_name(device)} does not support bf16"
        raise ConfigurationError(said, setting="precision")
    if device.type == "cpu" and not torch.cpu._is_avx512_bf16_supported():
        message = "this processor has no bf16 instructions, so bf16 is slower than float32"
        warnings.warn(message, FallbackWarning, stacklevel=2)


def lost(error: RuntimeError) -> str:
    """Return a message if the error means that another process has exited; otherwise an empty string."""
    said = str(error).lower()
    signs = ("gloo", "nccl", "connection closed", "connection reset", "broken pipe", "socket", "timed out")
    if isinstance(error, torch.distributed.DistError) or any(sign in said for sign in signs):
        return "another process of this training was lost"
    return ""
