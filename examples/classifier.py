"""Train a classifier in a plain PyTorch loop, on a few opinions about films.

.venv/bin/python examples/classifier.py
"""

import numpy as np
import torch
from torch.utils.data import DataLoader

from unrolled.analysis.attribution import attribute
from unrolled.data.class_batches import ClassBatch, make_batch
from unrolled.data.text_parts import parts_of
from unrolled.data.tokens import learn_vocabulary
from unrolled.models import Classifier

TEXTS = """
good: a lovely film with a great cast
bad: a dull film with a poor cast
good: I loved the great story
bad: I slept , so dull is the story
good: the music is lovely
bad: the music is poor
"""
CLASSES = ("bad", "good")


def main() -> None:
    torch.manual_seed(1)
    pairs = [tuple(line.split(": ")) for line in TEXTS.strip().splitlines()]
    vocabulary = learn_vocabulary("word", lambda: iter(text for _, text in pairs), min_count=1)

    def collate(some: list[tuple[str, str]]) -> ClassBatch:
        targets = np.array([CLASSES.index(label) for label, _ in some])
        return make_batch([vocabulary.encode(text) for _, text in some], targets)

    model = Classifier(len(vocabulary), len(CLASSES), "gru", embedding_size=16, hidden_size=16, dropout=0.2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    loader = DataLoader(pairs, batch_size=3, shuffle=True, collate_fn=collate)
    for epoch in range(30):
        for batch in loader:
            optimizer.zero_grad()
            loss = model.loss(batch, batch.targets) / batch.count
            loss.backward()
            optimizer.step()
        if (epoch + 1) % 10 == 0:
            print(f"epoch {epoch + 1}: {loss.item():.4f} nats per text")
    model.eval()
    text = "a great film with poor music"
    parts, tokens = parts_of(vocabulary, text), torch.from_numpy(vocabulary.encode(text))
    found = attribute(model, tokens, [part.tokens for part in parts])
    for part, change in zip(parts, found.changes[:, CLASSES.index("good")], strict=True):
        print(f"{part.text.strip():8} {change:+.2f}")


if __name__ == "__main__":
    main()
