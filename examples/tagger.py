"""Train a tagger with a CRF in a plain PyTorch loop, on a few sentences with names of people and places.

.venv/bin/python examples/tagger.py
"""

from collections import Counter

import torch
from torch.utils.data import DataLoader

from unrolled.data.tag_batches import Index, TagEncoder
from unrolled.data.tagged import TaggedSentence
from unrolled.metrics.spans import score_spans
from unrolled.models import Tagger
from unrolled.tasks.tagging import allowed_tags

TEXT = """
Anna/B-PER Berg/I-PER lives/O in/O New/B-LOC York/I-LOC ./O
Tom/B-PER visits/O Anna/B-PER in/O Paris/B-LOC ./O
Berg/B-PER and/O Tom/B-PER saw/O New/B-LOC Delhi/I-LOC ./O
Paris/B-LOC is/O far/O from/O York/B-LOC ./O
"""


def sentence(line: str) -> TaggedSentence:
    pairs = [word.rsplit("/", 1) for word in line.split()]
    return TaggedSentence(tuple(word for word, _ in pairs), tuple(tag for _, tag in pairs))


def main() -> None:
    torch.manual_seed(1)
    sentences = [sentence(line) for line in TEXT.strip().splitlines()]
    words = Index.learn(Counter(word.lower() for one in sentences for word in one.words))
    letters = Index.learn(Counter(letter for one in sentences for word in one.words for letter in word))
    tags = Index(sorted({tag for one in sentences for tag in one.tags}))
    encoder = TagEncoder(words, letters, tags)
    model = Tagger(
        len(words), len(letters), len(tags), "gru", hidden_size=32, allowed=allowed_tags(tags.strings, "iob2")
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    loader = DataLoader(sentences, batch_size=2, shuffle=True, collate_fn=encoder.batch)
    for epoch in range(20):
        for batch in loader:
            optimizer.zero_grad()
            loss = model.loss(batch, batch.targets) / batch.count
            loss.backward()
            optimizer.step()
        if (epoch + 1) % 5 == 0:
            print(f"epoch {epoch + 1}: {loss.item():.4f} nats per word")
    model.eval()
    found = [[tags.strings[tag] for tag in row] for row in model.decode(encoder.batch(sentences))]
    total, _ = score_spans([one.tags for one in sentences], found, "iob2")
    print(
        f"F1 of spans {total.f1:.2f}:", " ".join(f"{a}/{b}" for a, b in zip(sentences[0].words, found[0], strict=True))
    )


if __name__ == "__main__":
    main()
