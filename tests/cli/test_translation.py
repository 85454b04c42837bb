"""Training to translate, translating, rescoring and scoring, as a person types them."""

import gzip
import io
import json
import math
import os
import pty
import random
import re
import signal
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

from tests.cli.shared import error_of
from tests.programs import PRELOADED, completed, started
from unrolled.cli import main
from unrolled.decoding import BeamSearch
from unrolled.tasks import translator as translator_module
from unrolled.tasks.translation import TranslationTask
from unrolled.tasks.translator import Translator
from unrolled.training import open_run

WORDS = {"one": "eins", "two": "zwei", "three": "drei", "four": "vier", "five": "fünf", "six": "sechs"}
SMALL = [
    "--hidden-size",
    "24",
    "--embedding-size",
    "16",
    "--batch-size",
    "16",
    "--learning-rate",
    "0.02",
    "--dropout",
    "0",
]
QUICK = ["--sample-every", "0", "--warmup-steps", "10", "--average", "2"]


def write_pairs(folder, count=400):
    """Numbers in English and German, and where they are."""
    generator = random.Random(1)
    sources = [" ".join(generator.choices(list(WORDS), k=generator.randint(1, 5))) + "." for _ in range(count)]
    targets = [" ".join(WORDS[word] for word in line[:-1].split()) + "." for line in sources]
    source, target = folder / "numbers.en.gz", folder / "numbers.de"
    source.write_bytes(gzip.compress("".join(f"{line}\n" for line in sources).encode()))
    target.write_text("".join(f"{line}\n" for line in targets), encoding="utf-8")
    return ["--source", str(source), "--target", str(target)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("translation")


@pytest.fixture(scope="module")
def pairs(folder):
    return write_pairs(folder)


@pytest.fixture(scope="module")
def run(folder, pairs):
    words = [
        "train",
        "translate",
        *pairs,
        "--level",
        "word",
        *SMALL,
        *QUICK,
        "--max-steps",
        "160",
        "--eval-every",
        "40",
    ]
    assert main([*words, "--out", str(folder / "run")]) == 0
    return str(folder / "run")


@pytest.fixture(scope="module")
def other(folder, pairs):
    """A run without attention on the same pairs."""
    words = ["train", "translate", *pairs, "--level", "word", *SMALL, *QUICK, "--max-steps", "20", "--eval-every", "20"]
    sutskever = ["--no-attention", "--reverse", "--cell", "lstm", "--num-layers", "2"]
    assert main([*words, *sutskever, "--out", str(folder / "other")]) == 0
    return str(folder / "other")


def typed(monkeypatch, text):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode()), encoding="utf-8"))


def said(capsys, *words):
    capsys.readouterr()
    assert main([str(word) for word in words]) == 0
    return capsys.readouterr()


def test_training_shows_what_it_does(tmp_path, pairs, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = said(
        capsys, "train", "translate", *pairs, *SMALL, "--vocab-size", "280", "--max-steps", "4", "--eval-every", "2"
    ).out
    for expected in (
        "392 to train on, 8 to validate",
        "280 in the bpe vocabulary",
        "gru, 1 × 24 units read both ways, with attention",
        "validation loss",
        "unrolled translate runs/numbers-gru-1 < SENTENCES",
    ):
        assert expected in out
    out = said(
        capsys, "train", "translate", "--resume", "runs/numbers-gru-1", "--max-steps", "6", "--sample-every", "6"
    ).out
    assert "resumed at step 4" in out
    assert re.search(r"< (one|two|three|four|five|six).*\n= (eins|zwei|drei|vier|fünf|sechs).*\n>", out)
    assert "6 steps" in said(capsys, "info", "runs/numbers-gru-1").out
    (row,) = [json.loads(line) for line in said(capsys, "runs", "runs", "--json").out.splitlines()]
    assert (row["task"], row["cell"], row["units"], row["steps"]) == ("translation", "gru", "24", 6)


def test_a_stopped_and_resumed_run_arrives_at_the_same_weights(tmp_path, pairs):
    words = ["train", "translate", *pairs, "--level", "char", *SMALL, *QUICK, "--dropout", "0.2", "--eval-every", "3"]
    words += ["--scheduled-sampling", "0.3"]
    assert main([*words, "--lr-schedule", "constant", "--max-steps", "6", "--out", str(tmp_path / "a")]) == 0
    assert main([*words, "--lr-schedule", "constant", "--max-steps", "3", "--out", str(tmp_path / "b")]) == 0
    assert main(["train", "translate", "--resume", str(tmp_path / "b"), "--max-steps", "6"]) == 0
    for which in ("last", "average"):
        one, two = (TranslationTask(open_run(tmp_path / name)).load(which).model for name in "ab")
        assert all(torch.equal(p, q) for p, q in zip(one.parameters(), two.parameters(), strict=True))


def test_it_has_learned_to_translate(run, monkeypatch, capsys):
    typed(monkeypatch, "six two.\n\none three five.\n")
    assert said(capsys, "translate", run).out == "sechs zwei.\n\neins drei fünf.\n"


def test_every_line_in_gives_one_line_out(run, tmp_path, capsys):
    lines = ["one two.", "", "   ", "four " * 5000, "世界 <unk> ￭", "one\u2028two", "\x0b", "two."]
    (tmp_path / "in").write_text("\n".join(lines), encoding="utf-8")
    done = said(capsys, "translate", run, "--source", tmp_path / "in", "--beam", "2")
    out = done.out.split("\n")
    assert len(out) == len(lines) + 1
    assert out[1] == out[2] == out[6] == ""
    assert out[3].split().count("vier") > 200
    assert "translated in pieces of 100 tokens, the longest in training: line 4" in done.err
    assert "read as <unk>" in done.err
    assert len(done.err.strip().splitlines()) == 2


def test_outputs_go_where_they_are_sent_though_a_terminal_watches(run, tmp_path):
    (tmp_path / "in").write_text("one two.\nsix.\n")
    terminal, errors = pty.openpty()
    words = [PRELOADED, "-m", "unrolled", "translate", run, "--source", str(tmp_path / "in")]
    done = completed(words, stderr=errors, check=True)
    os.close(errors)
    assert done.stdout == "eins zwei.\nsechs.\n"
    assert "translating" in os.read(terminal, 4096).decode()
    os.close(terminal)


def test_a_person_at_a_terminal_is_answered_line_by_line(run):
    terminal, inputs = pty.openpty()
    words = [PRELOADED, "-m", "unrolled", "translate", run]
    with started(words, stdin=inputs) as process:
        os.close(inputs)
        for typed_line, answer in (("one two.", "eins zwei."), ("", ""), ("six.", "sechs.")):
            os.write(terminal, f"{typed_line}\n".encode())
            assert process.stdout.readline() == f"{answer}\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
        assert process.stderr.read() == "unrolled: type lines to translate; Ctrl-D ends\n"
    os.close(terminal)


def test_what_reads_the_translations_may_stop(run, tmp_path):
    (tmp_path / "in").write_text("one two three.\n" * 3000)
    words = [PRELOADED, "-m", "unrolled", "translate", run, "--source", str(tmp_path / "in"), "--beam", "1"]
    with started(words) as process:
        assert process.stdout.readline() == "eins zwei drei.\n"
        process.stdout.close()
        assert process.wait(timeout=60) == 0
        assert process.stderr.read() == ""


def test_outputs_that_read_the_same_are_one(run, monkeypatch):
    translator = Translator([TranslationTask(open_run(run)).load()])
    spelt = translator_module.decode_line
    monkeypatch.setattr(translator_module, "decode_line", lambda *given: str(len(spelt(*given)) % 3))
    (found,) = translator.translate(["one two three."], BeamSearch(beam=8, n_best=8))
    assert 1 < len(found) < 8
    assert len({one.text for one in found}) == len(found)
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)


def test_n_best_lists_can_be_rescored(run, other, tmp_path, capsys):
    (tmp_path / "in").write_text("one two three.\n\nfive.\n")
    listed = said(capsys, "translate", run, "--source", tmp_path / "in", "--beam", "4", "--n-best", "3").out
    rows = [line.split(" ||| ") for line in listed.splitlines()]
    assert [row[0] for row in rows] == ["0"] * 3 + ["1"] + ["2"] * 3
    assert rows[0][1] == "eins zwei drei."
    (tmp_path / "list").write_text(listed)
    given = ["--n-best", tmp_path / "list", "--source", tmp_path / "in"]
    out = said(capsys, "rescore", run, *given, "--weight", "1", "--all").out.splitlines()
    for before, after in zip(rows, (line.split(" ||| ") for line in out), strict=True):
        assert before[:2] == after[:2]  # scored by the run that made them, they keep order and score
        if before[1]:
            assert float(before[2]) == pytest.approx(float(after[2]), abs=1e-4)
    assert said(capsys, "rescore", run, other, *given).out.splitlines()[0] in {row[1] for row in rows[:3]}
    assert len(said(capsys, "rescore", other, *given).out.splitlines()) == 3


def test_an_ensemble_translates(run, other, tmp_path, capsys):
    (tmp_path / "in").write_text("one two three.\n")
    for mean in ("probabilities", "log-probabilities"):
        assert (
            said(capsys, "translate", run, run, "--source", tmp_path / "in", "--mean", mean).out == "eins zwei drei.\n"
        )
    assert (
        said(capsys, "translate", run, other, "--source", tmp_path / "in", "--checkpoint", "average").out.count("\n")
        == 1
    )


def test_standard_input_can_be_read_once(run, capsys, monkeypatch):
    typed(monkeypatch, "one.\n")
    assert "only once" in error_of(["rescore", run, "--source", "-", "--n-best", "-"], capsys)
    typed(monkeypatch, "one.\n")
    assert "only once" in error_of(["eval", run, "--source", "-", "--target", "-"], capsys)


def test_scores_do_not_depend_on_what_is_scored_together(run):
    """Lines of very different lengths, and lists of very different sizes, among them none."""
    translator = Translator([TranslationTask(open_run(run)).load()])
    generator = random.Random(2)
    lines = [" ".join(generator.choices(list(WORDS), k=k)) for k in (3, 400, 1, 2, 90, 0)]
    lists = [
        [" ".join(generator.choices(list(WORDS.values()), k=k % 5)) for k in range(n)] for n in (700, 9, 0, 1, 3, 2)
    ]
    together = translator.score(lines, lists)
    assert [len(some) for some in together] == [700, 9, 0, 1, 3, 2]
    for line, some, scores in zip(lines, lists, together, strict=True):
        for text, (log_prob, length) in list(zip(some, scores, strict=True))[-3:]:
            (((alone, tokens),),) = translator.score([line], [[text]])
            assert (log_prob, length) == (pytest.approx(alone, rel=1e-4), tokens)


def test_diverse_groups_and_the_tree(run, tmp_path, capsys):
    (tmp_path / "in").write_text("one two three.\n")
    words = ["translate", run, "--source", tmp_path / "in", "--beam", "4", "--n-best", "4"]
    out = said(capsys, *words, "--diversity", "1.5", "--tree", tmp_path / "tree.json").out
    assert len({line.split(" ||| ")[1] for line in out.splitlines()}) == 4
    (tree,) = json.loads((tmp_path / "tree.json").read_text())
    assert {child["group"] for child in tree["children"]} == {0, 1, 2, 3}
    assert said(capsys, *words, "--tree", tmp_path / "tree.svg").out
    assert "eins" in "".join(ElementTree.parse(tmp_path / "tree.svg").getroot().itertext())


def test_a_tree_takes_the_place_of_nothing(run, tmp_path, capsys):
    (tmp_path / "in.json").write_text("one two three.\n")
    words = ["translate", run, "--source", tmp_path / "in.json"]
    for mine in (tmp_path / "in.json", Path(run) / "config.json"):
        before = mine.read_bytes()
        assert "already exists" in error_of([*words, "--tree", mine], capsys)
        assert mine.read_bytes() == before
    (tmp_path / "none").write_text("")
    nothing = ["translate", run, "--source", tmp_path / "none", "--tree", tmp_path / "tree.svg"]
    assert "no first line" in error_of(nothing, capsys)


def test_what_stands_between_fields_stands_in_no_translation(run, tmp_path, capsys, monkeypatch):
    spelt = translator_module.decode_line
    monkeypatch.setattr(translator_module, "decode_line", lambda *given: spelt(*given).replace(" ", " ||| "))
    (tmp_path / "in").write_text("one two three.\n")
    out = said(capsys, "translate", run, "--source", tmp_path / "in", "--n-best", "1").out
    assert out.startswith("0 ||| eins | | | zwei | | | drei. ||| -")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--no-bidirectional"], False),
        (["--bidirectional"], True),
        (["--bidirectional", "False"], False),
        (["--bidirectional=True"], True),
        ([], None),
    ],
)
def test_one_way_or_both(flags, expected, pairs, tmp_path, capsys):
    words = ["train", "translate", *pairs, *flags, "--hidden-size", "4", "--max-steps", "1", "--sample-every", "0"]
    assert main([*map(str, words), "--out", str(tmp_path / "run")]) == 0
    stored = json.loads((tmp_path / "run" / "config.json").read_text())
    assert stored["config"]["model"]["bidirectional"] is expected


def test_scores(run, pairs, tmp_path, capsys):
    report = json.loads(said(capsys, "eval", run, *pairs, "--json", "--resamples", "20").out)
    assert report["bleu"] > 90
    assert report["bleu_interval"] >= 0
    assert "tok:13a" in report["bleu_signature"]
    assert report["chrf"] > 90
    assert 1 < report["perplexity"] < 1.5
    text = said(capsys, "eval", run, "--resamples", "0").out
    assert "validation pairs: 8 lines" in text
    assert "95%" not in text


def test_perplexity_is_that_of_forced_decoding(run, pairs, capsys):
    task = TranslationTask(open_run(run)).load()
    report = json.loads(said(capsys, "eval", run, "--json", "--resamples", "0").out)
    held = task.pairs("validation")
    lines = [
        [vocabulary.decode(side[k].tolist()) for k in range(len(held))]
        for vocabulary, side in ((task.source, held.source), (task.target, held.target))
    ]
    scores = [some[0] for some in Translator([task]).score(lines[0], [[line] for line in lines[1]])]
    nats = -sum(log_prob for log_prob, _ in scores) / sum(length for _, length in scores)
    assert report["perplexity"] == pytest.approx(math.exp(nats), rel=1e-4)


def test_the_parts_that_a_run_of_pairs_is_not(run, tmp_path, capsys):
    assert "not a language model" in error_of(["sample", run], capsys)
    assert "--data does not apply to a translation run: it is scored with --source, " in error_of(
        ["eval", run, "--data", "x"], capsys
    )


def test_mistakes_with_pairs(tmp_path, pairs, capsys):
    (tmp_path / "three").write_text("a\nb\nc\n")
    (tmp_path / "two").write_text("a\nb\n")
    (tmp_path / "blank").write_text("\n\n\n")
    train = ["train", "translate"]

    def error(*words):
        return error_of([*train, *words], capsys)

    assert "3 lines and" in error("--source", tmp_path / "three", "--target", tmp_path / "two")
    assert "--source is missing" in error()
    assert "--target is missing" in error("--source", tmp_path / "three")
    assert "No such file" in error("--source", tmp_path / "none", "--target", tmp_path / "two")
    assert "nothing to learn from" in error("--source", tmp_path / "three", "--target", tmp_path / "blank")
    assert "belong together" in error(*pairs, "--val-source", tmp_path / "two")
    assert "--vocab-size" in error(*pairs, "--level", "char", "--vocab-size", "50")
    assert "unknown cell 'lst'" in error(*pairs, "--cell", "lst")
    assert "--label-smoothing" in error(*pairs, "--label-smoothing", "1")
    assert not list(tmp_path.glob("runs/*"))


def test_mistakes_with_runs(run, pairs, tmp_path, capsys):
    (tmp_path / "in").write_text("one\n")
    source = ["--source", tmp_path / "in"]
    assert (
        main(
            [
                "train",
                "translate",
                *pairs,
                "--level",
                "char",
                *SMALL,
                *QUICK,
                "--max-steps",
                "1",
                "--out",
                str(tmp_path / "c"),
            ]
        )
        == 0
    )
    assert "its source vocabulary is not that of" in error_of(["translate", run, tmp_path / "c", *source], capsys)
    assert "n-best (9)" in error_of(["translate", run, *source, "--n-best", "9"], capsys)
    assert "multiple of the groups" in error_of(["translate", run, *source, "--groups", "3"], capsys)
    assert "groups must be at least 1" in error_of(["translate", run, *source, "--groups", "0"], capsys)
    assert ".json or .svg" in error_of(["translate", run, *source, "--tree", "x.png"], capsys)
    assert "no such run directory" in error_of(["translate", tmp_path / "none", *source], capsys)
    assert "RUN" in error_of(["translate", *source], capsys)
    assert "cannot change" in error_of(["train", "translate", "--resume", run, "--hidden-size", "9"], capsys)
    assert "--average 0" in error_of(
        ["translate", _without_snapshots(tmp_path, pairs), *source, "--checkpoint", "average"], capsys
    )
    (tmp_path / "list").write_text("0 ||| eins ||| -1\n1 ||| zwei ||| -1\n")
    rescore = ["rescore", run, *source, "--n-best", tmp_path / "list"]
    assert "line 2 belongs to source line 1 (from 0), but the source has 1" in error_of(rescore, capsys)
    (tmp_path / "list").write_text("0 ||| eins\n")
    assert "has no finite score" in error_of(rescore, capsys)
    (tmp_path / "list").write_text("0 ||| eins ||| inf\n")
    assert "has no finite score" in error_of(rescore, capsys)
    (tmp_path / "list").write_text("0 ||| eins\n")
    assert said(capsys, *rescore, "--weight", "1").out == "eins\n"
    for bad in ("eins\n", "0 || eins || -1\n", "-1 ||| eins ||| -1\n"):
        (tmp_path / "list").write_text(bad)
        assert "is not of the form" in error_of(rescore, capsys)
    (tmp_path / "list").write_bytes(b"\r\n0 ||| eins ||| LM0= -3 ||| -1\r\n\r\n")
    assert said(capsys, *rescore).out == "eins\n"
    for odd in ("nan", "1e9", "-11"):
        assert "--length-penalty" in error_of([*rescore, "--length-penalty", odd], capsys)
        assert "--length-penalty" in error_of(["translate", run, *source, "--length-penalty", odd], capsys)
    assert "beam must be at most 10,000" in error_of(["translate", run, *source, "--beam", "1000000000"], capsys)
    assert "--weight" in error_of([*rescore, "--weight", "nan"], capsys)


def _without_snapshots(folder, pairs):
    words = [
        "train",
        "translate",
        *pairs,
        "--level",
        "byte",
        *SMALL,
        "--sample-every",
        "0",
        "--average",
        "0",
        "--max-steps",
        "1",
    ]
    assert main([*words, "--separate", "--out", str(folder / "d")]) == 0
    return folder / "d"


def test_a_run_without_pairs_to_validate_on(pairs, tmp_path, capsys):
    out = str(tmp_path / "run")
    words = [
        "train",
        "translate",
        *pairs,
        "--level",
        "word",
        *SMALL,
        *QUICK,
        "--val-fraction",
        "0",
        "--max-steps",
        "6",
        "--eval-every",
        "3",
    ]
    assert main([*words, "--sample-every", "3", "--separate", "--out", out]) == 0
    assert "no pairs were held out" in error_of(["eval", out], capsys)
    assert "BLEU" in said(capsys, "eval", out, *pairs, "--resamples", "0", "--beam", "1", "--checkpoint", "average").out


def test_gradients_of_the_loss_at_every_step(run, other, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = said(capsys, "inspect", "gradients", run).out
    assert "attending" in out
    assert "gradients.png" in out
    assert (tmp_path / "gradients.png").read_bytes().startswith(b"\x89PNG")
    assert "decoder.cells.1.0" in said(capsys, "inspect", "gradients", other, "--state", "c", "--out", "c").out
    assert "--text is read by language models" in error_of(
        ["inspect", "gradients", run, "--text", "a", "--overwrite"], capsys
    )
    assert "not a language model" in (line := error_of(["inspect", run], capsys))
    assert "inspect gradients" in line
