"""The highway layer against its formula."""

import numpy as np
import torch

from tests.cells.test_formulas import sigmoid
from unrolled.layers import Highway


def test_highway_is_the_formula_and_starts_nearly_closed():
    layer = Highway(6).double()
    x = torch.randn(2, 3, 6).double()
    p = {key: value.detach().numpy() for key, value in layer.named_parameters()}
    g = sigmoid(x.numpy() @ p["gate.weight"].T + p["gate.bias"])
    y = g * np.tanh(x.numpy() @ p["transform.weight"].T + p["transform.bias"]) + (1 - g) * x.numpy()
    np.testing.assert_allclose(layer(x).detach().numpy(), y, rtol=1e-12)
    assert (layer.gate.bias == -1).all()
