"""The time of an image encoder per picture, on one core: python benchmarks/image_encoders.py [--encoder lite0]

The pictures are random; an encoder takes the same time for each. The table shows the least of several rounds, in
processor time, which other programs disturb less than the clock.
"""

import argparse
import time

import numpy as np
import torch

from unrolled.models.image_encoders import image_encoder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="lite0", help="the name of the encoder")
    parser.add_argument("--rounds", type=int, default=5, help="how many times each size of a batch is timed")
    flags = parser.parse_args()
    torch.set_num_threads(1)
    encoder = image_encoder(flags.encoder)
    size = encoder.input_size
    for batch in (1, 4, 16, 32):
        pictures = np.random.default_rng(0).integers(0, 256, (batch, size, size, 3), np.uint8)
        encoder.encode(pictures)
        seconds = []
        for _ in range(flags.rounds):
            begun = time.process_time()
            encoder.encode(pictures)
            seconds.append(time.process_time() - begun)
        print(f"{encoder.name}, batches of {batch:2}: {1000 * min(seconds) / batch:5.1f} ms a picture")


if __name__ == "__main__":
    main()
