"""The training loop: truncated backpropagation through time over any task, stoppable and resumable at any step."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from rich.console import Console
from torch import Tensor, nn

from unrolled.errors import DivergenceError, RunError
from unrolled.layers.stack import map_state
from unrolled.training.checkpoint import Checkpoints
from unrolled.training.config import TrainingConfig, fixed_changes
from unrolled.training.curves import draw_loss
from unrolled.training.interrupt import Interrupt
from unrolled.training.optimisation import clip_gradients, learning_rate, make_optimizer
from unrolled.training.progress import ProgressLine, clock
from unrolled.training.run import Run, write_atomically


class Batches(Protocol):
    """One pass over the data, in an order that depends on its number alone."""

    def __len__(self) -> int: ...

    def chunk(self, number: int) -> tuple[Any, Tensor]:
        """Inputs and targets, time first; inputs are a tensor, or have its `to`, `split` and length."""
        ...


class Task(Protocol):
    """What the loop must know of the thing it trains."""

    @property
    def model(self) -> nn.Module: ...

    def epoch(self, number: int) -> Batches: ...

    def loss(self, inputs: Any, targets: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Summed loss over the targets, and the state behind the last step."""
        ...

    def validate(self) -> float | None:
        """Mean loss on held-out data; None where there is none."""
        ...

    def sample(self, step: int) -> str:
        """Something to look at; must not touch the global random generator."""
        ...

    def describe(self, loss: float) -> str:
        """A loss in the words of the task, `loss 1.520 · 2.19 bits/char`."""
        ...


@dataclass
class Position:
    """How far a run has come: all of the loop's memory that is a number."""

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
    """Trains a task into a run directory; `resume=True` goes on from its last checkpoint."""

    def __init__(
        self, task: Task, config: TrainingConfig, run: Run, console: Console | None = None, resume: bool = False
    ) -> None:
        self.task, self.config, self.run = task, config, run
        self.console = console or Console()
        self.checkpoints = Checkpoints(run)
        self.optimizer = make_optimizer(task.model, config)
        self.position = Position()
        self.carried: Any = None
        self.device = next(task.model.parameters()).device
        if resume and self.checkpoints.index():  # a run that was killed before its first starts anew
            self._restore()
        self._batches = task.epoch(self.position.epoch)

    # -- the loop ------------------------------------------------------------------------------------------------

    def train(self) -> Outcome:
        """Train until a limit, early stopping or an interrupt; everything is saved in each case.

        Raises DivergenceError when the loss or the gradient stops being a number.
        """
        with self.run.locked(), Interrupt() as interrupt, ProgressLine(self.console) as line, self._logs():
            self._started = time.monotonic() - self.position.seconds
            reason = self._steps(interrupt, line)
        draw_loss(self.run)
        return Outcome(reason, self.position)

    def _steps(self, interrupt: Interrupt, line: ProgressLine) -> str:
        at, config = self.position, self.config
        saved_at = at.step if at.step else -1
        while self._fraction() < 1:
            if interrupt.requested:
                if saved_at != at.step:
                    self._save(best=False)
                return "interrupted"
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
        if saved_at != at.step:
            self._validate(line)
        return "finished"

    def _step(self) -> None:
        at, config, model = self.position, self.config, self.task.model
        rate = learning_rate(config, at.step, self._epochs(), self._fraction(), at.plateaus)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        inputs, targets = (part.to(self.device) for part in self._batches.chunk(at.chunk))
        model.train()
        self.optimizer.zero_grad()
        loss = self._backward(inputs, targets)
        norm = clip_gradients(model, config)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            what = f"the loss became {loss}" if not math.isfinite(loss) else f"the gradient's norm became {norm}"
            raise self._diverged(what, at.step + 1)
        self.optimizer.step()
        at.step += 1
        at.tokens += targets.numel()
        at.seconds = time.monotonic() - self._started
        at.smooth_loss = loss if math.isnan(at.smooth_loss) else 0.98 * at.smooth_loss + 0.02 * loss
        if at.step % config.log_every == 0 or at.step == 1:
            self._log(loss=loss, learning_rate=rate, gradient_norm=norm, tokens=at.tokens)

    def _backward(self, inputs: Any, targets: Tensor) -> float:
        """Gradients of the mean loss over the chunk; they flow back `backward_length` steps, the state further."""
        state = self.carried if self.config.carry_state else None
        pieces = self.config.backward_length or len(inputs)
        total = 0.0
        for part_in, part_out in zip(inputs.split(pieces), targets.split(pieces), strict=True):
            loss, state = self.task.loss(part_in, part_out, state)
            state = map_state(Tensor.detach, state)
            (loss / targets.numel()).backward()
            total += loss.item()
        self.carried = state
        return total / targets.numel()

    def _advance(self) -> None:
        at = self.position
        at.chunk += 1
        if at.chunk == len(self._batches):  # the state never crosses a stream's end
            at.epoch, at.chunk, self.carried = at.epoch + 1, 0, None
            self._batches = self.task.epoch(at.epoch)

    def _diverged(self, what: str, step: int) -> DivergenceError:
        last = self.checkpoints.index().get("last")
        rate = f"{self.config.learning_rate / 3:.1g}"
        good = f"the last good checkpoint is that of step {last['step']}" if last else "no checkpoint was written yet"
        advice = f"--resume {self.run.path} --learning-rate {rate}" if last else f"--learning-rate {rate}"
        clip = "" if self.config.clip_norm else " --clip-norm 1"
        return DivergenceError(f"{what} at step {step}; {good}; try {advice}{clip}")

    # -- how far -------------------------------------------------------------------------------------------------

    def _epochs(self) -> float:
        return self.position.epoch + self.position.chunk / len(self._batches)

    def _fraction(self) -> float:
        """The share of the run that is done: of the limit that comes first."""
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
            f"{speed:,.0f} tokens/s · {left} left"
        )

    # -- what is kept --------------------------------------------------------------------------------------------

    def _sample(self, line: ProgressLine) -> None:
        text = self._paused(lambda: self.task.sample(self.position.step))
        line.show(f"sample at step {self.position.step:,}", text)
        with (self.run.path / "samples.txt").open("a", encoding="utf-8") as file:
            file.write(f"--- step {self.position.step} ---\n{text}\n\n")

    def _validate(self, line: ProgressLine) -> None:
        at = self.position
        loss = self._paused(self.task.validate)
        better = loss is not None and loss < at.best_loss
        if loss is not None:
            at.without_progress = 0 if better else at.without_progress + 1
            if better:
                at.best_loss, at.best_step = loss, at.step
            elif at.without_progress % self.config.lr_patience == 0:
                at.plateaus += 1
            self._log(validation_loss=loss)
            mark = " (best so far)" if better else f" (best {at.best_loss:.4f} at step {at.best_step:,})"
            line.say(f"step {at.step:,} · {clock(at.seconds)} · validation {self.task.describe(loss)}{mark}")
        self._save(best=better or loss is None)

    def _paused(self, work):
        """Run `work` off the training clock, in evaluation mode."""
        self.task.model.eval()
        before = time.monotonic()
        result = work()
        self._started += time.monotonic() - before
        return result

    def _save(self, *, best: bool) -> None:
        at = self.position
        if not all(bool(p.isfinite().all()) for p in self.task.model.parameters()):
            raise self._diverged("a weight stopped being a number", at.step)
        before = time.monotonic()
        state = {
            "step": at.step,
            "position": asdict(at),
            "config": self.run.config,
            "optimizer": self.optimizer.state_dict(),
            "carried": self.carried,
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
        }
        self.checkpoints.save(self.task.model, state, best=best)
        self._started += time.monotonic() - before

    def _restore(self) -> None:
        state = self.checkpoints.load("last", self.task.model)
        changed = fixed_changes(state.get("config", self.run.config), self.run.config)
        if changed:
            raise RunError(
                f"{self.run.path / 'config.json'}: {', '.join(changed)} changed since the checkpoint was written"
            )
        try:
            self.position = Position(**state["position"])
            self._restore_optimizer(state["optimizer"])
            if state["carried"] is not None:
                self.carried = map_state(lambda part: part.to(self.device), state["carried"])
            torch.set_rng_state(state["random"])
            if state["random_cuda"] is not None and self.device.type == "cuda":
                torch.cuda.set_rng_state(state["random_cuda"], self.device)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise RunError(f"{self.run.path}: its checkpoint does not fit its settings ({error})") from error

    def _restore_optimizer(self, state: dict[str, Any]) -> None:
        """Take up the optimiser's memory, but the settings of now: they may have been given anew."""
        settings = [{k: v for k, v in group.items() if k != "params"} for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(state)
        for group, now in zip(self.optimizer.param_groups, settings, strict=True):
            group.update(now)

    @contextmanager
    def _logs(self) -> Iterator[None]:
        from torch.utils.tensorboard import SummaryWriter

        # What a killed process logged behind its last checkpoint is trained, and logged, again.
        kept = [record for record in self.run.metrics() if record["step"] <= self.position.step]
        write_atomically(self.run.metrics_path, "".join(json.dumps(record) + "\n" for record in kept))
        folder = str(self.run.path / "tensorboard")
        with (
            self.run.metrics_path.open("a", encoding="utf-8") as self._metrics,
            SummaryWriter(folder, purge_step=self.position.step + 1) as self._events,
        ):
            yield

    def _log(self, **values: float) -> None:
        at = self.position
        record = {"step": at.step, "epoch": round(self._epochs(), 4), "seconds": round(at.seconds, 3), **values}
        self._metrics.write(json.dumps(record) + "\n")
        self._metrics.flush()
        for name, value in values.items():
            self._events.add_scalar(name, value, at.step)
