"""Train a transcriber with CTC in a plain PyTorch loop, on drawn lines of two words in a few fonts.

.venv/bin/python examples/transcriber.py
"""

import numpy as np
import torch
from torch.utils.data import DataLoader

from unrolled.data.frame_batches import FrameBatch, collate
from unrolled.data.line_images import Renderer, installed_fonts
from unrolled.decoding import best_path
from unrolled.metrics.transcripts import score_transcripts
from unrolled.models import Transcriber

WORDS = ["tin", "ten", "net"]
LABELS = ["", *sorted(set("".join(WORDS) + " "))]  # the blank comes first
HEIGHT = 16


def drawn() -> list[tuple[np.ndarray, str]]:
    renderer = Renderer([font for font in installed_fonts() if "DejaVuSans" in font][:3], HEIGHT)
    texts = [f"{first} {second}" for first in WORDS for second in WORDS]
    return [(renderer.draw(text, font) / np.float32(255), text) for text in texts for font in renderer.fonts_for(text)]


def batch_of(pairs: list[tuple[np.ndarray, str]]) -> FrameBatch:
    return collate([picture for picture, _ in pairs], [[LABELS.index(letter) for letter in text] for _, text in pairs])


def main() -> None:
    torch.manual_seed(1)
    pairs = drawn()
    model = Transcriber(HEIGHT, len(LABELS), "gru", stride=2, hidden_size=48, num_layers=1, dropout=0.0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    loader = DataLoader(pairs, batch_size=12, shuffle=True, collate_fn=batch_of)
    for epoch in range(20):
        for batch in loader:
            optimizer.zero_grad()
            total, blanks = model.loss(batch, batch.targets)
            loss = total / batch.count
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
        if (epoch + 1) % 5 == 0:
            print(f"epoch {epoch + 1}: {loss.item():.3f} nats per character, {float(blanks):.0%} blanks")
    model.eval()
    with torch.no_grad():
        found = best_path(*model(batch_of(pairs)))
    texts = ["".join(LABELS[label] for label in each.labels) for each in found]
    print(
        f"character error rate {score_transcripts([text for _, text in pairs], texts).cer:.1%}; the first: {texts[0]}"
    )


if __name__ == "__main__":
    main()
