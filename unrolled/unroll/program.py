"""Builds a native program: C in phases, each of which is divided among the threads.

The arrays are vectors, which are computed from parameters; arguments, whose addresses the caller passes; and double
buffers and temporaries, which are allocated for the call. The rows of the batch are divided among the threads once. A
thread takes its rows through all steps without synchronization. Threads synchronize between phases.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from string import ascii_lowercase
from typing import NamedTuple

import torch
from torch import Tensor, fx

from unrolled.errors import UntraceableError
from unrolled.unroll.codegen import Step
from unrolled.unroll.compiled import BLOCK, DEPTH, KERNEL, TYPES, Native, preamble
from unrolled.unroll.native import digest
from unrolled.unroll.places import Place, size
from unrolled.unroll.words import operation

SAMPLE = Path(__file__).with_name("sample.h")
_WORTH_SHARING = 150_000  # the number of weights from which a product of one row is divided among threads by columns

EVERY_STEP = "{0} + (t * B + r) * {1}"  # row `r` of an array [T, B, columns], or of the states before step t
AFTER = "{0} + ((t + 1) * B + r) * {1}"  # row `r` of the states [T + 1, B, columns] after step t
OLD = "{0} + ((t & 1) * B + r) * {1}"  # row `r` of a double buffer [2, B, columns]
NEW = "{0} + ((~t & 1) * B + r) * {1}"
ONE_STEP = "{0} + r * {1}"  # row `r` of an array [B, columns]
Rows = tuple[str, str]  # an array's name, and the pattern of its rows


class Copy(NamedTuple):
    """Rows to copy before or after a loop: zeros if the source's address is 0, nothing if the target's address is 0."""

    source: Rows
    target: Rows
    columns: int


_LOOP = """  {{
    const long from = B * thread / all, to = B * (thread + 1) / all, blocks = (to - from + BLOCK - 1) / BLOCK;
    for (long block = 0; block < blocks; block++) {{
      const long first = from + (to - from) * block / blocks, N = from + (to - from) * (block + 1) / blocks - first;
{starts}
      for ({time}) {{
{body}
      }}
{ends}
    }}
  }}"""
_ROWS = """  {{
    const long from = T * B * thread / all, to = T * B * (thread + 1) / all, blocks = (to - from + BLOCK - 1) / BLOCK;
    for (long t = 0, block = 0; block < blocks; block++) {{
      const long first = from + (to - from) * block / blocks, N = from + (to - from) * (block + 1) / blocks - first;
{body}
    }}
  }}"""
_SIZES, _COUNT = "@sizes@", "@count@"  # placeholders for what is known only after all of the C is written
_PROGRAM = """{types}
#define BLOCK {block}
{headers}
INLINE void copy_rows(REAL *to, const REAL *from, long count) {{
  if (from) memcpy(to, from, count * sizeof(REAL));
  else memset(to, 0, count * sizeof(REAL));
}}
const long sizes_taken = {count};
void run(REAL *const *p, const long *strides, const long *sizes, long T, long B, long threads, long own, long fresh,
         REAL *packed, REAL *scratch, const struct tools *tools) {{
{sizes}
{arrays}
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
  REAL *const s = scratch + thread * own;
{phases}
  }}
}}
"""


class Program:
    """Builds one program: name its arrays, add its phases, then call `built`."""

    def __init__(self, dtype: torch.dtype) -> None:
        if dtype not in TYPES:
            raise UntraceableError(f"{dtype} has no native code")
        self.dtype = dtype
        self.work = 0  # floating-point operations for each row of T * B
        self._vectors = 0
        self._arguments = 0
        self._flat: set[int] = set()
        self._double_buffers: list[int] = []
        self._temporaries: list[int] = []
        self._phases: list[str] = []
        self._contractions: list[str] = []  # run after all phases
        self._packed: dict[str, tuple[int, int, int]] = {}  # depth, width, start
        self._packed_size = 0
        self._scratch = [0, 0]  # elements for each row of the batch, and for each row of all steps
        self._contract_scratch = 0
        self._samples = False
        self.keeps_packed = False

    def vector(self) -> str:
        """Return the name of a new matrix or vector that is computed from parameters."""
        self._vectors += 1
        return f"c{self._vectors - 1}"

    def argument(self) -> str:
        """Return the name of a new array whose address the caller passes, in the order of these calls."""
        self._arguments += 1
        return f"a{self._arguments - 1}"

    def double_buffer(self, columns: int) -> str:
        """Return the name of a new array `[2, B, columns]` whose halves alternately hold the old and the new rows."""
        self._double_buffers.append(columns)
        return f"t{len(self._double_buffers) - 1}"

    def temporary(self, columns: int) -> str:
        """Return the name of a new array `[T, B, columns]` that exists only during the call."""
        self._temporaries.append(columns)
        return f"m{len(self._temporaries) - 1}"

    def loop(
        self,
        step: Step,
        *,
        descending: bool = False,
        starts: Sequence[Copy] = (),
        ends: Sequence[Copy] = (),
        around: tuple[str, str] = ("", ""),
    ) -> None:
        """Add a loop over t that runs a step. The copies of `starts` run before it, those of `ends` after it.

        around: C to run before and after every step, for rows `first` to `first + N`.
        """
        self._samples |= any(around)
        packed = self._add(step, 0)
        body = [around[0], *step.code(packed), around[1]]
        time = "long t = T - 1; t >= 0; t--" if descending else "long t = 0; t < T; t++"
        times = ("T - 1", "0") if descending else ("0", "T - 1")
        copies = [[_copy(copy, t) for copy in group] for group, t in zip((starts, ends), times, strict=True)]
        parts = {"starts": copies[0], "ends": copies[1], "body": body}
        texts = {name: "\n".join("        " + line for line in lines) for name, lines in parts.items()}
        alone = _LOOP.format(time=time, **texts)
        if max((product.depth * product.width for product in step.products), default=0) < _WORTH_SHARING:
            self._phases.append(alone)
            return
        barrier = "#pragma omp barrier"
        body = ["if (thread == 0) {", around[0], "}", barrier, *step.code(packed, together=True)]
        body += ["if (thread == 0) {", around[1], "}"]
        shared = ["if (thread == 0) {", *copies[0], "}", barrier, f"for ({time}) {{", *body, "}", barrier]
        shared += ["if (thread == 0) {", *copies[1], "}"]
        text = "\n".join(
            "      " + line for line in ["const long first = 0, N = 1;", "REAL *const s = scratch;", *shared]
        )
        self._phases.append(f"  if (B == 1 && all > 1) {{\n{text}\n  }} else\n{alone}")

    def rows(self, step: Step) -> None:
        """Add a step that runs over the rows of all steps at once."""
        body = "\n".join("      " + line for line in step.code(self._add(step, 1)))
        self._phases.append(_ROWS.format(body=body))

    def contract(self, left: Place, high: int, right: Place | None, wide: int, result: str) -> None:
        """Add `left^T @ right` over the rows of all steps, or the sum of `left` over the rows if there is no `right`.

        high, wide: columns of `left` and of `right`.
        """
        at = f"{left.pointer} + {size(left.offset)}, {size(left.stride)}, {size(high)}"
        if right is None:
            line = f"tools->sum_rows({at}, T * B, {result}, thread, all);"
        else:
            other = f"{right.pointer} + {size(right.offset)}, {size(right.stride)}, {size(wide)}"
            line = f"tools->contract({at}, {other}, T * B, {result}, s, thread, all);"
            self.work += 2 * high * wide
            self._contract_scratch = max(self._contract_scratch, DEPTH * (wide + 16 + BLOCK))
        self._contractions.append(f"    {line}")

    def _add(self, step: Step, kind: int) -> dict[fx.Node, str]:
        """Count the memory and the work of a step. Return the names of its packed matrices."""
        for node in step.nodes:
            value = node.meta.get("val")
            if isinstance(value, Tensor) and value.is_floating_point() and value.dtype != self.dtype:
                raise operation(f"computes in {value.dtype}, while its input is {self.dtype}", node)
        self._scratch[kind] = max(self._scratch[kind], step.scratch)
        self.work += sum(2 * product.depth * product.width for product in step.products)
        packed = {product.matrix: self._pack(step.vectors[product.matrix], product.matrix) for product in step.products}
        self._flat |= {int(name[1:]) for node, name in step.vectors.items() if node.users and node not in packed}
        return packed

    def _pack(self, name: str, matrix: fx.Node) -> str:
        if name not in self._packed:
            depth, width = matrix.meta["val"].shape
            self._packed[name] = (depth, width, self._packed_size)
            panel = 2 * TYPES[self.dtype][1]
            self._packed_size += -(-width // panel) * panel * depth
        return f"w{name}"

    def source(self) -> tuple[str, tuple[int, ...]]:
        """Return the C, and the sizes to pass to it. Cells that differ only in their sizes share the C."""
        sizes: dict[str, str] = {}
        text = re.sub("@([a-z]*[0-9]+)@", lambda found: sizes.setdefault(found[1], f"n{len(sizes)}"), self._text())
        taken = [f"  const long {name} = sizes[{k}];" for k, name in enumerate(sizes.values())]
        text = text.replace(_SIZES, "\n".join(taken)).replace(_COUNT, str(len(sizes)))
        return text, tuple(int(name.lstrip(ascii_lowercase)) for name in sizes)

    def _text(self) -> str:
        counts = {"c": self._vectors, "a": self._arguments, "t": len(self._double_buffers), "m": len(self._temporaries)}
        names = [f"{letter}{k}" for letter, count in counts.items() for k in range(count)]
        arrays = [f"  REAL *const {name} = p[{k}];" for k, name in enumerate(names)]
        arrays += [
            f"  REAL *const w{name} = packed + {size(start, 'packed')};" for name, (_, _, start) in self._packed.items()
        ]
        packing = [
            f"    tools->pack({name}, strides[{2 * k}], strides[{2 * k + 1}], {size(depth)}, {size(width)}, "
            f"w{name}, thread, all);"
            for k, (name, (depth, width, _)) in enumerate(self._packed.items())
        ]
        headers = [KERNEL, *([SAMPLE] if self._samples else [])]
        phases = list(self._phases)
        if self._contractions:
            phases.append("\n".join(["  {", "    const long t = 0, r = 0;", *self._contractions, "  }"]))
        barrier = "\n#pragma omp barrier\n"
        return _PROGRAM.format(
            types=preamble(*TYPES[self.dtype]),
            block=BLOCK,
            count=_COUNT,
            sizes=_SIZES,
            headers="\n".join(path.read_text(encoding="utf-8") for path in headers),
            arrays="\n".join(arrays),
            packing="\n".join(packing),
            phases=barrier.join(["", *phases] if packing else phases),
        )

    def built(self) -> Native:
        """Return the program, ready to be compiled."""
        source, sizes = self.source()
        return Native(
            key=digest(source.encode()),
            source=source,
            dtype=self.dtype,
            pointers=self._vectors + self._arguments + len(self._double_buffers) + len(self._temporaries),
            double_buffers=tuple(self._double_buffers),
            temporaries=tuple(self._temporaries),
            matrices=tuple(int(name[1:]) for name in self._packed),
            flat=tuple(sorted(self._flat)),
            packed=self._packed_size,
            keeps_packed=self.keeps_packed,
            sizes=sizes,
            scratch=(self._scratch[0], self._scratch[1], self._contract_scratch),
            work=self.work,
        )


def _copy(copy: Copy, time: str) -> str:
    (source, _), (target, _), columns = copy
    at = [pattern.format(name, size(columns)) for name, pattern in copy[:2]]
    rows = f"const long t = {time}, r = first"
    return f"if ({target}) {{ {rows}; (void)t; copy_rows({at[1]}, {source} ? {at[0]} : 0, N * {size(columns)}); }}"
