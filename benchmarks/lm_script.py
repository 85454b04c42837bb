"""A minimal but fair language model over `nn.LSTM`, with the default sizes of `unrolled train lm`.

    python benchmarks/lm_script.py TEXT STEPS

The script prints the total seconds of all updates after the first fifty.
"""

import sys
import time
from pathlib import Path

import torch
from torch import nn

text = Path(sys.argv[1]).read_text(encoding="utf-8")
characters = sorted(set(text))
codes = {character: code for code, character in enumerate(characters)}
data = torch.tensor([codes[character] for character in text])
steps, batch = 64, 32
streams = data[: len(data) // batch * batch].view(batch, -1).t()


class Model(nn.Module):
    def __init__(self, count):
        super().__init__()
        self.embedding = nn.Embedding(count, 128)
        self.recurrent = nn.LSTM(128, 256, 2, dropout=0.1)
        self.dropout = nn.Dropout(0.1)
        self.readout = nn.Linear(256, count)

    def forward(self, tokens, state):
        outputs, state = self.recurrent(self.embedding(tokens), state)
        return self.readout(self.dropout(outputs)), state


torch.manual_seed(1)
model = Model(len(characters))
optimizer = torch.optim.AdamW(model.parameters(), lr=0.003)
state, position = None, 0
for step in range(int(sys.argv[2])):
    if step == 50:
        started = time.perf_counter()
    if position + steps + 1 > len(streams):
        state, position = None, 0
    tokens = streams[position : position + steps + 1]
    logits, state = model(tokens[:-1], state)
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), tokens[1:].flatten())
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    state = tuple(part.detach() for part in state)
    position += steps
print(time.perf_counter() - started)
