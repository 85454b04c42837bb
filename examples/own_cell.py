"""Train a cell of your own on a text: the minimal gated unit of Zhou et al. 2016, which has one gate.

.venv/bin/python examples/own_cell.py
"""

import torch
from torch.nn.functional import cross_entropy, linear

from unrolled import Cell, Recurrent


class MinimalGatedCell(Cell):
    """`f = σ(W_f x + U_f h' + b_f)`, `n = tanh(W_n x + U_n (f∘h') + b_n)`, `h = (1-f)∘h' + f∘n`."""

    def __init__(self, input_size: int, hidden_size: int, **options) -> None:
        super().__init__(input_size, hidden_size)
        from_input, square, vector = (hidden_size, input_size), (hidden_size, hidden_size), (hidden_size,)
        self.add_parameters(
            options, w_f=from_input, w_n=from_input, u_f=square, u_n=square, bias_f=vector, bias_n=vector
        )

    def forward(self, x, state):
        (h,) = state
        f = torch.sigmoid(linear(x, self.w_f, self.bias_f) + linear(h, self.u_f))
        n = torch.tanh(linear(x, self.w_n, self.bias_n) + linear(f * h, self.u_n))
        return ((1 - f) * h + f * n,)


def main() -> None:
    torch.manual_seed(1)
    text = "a cell is one step, and the engine unrolls it over time. " * 20
    letters = sorted(set(text))
    tokens = torch.tensor([letters.index(letter) for letter in text])
    one_hot = torch.nn.functional.one_hot(tokens, len(letters)).float().unsqueeze(1)  # [T, B=1, I]

    layer = Recurrent(MinimalGatedCell, len(letters), 48, num_layers=2)
    readout = torch.nn.Linear(48, len(letters))
    optimizer = torch.optim.Adam([*layer.parameters(), *readout.parameters()], lr=1e-2)
    state = None
    for step in range(60):
        first = step * 30 % (len(text) - 31)
        outputs, state = layer(one_hot[first : first + 30], state)
        loss = cross_entropy(readout(outputs).squeeze(1), tokens[first + 1 : first + 31])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        state = state.detach()
        if step % 10 == 9:
            print(f"step {step + 1}: {loss.item():.3f} nats per character")


if __name__ == "__main__":
    main()
