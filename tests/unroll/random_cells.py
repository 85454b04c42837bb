"""Cells made at random: settings of every kind, changed between calls; states permuted, repeated, passed through."""

import collections
import itertools
import linecache
import types
from dataclasses import dataclass

import torch

H = 3
_numbers = itertools.count()


@dataclass
class Setting:
    """A number that a step reads.

    made: lines for the constructor. above: lines before the class. inside: lines within the class.
    read: the expression in `forward`. change: a statement that sets it to `value`, over `cell` and `space`.
    before: lines at the start of `forward`.
    """

    read: str
    made: str = "pass"
    above: str = ""
    inside: str = ""
    change: str = "pass"
    before: str = ""


SETTINGS = {
    "float": Setting("self.k", "self.k = 0.5", change="cell.k = value"),
    "int": Setting("self.k", "self.k = 2", change="cell.k = int(4 * value)"),
    "branch on a number": Setting("(0.5 if self.k > 1 else 0.25)", "self.k = 0.5", change="cell.k = value"),
    "switch": Setting("(0.5 if self.k else 0.25)", "self.k = True", change="cell.k = not cell.k"),
    "word": Setting("{'a': 0.5, 'b': 0.7}[self.k]", "self.k = 'a'", change="cell.k = 'b'"),
    "list": Setting("self.k[1]", "self.k = [1, 0.5]", change="cell.k[1] = value"),
    "nested": Setting("self.k['a'][0]['b']", "self.k = {'a': [{'b': 0.5}]}", change="cell.k['a'][0]['b'] = value"),
    "set": Setting("sum(self.k)", "self.k = {0.5}", change="cell.k.add(value)"),
    "deque": Setting("self.k[0]", "self.k = collections.deque([0.5])", change="cell.k[0] = value"),
    "default dict": Setting(
        "self.k['a']", "self.k = collections.defaultdict(float, a=0.5)", change="cell.k['a'] = value"
    ),
    "dataclass": Setting(
        "self.k.k", "self.k = Config()", "@dataclass\nclass Config:\n    k: float = 0.5", change="cell.k.k = value"
    ),
    "frozen": Setting(
        "self.k.k",
        "self.k = Config()",
        "@dataclass(frozen=True)\nclass Config:\n    k: float = 0.5",
        change="cell.k = type(cell.k)(value)",
    ),
    "namespace": Setting("self.k.k", "self.k = types.SimpleNamespace(k=0.5)", change="cell.k.k = value"),
    "object": Setting("self.k.k", "self.k = Config()", "class Config: k = 0.5", change="cell.k.k = value"),
    "class of an object": Setting(
        "self.k.k", "self.k = Config()", "class Config: k = 0.5", change="type(cell.k).k = value"
    ),
    "slots": Setting(
        "self.k.k",
        "self.k = Config()",
        "class Config:\n    __slots__ = ('k',)\n    def __init__(self): self.k = 0.5",
        change="cell.k.k = value",
    ),
    "named tuple": Setting(
        "self.k.k",
        "self.k = Pair(0.5)",
        "Pair = collections.namedtuple('Pair', 'k')",
        change="cell.k = type(cell.k)(value)",
    ),
    "array": Setting("float(self.k[0])", "self.k = np.array([0.5, 1.0])", change="cell.k[0] = value"),
    "array's scalar": Setting("self.k", "self.k = np.float64(0.5)", change="cell.k = np.float64(value)"),
    "global": Setting("K", above="K = 0.5", change="space['K'] = value"),
    "global list": Setting("K[0]", above="K = [0.5]", change="space['K'][0] = value"),
    "module": Setting(
        "config.k", above="config = types.ModuleType('config'); config.k = 0.5", change="space['config'].k = value"
    ),
    "class attribute": Setting("self.k", inside="k = 0.5", change="type(cell).k = value"),
    "shadowed": Setting("self.k", inside="k = 0.5", change="cell.k = value"),
    "method": Setting("self.k()", inside="def k(self): return 0.5", change="type(cell).k = lambda self: value"),
    "own method": Setting("self.k()", inside="def k(self): return 0.5", change="cell.k = lambda: value"),
    "static method": Setting(
        "self.k()", inside="@staticmethod\n    def k(): return 0.5", change="type(cell).k = staticmethod(lambda: value)"
    ),
    "property": Setting(
        "self.k", "self._k = [0.5]", inside="@property\n    def k(self): return self._k[0]", change="cell._k[0] = value"
    ),
    "closure": Setting(
        "self.k()",
        "self.k = make(self)",
        "def make(cell):\n    k = [0.5]\n    cell.inner = k\n    return lambda: k[0]",
        change="cell.inner[0] = value",
    ),
    "default": Setting(
        "half()", above="def half(k=[0.5]): return k[0]", change="space['half'].__defaults__[0][0] = value"
    ),
    "attribute of a function": Setting(
        "half.k", above="def half(): pass\nhalf.k = 0.5", change="space['half'].k = value"
    ),
    "code of a function": Setting(
        "half()",
        above="def half(): return 0.5\ndef other(): return 0.9",
        change="space['half'].__code__ = space['other'].__code__",
    ),
    "partial": Setting(
        "self.k()", "self.k = functools.partial(float, 0.5)", change="cell.k = functools.partial(float, value)"
    ),
    "by a name that is computed": Setting("getattr(self, 'k' + '1')", "self.k1 = 0.5", change="cell.k1 = value"),
    "by vars": Setting("vars(self)['k']", "self.k = 0.5", change="cell.k = value"),
    "copied": Setting("copy.copy(self.k).k", "self.k = Config()", "class Config: k = 0.5", change="cell.k.k = value"),
    "module's own": Setting(
        "self.act(torch.ones(())).item()", "self.act = nn.Softplus()", change="cell.act.beta = value"
    ),
    "module's eps": Setting(
        "1.0", "self.norm = nn.LayerNorm(3)", before="x = self.norm(x)", change="cell.norm.eps = value"
    ),
    "training": Setting("(0.5 if self.training else 0.7)", change="cell.train(not cell.training)"),
    "buffer": Setting("self.k", "self.register_buffer('k', torch.tensor(0.5))", change="cell.k.fill_(value)"),
    "parameter": Setting("self.k", "self.k = nn.Parameter(torch.tensor(0.5))", change="cell.k.data.fill_(value)"),
    "plain tensor": Setting("self.k", "self.k = torch.tensor(0.5)", change="cell.k.fill_(value)"),
    "counter": Setting("(0.5 + 0.1 * self.k)", "self.k = 0", before="self.k += 1"),
    "counter in a list": Setting("0.1 * len(self.k)", "self.k = []", before="self.k.append(1)"),
    "counter of the class": Setting("0.1 * type(self).k", inside="k = 0", before="type(self).k += 1"),
    "global counter": Setting("0.1 * K", above="K = 0", before="global K; K += 1"),
    "kept": Setting("0.5", before="self.last = x.mean()"),
    "kept in a list": Setting("0.5", "self.k = [None]", before="self.k[0] = x.mean()"),
    "drawn": Setting("random.random()"),
    "drawn by NumPy": Setting("np.random.rand()"),
    "drawn by an own generator": Setting("self.k.random()", "self.k = random.Random(3)"),
    "drawn by NumPy's generator": Setting("float(self.k.random())", "self.k = np.random.default_rng(3)"),
    "drawn by PyTorch": Setting("torch.rand(())"),
    "hook": Setting("1.0", change="cell.i.register_forward_hook(lambda module, given, made: value * made)"),
    "hook before": Setting("1.0", change="cell.i.register_forward_pre_hook(lambda module, given: (value * given[0],))"),
    "writes a buffer": Setting("self.k", "self.register_buffer('k', torch.tensor(0.5))", before="self.k.add_(0.1)"),
    "another buffer": Setting("self.k", "self.register_buffer('k', torch.tensor(0.5))", before="self.k = self.k + 0.1"),
    "asks about gradients": Setting("(0.5 if torch.is_grad_enabled() else 0.7)"),
    "asks a tensor": Setting("(0.5 if x.requires_grad else 0.7)"),
    "lock": Setting(
        "self.k", "self.k = 0.5; self.lock = threading.Lock()", before="self.lock.acquire(); self.lock.release()"
    ),
    "unread lock": Setting("self.k", "self.k = 0.5; self.lock = threading.Lock()", change="cell.k = value"),
    "values": Setting("(0.5 if float(x.sum()) > 0 else 0.7)"),
    "size of the batch": Setting("(0.5 if x.size(0) > 100 else 0.7)"),
}


@dataclass
class Case:
    """A cell: what it reads, how many states it has, what their new values and its output are.

    form: how it takes its state: bare, tuple, list, named, dict.
    """

    setting: str
    states: int
    new: list[str]
    output: str | None
    form: str

    def source(self) -> str:
        setting = SETTINGS[self.setting]
        names = [f"n{k}" for k in range(self.states)]
        taken = {
            "bare": "n0 = state",
            "named": "; ".join(f"{name} = state.{name}" for name in names),
            "dict": "; ".join(f"{name} = state['{name}']" for name in names),
        }.get(self.form, f"{', '.join(names)}, = state")
        given = {
            "bare": self.new[0],
            "named": f"Named{self.states}({', '.join(self.new)})",
            "list": f"[{', '.join(self.new)}]",
            "dict": "{" + ", ".join(f"'{name}': {value}" for name, value in zip(names, self.new, strict=True)) + "}",
        }.get(self.form, f"({', '.join(self.new)},)")
        lines = [
            *setting.above.splitlines(),
            "class Made(nn.Module):",
            f"    {setting.inside or 'pass'}",
            "    def __init__(self):",
            "        super().__init__()",
            f"        self.i, self.h = nn.Linear({H}, {H}), nn.Linear({H}, {H})",
            "        self.scale = 0.9",
            f"        {setting.made}",
            "    def forward(self, x, state):",
            f"        {setting.before or 'pass'}",
            f"        {taken}",
            f"        a = torch.tanh(self.i(x) * {setting.read} + self.h(n0))",
            f"        b = torch.sigmoid(n{self.states - 1} + x) * self.scale",
            f"        return {given if self.output is None else f'{self.output}, {given}'}",
        ]
        return _IMPORTS + "\n".join(lines) + "\n"

    def build(self) -> tuple[torch.nn.Module, dict]:
        """The cell, and the namespace that its code stands in."""
        path, text = f"<random cell {next(_numbers)}>", self.source()
        linecache.cache[path] = len(text), None, text.splitlines(keepends=True), path
        module = types.ModuleType("random_cell")
        exec(compile(text, path, "exec"), vars(module))
        return module.Made().double(), vars(module)

    def first(self, batch: int):
        parts = [torch.full((batch, H), 0.1 * (k + 1), dtype=torch.float64) for k in range(self.states)]
        if self.form == "dict":
            return {f"n{k}": part for k, part in enumerate(parts)}
        return (
            parts[0]
            if self.form == "bare"
            else {"named": NAMED[self.states]._make, "list": list}.get(self.form, tuple)(parts)
        )

    def change(self, cell: torch.nn.Module, space: dict, value: float) -> None:
        """Another value for what the cell reads, in place."""
        exec(_IMPORTS + SETTINGS[self.setting].change, {"cell": cell, "space": space, "value": value})


NAMED = {count: collections.namedtuple(f"Named{count}", [f"n{k}" for k in range(count)]) for count in (1, 2, 3)}
_IMPORTS = """import collections, copy, functools, random, threading, types
from dataclasses import dataclass
import numpy as np, torch
from torch import nn
from tests.unroll.random_cells import NAMED
Named1, Named2, Named3 = NAMED[1], NAMED[2], NAMED[3]
"""
