"""Runs whose weights are NaN, or overflow: every command that uses them says so in a line, and exits with code 2."""

import shutil
from dataclasses import replace

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.cli.shared import error_of, write
from tests.cli.test_translation import QUICK
from tests.cli.test_translation import SMALL as PAIRS
from unrolled.cli import main
from unrolled.data import load_vocabulary
from unrolled.training.checkpoint import WEIGHTS, Checkpoint, digest_of

FEW = ["--max-steps", "2", "--eval-every", "1"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory, trained):
    """Runs of each kind, with what they are asked about: char, translate, reply, trees."""
    folder = tmp_path_factory.mktemp("runs")
    shutil.copytree(trained, folder / "char")
    write(folder / "a.txt", "one two three.\n" * 40)
    write(folder / "b.txt", "eins zwei drei.\n" * 40)
    write(folder / "mails.txt", "How are you?\tFine.\nThanks!\tWelcome.\n" * 30)
    write(folder / "lists.txt", "0 ||| eins ||| -1\n0 ||| zwei ||| -2\n1 ||| drei ||| -1\n")
    write(folder / "lines.txt", "one two\nthree\n")
    for part in ("train", "dev"):
        write(folder / f"{part}.txt", "(3 (2 It) (4 works))\n(0 bad)\n" * 30)
    common = ["--level", "word", *PAIRS, *QUICK, *FEW]
    pairs = ["--source", str(folder / "a.txt"), "--target", str(folder / "b.txt")]
    apart = ["--separate", "--val-fraction", "0.1"]
    assert main(["train", "translate", *pairs, *common, *apart, "--out", str(folder / "pairs")]) == 0
    mails = ["--pairs", str(folder / "mails.txt"), "--val-fraction", "0.1"]
    assert main(["train", "reply", *mails, *common, "--out", str(folder / "reply")]) == 0
    small = ["--hidden-size", "4", "--embedding-size", "4", *FEW]
    assert main(["train", "tree", "--data", str(folder), *small, "--out", str(folder / "trees")]) == 0
    return folder


def fill(run, value, part="", row=slice(None)):
    """Fill the weights whose names hold `part`, as a training that diverged may leave them; checkpoints are whole."""
    for path in (*run.glob(f"checkpoints/*/{WEIGHTS}"), *run.glob("snapshots/*")):
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
        weights = load_file(path)
        chosen = [name for name in weights if part in name]
        assert chosen
        for name in chosen:
            weights[name][row] = value
        save_file(weights, path, metadata=metadata)
        if path.name == WEIGHTS:
            one = Checkpoint.read(path.parent)
            replace(one, files={**one.files, WEIGHTS: digest_of(path)}).write()


COMMANDS = [
    ["sample", "char"],
    ["sample", "char", "--temperature", "0", "--count", "2"],
    ["eval", "char"],
    ["translate", "pairs", "--source", "lines.txt"],
    ["translate", "pairs", "--source", "lines.txt", "--beam", "4", "--diversity", "1", "--tree", "tree.json"],
    ["translate", "whole", "pairs", "--source", "lines.txt"],
    ["rescore", "pairs", "--source", "lines.txt", "--n-best", "lists.txt"],
    ["eval", "pairs"],
    ["eval", "pairs", "--source", "lines.txt", "--target", "lines.txt"],
    ["reply", "reply", "Thanks!"],
    ["eval", "reply"],
    ["eval", "trees"],
]


@pytest.fixture
def spoil(runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in runs.glob("*.txt"):
        shutil.copy(path, tmp_path)
    shutil.copytree(runs / "pairs", tmp_path / "whole")

    def spoil(name, *what):
        shutil.copytree(runs / name, tmp_path / name)
        fill(tmp_path / name, *what)

    return spoil


@pytest.mark.parametrize("words", [*COMMANDS, ["translate", "pairs", "--checkpoint", "average"]], ids=" ".join)
def test_weights_that_are_nan(words, spoil, capsys):
    name = words[1] if words[1] != "whole" else words[2]
    spoil(name, float("nan"))
    said = error_of(words, capsys)
    assert f"{name}: the " in said
    assert "weights that are NaN" in said


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_model_that_overflows(words, spoil, capsys):
    """Its weights are numbers, what it says is not."""
    name = words[1] if words[1] != "whole" else words[2]
    spoil(name, float("inf"), "readout")
    assert "NaN" in error_of(words, capsys)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["sample", "char"], "NaN at step 0, sentence 0"),
        (["eval", "char"], "char: the loss on test part is NaN"),
        (["translate", "pairs", "--source", "lines.txt"], "lines.txt: line 1: "),
        (["rescore", "pairs", "--source", "lines.txt", "--n-best", "lists.txt"], "lines.txt: line 1: "),
        (["eval", "trees"], "trees: the loss on dev is NaN"),
    ],
)
def test_where_it_overflows_is_told(words, expected, spoil, capsys):
    spoil(words[1], float("inf"), "readout")
    assert expected in error_of(words, capsys)


@pytest.mark.parametrize("line", [3, 4, 5])
def test_lines_are_counted_over_blocks_and_pieces(line, spoil, monkeypatch, capsys, tmp_path):
    """One word overflows: the line that holds it is named, be it in a later block, or in a piece of a long line."""
    monkeypatch.setattr("unrolled.cli.translate.BLOCK", 2)
    token = int(load_vocabulary(tmp_path / "whole" / "vocabulary-source.json").encode("three")[0])
    spoil("pairs", float("inf"), "source_embedding", token)
    lines = ["one", "", "one two", f"one{' two' * 150}", "two", "one"]
    write(tmp_path / "many.txt", "\n".join(lines) + "\n")
    assert main(["translate", "pairs", "--source", "many.txt"]) == 0
    lines[line - 1] += " three"
    write(tmp_path / "many.txt", "\n".join(lines) + "\n")
    assert f"many.txt: line {line}: the model's log-probabilities are NaN at step 0, hypothesis 0" in error_of(
        ["translate", "pairs", "--source", "many.txt"], capsys
    )
    write(tmp_path / "lists.txt", "".join(f"{k} ||| eins zwei ||| -1\n{k} ||| zwei ||| -1\n" for k in range(6)))
    said = error_of(["rescore", "pairs", "--source", "many.txt", "--n-best", "lists.txt"], capsys)
    assert f"many.txt: line {line}: " in said
