"""From a plan to native code: the loop over time, forward and backward, as two C functions, and how they are called.

Threads share the rows of the batch out once and never meet: each takes its rows through all steps.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, fx

from unrolled.errors import UntraceableError
from unrolled.unroll.codegen import Place, Step
from unrolled.unroll.columns import width
from unrolled.unroll.native import build
from unrolled.unroll.plan import Derivative, Plan
from unrolled.unroll.trace import aten, placeholders, results

_KERNEL, _SAMPLE, _PRODUCT = (Path(__file__).with_name(name) for name in ("kernel.h", "sample.h", "product.c"))
_TYPES = {torch.float32: ("float", 8, "int32_t"), torch.float64: ("double", 4, "int64_t")}
_BLOCK = 96  # rows that a thread takes through all steps at once, at most


@dataclass
class Array:
    """An array that a loop's caller hands it; `node` is the graph's value that it holds, None for a mere store."""

    node: fx.Node | None
    pointer: str  # C for row `r`, of `{0}`, the array's name
    columns: int = 0  # 0 where it has no rows

    def place(self, name: str) -> Place:
        return Place(self.pointer.format(name, self.columns), self.columns)


EVERY_STEP = "{0} + (t * B + r) * {1}"  # [T, B, columns]
BEFORE = EVERY_STEP  # of [T + 1, B, columns]: the state before step t
AFTER = "{0} + ((t + 1) * B + r) * {1}"  # and after it
OLD = "{0} + ((t & 1) * B + r) * {1}"  # of [2, B, columns], in turn
NEW = "{0} + ((~t & 1) * B + r) * {1}"
WHOLE = "{0}"


class NativeLoop:
    """A compiled loop over time of one graph; called with its arrays' tensors in the order of `arrays`."""

    def __init__(
        self,
        graph: fx.GraphModule,
        arrays: Sequence[Array],
        outputs: Sequence[tuple[fx.Node, int, str]],
        dtype: torch.dtype,
        descending: bool,
        store_columns: Sequence[int] = (),
        store_of: Mapping[int, int] | None = None,
        around: tuple[str, str] = ("", ""),
    ) -> None:
        """`outputs`: node, the array it goes to, and the pointer there.

        `store_columns` are the widths of the arrays that the caller makes for results; `store_of` says which of them
        holds which result. `around` is C to run before and behind every step, for rows `first` to `first + N`.
        """
        self.store_columns, self.store_of = store_columns, store_of or {}
        if dtype not in _TYPES:
            raise UntraceableError(f"{dtype} has no native code")
        for node in graph.graph.nodes:
            value = node.meta.get("val")
            if isinstance(value, Tensor) and value.is_floating_point() and value.dtype != dtype:
                raise UntraceableError(f"{node.target} gives {value.dtype} where all else is {dtype}")
        self.dtype = dtype
        self.real, lanes, mask = _TYPES[dtype]
        panel = 2 * lanes
        names = [f"a{k}" for k in range(len(arrays))]
        inputs = [(array, label) for array, label in zip(arrays, names, strict=True) if array.node is not None]
        places = {array.node: array.place(label) for array, label in inputs if array.columns and array.node}
        vectors = {array.node: label for array, label in inputs if not array.columns and array.node}
        targets = [(node, Place(pointer.format(names[k], width(node)), width(node))) for node, k, pointer in outputs]
        step = self.step = Step(graph, places, vectors, targets, panel)
        self.matrices = list(dict.fromkeys(product.matrix for product in step.products))
        self.scratch = step.scratch
        packed, packs, size = {}, [], 0
        self.strided = [next(k for k, array in enumerate(arrays) if array.node is node) for node in self.matrices]
        for k, node in enumerate(self.matrices):
            depth, columns = node.meta["val"].shape
            packed[node] = f"w{k}"
            packs.append((vectors[node], depth, columns, size))
            size += -(-columns // panel) * panel * depth
        self.packed = size
        self.work = sum(2 * product.depth * product.width for product in step.products)
        body = "\n".join("          " + line for line in [around[0], *step.code(packed), around[1]])
        self.source = _template(self.real, lanes, mask, names, packs, size, self.scratch, body, descending, any(around))
        # What has no rows and is no matrix is read as one row, element behind element.
        self._rows = [k for k, array in enumerate(arrays) if array.node in vectors and k not in self.strided]
        self._pointers = ctypes.c_void_p * len(arrays)
        self._strides = ctypes.c_long * (2 * len(self.strided))

    def compile(self) -> NativeLoop:
        """Compile, or load what was compiled before; CompilerError where neither can be done."""
        _products(self.dtype)
        self.function = build(self.source).run
        self.function.restype = None
        # Pointers, strides, steps, batch, threads, rows a thread takes at once, whether to pack, scratch, products.
        self.function.argtypes = [ctypes.c_void_p] * 2 + [ctypes.c_long] * 5 + [ctypes.c_void_p] * 3
        return self

    def __call__(self, steps: int, batch: int, tensors: Sequence[Tensor], packed: Tensor | None = None) -> Tensor:
        """Run; returns the packed matrices, by which a later call with the same ones need not pack them again."""
        threads = max(1, min(torch.get_num_threads(), batch))
        if self.work * steps * batch < 1_000_000:  # waking the others would take longer
            threads = 1
        rows = min(_BLOCK, -(-batch // threads))
        size = self.packed + threads * rows * self.scratch + 16
        fits = packed is not None and packed.numel() >= size
        scratch = packed if fits and packed is not None else torch.empty(size, dtype=self.dtype)
        tensors = list(tensors)
        for k in self._rows:
            tensors[k] = tensors[k].to(self.dtype).contiguous()
        pointers = self._pointers(*[tensor.data_ptr() for tensor in tensors])
        strides = self._strides(*[stride for k in self.strided for stride in tensors[k].stride()])
        self.function(
            pointers, strides, steps, batch, threads, rows, not fits, scratch.data_ptr(), *_products(self.dtype)
        )
        return scratch


def _types(real: str, lanes: int, mask: str) -> str:
    return f"#define REAL {real}\n#define LANES {lanes}\n#define MASK {mask}"


@functools.cache
def _products(dtype: torch.dtype) -> tuple[int, int]:
    """The addresses of `pack` and `product`."""
    source = "\n".join([_types(*_TYPES[dtype]), *(path.read_text(encoding="utf-8") for path in (_KERNEL, _PRODUCT))])
    library = build(source)
    pack, product = (ctypes.cast(function, ctypes.c_void_p).value for function in (library.pack, library.product))
    assert pack
    assert product
    return pack, product


def _template(real, lanes, mask, names, packs, packed, scratch, body, descending, sampling) -> str:
    arrays = "\n".join(f"  REAL *const {name} = p[{k}];" for k, name in enumerate(names))
    matrices = "\n".join(f"  REAL *const w{k} = scratch + {start};" for k, (*_, start) in enumerate(packs))
    packing = "\n".join(
        f"    pack({name}, strides[{2 * k}], strides[{2 * k + 1}], {depth}, {columns}, w{k}, thread, all);"
        for k, (name, depth, columns, _) in enumerate(packs)
    )
    headers = "\n".join(path.read_text(encoding="utf-8") for path in [_KERNEL, *([_SAMPLE] if sampling else [])])
    time = "long t = T - 1; t >= 0; t--" if descending else "long t = 0; t < T; t++"
    return f"""{_types(real, lanes, mask)}
{headers}
void run(REAL *const *p, const long *strides, long T, long B, long threads, long most, long fresh, REAL *scratch,
         pack_function *pack, product_function *product) {{
{arrays}
{matrices}
#pragma omp parallel num_threads(threads)
  {{
#ifdef _OPENMP
    const long thread = omp_get_thread_num(), all = omp_get_num_threads();
#else
    const long thread = 0, all = 1;
#endif
    if (fresh) {{
{packing}
    }}
#pragma omp barrier
    REAL *const s = scratch + {packed} + thread * most * {scratch};
    const long from = B * thread / all, to = B * (thread + 1) / all, blocks = (to - from + most - 1) / most;
    for (long block = 0; block < blocks; block++) {{
      const long first = from + (to - from) * block / blocks, N = from + (to - from) * (block + 1) / blocks - first;
      for ({time}) {{
{body}
      }}
    }}
  }}
}}
"""


class NativeExecutor:
    """Runs a plan's loops in native code; see `TorchExecutor` for what each method does."""

    def __init__(self, plan: Plan, dtype: torch.dtype) -> None:
        self.plan, self.dtype = plan, dtype
        self._core: NativeLoop | None = None
        self._loops: dict[tuple[bool, ...], tuple[NativeLoop, NativeLoop]] = {}

    def run(self, steps, batch, prepared, hoisted, state):
        plan = self.plan
        if self._core is None:
            graph = plan.core
            given = placeholders(graph)[1:]
            arrays = self._inputs(given[: plan.prepared + plan.hoisted])
            first = len(arrays)
            seen = [k in plan.visible for k in range(plan.states)]
            arrays += [Array(node, BEFORE if seen[k] else OLD, width(node)) for k, node in enumerate(given[first:])]
            outputs = [(node, first + k, AFTER if seen[k] else NEW) for k, node in enumerate(results(graph))]
            self._core = NativeLoop(graph, arrays, outputs, self.dtype, descending=False).compile()
        runs = [_started(part, steps + 1 if k in plan.visible else 2) for k, part in enumerate(state)]
        self._core(steps, batch, [*_dense(self.dtype, prepared, hoisted), *runs])
        final = [run[steps].clone() if k in plan.visible else run[steps & 1] for k, run in enumerate(runs)]
        return [runs[k] for k in plan.visible], tuple(final)

    def forward(self, derivative: Derivative, steps, batch, prepared, hoisted, state, constants):
        loop, _ = self._loops_for(derivative)
        trajectories = [_started(part, steps + 1) for part in state]
        like = trajectories[0]
        saved = [like.new_empty(steps, batch, columns) for columns in derivative.saved_columns]
        loop(steps, batch, [*_dense(self.dtype, prepared, hoisted), *trajectories, *constants, *saved])
        return trajectories, saved

    def _loops_for(self, derivative: Derivative) -> tuple[NativeLoop, NativeLoop]:
        """Forward and backward; both at once, so that what cannot be compiled is known before anything has run."""
        if derivative.wanted not in self._loops:
            loops = (self._make_forward(derivative), self._make_backward(derivative))
            with ThreadPoolExecutor(2) as pool:
                list(pool.map(NativeLoop.compile, loops))
            self._loops[derivative.wanted] = loops
        return self._loops[derivative.wanted]

    def steps(self, derivative: Derivative) -> tuple[Step, Step]:
        """The forward and the backward step, to look at."""
        return self._make_forward(derivative).step, self._make_backward(derivative).step

    def _make_forward(self, derivative: Derivative) -> NativeLoop:
        plan, graph = self.plan, derivative.forward
        given = placeholders(graph)[1:]
        values, states = plan.prepared + plan.hoisted, plan.states
        arrays = self._inputs(given[:values])
        arrays += [Array(node, BEFORE, width(node)) for node in given[values : values + states]]
        arrays += [Array(node, WHOLE) for node in given[values + states :]]
        results_ = results(graph)
        outputs = [(node, values + k, AFTER) for k, node in enumerate(results_[:states])]
        outputs += [(node, len(arrays) + k, EVERY_STEP) for k, node in enumerate(results_[states:])]
        arrays += [Array(None, EVERY_STEP)] * len(results_[states:])
        return NativeLoop(graph, arrays, outputs, self.dtype, descending=False)

    def backward(
        self, derivative, steps, batch, prepared, hoisted, trajectories, constants, saved, of_steps, of_states
    ):
        first = self.plan.prepared + self.plan.hoisted
        _, loop = self._loops_for(derivative)
        like = trajectories[0]
        gradients = [like.new_empty(2, batch, part.size(-1)) for part in of_states]
        for turn, part in zip(gradients, of_states, strict=True):
            turn[(steps - 1) & 1].copy_(part)
        stores = [like.new_empty(steps, batch, columns) for columns in loop.store_columns]
        tensors = [*_dense(self.dtype, prepared, hoisted), *trajectories, *constants, *saved, *gradients]
        loop(steps, batch, [*tensors, *(value.contiguous() for value in of_steps.values()), *stores])
        # After step 0 the gradients of the first states stand in the place of those before a step of odd number.
        of_hoisted = [stores[loop.store_of[j]] for j, k in enumerate(derivative.per_step) if k < first]
        late = [stores[loop.store_of[len(derivative.per_step) + k]] for k in range(derivative.late)]
        return [turn[1] for turn in gradients], of_hoisted, late

    def _make_backward(self, derivative: Derivative) -> NativeLoop:
        plan = self.plan
        first, states, constants = plan.prepared + plan.hoisted, plan.states, derivative.constant_count
        start = first + states + constants + derivative.saved
        graph, incoming = _with_step_gradients(derivative.backward, [1 + start + k for k in plan.visible])
        given = placeholders(graph)[1:]
        arrays = self._inputs(given[:first])
        arrays += [Array(node, BEFORE, width(node)) for node in given[first : first + states]]
        arrays += [Array(node, WHOLE) for node in given[first + states : first + states + constants]]
        arrays += [Array(node, EVERY_STEP, width(node)) for node in given[len(arrays) : start]]
        arrays += [Array(node, OLD, width(node)) for node in given[start : start + states]]
        arrays += [Array(node, EVERY_STEP, width(node)) for node in incoming]
        outputs: list[tuple[fx.Node, int, str]] = []
        columns: list[int] = []
        store_of: dict[int, int] = {}
        stored: dict[fx.Node, int] = {}
        for j, node in enumerate(results(graph)):
            k = derivative.per_step[j] if j < len(derivative.per_step) else 0
            if k >= first:
                outputs.append((node, start + k - first, NEW))
                continue
            if node not in stored:
                stored[node] = len(columns)
                outputs.append((node, len(arrays) + len(columns), EVERY_STEP))
                columns.append(width(node))
            store_of[j] = stored[node]
        arrays += [Array(None, EVERY_STEP)] * len(columns)
        return NativeLoop(graph, arrays, outputs, self.dtype, descending=True, store_columns=columns, store_of=store_of)

    def _inputs(self, nodes: Sequence[fx.Node]) -> list[Array]:
        count = self.plan.prepared
        arrays = [Array(node, WHOLE) for node in nodes[:count]]
        return arrays + [Array(node, EVERY_STEP, width(node)) for node in nodes[count:]]


def _with_step_gradients(source: fx.GraphModule, numbers: Sequence[int]) -> tuple[fx.GraphModule, list[fx.Node]]:
    """A copy in which more gradients of the inputs so numbered come in at every step, and those inputs' copies."""
    graph = fx.Graph()
    inputs = placeholders(source)
    copies = {node: graph.node_copy(node) for node in inputs}
    added = []
    for k in numbers:
        carried = copies[inputs[k]]
        added.append(graph.placeholder(f"of_step_{k}"))
        added[-1].meta = dict(carried.meta)
        copies[inputs[k]] = graph.call_function(aten.add.Tensor, (carried, added[-1]))
        copies[inputs[k]].meta = dict(carried.meta)
    for node in source.graph.nodes:
        if node.op != "placeholder":
            copies[node] = graph.node_copy(node, lambda argument: copies[argument])
    return fx.GraphModule(source, graph), added


def _started(state: Tensor, count: int) -> Tensor:
    """`[count, B, size]`, of which the first is `state` and the rest is not yet written."""
    trajectory = state.new_empty(count, *state.shape)
    trajectory[0].copy_(state)
    return trajectory


def _dense(dtype: torch.dtype, prepared: Sequence[Tensor], hoisted: Sequence[Tensor]) -> list[Tensor]:
    """The values as native code reads them: rows in one piece, truth values as numbers."""
    return [*prepared, *(value.to(dtype).contiguous() for value in hoisted)]
