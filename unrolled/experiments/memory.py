"""Memory tasks, which say what a net must remember and for how long, and small nets trained on them.

Sources: Hochreiter & Schmidhuber 1997 (recall, adding), Arjovsky et al. 2016 (copying), the Modulabs and Stanford
lectures (the alphabet backwards, "Jane said hi to __").
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from unrolled.analysis.gates import keep_memory
from unrolled.cells import Cell, State
from unrolled.errors import ConfigurationError
from unrolled.experiments.names import PREVIOUS_INPUT
from unrolled.layers.wrap import make_cell
from unrolled.unroll import unroll

#: Symbols that recall and copying draw from.
SYMBOLS = 8
NAMES = ("Jane", "John", "Mary", "Paul", "Anna", "Tom", "Lucy", "Mark")
_STORY = ["walked", "into", "the", "room", "in", "too", ".", "it", "was", "late", "day", "said", "hi", "to"]


@dataclass(frozen=True)
class Examples:
    """Inputs `[T, B, I]` and targets `[T, B]`, classes or numbers, which count at the steps in `counted [T]`."""

    inputs: Tensor
    targets: Tensor
    counted: Tensor


@dataclass(frozen=True)
class MemoryTask:
    """A source of sequences; `make(delay, batch_size, generator)` draws a batch.

    classes: the number of possible answers. 0: the answer is a number, which is right within 0.04.
    """

    input_size: int
    classes: int
    make: Callable[[int, int, torch.Generator], Examples]


def _symbols(high: int, size: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randint(high, size, generator=generator)


def _at(steps: int, *where: int) -> Tensor:
    counted = torch.zeros(steps, dtype=torch.bool)
    counted[list(where)] = True
    return counted


def _recall(delay: int, batch: int, generator: torch.Generator) -> Examples:
    """Draw a symbol, `delay` blanks, and a request for the symbol."""
    symbol = _symbols(SYMBOLS, (batch,), generator)
    tokens = torch.full((delay + 2, batch), SYMBOLS)
    tokens[0], tokens[-1] = symbol, SYMBOLS + 1
    return Examples(one_hot(tokens, SYMBOLS + 2).float(), symbol.expand(delay + 2, -1), _at(delay + 2, delay + 1))


def _adding(delay: int, batch: int, generator: torch.Generator) -> Examples:
    """Draw `delay + 2` numbers, with one marked in each half. The sum of the marked ones is the answer."""
    steps = delay + 2
    numbers = torch.rand(steps, batch, generator=generator)
    marks = torch.zeros(steps, batch)
    first = _symbols(steps // 2, (batch,), generator)
    second = steps // 2 + _symbols(steps - steps // 2, (batch,), generator)
    marks[first, torch.arange(batch)] = 1.0
    marks[second, torch.arange(batch)] = 1.0
    total = (numbers * marks).sum(0)
    return Examples(torch.stack([numbers, marks], -1), total.expand(steps, -1), _at(steps, steps - 1))


def _copying(delay: int, batch: int, generator: torch.Generator, length: int = 5) -> Examples:
    """Draw five symbols and `delay` blanks. The answer is all five symbols in order."""
    symbols = _symbols(SYMBOLS, (length, batch), generator)
    steps = 2 * length + delay
    tokens = torch.full((steps, batch), SYMBOLS)
    tokens[:length] = symbols
    tokens[length + delay] = SYMBOLS + 1
    targets = torch.zeros(steps, batch, dtype=torch.long)
    targets[-length:] = symbols
    return Examples(one_hot(tokens, SYMBOLS + 2).float(), targets, _at(steps, *range(steps - length, steps)))


def _brackets(delay: int, batch: int, generator: torch.Generator, deepest: int = 4) -> Examples:
    """Draw `delay + 1` brackets and other letters. The answer is the number of open brackets at the end."""
    depth, rows = torch.zeros(batch, dtype=torch.long), []
    for _ in range(delay + 1):
        draw = torch.rand(batch, generator=generator)
        opens = (draw < 0.25) & (depth < deepest)
        closes = (draw > 0.75) & (depth > 0)
        rows.append(torch.where(opens, 0, torch.where(closes, 1, 2)))
        depth = depth + opens.long() - closes.long()
    inputs = one_hot(torch.stack(rows), 3).float()
    return Examples(inputs, depth.expand(delay + 1, -1), _at(delay + 1, delay))


def _alphabet(delay: int, batch: int, generator: torch.Generator) -> Examples:
    """Draw `delay` letters in alphabetical order, from a random one on. The answer is the same letters backwards."""
    count = max(delay, 1)
    start = _symbols(26, (batch,), generator)
    letters = (start + torch.arange(count).unsqueeze(1)) % 26
    tokens = torch.full((2 * count, batch), 26)
    tokens[:count] = letters
    targets = torch.zeros(2 * count, batch, dtype=torch.long)
    targets[count:] = letters.flip(0)
    return Examples(one_hot(tokens, 27).float(), targets, _at(2 * count, *range(count, 2 * count)))


def _name(delay: int, batch: int, generator: torch.Generator) -> Examples:
    """Draw "Jane walked into the room. John walked in too. ... Jane said hi to", with `delay` words between.

    The answer is the other name.
    """
    words = {word: k for k, word in enumerate([*NAMES, *_STORY])}
    people = torch.stack([torch.randperm(len(NAMES), generator=generator)[:2] for _ in range(batch)], 1)
    greeter = _symbols(2, (batch,), generator)

    def say(text: str) -> list[Tensor]:
        return [torch.full((batch,), words[word]) for word in text.split()]

    between = [torch.randint(len(NAMES), len(words), (batch,), generator=generator) for _ in range(delay)]
    said = [people[0], *say("walked into the room ."), people[1], *say("walked in too .")]
    speaker = people.gather(0, greeter.unsqueeze(0)).squeeze(0)
    answer = people.gather(0, 1 - greeter.unsqueeze(0)).squeeze(0)
    tokens = torch.stack([*said, *between, speaker, *say("said hi to")])
    steps = len(tokens)
    return Examples(one_hot(tokens, len(words)).float(), answer.expand(steps, -1), _at(steps, steps - 1))


MEMORY_TASKS: dict[str, MemoryTask] = {
    "recall": MemoryTask(SYMBOLS + 2, SYMBOLS, _recall),
    "adding": MemoryTask(2, 0, _adding),
    "copying": MemoryTask(SYMBOLS + 2, SYMBOLS, _copying),
    "brackets": MemoryTask(3, 5, _brackets),
    "alphabet": MemoryTask(27, 26, _alphabet),
    "name": MemoryTask(len(NAMES) + len(_STORY), len(NAMES), _name),
}


class PreviousInputCell(Cell):
    """`h = tanh(W x + U x' + b)`: a net that sees the previous input x' and not its own previous hidden state.

    Parameters: `weight_ih [H, I]`, `weight_ph [H, I]`, `bias [H]`. States: `h [B, H]`, `x [B, I]`.
    Source: the Modulabs lecture, "previous hidden against previous input".
    """

    state_names = ("h", "x")
    weight_ih: Tensor
    weight_ph: Tensor
    bias: Tensor | None

    def __init__(self, input_size: int, hidden_size: int, **options) -> None:
        super().__init__(input_size, hidden_size)
        shape = (hidden_size, input_size)
        self.add_parameters(options, weight_ih=shape, weight_ph=shape, bias=(hidden_size,))

    @property
    def state_sizes(self) -> tuple[int, ...]:
        return (self.hidden_size, self.input_size)

    def forward(self, x: Tensor, state: State) -> State:
        _, before = state
        linear = nn.functional.linear
        return torch.tanh(linear(x, self.weight_ih, self.bias) + linear(before, self.weight_ph)), x


class MemoryNet(nn.Module):
    """One recurrent layer between two linear ones: `[T, B, I]` to `[T, B, classes]` (one number if `classes` is 0)."""

    def __init__(self, task: MemoryTask, cell: str, hidden_size: int, keep_bias: float | None) -> None:
        super().__init__()
        plain = cell == PREVIOUS_INPUT  # this cell must see the input itself
        self.embed = nn.Identity() if plain else nn.Linear(task.input_size, hidden_size)
        if plain:
            self.cell: Cell = PreviousInputCell(task.input_size, hidden_size)
        else:
            self.cell = make_cell(cell, hidden_size, hidden_size)
        if keep_bias is not None:
            keep_memory(self.cell, keep_bias)
        self.readout = nn.Linear(hidden_size, max(task.classes, 1))

    def forward(self, inputs: Tensor) -> Tensor:
        outputs, _ = unroll(self.cell, self.embed(inputs))
        return self.readout(outputs)


@dataclass(frozen=True)
class MemoryResult:
    """The result of training a net: the share of right answers on new sequences, and the number of updates."""

    cell: str
    delay: int
    accuracy: float
    updates: int


def train_memory(
    task_name: str,
    cell: str,
    delay: int,
    *,
    hidden_size: int = 32,
    updates: int = 600,
    batch_size: int = 32,
    learning_rate: float = 0.01,
    keep_bias: float | None = None,
    seed: int = 1,
) -> MemoryResult:
    """Train a small net on sequences of `delay` by Adam, with the gradient's norm clipped at 1.

    Training takes at most `updates` updates. It ends early once 99.5% of the answers are right, both over 10 batches in
    a row and on 1,000 more sequences. The accuracy is measured on 1,000 new sequences.
    """
    if task_name not in MEMORY_TASKS:
        raise ConfigurationError(f"unknown task {task_name!r}: choose from {', '.join(MEMORY_TASKS)}")
    task = MEMORY_TASKS[task_name]
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed + 1)
    net = MemoryNet(task, cell, hidden_size, keep_bias)
    optimizer = torch.optim.Adam(net.parameters(), learning_rate)
    right: list[float] = []
    for done in range(1, updates + 1):
        batch = task.make(delay, batch_size, generator)
        optimizer.zero_grad()
        loss, accuracy = _judge(task, net(batch.inputs), batch)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        right.append(accuracy)
        # The last update may spoil a net that has just found the solution.
        if done >= 10 and sum(right[-10:]) / 10 >= 0.995 and _test(task, net, delay, generator) >= 0.995:
            break
    return MemoryResult(cell, delay, _test(task, net, delay, generator), done)


@torch.no_grad()
def _test(task: MemoryTask, net: MemoryNet, delay: int, generator: torch.Generator) -> float:
    """Return the share of right answers on 1,000 new sequences."""
    batch = task.make(delay, 1000, generator)
    return _judge(task, net(batch.inputs), batch)[1]


def _judge(task: MemoryTask, outputs: Tensor, batch: Examples) -> tuple[Tensor, float]:
    """Return the loss and the share of right answers."""
    found, targets = outputs[batch.counted], batch.targets[batch.counted]
    if task.classes:
        loss = cross_entropy(found.flatten(0, 1), targets.flatten())
        return loss, float((found.argmax(-1) == targets).double().mean())
    errors = found.squeeze(-1) - targets
    return (errors**2).mean(), float((errors.abs() < 0.04).double().mean())


def chance(task_name: str) -> float:
    """Return the accuracy of a guess among equally frequent answers; 0 if the answers are numbers."""
    classes = MEMORY_TASKS[task_name].classes
    return 1 / classes if classes else 0.0


@dataclass(frozen=True)
class MemoryMean:
    """The means over one cell's nets at one delay."""

    accuracy: float
    updates: float


def average(results: Sequence[MemoryResult]) -> dict[str, dict[int, MemoryMean]]:
    """Return the means by cell and delay, over the nets that differ only in their seed."""
    groups: dict[str, dict[int, list[MemoryResult]]] = {}
    for result in results:
        groups.setdefault(result.cell, {}).setdefault(result.delay, []).append(result)
    return {
        cell: {
            delay: MemoryMean(fmean(one.accuracy for one in nets), fmean(one.updates for one in nets))
            for delay, nets in by_delay.items()
        }
        for cell, by_delay in groups.items()
    }


def draw_memory(results: Sequence[MemoryResult], title: str, by_chance: float):
    """Draw accuracy against delay, and the updates that were needed, with one line for each cell."""
    from matplotlib.ticker import LogLocator, NullLocator

    from unrolled.analysis.figures import canvas, literal

    figure = canvas(11, 5)
    accuracy, updates = figure.subplots(1, 2)
    for number, (cell, means) in enumerate(average(results).items()):
        style: dict[str, Any] = {
            "color": f"C{number % 10}",
            "marker": "os^v"[number % 4],
            "markersize": 4,
            "label": literal(cell),
        }
        # Each line is thinner than the one before, so that none hides another.
        style |= {"linestyle": ("-", "--")[number // 10 % 2], "linewidth": max(1.0, 4 - 0.25 * number), "alpha": 0.85}
        accuracy.plot(list(means), [mean.accuracy for mean in means.values()], **style)
        updates.plot(list(means), [mean.updates for mean in means.values()], **style)
    if by_chance:
        accuracy.axhline(by_chance, color="grey", linestyle=":", linewidth=1, label="chance")
    delays = sorted({result.delay for result in results})
    for axes in (accuracy, updates):
        axes.set_xlabel("delay")
        if delays[0] > 0:
            axes.set_xscale("log")
        axes.minorticks_off()
        axes.set_xticks(delays, map(str, delays))
        axes.grid(alpha=0.3)
    accuracy.set(ylabel="accuracy on new sequences", ylim=(-0.03, 1.03))
    updates.set(ylabel="updates until it was right, or the limit", yscale="log")
    updates.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    updates.yaxis.set_major_formatter("{x:,.0f}")
    updates.yaxis.set_minor_locator(NullLocator())
    figure.suptitle(literal(title), fontsize=10)
    figure.legend(*accuracy.get_legend_handles_labels(), loc="outside right center", fontsize=8)
    return figure
