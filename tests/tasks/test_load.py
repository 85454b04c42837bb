"""Runs opened from Python give what the commands print; every snippet of docs/python.md runs."""

import json
import os
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import unrolled
from tests.training.killed import number_pairs, write_trees
from unrolled.cli import main
from unrolled.errors import ConfigurationError, DataError, RunError
from unrolled.tasks.language_settings import TextEvaluation
from unrolled.training.checkpoint import Checkpoint

PAGE = (Path(__file__).parents[2] / "docs" / "python.md").read_text(encoding="utf-8")
TEXT = "ROMEO: I am here.\nZoë said: grüß dich, naïve 世界!\n"
SMALL = ["--hidden-size", "8", "--embedding-size", "4", "--max-steps", "4", "--eval-every", "2", "--device", "cpu"]
PAIRS = [*SMALL, "--level", "word", "--batch-size", "16", "--sample-every", "0", "--val-fraction", "0.1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the data and the runs that the page names; it is the current one."""
    folder = tmp_path_factory.mktemp("load")
    before = Path.cwd()
    os.chdir(folder)
    Path("text.txt").write_text(TEXT * 60, encoding="utf-8")
    Path("other.txt").write_text(TEXT * 20, encoding="utf-8")
    sources, targets = number_pairs(40)
    for name, lines in (("test.en", sources), ("test.de", targets)):
        Path(name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    rows = [f"Lets do Monday.\tMonday works for me, {one}\nThank you!\tYou are welcome, {one}\n" for one in sources]
    Path("mails.tsv").write_text("".join(rows))
    Path("sst").mkdir()
    write_trees(Path("sst"))
    Path("sst/dev.txt").rename("sst/test.txt")
    write_trees(Path("sst"))
    for words in (
        [*("lm", "--data", "text.txt", "--out", "runs/shakespeare-lstm-1", "--batch-size", "2", "--seq-length", "8")],
        [*("translate", "--source", "test.en", "--target", "test.de", "--out", "runs/train-gru-1"), *PAIRS],
        [*("reply", "--pairs", "mails.tsv", "--out", "runs/mails-gru-1"), *PAIRS],
        [*("tree", "--data", "sst", "--out", "runs/tree-tree-lstm-1")],
    ):
        assert main(["train", *words, *SMALL]) == 0
    yield folder
    os.chdir(before)


def said(capsys, *words):
    capsys.readouterr()
    assert main([*words]) == 0
    return capsys.readouterr().out


def test_every_snippet_of_the_page_runs(folder, capsys):
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    assert len(blocks) >= 8
    known: dict = {}
    for number, block in enumerate(blocks):
        exec(compile(block, f"python.md, block {number}", "exec"), known)
    out = capsys.readouterr().out
    assert "runs/nowhere: no such run directory" in out
    assert "temperature the temperature must be 0 or above, got -1" in out
    assert "vocabulary: all" in out
    assert known["log_probs"].shape == (16, 1)


def test_samples_are_those_of_the_command(folder, capsys):
    run = unrolled.load("runs/shakespeare-lstm-1")
    words = ["sample", "runs/shakespeare-lstm-1", "--prime", "Zoë", "--temperature", "1.5", "--seed", "7"]
    for length in (20, 220):  # by the loop, and by the writer in native code
        text = run.sample("Zoë", temperature=1.5, seed=7, length=length)
        assert text.startswith("Zoë")
        assert len(text) == 3 + length
        assert said(capsys, *words, "--length", str(length)) == f"{text}\n"
    assert run.model.recurrent.backend == "auto"
    texts = run.sample("Zoë", temperature=1.5, seed=7, length=20, count=2)
    shown = "".join(f"--- {k} of 2 ---\n{text}\n" for k, text in enumerate(texts, 1))
    assert said(capsys, *words, "--length", "20", "--count", "2") == shown
    assert run.sample("Zoë", seed=7, length=5, count=1) == [run.sample("Zoë", seed=7, length=5)]
    assert len({run.sample(length=30, temperature=1.5) for _ in range(3)}) > 1
    whole = run.sample("Zoë", temperature=1.5, seed=7, length=220)
    assert run.sample("Zoë", temperature=1.5, seed=7, length=220, stop=whole[50:53]) in whole[:53]


def test_streams_may_be_read_in_turns(folder):
    run = unrolled.load("runs/shakespeare-lstm-1")
    one, other = (run.stream("R", length=12, seed=seed, temperature=2.0) for seed in (1, 2))
    both = list(zip(one, other, strict=True))
    for k, seed in enumerate((1, 2)):
        alone = run.sample("R", length=12, seed=seed, temperature=2.0)
        assert "".join(parts[k][0] for parts in both) == alone
    assert run.model.recurrent.backend == "auto"


def test_translations_and_replies_are_those_of_the_commands(folder, capsys):
    run = unrolled.load("runs/train-gru-1", "average")
    lines = Path("test.en").read_text().splitlines()
    words = ["translate", "runs/train-gru-1", "--source", "test.en", "--beam", "3", "--checkpoint", "average"]
    assert said(capsys, *words).splitlines() == run.translate(lines, beam=3)
    shown = said(capsys, *words, "--n-best", "2", "--diversity", "0.5")
    found = run.translate(lines, beam=3, n_best=2, diversity=0.5)
    rows = [f"{k} ||| {one.text} ||| {one.score:.6f}" for k, some in enumerate(found) for one in some]
    assert shown.splitlines() == rows
    assert run.vocabulary is run.target
    mails = unrolled.load("runs/mails-gru-1")
    answers = mails.reply("Lets do Monday.", count=2, diversity=0.1)
    shown = said(capsys, "reply", "runs/mails-gru-1", "Lets do Monday.", "--count", "2", "--diversity", "0.1")
    assert shown == "".join(f"{score:7.3f}  {text}\n" for text, score in answers)
    assert [text for text, _ in mails.reply("Thank you!", responses=["Yes.", " ", "Yes. "])] == ["Yes."]


@pytest.mark.parametrize(
    ("name", "data", "options"),
    [
        ("shakespeare-lstm-1", None, {}),
        ("shakespeare-lstm-1", "other.txt", {}),
        ("shakespeare-lstm-1", Path("."), {"glob": "oth*.txt"}),
        ("train-gru-1", None, {"beam": 2, "resamples": 9}),
        ("tree-tree-lstm-1", ["sst/test.txt", Path("sst/dev.txt")], {}),
    ],
)
def test_scores_are_those_of_the_command(name, data, options, folder, capsys):
    run = unrolled.load(f"runs/{name}")
    flags = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    if data is not None:
        flags += ["--data", *map(str, data if isinstance(data, list) else [data])]
    shown = json.loads(said(capsys, "eval", f"runs/{name}", "--json", *flags))
    report = run.score(data, **options)
    kept = len(Path(f"runs/{name}/reports.jsonl").read_text().splitlines())
    found = report.json()
    for scores in (shown, found):
        scores.pop("seconds", None)
    assert found == {key: value for key, value in shown.items() if key in found}
    assert str(report) == "\n".join(report.lines())
    assert len(Path(f"runs/{name}/reports.jsonl").read_text().splitlines()) == kept


def test_the_checkpoint_and_the_device_are_chosen(folder):
    stored = Path("runs/shakespeare-lstm-1/checkpoints")
    best, last = (json.loads((stored / f"step-0000000{k}/checkpoint.json").read_text()) for k in (2, 4))
    assert best["best"]
    changed = {**last, "best": False}
    changed["digest"] = Checkpoint(stored, **{k: v for k, v in changed.items() if k != "digest"}).digest()
    (stored / "step-00000004/checkpoint.json").write_text(json.dumps(changed))
    for which, step in (("best", 2), ("last", 4)):
        run = unrolled.load("runs/shakespeare-lstm-1", which)
        weights = load_file(stored / f"step-0000000{step}" / "model.safetensors")
        assert all(torch.equal(weight, weights[name]) for name, weight in run.model.state_dict().items())
        assert run.device == torch.device("cpu")
        assert not run.model.training
    (stored / "step-00000004/checkpoint.json").write_text(json.dumps(last))
    assert unrolled.load("runs/shakespeare-lstm-1", device=None).device == torch.device("cpu")  # as it was trained


@pytest.mark.parametrize(
    ("kind", "setting", "act"),
    [
        (RunError, None, lambda load: unrolled.load("runs")),
        (ConfigurationError, "checkpoint", lambda load: unrolled.load("runs/shakespeare-lstm-1", "average")),
        (ConfigurationError, "device", lambda load: unrolled.load("runs/shakespeare-lstm-1", device="cuda:77")),
        (ConfigurationError, "length", lambda load: load("shakespeare-lstm-1").sample(length=0)),
        (ConfigurationError, "count", lambda load: load("shakespeare-lstm-1").stream(count=0)),
        (ConfigurationError, "seed", lambda load: load("shakespeare-lstm-1").sample(seed=-1)),
        (ConfigurationError, "top_p", lambda load: load("shakespeare-lstm-1").sample(top_p=0)),
        (ConfigurationError, "beam", lambda load: load("shakespeare-lstm-1").score(beam=2)),
        (ConfigurationError, "data", lambda load: load("shakespeare-lstm-1").score(5)),
        (ConfigurationError, "data", lambda load: load("shakespeare-lstm-1").score([None])),
        (DataError, None, lambda load: load("shakespeare-lstm-1").score("none.txt")),
        (ConfigurationError, "data", lambda load: load("train-gru-1").score("test.en")),
        (ConfigurationError, "beam", lambda load: load("train-gru-1").score(beam="wide")),
        (ConfigurationError, "source", lambda load: load("train-gru-1").score(source="test.en")),
        (ConfigurationError, "sentences", lambda load: load("train-gru-1").translate("one two")),
        (ConfigurationError, "beam", lambda load: load("train-gru-1").translate(["one"], beam=0)),
        (ConfigurationError, "n_best", lambda load: load("train-gru-1").translate(["one"], n_best=0)),
        (ConfigurationError, None, lambda load: load("mails-gru-1").reply("  ")),
        (ConfigurationError, "count", lambda load: load("mails-gru-1").reply("Hi", count=0)),
        (ConfigurationError, "responses", lambda load: load("mails-gru-1").reply("Hi", responses="Yes.")),
        (DataError, None, lambda load: load("mails-gru-1").reply("Hi", responses=["", " "])),
    ],
)
def test_mistakes_are_typed_errors(kind, setting, act, folder):
    with pytest.raises(kind) as caught:
        act(lambda name: unrolled.load(f"runs/{name}"))
    assert caught.value.setting == setting
    assert len(str(caught.value).splitlines()) == 1


def test_an_evaluation_is_still_taken(folder):
    run = unrolled.load("runs/shakespeare-lstm-1")
    assert run.score(TextEvaluation(data=("other.txt",))) == run.score("other.txt")
