"""The training loop: truncated backpropagation through time for any task. It can stop and resume at any step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from shlex import quote
from typing import Any

import numpy as np
from rich.console import Console
from torch import Tensor

from unrolled.errors import ConfigurationError, DataError, DivergenceError, LostProcessError, RunError
from unrolled.layers.nest import join_states, map_state, take_state
from unrolled.settings import from_json
from unrolled.training.checkpoint import UNREADABLE, Checkpoints
from unrolled.training.config import TrainingConfig, fixed_changes
from unrolled.training.curves import draw_loss
from unrolled.training.interrupt import Interrupt
from unrolled.training.journal import Journal, is_better
from unrolled.training.layers import drop_frozen, freeze
from unrolled.training.optimisation import clip_gradients, learning_rate, make_optimizer, memory_kinds
from unrolled.training.processes import Processes, Result, join, lost
from unrolled.training.progress import ProgressLine, clock
from unrolled.training.randomness import random_state, seed_all, set_random_state
from unrolled.training.run import Run, one_line
from unrolled.training.task import Batch, Batches, Trainable


@dataclass
class Position:
    """The progress of a run: all of the loop's state that is a number."""

    step: int = 0
    epoch: int = 0
    chunk: int = 0
    tokens: int = 0
    seconds: float = 0.0
    smooth_loss: float = math.nan
    best_loss: float = math.inf
    best_step: int = 0
    without_progress: int = 0
    plateaus: int = 0


@dataclass(frozen=True)
class Outcome:
    """How a call of `Trainer.train` ended: `reason` is "finished", "early stopping" or "interrupted"."""

    reason: str
    position: Position


class Trainer:
    """Trains a task into a run directory; with `resume=True` it continues from the last checkpoint."""

    def __init__(
        self,
        task: Trainable,
        config: TrainingConfig,
        run: Run,
        console: Console | None = None,
        resume: bool = False,
        processes: Processes | None = None,
    ) -> None:
        self.task, self.config, self.run = task, config, run
        self.device = next(task.model.parameters()).device
        self.processes = processes or join(self.device, config.precision)
        self.console = console or Console()
        if not self.processes.is_main:
            self.console = Console(quiet=True)
        if config.batch_size < self.processes.size:
            raise ConfigurationError(
                f"`batch_size={config.batch_size}`: each of the {self.processes.size} processes needs at least one "
                "sequence",
                setting="batch_size",
            )
        self.checkpoints = Checkpoints(run, config.keep_checkpoints)
        self.journal = Journal(run)
        self.optimizer = make_optimizer(task.model, config, task.layer_groups())
        self.position = Position()
        self.carried: Any = None
        self._started = time.monotonic()
        self._seed_apart()
        # A run that was killed before its first checkpoint starts over if its first weights can be drawn again.
        if resume and (run.origin is not None or self.checkpoints.folders()):
            self._restore()
        self._batches = self._pass(self.position.epoch)
        if not 0 <= self.position.chunk < len(self._batches):
            raise self._misfit(f"chunk {self.position.chunk} of {len(self._batches)}")
        self._loss = self.processes.wrap(task.model, lambda *given: task.loss(*given))

    def _seed_apart(self) -> None:
        """Seed every process differently for dropout; the main process draws as it would alone."""
        if not self.processes.is_main:
            words = [self.config.seed, self.position.step, self.processes.rank]
            seed_all(int(np.random.SeedSequence(words).generate_state(1)[0]))

    # -- the loop ------------------------------------------------------------------------------------------------

    def train(self) -> Outcome:
        """Train until a limit, early stopping or an interrupt; in each case everything is saved.

        Raises DivergenceError if the loss or the gradient becomes infinite or NaN.
        """
        is_main = self.processes.is_main
        try:
            with (
                self.run.locked() if is_main else nullcontext(),
                Interrupt() as self._interrupt,
                ProgressLine(self.console) as line,
                self.journal.opened(self.position.step) if is_main else nullcontext(),
            ):
                self._started = time.monotonic() - self.position.seconds
                reason = self._steps(line)
            if is_main:
                draw_loss(self.run, self.task.validated)
        except OSError as error:
            raise RunError(f"{self.run.path}: cannot be written to ({one_line(error)}); {self._last_good()}") from error
        except RuntimeError as error:
            if self.processes.size > 1 and (gone := lost(error)):
                raise LostProcessError(
                    f"{gone} at step {self.position.step + 1}; {self._last_good()}; "
                    f"continue with `resume={quote(str(self.run.path))}`, with any number of processes",
                    setting="resume",
                ) from error
            raise
        finally:
            freeze(self.optimizer.param_groups, math.inf)  # nothing stays frozen
        return Outcome(reason, self.position)

    def _steps(self, line: ProgressLine) -> str:
        at, config = self.position, self.config
        saved_at = at.step if at.step else -1
        self._stop = False
        while self._fraction() < 1:
            self._step()
            self._advance()
            line.update(self._fraction(), self._status())
            if config.sample_every and at.step % config.sample_every == 0:
                self._sample(line)
            if at.step % config.eval_every == 0:
                self._validate(line)
                saved_at = at.step
                if config.early_stopping and at.without_progress >= config.early_stopping:
                    return "early stopping"
            if self._stop and self._fraction() < 1:
                if saved_at != at.step:
                    self._save(best=False)
                return "interrupted"
        if saved_at != at.step:
            self._validate(line)
        return "finished"

    def _step(self) -> None:
        at, config, model = self.position, self.config, self.task.model
        rate = learning_rate(config, at.step, self._epochs(), self._fraction(), at.plateaus)
        groups = self.optimizer.param_groups
        for group in groups:
            group["lr"] = rate * group["factor"]
        if self.processes.size == 1:  # several processes exchange all gradients, so that each step exchanges the same
            freeze(groups, at.step)
        batch = self._batches.batch(at.chunk)
        model.train()
        self.optimizer.zero_grad()
        loss = self._backward(batch)
        drop_frozen(groups, at.step)
        norm = clip_gradients(model, config)
        # Processes exchange once per step: their losses, whether one was interrupted, and the main process's clock.
        seconds = time.monotonic() - self._started if self.processes.is_main else 0.0
        loss, stop, seconds = self.processes.all_reduce(loss, self._interrupt.requested, seconds)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            what = f"the loss became {loss}" if not math.isfinite(loss) else f"the gradient's norm became {norm}"
            raise self._diverged(what, at.step + 1)
        self.optimizer.step()
        self._stop = bool(stop)
        at.step += 1
        at.tokens += batch.count
        at.seconds = seconds
        at.smooth_loss = loss if math.isnan(at.smooth_loss) else 0.98 * at.smooth_loss + 0.02 * loss
        if at.step % config.log_every == 0 or at.step == 1:
            self._log(loss=loss, learning_rate=rate, gradient_norm=norm, tokens=at.tokens)

    def _backward(self, batch: Batch) -> float:
        """Compute the gradients of the batch's mean loss, and return this process's part of that mean.

        The process reads its share in `accumulate` parts, and each part in segments, at whose borders gradients stop.
        """
        processes, count = self.processes, max(1, batch.count)
        parts = batch.share(processes.rank, processes.size).parts(self.config.accumulate)
        before = self.carried if batch.carries else None
        total, after = 0.0, []
        for first, end, part in parts:
            state = before if len(parts) == 1 else take_state(before, first, end)
            steps = part.steps()
            for number, step in enumerate(steps, 1):
                last = end == parts[-1][1] and number == len(steps)
                with nullcontext() if last else processes.alone():
                    loss, state = self._loss(step.to(self.device), state)
                    state = map_state(Tensor.detach, state)
                    processes.backward(loss * (processes.size / count))  # DDP averages over processes
                total += loss.item()
            after.append(state)
        self.carried = join_states(after) if batch.carries else None
        return total / count

    def _advance(self) -> None:
        at = self.position
        at.chunk += 1
        if at.chunk == len(self._batches):  # a state is not carried past the end of a stream
            at.epoch, at.chunk, self.carried = at.epoch + 1, 0, None
            self._batches = self._pass(at.epoch)

    def _pass(self, number: int) -> Batches:
        batches = self.task.epoch(number)
        if not len(batches):
            raise DataError(f"{self.run.path}: pass {number} over the training data has no batches")
        return batches

    def _diverged(self, what: str, step: int) -> DivergenceError:
        rate = f"{self.config.learning_rate / 3:.1g}"
        advice = {"learning_rate": rate}
        if self.checkpoints.find("last"):
            advice = {"resume": quote(str(self.run.path)), **advice}
        if not self.config.clip_norm:
            advice["clip_norm"] = "1"
        said = ", ".join(f"`{name}={value}`" for name, value in advice.items())
        names = ("learning_rate", "resume", "clip_norm")
        return DivergenceError(f"{what} at step {step}; {self._last_good()}; try {said}", setting=names)

    def _last_good(self) -> str:
        last = self.checkpoints.find("last")
        return f"the last good checkpoint is from step {last.step}" if last else "no checkpoint was written yet"

    # -- progress ------------------------------------------------------------------------------------------------

    def _epochs(self) -> float:
        return self.position.epoch + self.position.chunk / len(self._batches)

    def _fraction(self) -> float:
        """Return the completed fraction of the run, with respect to the limit that is reached first."""
        at, config = self.position, self.config
        shares = [self._epochs() / config.max_epochs, at.seconds / config.max_seconds]
        if config.max_steps:
            shares.append(at.step / config.max_steps)
        return min(1.0, max(shares))

    def _status(self) -> str:
        at, done = self.position, self._fraction()
        left = clock(at.seconds / done - at.seconds) if done else "?"
        speed = at.tokens / at.seconds if at.seconds else 0.0
        return (
            f"step {at.step:,} · epoch {self._epochs():.2f} · {self.task.describe(at.smooth_loss)} · "
            f"{speed:,.0f} {self.task.counted}/s · {left} left"
        )

    # -- records and checkpoints ---------------------------------------------------------------------------------

    def _sample(self, line: ProgressLine) -> None:
        if not self.processes.is_main:
            return
        text = self._paused(lambda: self.task.preview(self.position.step))
        if not text:
            return
        line.show(f"sample at step {self.position.step:,}", text)
        self.journal.sample(self.position.step, text)

    def _validate(self, line: ProgressLine) -> None:
        at = self.position
        loss = self.processes.on_main(lambda: self._paused(lambda: self.task.validate(at.step)))
        better = loss is not None and is_better(loss, at.best_loss, self.task.validated)
        if loss is not None:
            progress = loss < at.best_loss
            at.without_progress = 0 if progress else at.without_progress + 1
            if not progress and at.without_progress % self.config.lr_patience == 0:
                at.plateaus += 1
            mark = f" (best {at.best_loss:.4f} at step {at.best_step:,})"
            if better:
                at.best_loss, at.best_step = loss, at.step
                mark = " (best so far)" if progress else " (as good as the best so far)"
            self._log(validation_loss=loss)
            said = self.task.describe_validation(loss)
            is_loss = self.task.validated == "loss"
            best = f"{at.best_loss:.4f}" if is_loss else self.task.describe_validation(at.best_loss)
            mark = " (best so far)" if better else f" (best {best} at step {at.best_step:,})"
            line.say(f"step {at.step:,} · {clock(at.seconds)} · validation {said}{mark}")
        self._save(best=better or loss is None)

    def _paused(self, work: Callable[[], Result]) -> Result:
        """Run `work` in evaluation mode and do not count its time as training time."""
        self.task.model.eval()
        before = time.monotonic()
        result = work()
        self._started += time.monotonic() - before
        return result

    def _save(self, *, best: bool) -> None:
        at = self.position
        if not all(bool(p.isfinite().all()) for p in self.task.model.parameters()):
            raise self._diverged("a weight became infinite or NaN", at.step)
        before = time.monotonic()
        carried = self.processes.gather(map_state(Tensor.cpu, self.carried))
        state = {
            "step": at.step,
            "position": asdict(at),
            "config": self.run.config,
            "optimizer": self.optimizer.state_dict(),
            "carried": join_states(carried),
            "random": self.processes.gather(random_state(self.device)),
        }
        self.processes.on_main(lambda: self.checkpoints.save(self.task.model, state, best=best))
        self._started += time.monotonic() - before

    def save_beginning(self) -> None:
        """Write a checkpoint before the first step, because these first weights cannot be drawn again."""
        self._save(best=False)

    def _restore(self) -> None:
        self.processes.on_main(self.checkpoints.set_aside_damaged)
        state = self.checkpoints.load("last", self.task.model)
        try:
            changed = fixed_changes(state.get("config", self.run.config), self.run.config, self.config.fixed)
            if changed:
                raise RunError(
                    f"{self.run.path / 'config.json'}: {', '.join(changed)} changed since the checkpoint was written"
                )
            self.position = from_json(Position, state["position"], "position")
            if min(value for value in asdict(self.position).values() if isinstance(value, int)) < 0:
                raise ValueError("a position below zero")
            self._restore_optimizer(state["optimizer"])
            if state["carried"] is not None:
                mine = self.processes.share(self.config.batch_size)
                carried = take_state(state["carried"], mine.start, mine.stop)
                self.carried = map_state(lambda part: part.to(self.device), carried)
            if len(state["random"]) == self.processes.size:
                set_random_state(state["random"][self.processes.rank], self.device)
            else:  # the states of the generators belong to another number of processes
                self._seed_apart()
        except UNREADABLE as error:
            raise self._misfit(one_line(error)) from error

    def _misfit(self, reason: str) -> RunError:
        return RunError(f"{self.run.path}: its checkpoint does not fit its settings ({reason})")

    def _restore_optimizer(self, state: dict[str, Any]) -> None:
        """Load the optimiser's state, but keep the current settings, which the user may have changed."""
        settings = [{k: v for k, v in group.items() if k != "params"} for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(state)
        for group, now in zip(self.optimizer.param_groups, settings, strict=True):
            group.update(now)
        kinds = memory_kinds(self.config)
        for parameter, memory in self.optimizer.state.items():
            if {name: type(value) for name, value in memory.items()} != kinds:
                raise ValueError(f"the optimiser's state has {', '.join(map(str, memory))}, not {', '.join(kinds)}")
            for name, value in memory.items():
                if isinstance(value, Tensor) and value.dim() and value.shape != parameter.shape:
                    raise ValueError(f"the optimiser's {name} is {tuple(value.shape)}, not {tuple(parameter.shape)}")

    def _log(self, **values: float) -> None:
        if self.processes.is_main:
            at = self.position
            self.journal.metrics(at.step, self._epochs(), at.seconds, values)
