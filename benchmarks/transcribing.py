"""Time a transcriber's run on its own dev part, on one core: how many times as fast as the sound it transcribes.

python benchmarks/transcribing.py RUN [--lm RUN]
"""

import argparse
import statistics
import time

import torch

from unrolled.tasks import load
from unrolled.tasks.transcribing_settings import DecodingConfig


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", help="a run of `unrolled train transcribe`")
    parser.add_argument("--lm", default="", help="a language model for a beam of 16")
    parser.add_argument("--frames", type=float, default=100, help="frames per second of sound")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    task = load(arguments.run)
    inputs = [task.normalise(task.frames[number]) for number in task.items.dev]
    seconds = sum(map(len, inputs)) / arguments.frames
    ways = {"best path": task.decoder(), "beam of 16": task.decoder(DecodingConfig(beam=16))}
    if arguments.lm:
        ways["beam of 16 with a language model"] = task.decoder(DecodingConfig(lm=arguments.lm))
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(arguments.rounds + 1):  # the first warms up
        for name, decoder in ways.items():
            start = time.perf_counter()
            for one in inputs:  # one by one, as they come
                task.decode([one], decoder)
            taken[name].append(time.perf_counter() - start)
    print(f"{len(inputs)} recordings, {seconds:.0f} seconds, one thread")
    for name, (_, *times) in taken.items():
        low, middle, high = (seconds / sorted(times)[k] for k in (-1, len(times) // 2, 0))
        print(f"{name:34} {middle:6.0f} × real time ({low:.0f} to {high:.0f}); {statistics.median(times):.2f} s")


if __name__ == "__main__":
    main()
