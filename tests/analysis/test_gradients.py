"""Gradient flow against automatic differentiation through the plain loop, and the rates that theory gives."""

import pytest
import torch

from unrolled.analysis.flows import flow_from_several_ends
from unrolled.analysis.gradients import gradient_flow, largest_spectral_norm, recurrent_matrices
from unrolled.analysis.states import every_state, trace
from unrolled.cells import CELLS, Cell, find_cell
from unrolled.errors import ConfigurationError, ShapeError
from unrolled.layers import Recurrent


def brute_force(cell, inputs, start, t, k):
    """`∂s_t/∂s_k` by autograd through the steps from k to t."""
    sizes = cell.state_sizes

    def run(flat, steps):
        state = flat.unsqueeze(0).split(sizes, -1)
        for x in steps:
            state = cell(x.unsqueeze(0), state)
        return torch.cat(state, -1).squeeze(0)

    at_k = run(torch.cat(start, -1).squeeze(0), inputs[:k]).detach()
    return torch.autograd.functional.jacobian(lambda flat: run(flat, inputs[k:t]), at_k)


@pytest.mark.parametrize("name", CELLS)
def test_norms_equal_brute_force_for_every_cell(name):
    cell = find_cell(name)(4, 4, dtype=torch.float64)
    inputs = torch.randn(6, 4, dtype=torch.float64)
    start = tuple(torch.randn(size, dtype=torch.float64) for size in cell.state_sizes)
    whole = gradient_flow(cell, inputs, start)
    parts = {state: gradient_flow(cell, inputs, start, of=state) for state in cell.state_names}
    first = tuple(part.unsqueeze(0) for part in start)
    for row, t in enumerate(whole.ends):
        for k in range(t + 1):
            expected = brute_force(cell, inputs, first, t, k)
            assert whole.spectral[row, k].item() == pytest.approx(
                torch.linalg.matrix_norm(expected, 2).item(), abs=1e-6
            )
            assert whole.frobenius[row, k].item() == pytest.approx(torch.linalg.matrix_norm(expected).item(), abs=1e-6)
            assert whole.spectral[row, k] <= whole.rate ** (t - k) + 1e-9
            for number, state in enumerate(cell.state_names):
                block = expected[number * 4 : number * 4 + 4, number * 4 : number * 4 + 4]
                found = parts[state].spectral[row, k].item()
                assert found == pytest.approx(torch.linalg.matrix_norm(block, 2).item(), abs=1e-6)
        assert whole.spectral[row, t + 1 :].isnan().all()


def test_chosen_ends_and_means_over_distance():
    cell = find_cell("gru")(3, 5, dtype=torch.float64)
    inputs = torch.randn(8, 3, dtype=torch.float64)
    every, some = gradient_flow(cell, inputs), gradient_flow(cell, inputs, ends=[8, 5])
    assert some.ends == (5, 8)
    assert torch.allclose(some.spectral, every.spectral[[4, 7]], equal_nan=True)
    two = some.by_distance(some.spectral)[2]
    assert torch.allclose(two, (some.spectral[0, 3] * some.spectral[1, 6]).sqrt())


def test_chosen_distances():
    cell = find_cell("lstm")(3, 5, dtype=torch.float64)
    inputs = torch.randn(9, 3, dtype=torch.float64)
    every = gradient_flow(cell, inputs, ends=[9, 6])
    some = gradient_flow(cell, inputs, ends=[9, 6], distances=[7, 0, 2])
    assert some.distances == (0, 2, 7)
    assert every.distances == tuple(range(10))
    for norms, wanted in ((some.spectral, every.spectral), (some.frobenius, every.frobenius)):
        assert torch.allclose(some.by_distance(norms), every.by_distance(wanted)[[0, 2, 7]])
        assert int(norms.isfinite().sum()) == 5  # 7 back is before the start of the shorter one
    with pytest.raises(ConfigurationError, match="from 0 to 9"):
        gradient_flow(cell, inputs, distances=[10])


def test_a_large_cell_is_looked_at_from_its_end():
    cell = find_cell("lstm")(3, 130)
    flow = flow_from_several_ends(cell, torch.randn(30, 3), None, None)
    assert flow.ends == (30,)
    assert flow.distances == (0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 18, 22, 27, 30)
    assert flow_from_several_ends(cell, torch.randn(9, 3), None, None).distances == (*range(9), 9)


def test_the_largest_of_many_norms():
    generator = torch.Generator().manual_seed(0)
    matrices = torch.randn(20, 6, 6, generator=generator) * torch.rand(20, 1, 1, generator=generator)
    matrices[3] = 0
    expected = torch.linalg.matrix_norm(matrices, 2).max()
    assert largest_spectral_norm(matrices) == pytest.approx(expected.item(), rel=1e-5)
    assert largest_spectral_norm(matrices[3:4]) == 0.0


def test_the_vanilla_bound_is_the_largest_singular_value():
    cell = find_cell("elman")(3, 6, dtype=torch.float64)
    (matrix,) = recurrent_matrices(cell)
    assert gradient_flow(cell, torch.randn(4, 3, dtype=torch.float64)).rate == pytest.approx(
        matrix.largest_singular_value
    )
    assert matrix.spectral_radius <= matrix.largest_singular_value
    assert [m.name for m in recurrent_matrices(find_cell("gru")(3, 6))] == [
        "weight_hh 1/2",
        "weight_hh 2/2",
        "weight_hn",
    ]


def test_a_cell_of_ones_own():
    class Leaky(Cell):
        def __init__(self, input_size, hidden_size, **options):
            super().__init__(input_size, hidden_size)
            self.add_parameters(options, w=(hidden_size, input_size))

        def forward(self, x, state):
            (h,) = state
            return (0.9 * h + 0.1 * torch.tanh(x @ self.w.T),)

    flow = gradient_flow(Leaky(2, 3), torch.randn(20, 2))
    assert flow.spectral[-1, 0].item() == pytest.approx(0.9**20, rel=1e-4)


def test_every_state_is_that_of_the_loop():
    cell = find_cell("lstm")(3, 5)
    inputs = torch.randn(7, 2, 3)
    h, c = every_state(cell, inputs)
    state = cell.initial_state(2, like=inputs)
    for t in range(7):
        state = cell(inputs[t], state)
        assert torch.allclose(h[t], state[0], atol=1e-6)
        assert torch.allclose(c[t], state[1], atol=1e-6)


def test_a_stack_layer_by_layer():
    stack = Recurrent("mut1", 3, [5, 4], input_projection=True, zoneout=0.2).eval()
    inputs = torch.randn(6, 2, 3)
    layers = trace(stack, inputs)
    assert torch.allclose(layers[-1].after[0], stack(inputs)[0], atol=1e-6)
    assert torch.equal(layers[0].before[0][1:], layers[0].after[0][:-1])
    with pytest.raises(ConfigurationError, match="bidirectional"):
        trace(Recurrent("gru", 3, 4, bidirectional=True), inputs)


def test_what_cannot_be_meant():
    cell = find_cell("lstm")(3, 5)
    with pytest.raises(ConfigurationError, match="choose from h, c"):
        gradient_flow(cell, torch.randn(4, 3), of="z")
    with pytest.raises(ConfigurationError, match="from 1 to 4"):
        gradient_flow(cell, torch.randn(4, 3), ends=[5])
    with pytest.raises(ShapeError, match="one sequence"):
        gradient_flow(cell, torch.randn(4, 2, 3))
