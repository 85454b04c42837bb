"""Times the CTC beam on random frame scores of 30 labels: python benchmarks/ctc_beam.py

Every sixth or seventh frame has a label, as in read speech at 100 frames per second; the other frames have the blank.
The scores are noisy, so that about 19 labels per frame have a probability above `prune`. The language model is an LSTM
of characters with random weights. The table shows the median and the range, over some repetitions, of microseconds per
frame, and how many times faster than real time that is at 100 frames per second.
"""

import argparse
import statistics
import time

import torch

from unrolled.decoding import CTCBeam, ModelScorer
from unrolled.models import LanguageModel

LABELS = 30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=1000, help="frames of the sequence")
    parser.add_argument("--hidden-size", type=int, default=256, help="units of the language model")
    parser.add_argument("--repetitions", type=int, default=5, help="measurements of each setting")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    spoken = torch.rand(arguments.frames) < 0.15
    path = torch.where(spoken, torch.randint(1, LABELS, spoken.shape), 0)
    noise = 1.5 * torch.randn(arguments.frames, LABELS)
    frames = torch.log_softmax(noise + 6 * torch.nn.functional.one_hot(path, LABELS), -1)
    model = LanguageModel(LABELS, "lstm", embedding_size=64, hidden_size=arguments.hidden_size).eval()
    scorers = {"no language model": None, "language model": ModelScorer(model, range(LABELS), [0])}
    for name, scorer in scorers.items():
        for width in (16, 50):
            beam = CTCBeam(width, language_model=scorer)
            beam.decode(frames[:50].unsqueeze(1))
            times = []
            for _ in range(arguments.repetitions):
                started = time.perf_counter()
                beam.decode(frames.unsqueeze(1))
                times.append(1e6 * (time.perf_counter() - started) / arguments.frames)
            middle = statistics.median(times)
            print(
                f"{name:18} width {width}: {middle:4.0f} µs per frame ({min(times):.0f} to {max(times):.0f}), "
                f"{1e4 / middle:.0f} times real time"
            )


if __name__ == "__main__":
    main()
