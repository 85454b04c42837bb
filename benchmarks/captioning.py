"""Remakes the tables of docs/captioning.md: python benchmarks/captioning.py table --data CAPTIONS --images FOLDER

`table` trains every decoder into --out, skips the runs that are finished, scores each on the pictures held out, and
prints a row for each, and for the baselines. `speed RUN` times a training step of a Show and Tell of this package
against the same model with `torch.nn.LSTM`, alternately on the same batches, and captions of single pictures.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import nn

#: The decoders with the options that they are trained with, in addition to those of all.
DECODERS = {
    "plain": [],
    "karpathy-li": [],
    "show-and-tell": [],
    "lrcn": [],
    "m-rnn": [],
    "chen-zitnick": [],
    "show-attend-tell": [],
}
ALL = ["--hidden-size", "400", "--batch-size", "12", "--dropout", "0.4", "--learning-rate", "0.0015"]
ALL += ["--eval-every", "500", "--sample-every", "0"]
SCORES = (("bleu1", 100), ("bleu4", 100), ("meteor", 1), ("cider_d", 1))


def unrolled(*words: str) -> str:
    done = subprocess.run([sys.executable, "-m", "unrolled", *words], stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def row(name: str, found: dict) -> str:
    cells = []
    for key, factor in SCORES:
        value, spread = found.get(key), found.get(f"{key}_interval")
        text = "" if value is None else f"{factor * value:.{1 if factor == 100 else 3}f}"
        cells.append(text if spread is None else f"{text} ± {factor * spread:.{1 if factor == 100 else 3}f}")
    return f"| {name} | " + " | ".join(cells) + " |"


def table(arguments: argparse.Namespace) -> None:
    data = [f"--{name}={value}" for name in ("data", "images", "train-names", "dev-names")
            if (value := getattr(arguments, name.replace("-", "_")))]  # fmt: skip
    print("| | BLEU-1 | BLEU-4 | METEOR | CIDEr-D |\n|---|---|---|---|---|")
    baselines = {}
    for name, options in DECODERS.items():
        run = Path(arguments.out, name)
        if not run.exists():
            unrolled("train", "caption", *data, *ALL, *options, "--model", name, "--epochs", arguments.epochs, "--out",
                     str(run))  # fmt: skip
        found = json.loads(unrolled("eval", str(run), "--json", "--beam", arguments.beam))
        baselines = {name: found[name] for name in ("constant", "neighbours")}
        print(row(name, found), flush=True)
    for name, found in baselines.items():
        print(row(name, found))


class Theirs(nn.Module):
    """The Show and Tell of the run, with `torch.nn.LSTM`."""

    def __init__(self, ours: nn.Module) -> None:
        super().__init__()
        size, hidden = ours.embedding_size, ours.hidden_size
        self.embedding = nn.Embedding(ours.embedding.num_embeddings, size)
        self.picture = nn.Linear(ours.vector_size, size)
        self.lstm = nn.LSTM(size, hidden)
        self.dropout = nn.Dropout(ours.dropout.p)
        self.readout = nn.Linear(hidden, ours.readout.out_features)

    def loss(self, vectors: torch.Tensor, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        first = self.picture(vectors).repeat_interleave(inputs.size(1) // len(vectors), 0).unsqueeze(0)
        read = self.dropout(torch.cat([first, self.embedding(inputs.clamp(min=0))]))
        outputs = self.dropout(self.lstm(read)[0][1:])
        logits = self.readout(outputs[targets >= 0])
        return nn.functional.cross_entropy(logits, targets[targets >= 0], reduction="sum")


def speed(arguments: argparse.Namespace) -> None:
    from unrolled.models.captioner import PictureFeatures
    from unrolled.tasks import open_task
    from unrolled.tasks.captioning import CaptioningTask

    torch.set_num_threads(arguments.threads)
    task = open_task(arguments.run, "cpu", "best", CaptioningTask)
    if task.config.model.model != "show-and-tell":
        sys.exit("speed compares a run of --model show-and-tell")
    ours, theirs = task.fresh_model().train(), Theirs(task.model).train()
    optimizers = [torch.optim.AdamW(model.parameters(), fused=True) for model in (ours, theirs)]
    batches, seconds = task.epoch(0), {"ours": [], "torch.nn.LSTM": []}
    for number in range(arguments.steps + 5):
        batch = batches.batch(number % len(batches))
        targets = batch.targets.flatten(1)
        inputs = torch.cat([targets.new_full((1, targets.size(1)), task.end), targets[:-1]])
        for name, optimizer in zip(seconds, optimizers, strict=True):
            started = time.perf_counter()
            optimizer.zero_grad()
            if name == "ours":
                loss = ours.loss(PictureFeatures(batch.vectors), inputs, targets)
            else:
                loss = theirs.loss(batch.vectors, inputs, targets)
            (loss / batch.count).backward()
            optimizer.step()
            if number >= 5:  # the first steps compile, and allocate
                seconds[name].append(time.perf_counter() - started)
    for name, values in seconds.items():
        low, middle, high = (1000 * value for value in statistics.quantiles(values, n=4))
        print(f"{name:14} {middle:7.1f} ms per step ({low:.1f} to {high:.1f})")
    ratios = [other / one for one, other in zip(*seconds.values(), strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    print(f"{'ratio':14} {middle:7.2f} ({low:.2f} to {high:.2f})")
    files = [file for file in task.pictures.files[-20:] if Path(file).is_file()]
    if files and task.noticed.encoder:
        task.caption(files[:1])
        times = []
        for file in files:
            started = time.perf_counter()
            task.caption([file])
            times.append(time.perf_counter() - started)
        print(f"{'a new picture':14} {1000 * statistics.median(times):7.1f} ms, loaded (to {1000 * max(times):.1f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    tables = commands.add_parser("table", help="train and score every decoder")
    tables.add_argument("--data", required=True)
    for name in ("images", "train-names", "dev-names"):
        tables.add_argument(f"--{name}", default="")
    tables.add_argument("--out", default="runs/captions", help="folder of the runs")
    tables.add_argument("--epochs", default="8")
    tables.add_argument("--beam", default="3")
    tables.set_defaults(run_command=table)
    speeds = commands.add_parser("speed", help="time training steps and captions")
    speeds.add_argument("run", help="a run of --model show-and-tell")
    speeds.add_argument("--steps", type=int, default=60)
    speeds.add_argument("--threads", type=int, default=1)
    speeds.set_defaults(run_command=speed)
    arguments = parser.parse_args()
    arguments.run_command(arguments)


if __name__ == "__main__":
    main()
