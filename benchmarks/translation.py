"""The rows of Sutskever's table (2014, table 1 and 2) on Multi30k, English to German, and the attention model.

    python benchmarks/translation.py MULTI30K --out DIR [--max-time 20m | --max-steps N] [--ensemble 5] [--jobs 2]

MULTI30K is a folder with train, val and test_2016_flickr, as `.en.gz` and `.de.gz`. Each model is a run below DIR,
trained if it does not exist yet, and resumed if it was stopped. Every output is stored in DIR/outputs, so the script
can be stopped and started at any time. As many models are trained at once as there are jobs, each on its share of the
cores. What they print goes to DIR/NAME.log. The cells of the plain models are GRUs, which learn several times as fast
here as the paper's LSTMs. The script prints the table, and the comparisons that the lectures draw from it, as found.
BLEU is sacreBLEU's on raw, cased text; ± is half of the 95% interval of 1,000 bootstrap resamples.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from sacrebleu.metrics import BLEU
from sacrebleu.significance import PairedTest

from unrolled.data.lines import open_lines
from unrolled.data.workers import processors
from unrolled.decoding import BeamSearch
from unrolled.metrics.translation import bleu, oracle
from unrolled.tasks.translation import TranslationTask
from unrolled.tasks.translator import Translation, Translator
from unrolled.training import open_run
from unrolled.training.progress import clock

PLAIN = ["--no-attention", "--hidden-size", "512", "--dropout", "0.1", "--learning-rate", "0.003"]
ATTENTION = ["--dropout", "0.2"]


class Table:
    """The table of all models, whose runs and outputs are below one folder."""

    def __init__(self, data: Path, out: Path, limits: list[str], lines: int | None, candidates: int) -> None:
        self.data, self.out, self.limits, self.candidates = data, out, limits, candidates
        self.sources = list(open_lines(str(data / "test_2016_flickr.en.gz")))[:lines]
        self.references = list(open_lines(str(data / "test_2016_flickr.de.gz")))[:lines]
        (out / "outputs").mkdir(parents=True, exist_ok=True)
        self.rows: dict[str, list[str]] = {}

    def train(self, models: dict[str, list[str]], jobs: int) -> None:
        """Train the named models with their options, up to the limits."""
        cores = str(max(1, processors() // jobs))
        waiting, running = list(models), dict[str, subprocess.Popen]()
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    name = waiting.pop(0)
                    running[name] = self._start(name, models[name], cores)
                for name, process in list(running.items()):
                    if process.poll() is not None:
                        del running[name]
                        if process.returncode:
                            raise SystemExit(f"{self.out / name}.log says why the training ended; run again to resume")
                time.sleep(1)
        finally:  # each process writes a checkpoint when it is terminated
            for process in running.values():
                process.terminate()
            for process in running.values():
                process.wait()

    def _start(self, name: str, options: list[str], cores: str) -> subprocess.Popen:
        path = self.out / name
        if (path / "config.json").exists():
            words = ["train", "translate", "--resume", str(path), *self.limits]
        else:
            sides = [("train", ""), ("val", "val-")]
            files = [
                word
                for part, flag in sides
                for side, end in (("source", "en"), ("target", "de"))
                for word in (f"--{flag}{side}", str(self.data / f"{part}.{end}.gz"))
            ]
            words = ["train", "translate", *files, *options, *self.limits, "--sample-every", "0", "--out", str(path)]
        with (self.out / f"{name}.log").open("a", encoding="utf-8") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "unrolled", *words],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "OMP_NUM_THREADS": cores},
                process_group=0,  # Ctrl-C reaches only this script, which stops the processes
            )

    def lists(self, names: list[str], beam: int, n_best: int = 1) -> list[list[Translation]]:
        """Return the n best translations of every test sentence by the ensemble of runs."""
        path = self.out / "outputs" / f"{'+'.join(names)}.beam{beam}.best{n_best}.{len(self.sources)}.json"
        if not path.exists():
            found = self.open(names).translate(self.sources, BeamSearch(beam=beam, n_best=n_best))
            write(path, [[(t.text, t.log_prob, t.score) for t in some] for some in found])
        return [[Translation(*one) for one in some] for some in json.loads(path.read_text(encoding="utf-8"))]

    def open(self, names: list[str]) -> Translator:
        return Translator([TranslationTask(open_run(self.out / name), "cpu").load() for name in names])

    def translate(self, title: str, names: list[str], beam: int) -> None:
        """Add a row: the best translations by the ensemble of runs."""
        self.rows[title] = [some[0].text for some in self.lists(names, beam)]

    def rescore(self, title: str, lists: list[list[Translation]], names: list[str]) -> None:
        """Add a row: the best of another model's lists, by the mean of its score and the ensemble's."""
        path = self.out / "outputs" / f"rescored-by-{'+'.join(names)}.{self.candidates}.{len(self.sources)}.json"
        if not path.exists():
            scores = self.open(names).score(self.sources, [[one.text for one in some] for some in lists])
            write(path, scores)
        scores = json.loads(path.read_text(encoding="utf-8"))
        self.rows[title] = [
            max(zip(some, row, strict=True), key=lambda pair: pair[0].score + pair[1][0] / pair[1][1])[0].text
            for some, row in zip(lists, scores, strict=True)
        ]

    def show(self) -> None:
        print(f"\n{len(self.sources):,} sentences of test_2016, {bleu(['a'], ['a'], 1000).signature}\n")
        print("| model | BLEU |\n|---|---|")
        for title, outputs in self.rows.items():
            score = bleu(outputs, self.references, 1000)
            print(f"| {title} | {score.score:.2f} ± {score.interval:.2f} |")

    def compare(self, better: str, worse: str) -> None:
        """Print whether the order is as in the lectures, with the p-value."""
        systems = [(worse, self.rows[worse]), (better, self.rows[better])]
        _, results = PairedTest(systems, {"BLEU": BLEU()}, [self.references], "bs", 1000)()
        base, other = results["BLEU"]
        gain = other.score - base.score
        found = "as in the lectures" if gain > 0 else "no difference" if gain == 0 else "not as in the lectures"
        print(f"| {better} | {worse} | {gain:+.2f} | {other.p_value:.3f} | {found} |")


def write(path: Path, value: object) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
    temporary.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--max-time", default="20m", help="training time per model")
    parser.add_argument("--max-steps", type=int, help="in place of --max-time; same weights with the same cores")
    parser.add_argument("--jobs", type=int, default=2, help="models to train at once")
    parser.add_argument("--ensemble", type=int, default=5, help="number of reversed models")
    parser.add_argument("--candidates", type=int, default=50, help="length of the lists that are rescored")
    parser.add_argument("--lines", type=int, help="lines of the test set to use, to try the script out")
    given = parser.parse_args()
    if given.jobs < 1:
        raise SystemExit("--jobs must be at least 1")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # runs the `finally` blocks
    os.environ.setdefault("SACREBLEU_SEED", "12345")
    limits = ["--max-steps", str(given.max_steps)] if given.max_steps else ["--max-time", given.max_time]
    table = Table(given.data, given.out, limits, given.lines, given.candidates)

    attention, forward = "attention", "forward"
    backwards = [f"reversed-{seed}" for seed in range(1, given.ensemble + 1)]
    models = {attention: ATTENTION, forward: PLAIN}
    models |= {name: [*PLAIN, "--reverse", "--seed", str(seed)] for seed, name in enumerate(backwards, 1)}
    table.train(models, given.jobs)
    for beam in (1, 2, 12):
        table.translate(f"single forward, beam {beam}", [forward], beam)
    for beam in (1, 2, 12):
        table.translate(f"single reversed, beam {beam}", backwards[:1], beam)
    for count in sorted({2, given.ensemble}):
        for beam in (1, 2, 12):
            table.translate(f"ensemble of {count} reversed models, beam {beam}", backwards[:count], beam)
    for beam in (1, 12):
        table.translate(f"attention, beam {beam}", [attention], beam)
    lists = table.lists([attention], given.candidates, given.candidates)
    name = f"attention's {given.candidates} best"
    table.rows[f"{name}, the first"] = [some[0].text for some in lists]
    table.rescore(f"{name}, rescored by a single forward model", lists, [forward])
    table.rescore(f"{name}, rescored by a single reversed model", lists, backwards[:1])
    table.rescore(f"{name}, rescored by {given.ensemble} reversed models", lists, backwards)
    table.rows[f"{name}, oracle"] = oracle([[one.text for one in some] for some in lists], table.references)
    table.show()

    print("\n| the lectures' better one | worse one | BLEU | p (paired bootstrap) | found |\n|---|---|---|---|---|")
    many = f"ensemble of {given.ensemble} reversed models"
    table.compare("single reversed, beam 12", "single forward, beam 12")
    table.compare(f"{many}, beam 12", "single reversed, beam 12")
    table.compare("single reversed, beam 12", "single reversed, beam 1")
    table.compare(f"{many}, beam 12", f"{many}, beam 1")
    table.compare(f"{name}, rescored by {given.ensemble} reversed models", f"{name}, the first")
    table.compare(f"{name}, rescored by {given.ensemble} reversed models", f"{many}, beam 12")
    print("\n| run | parameters | steps | time to train |\n|---|---|---|---|")
    for run in [attention, forward, *backwards]:
        task = TranslationTask(open_run(given.out / run), "cpu")
        last = task.run.metrics()[-1]
        count = sum(parameter.numel() for parameter in task.model.parameters())
        print(f"| {run} | {count:,} | {last['step']:,} | {clock(last['seconds'])} |")


if __name__ == "__main__":
    main()
