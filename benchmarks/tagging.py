"""Times a tagger: a training step with a CRF against a softmax, and its use: python benchmarks/tagging.py RUN

RUN is a run of `train tag`. The two steps alternate on the same batches, with fresh weights. The table shows medians
and quartiles. What the tagger is used for (tags, marginals, the best sequences) alternates on the dev part, five times;
the table shows medians and ranges.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from unrolled.tasks import open_task
from unrolled.tasks.tagging import TaggingTask


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="directory of a run of `train tag`")
    parser.add_argument("--steps", type=int, default=60, help="training steps of each kind")
    parser.add_argument("--threads", type=int, default=1, help="threads of PyTorch")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    task = open_task(arguments.run, "cpu", "best", TaggingTask)
    models = {}
    for name, crf in (("softmax", False), ("CRF", True)):
        config = replace(task.config.model, crf=crf)
        model = config.build(len(task.words), len(task.characters), len(task.tags), crf, None).train()
        models[name] = model, torch.optim.AdamW(model.parameters(), fused=True)
    batches = task.epoch(0)
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for number in range(arguments.steps + 5):
        batch = batches.batch(number % len(batches))
        for name, (model, optimizer) in models.items():
            started = time.perf_counter()
            optimizer.zero_grad()
            (model.loss(batch, batch.targets) / batch.count).backward()
            optimizer.step()
            if number >= 5:  # the first steps compile, and allocate
                seconds[name].append(time.perf_counter() - started)
    for name, values in seconds.items():
        low, middle, high = (1000 * value for value in statistics.quantiles(values, n=4))
        print(f"{name:8} {middle:7.1f} ms per step ({low:.1f} to {high:.1f}), {len(task.tags)} tags")
    ratios = [crf / softmax for crf, softmax in zip(seconds["CRF"], seconds["softmax"], strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    print(f"CRF / softmax {middle:.3f} ({low:.3f} to {high:.3f})")
    task.model.eval()
    sentences = task.dev or task.train
    words = sum(len(one.words) for one in sentences)
    uses: dict[str, Callable[[], object]] = {
        "tags": lambda: task.tag(sentences),
        "marginals": lambda: task.all_marginals(sentences),
        "marginals, one by one": lambda: [task.marginals(one.words) for one in sentences],
        "5 best": lambda: task.best(sentences, 5),
    }
    speeds: dict[str, list[float]] = {name: [] for name in uses}
    for _ in range(5):
        for name, use in uses.items():
            started = time.perf_counter()
            use()
            speeds[name].append(words / (time.perf_counter() - started))
    for name, found in speeds.items():
        low, speed, high = min(found), statistics.median(found), max(found)
        print(f"{name:22} {speed:7,.0f} words/s ({low:,.0f} to {high:,.0f}), {words:,} words")


if __name__ == "__main__":
    main()
