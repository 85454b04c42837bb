"""The rows of Sutskever's table (2014, table 1 and 2) on Multi30k, English to German, and the attention model.

    python benchmarks/translation.py MULTI30K --out DIR [--max-time 25m | --max-steps N] [--ensemble 5]

MULTI30K is a folder with train, val and test_2016_flickr, `.en.gz` and `.de.gz`. Each model is a run below DIR, trained
where it is not there yet and gone on with where it was stopped; every output lies in DIR/outputs, so that the script
can be stopped and started at any time. Prints the table, and the comparisons that the lectures draw from it, as found.
BLEU is sacreBLEU's on raw, cased text; ± is half of the 95% interval of 1,000 bootstrap resamples.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

from sacrebleu.metrics import BLEU
from sacrebleu.significance import PairedTest

from unrolled.cli import main as unrolled
from unrolled.data.pairs import open_lines
from unrolled.decoding import BeamSearch
from unrolled.metrics.translation import bleu, oracle
from unrolled.tasks.translation import TranslationTask
from unrolled.tasks.translator import Translation, Translator
from unrolled.training import Run
from unrolled.training.progress import clock

SUTSKEVER = ["--no-attention", "--cell", "lstm", "--num-layers", "2", "--dropout", "0.2"]
ATTENTION = ["--dropout", "0.2"]


class Table:
    """The models and outputs below one folder."""

    def __init__(self, data: Path, out: Path, limits: list[str], lines: int | None, candidates: int) -> None:
        self.data, self.out, self.limits, self.candidates = data, out, limits, candidates
        self.sources = list(open_lines(str(data / "test_2016_flickr.en.gz")))[:lines]
        self.references = list(open_lines(str(data / "test_2016_flickr.de.gz")))[:lines]
        (out / "outputs").mkdir(parents=True, exist_ok=True)
        self.rows: dict[str, list[str]] = {}
        self.speeds: dict[str, float] = {}

    def train(self, name: str, options: list[str]) -> str:
        """The run called `name`, trained as far as its limits go."""
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
        if unrolled(words):
            raise SystemExit(f"stopped while training {name}; start again to go on")
        return name

    def lists(self, names: list[str], beam: int, n_best: int = 1) -> tuple[list[list[Translation]], float]:
        """The n best of every test sentence by the runs together, and the sentences a second."""
        path = self.out / "outputs" / f"{'+'.join(names)}.beam{beam}.best{n_best}.{len(self.sources)}.json"
        if not path.exists():
            translator = self.open(names)
            started = time.perf_counter()
            found = translator.translate(self.sources, BeamSearch(beam=beam, n_best=n_best))
            seconds = time.perf_counter() - started
            write(
                path, {"seconds": seconds, "lists": [[(t.text, t.log_prob, t.score) for t in some] for some in found]}
            )
        stored = json.loads(path.read_text(encoding="utf-8"))
        speed = len(self.sources) / stored["seconds"]
        return [[Translation(*one) for one in some] for some in stored["lists"]], speed

    def open(self, names: list[str]) -> Translator:
        return Translator([TranslationTask(Run.open(self.out / name), "cpu").load() for name in names])

    def translate(self, title: str, names: list[str], beam: int) -> None:
        """A row: the best translation by the runs together."""
        found, self.speeds[title] = self.lists(names, beam)
        self.rows[title] = [some[0].text for some in found]

    def rescore(self, title: str, lists: list[list[Translation]], names: list[str]) -> None:
        """A row: the best of another model's lists by the mean of its score and that of the runs together."""
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
        print("| model | BLEU | sentences/s |\n|---|---|---|")
        for title, outputs in self.rows.items():
            score = bleu(outputs, self.references, 1000)
            speed = f"{self.speeds[title]:.0f}" if title in self.speeds else ""
            print(f"| {title} | {score.score:.2f} ± {score.interval:.2f} | {speed} |")

    def compare(self, better: str, worse: str) -> None:
        """Say whether the lectures' order is found, and how surely."""
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
    parser.add_argument("--max-time", default="25m", help="of training, a model")
    parser.add_argument("--max-steps", type=int, help="in place of a time: the same weights every time")
    parser.add_argument("--ensemble", type=int, default=5, help="reversed models")
    parser.add_argument("--candidates", type=int, default=50, help="length of the lists that are rescored")
    parser.add_argument("--lines", type=int, help="of the test set, to try the script out")
    given = parser.parse_args()
    os.environ.setdefault("SACREBLEU_SEED", "12345")
    limits = ["--max-steps", str(given.max_steps)] if given.max_steps else ["--max-time", given.max_time]
    table = Table(given.data, given.out, limits, given.lines, given.candidates)

    attention = table.train("attention", [*ATTENTION])
    forward = table.train("forward", [*SUTSKEVER])
    backwards = [
        table.train(f"reversed-{seed}", [*SUTSKEVER, "--reverse", "--seed", str(seed)])
        for seed in range(1, given.ensemble + 1)
    ]
    for beam in (1, 2, 12):
        table.translate(f"single forward LSTM, beam {beam}", [forward], beam)
    for beam in (1, 2, 12):
        table.translate(f"single reversed LSTM, beam {beam}", backwards[:1], beam)
    for count in sorted({2, given.ensemble}):
        for beam in (1, 2, 12):
            table.translate(f"ensemble of {count} reversed LSTMs, beam {beam}", backwards[:count], beam)
    for beam in (1, 12):
        table.translate(f"attention, beam {beam}", [attention], beam)
    lists, _ = table.lists([attention], given.candidates, given.candidates)
    name = f"attention's {given.candidates} best"
    table.rows[f"{name}, the first"] = [some[0].text for some in lists]
    table.rescore(f"{name}, rescored by a single forward LSTM", lists, [forward])
    table.rescore(f"{name}, rescored by a single reversed LSTM", lists, backwards[:1])
    table.rescore(f"{name}, rescored by {given.ensemble} reversed LSTMs", lists, backwards)
    table.rows[f"{name}, oracle"] = oracle([[one.text for one in some] for some in lists], table.references)
    table.show()

    print("\n| the lectures' better one | worse one | BLEU | p (paired bootstrap) | found |\n|---|---|---|---|---|")
    many = f"ensemble of {given.ensemble} reversed LSTMs"
    table.compare("single reversed LSTM, beam 12", "single forward LSTM, beam 12")
    table.compare(f"{many}, beam 12", "single reversed LSTM, beam 12")
    table.compare("single reversed LSTM, beam 12", "single reversed LSTM, beam 1")
    table.compare(f"{many}, beam 12", f"{many}, beam 1")
    table.compare(f"{name}, rescored by {given.ensemble} reversed LSTMs", f"{name}, the first")
    table.compare(f"{name}, rescored by {given.ensemble} reversed LSTMs", f"{many}, beam 12")
    print("\n| run | parameters | steps | time to train |\n|---|---|---|---|")
    for run in [attention, forward, *backwards]:
        task = TranslationTask(Run.open(given.out / run), "cpu")
        last = task.run.metrics()[-1]
        count = sum(parameter.numel() for parameter in task.model.parameters())
        print(f"| {run} | {count:,} | {last['step']:,} | {clock(last['seconds'])} |")


if __name__ == "__main__":
    main()
