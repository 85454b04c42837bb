"""The same training step in other implementations, which `unrolled bench` compares with this engine."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from unrolled.cells import Cell
from unrolled.unroll import unroll

Side = Callable[[], object]
#: Seconds within which `torch.compile` must finish.
PATIENCE = 120

#: The cells for which `torch.nn` has a layer.
_LAYERS: dict[str, Callable[[int, int], nn.Module]] = {
    "lstm": nn.LSTM,
    "gru-after": nn.GRU,
    "elman": nn.RNN,
    "relu": lambda inputs, hidden: nn.RNN(inputs, hidden, nonlinearity="relu"),
}


def engine(cell: Cell, x: Tensor, backend: str) -> Side:
    """Return this package's forward and backward pass, with the gradients of the input and the weights."""
    leaves = [x, *cell.parameters()]
    return lambda: torch.autograd.grad(unroll(cell, x, backend=backend)[0].sum(), leaves)


def torch_layer(name: str, inputs: int, hidden: int, x: Tensor) -> Side | None:
    """Return the same for PyTorch's own layer; None if it has none for the cell."""
    if name not in _LAYERS:
        return None
    layer = _LAYERS[name](inputs, hidden)
    leaves = [x, *layer.parameters()]
    return lambda: torch.autograd.grad(layer(x)[0].sum(), leaves)


def torch_compiled(name: str, cell: Cell, x: Tensor) -> Side | None:
    """Return the eager loop under `torch.compile`; None if compilation fails or takes longer than `PATIENCE`.

    Another process compiles it first, because compilation cannot be stopped in this one. The result is then in
    PyTorch's cache.
    """
    program = (
        "import torch; from unrolled.layers.wrap import make_cell; from unrolled.bench.peers import compiled; "
        f"torch.set_num_threads({torch.get_num_threads()}); "
        f"cell = make_cell({name!r}, {cell.input_size}, {cell.hidden_size}); "
        f"compiled(cell, torch.randn({list(x.shape)}, requires_grad=True))()"
    )
    try:
        subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, timeout=PATIENCE)
    except (subprocess.TimeoutExpired, subprocess.CalledProcessError):
        return None
    return compiled(cell, x)


def compiled(cell: Cell, x: Tensor) -> Side:
    torch._dynamo.reset()
    leaves = [x, *cell.parameters()]
    loop = torch.compile(lambda inputs: unroll(cell, inputs, backend="eager")[0], dynamic=False)
    return lambda: torch.autograd.grad(loop(x).sum(), leaves)


def jax_scan(name: str, cell: Cell, x: Tensor) -> Side | None:
    """Return the cell written for JAX, under `jax.lax.scan` and `jax.jit`; None without JAX or for other cells."""
    if name not in _JAX_STEPS or importlib.util.find_spec("jax") is None:
        return None
    import jax

    step = _JAX_STEPS[name]

    def loss(weights: dict[str, Any], inputs: Any) -> Any:
        zeros = jax.numpy.zeros((x.size(1), cell.hidden_size), inputs.dtype)
        _, outputs = jax.lax.scan(
            lambda state, now: step(weights, state, now), (zeros,) * len(cell.state_names), inputs
        )
        return outputs.sum()

    weights = {key: jax.numpy.asarray(value.detach().numpy()) for key, value in cell.named_parameters()}
    run = jax.jit(jax.grad(loss, argnums=(0, 1)))
    inputs = jax.numpy.asarray(x.detach().numpy())
    return lambda: jax.block_until_ready(run(weights, inputs))


def _jax_lstm(weights: dict[str, Any], state: tuple, x: Any) -> tuple:
    import jax

    h, c = state
    gates = x @ weights["weight_ih"].T + h @ weights["weight_hh"].T + weights["bias"]
    i, f, g, o = jax.numpy.split(gates, 4, -1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jax.numpy.tanh(g)
    h = jax.nn.sigmoid(o) * jax.numpy.tanh(c)
    return (h, c), h


def _jax_gru(weights: dict[str, Any], state: tuple, x: Any) -> tuple:
    import jax

    (h,) = state
    r_x, z_x, n_x = jax.numpy.split(x @ weights["weight_ih"].T + weights["bias"], 3, -1)
    r_h, z_h = jax.numpy.split(h @ weights["weight_hh"].T, 2, -1)
    r, z = jax.nn.sigmoid(r_x + r_h), jax.nn.sigmoid(z_x + z_h)
    n = jax.numpy.tanh(n_x + (r * h) @ weights["weight_hn"].T)
    h = z * h + (1 - z) * n
    return (h,), h


_JAX_STEPS: dict[str, Callable[[dict[str, Any], tuple, Any], tuple]] = {"lstm": _jax_lstm, "gru": _jax_gru}
