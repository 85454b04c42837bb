"""Describes a plan in words: what runs once, what runs for all steps together, and what runs at every step."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import fx

from unrolled.cells import Cell
from unrolled.unroll.adapt import title
from unrolled.unroll.codegen import Step
from unrolled.unroll.columns import width
from unrolled.unroll.layout import Layout
from unrolled.unroll.places import Loop
from unrolled.unroll.plan import Plan
from unrolled.unroll.trace import ROWS, aten, results


def explain(cell: Cell, dtype: torch.dtype = torch.float32) -> str:
    """Describe the plan of a training step of `cell` with every gradient; UntraceableError if there is no plan."""
    plan = Plan(cell, dtype, torch.device("cpu"))
    gradients = plan.gradients((True,) * len(plan.parameter_names) + (True,))
    derivative = gradients.derivative
    layout = Layout(plan, dtype)
    layout.training(gradients)
    forward, backward = layout.steps["forward"], layout.steps["backward"]
    size = torch.finfo(dtype).bits // 8
    saved = results(derivative.forward)[plan.states :]
    lines = [f"{title(cell)}: input {cell.input_size}, states {' + '.join(map(str, cell.state_sizes))}, {dtype}"]
    lines += _graph("once a call, from the parameters alone", plan.prepare)
    lines += _graph("once for all T·B rows, from the input", plan.hoist)
    lines += ["", "forward, every step:", *_step(forward)]
    lines += [
        f"  saves {len(saved)} values for backward: {', '.join(f'{n.name} [B, {width(n)}]' for n in saved) or 'none'}"
    ]
    kept = sum(width(node) for node in saved) + sum(cell.state_sizes)
    lines += [f"  {size * kept:,} bytes per step and sequence, including the states"]
    lines += ["", "backward, every step:", *_step(backward)]
    if gradients.finish is not None:
        lines += _graph("once for all T·B rows, gradients of parameters and input", gradients.finish)
    if plan.sink is not None:
        lines += _graph("once for all T·B rows, the output", plan.sink)
    return "\n".join(lines)


def _graph(heading: str, graph: fx.GraphModule) -> list[str]:
    products, others = [], Counter[str]()
    for node in graph.graph.nodes:
        if node.target in (aten.mm.default, aten.addmm.default):
            left, right = (argument.meta["val"].shape for argument in node.args[-2:])
            products.append(f"  product {_shape(left)} × {_shape(right)}")
        elif node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload):
            others[str(node.target).split(".")[1]] += 1
    rest = [f"  {_counted(others)}"] if others else []
    return ["", f"{heading}:", *products, *(rest if products or rest else ["  nothing"])]


def _step(step: Step) -> list[str]:
    lines = []
    segments = {level[0] for level, _ in step.loops} | {step.level(product.node)[0] for product in step.products}
    for number, segment in enumerate(sorted(segments), 1):
        lines.append(f"  stage {number}")
        for product in step.products:
            if step.level(product.node)[0] == segment:
                lines.append(f"    product [B, {product.depth}] × [{product.depth}, {product.width}]")
        loops = [loop for loop in step.loops.values() if loop.level[0] == segment]
        lines += [_loop(step, loop) for loop in sorted(loops, key=lambda loop: (loop.level, loop.width))]
    return lines


def _loop(step: Step, loop: Loop) -> str:
    roots: list[Any] = [node for node, _, _ in loop.stores]
    roots += [node.args[0] for node in loop.reductions]
    computed = step.computed(roots, loop.level)
    counted = Counter(str(node.target).split(".")[1] for node in computed)
    sums = f", {len(loop.reductions)} sums over the columns" if loop.reductions else ""
    return f"    loop over {loop.width} columns: {_counted(counted) or 'copies'}; {len(loop.stores)} stores{sums}"


def _counted(names: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" if count > 1 else name for name, count in names.most_common())


def _shape(shape) -> str:
    return "[" + ", ".join("T·B" if size == ROWS else str(size) for size in shape) + "]"
