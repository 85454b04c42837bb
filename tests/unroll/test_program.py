"""One library serves every size of a cell, and the C of a cell is the same however often it is written."""

import pytest
import torch

from unrolled.cells import CELLS
from unrolled.unroll.layout import Layout
from unrolled.unroll.plan import Plan


def programs(name: str, size: int) -> list:
    plan = Plan(CELLS[name](size, size), torch.float32, torch.device("cpu"))
    layout = Layout(plan, torch.float32)
    training = layout.training(plan.gradients((True,) * (len(plan.parameter_names) + 1)))
    return [layout.inference().program, training.forward.program, training.backward.program]


@pytest.mark.parametrize("name", ["lstm", "ln-lstm", "mut3"])
def test_one_library_serves_every_size(name):
    made = {size: programs(name, size) for size in (9, 12, 35)}
    made[0] = programs(name, 12)  # written once more
    for size, parts in made.items():
        assert [part.key for part in parts] == [part.key for part in made[9]]
        assert all((size or 12) in part.sizes for part in parts)
