"""Starts a new run from another run's weights, on new data, with another vocabulary and a new optimiser."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from unrolled.errors import RunError
from unrolled.settings import require_choice
from unrolled.tasks import open_task
from unrolled.tasks.own_cells import cells_of, kept_cells
from unrolled.training import Checkpoints
from unrolled.training.checkpoint import WEIGHTS, WHICH
from unrolled.training.randomness import random_state, set_random_state
from unrolled.training.run import Origin

if TYPE_CHECKING:
    from unrolled.tasks.base import Task


class Start:
    """The weights of the run at `path`, from which a new run starts, of the same task or one that can use them.

    checkpoint: "best" or "last".
    trust: see `open_task`.

    Raises RunError if there is no such run or it has no intact checkpoint.
    """

    def __init__(self, path: str | Path, checkpoint: str = "best", trust: bool = False) -> None:
        require_choice("init_checkpoint", checkpoint, WHICH)
        self.task: Task = open_task(path, "cpu", trust=trust)
        #: The source of the run's own cells, which the new run keeps too.
        self.cells = kept_cells(self.task.run)
        checkpoints = Checkpoints(self.task.run)
        used = checkpoints.load_weights(checkpoint, self.task.model, "init_checkpoint")  # type: ignore[arg-type]
        self.origin: Origin = Origin(str(path), checkpoint, used.step, used.files[WEIGHTS])
        #: Notes for the user about the vocabularies, filled in by `give`.
        self.notes: list[str] = []

    @torch.no_grad()
    def give(self, task: Task) -> None:
        """Copy the weights into a new task's model; rows of tokens that the other run lacks keep their fresh values.

        Raises RunError if the task cannot start from the run or one of the weights has another shape.
        """
        pairs = task.weights_from(self.task)
        if not pairs:
            raise self._misfit(f"a {self.task.kind} run cannot start a {task.kind} run")
        ours, theirs = task.model.state_dict(), self.task.model.state_dict()
        if self.task.kind == task.kind:
            for name in sorted(ours.keys() ^ theirs.keys()):
                raise self._misfit(f"the weight {name} is in {'the new model' if name in ours else 'its model'} alone")
        along = self._token_axes(task)
        done: set[tuple[Any, ...]] = set()
        for name, other in pairs.items():
            weight = ours[name]
            memory = (weight.data_ptr(), weight.shape, weight.stride())
            if other not in theirs:
                raise self._misfit(f"the weight {name} is in the new model alone")
            if memory not in done:  # a matrix that several names share is copied once
                self._copy(name, weight, theirs[other].to(weight.device), *along.get(name, ([], None)))
            if weight.numel():
                done.add(memory)

    def keep(self, task: Task) -> None:
        """Write the new run's checkpoint of step 0, so that the other run is not needed again."""
        from rich.console import Console

        from unrolled.training import Trainer
        from unrolled.training.processes import Processes

        trainer = Trainer(task, task.config.training, task.run, Console(quiet=True), processes=Processes())
        trainer.save_beginning()

    def _token_axes(self, task: Task) -> dict[str, tuple[list[int], Common]]:
        """Return the weights with axes of tokens, if the tokens differ: for each the axes and the common tokens."""
        found: dict[str, tuple[list[int], Common]] = {}
        theirs = self.task.token_keys()
        for what, keys in task.token_keys().items():
            if what not in theirs:  # a run of another task may have no such tokens
                continue
            common = Common.of(keys, theirs[what])
            self.notes.append(f"{what}: {common.note(self.origin.run)}")
            if list(keys) != list(theirs[what]):
                found |= {name: (axes, common) for name, axes in token_axes(task, what).items()}
        return found

    def _copy(self, name: str, ours: Tensor, theirs: Tensor, axes: list[int], common: Common | None) -> None:
        """Copy a weight, or, if it has axes of tokens, its entries for the common tokens."""
        shape = list(ours.shape)
        for axis in axes:
            shape[axis] = common.their_size if common else shape[axis]
        if list(theirs.shape) != shape:
            raise self._misfit(f"its weight {name} is {list(theirs.shape)}, the new model's {list(ours.shape)}")
        if common is None:
            ours.copy_(theirs)
        else:
            for axis in axes:
                theirs = theirs.index_select(axis, _places(common.theirs, ours.device))
            _fill(ours, theirs, axes, _places(common.ours, ours.device))

    def _misfit(self, reason: str) -> RunError:
        said = f"{self.origin.run}: {reason}; `init_from` needs a run with the same model"
        return RunError(said, setting="init_from")


@dataclass(frozen=True)
class Common:
    """The tokens that two vocabularies share: their indices in ours and in theirs, and the sizes of both."""

    ours: list[int]
    theirs: list[int]
    our_size: int
    their_size: int

    @classmethod
    def of(cls, ours: Sequence[Hashable], theirs: Sequence[Hashable]) -> Common:
        place = {key: number for number, key in enumerate(theirs)}
        known = [number for number, key in enumerate(ours) if key in place]
        return cls(known, [place[ours[number]] for number in known], len(ours), len(theirs))

    def note(self, run: str) -> str:
        """Return a note on which of our tokens are new."""
        new = self.our_size - len(self.ours)
        if not new:
            return f"all {self.our_size:,} tokens are known to {run}"
        if not self.ours:
            return f"none of the {self.our_size:,} tokens is known to {run}; all start fresh"
        fresh = "1 new one starts fresh" if new == 1 else f"{new:,} new ones start fresh"
        return f"{len(self.ours):,} of {self.our_size:,} tokens are known to {run}; {fresh}"


def token_axes(task: Task, tokens: str) -> dict[str, list[int]]:
    """Return the weights that grow by one entry with an additional token of `tokens`, each with the axes that grow."""
    before = random_state(torch.device("cpu"))
    with cells_of(task.run):
        grown = task.grown(tokens).state_dict()
    set_random_state(before, torch.device("cpu"))
    return {
        name: axes
        for name, weight in task.model.state_dict().items()
        if (axes := [axis for axis, size in enumerate(weight.shape) if grown[name].size(axis) > size])
    }


def _places(numbers: Sequence[int], device: torch.device) -> Tensor:
    """Return numbers as indices `[N]`; there may be none, if two runs have no token in common."""
    return torch.tensor(numbers, dtype=torch.int64, device=device)


def _fill(ours: Tensor, known: Tensor, axes: Sequence[int], places: Tensor) -> None:
    """Copy `known` to the `places` along each of the axes of `ours`."""
    axis, *others = axes
    if others:
        block = ours.index_select(axis, places)
        _fill(block, known, others, places)
        known = block
    ours.index_copy_(axis, places, known)
