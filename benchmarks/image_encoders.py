"""The time of an image encoder per picture, on one core: python benchmarks/image_encoders.py [--encoder lite0]

The pictures are random; an encoder takes the same time for each. The table shows the least of several rounds, in
processor time, which other programs disturb less than the clock. With `--pictures FOLDER`, the first 500 pictures of a
folder are also read, encoded by all processors, and stored, in seconds of the clock.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from unrolled.data.pictures import IMAGE_SUFFIXES
from unrolled.models.image_encoders import image_encoder
from unrolled.tasks.picture_features import encode_pictures


def store(folder: Path, encoder: str) -> None:
    """Encode the first pictures of a folder into an empty cache."""
    files = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in IMAGE_SUFFIXES][:500]
    with tempfile.TemporaryDirectory() as cache:
        os.environ["UNROLLED_CACHE"] = cache
        begun, before = time.perf_counter(), os.times()
        unread = encode_pictures(files, encoder)[2]
        seconds, after = time.perf_counter() - begun, os.times()
    spent = sum(after[:4]) - sum(before[:4])
    print(f"{len(files) - len(unread)} pictures stored in {seconds:.1f} s, with {spent:.1f} s of the processors")
    print(f"{os.cpu_count()} processors; the load of the last minute is {os.getloadavg()[0]:.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="lite0", help="the name of the encoder")
    parser.add_argument("--rounds", type=int, default=5, help="how many times each size of a batch is timed")
    parser.add_argument("--pictures", type=Path, help="a folder of pictures")
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
    if flags.pictures is not None:
        store(flags.pictures, flags.encoder)


if __name__ == "__main__":
    main()
