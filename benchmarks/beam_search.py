"""Sentences per second that a run without attention translates, against a search over `nn.LSTM`, one by one.

    python benchmarks/beam_search.py RUN SENTENCES [--beam 12] [--lines 200]

RUN comes from `unrolled train translate --no-attention --cell lstm`. This script's search is the usual one: the K
hypotheses of a sentence form a batch, and Python lists keep track of them. Both searches use all cores and the same
weights, and find the same translations except for rounding. The script prints the share that agrees.
"""

from __future__ import annotations

import argparse
import time
from itertools import islice

import torch
from torch import Tensor, nn

from unrolled.data.lines import open_lines
from unrolled.data.pairs import decode_line, encode_line
from unrolled.decoding import BeamSearch
from unrolled.models import EncoderDecoder
from unrolled.tasks.translation import TranslationTask
from unrolled.tasks.translator import Translator
from unrolled.training import open_run


def lstm_of(layers: nn.ModuleList) -> nn.LSTM:
    """Return an `nn.LSTM` with the weights of these layers of cells."""
    cells = [layer[0] for layer in layers]  # type: ignore[index]
    made = nn.LSTM(cells[0].input_size, cells[0].hidden_size, len(cells))
    with torch.no_grad():
        for k, cell in enumerate(cells):
            for name in ("weight_ih", "weight_hh"):
                getattr(made, f"{name}_l{k}").copy_(getattr(cell, name))
            getattr(made, f"bias_ih_l{k}").copy_(cell.bias)
            getattr(made, f"bias_hh_l{k}").zero_()
    return made.eval()


@torch.no_grad()
def search(model: EncoderDecoder, encoder: nn.LSTM, decoder: nn.LSTM, tokens: list[int], end: int, beam: int):
    """Return the best output for one sentence, by the log-probability divided by the length."""
    words = tokens[::-1] if model.encoder.reverse else tokens
    _, (h, c) = encoder(model.scale * model.source_embedding(torch.tensor([*words, end])).unsqueeze(1))
    alive: list[tuple[list[int], float]] = [([], 0.0)]
    finished: list[tuple[float, list[int]]] = []
    token = torch.tensor([end])
    limit = 2 * len(tokens) + 10
    for step in range(limit + 1):
        output, (h, c) = decoder(model.scale * model.target_embedding(token).unsqueeze(0), (h, c))
        hidden: Tensor = model.before_readout(output[0]).unflatten(-1, (-1, 2)).amax(-1)
        log_probs = torch.log_softmax(model.readout(hidden), -1)
        if step == limit:
            kept = log_probs[:, end].clone()
            log_probs.fill_(-torch.inf)
            log_probs[:, end] = kept
        totals = torch.tensor([total for _, total in alive]).unsqueeze(-1) + log_probs
        values, places = totals.flatten().topk(2 * beam)
        going, parents = [], []
        for rank, (value, place) in enumerate(zip(values.tolist(), places.tolist(), strict=True)):
            parent, word = divmod(place, log_probs.size(-1))
            if value == -torch.inf:
                continue
            if word == end:
                if rank < beam:
                    finished.append((value / (step + 1), alive[parent][0]))
            elif len(going) < beam:
                going.append(([*alive[parent][0], word], value))
                parents.append(parent)
        if len(finished) >= beam or not going:
            break
        alive = going
        h, c = h[:, parents], c[:, parents]
        token = torch.tensor([words[-1] for words, _ in alive])
    return max(finished)[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("sentences")
    parser.add_argument("--beam", type=int, default=12)
    parser.add_argument("--lines", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    task = TranslationTask(open_run(given.run), "cpu").load()
    if task.config.model.attention or task.config.model.cell != "lstm":
        raise SystemExit(f"{given.run}: not a run of --no-attention --cell lstm")
    lines = list(islice(open_lines(given.sentences), given.lines))
    translator, how = Translator([task]), BeamSearch(beam=given.beam)
    encoder, decoder = lstm_of(task.model.encoder.cells), lstm_of(task.model.decoder.cells)
    ours, theirs, agreeing = [], [], 0
    translator.translate(lines[:8], how)  # compiles
    for _ in range(given.rounds):
        started = time.perf_counter()
        found = [some[0].text for some in translator.translate(lines, how)]
        ours.append(len(lines) / (time.perf_counter() - started))
        started = time.perf_counter()
        script = [
            search(task.model, encoder, decoder, encode_line(task.source, line).tolist(), task.end, given.beam)
            for line in lines
        ]
        theirs.append(len(lines) / (time.perf_counter() - started))
        texts = [decode_line(task.target, tokens) for tokens in script]
        agreeing = sum(one == other for one, other in zip(found, texts, strict=True))
    print(
        f"beam {given.beam}, {len(lines)} sentences, {torch.get_num_threads()} threads, best of {given.rounds} rounds"
    )
    print(f"unrolled           {max(ours):6.1f} sentences/s")
    print(f"script             {max(theirs):6.1f} sentences/s")
    print(f"ratio              {max(ours) / max(theirs):6.1f}")
    print(f"same translations  {agreeing / len(lines):6.1%}")


if __name__ == "__main__":
    main()
