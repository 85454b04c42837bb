"""What is asked often answers at once: help, `runs` and `info` import neither PyTorch nor anything else that is slow."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.programs import completed
from unrolled.cli import main
from unrolled.cli.commands import summaries
from unrolled.tasks import open_info, open_task
from unrolled.tasks.info import FACTS_FILE

OLD = Path(__file__).parents[1] / "tasks" / "runs"
ROOT = Path(__file__).parents[2]
SLOW = ("torch", "numpy", "matplotlib", "optuna", "sacrebleu", "tokenizers", "tensorboard", "lightning_fabric")

#: Runs each command line that it reads, in one bare Python, and prints what it imported first.
PROGRAM = f"""
import contextlib, io, json, sys
from unrolled.cli import main
found = {{}}
for words in json.load(sys.stdin):
    before = set(sys.modules)
    with contextlib.redirect_stdout(io.StringIO()) as said:
        try:
            code = main(words)
        except SystemExit as ending:
            code = ending.code
    assert not code and said.getvalue(), words
    found[" ".join(words)] = sorted(set({SLOW!r}) & (set(sys.modules) - before))
print(json.dumps(found))
"""


def imported_by(lines, **environment):
    """Of every command line the slow packages that it imports, where all before it imported none."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    done = completed([sys.executable, "-c", PROGRAM], input=json.dumps(lines), env=environment, check=True)
    return json.loads(done.stdout)


def test_help_needs_no_pytorch():
    lines = [["--help"], ["-h"], ["--version"], ["train", "--help"], ["inspect", "--help"]]
    lines += [[*name.split(), "--help"] for name in summaries()]
    lines += [["--print-completion", shell] for shell in ("bash", "zsh", "fish")]
    found = imported_by(lines)
    assert len(found) >= 30
    assert {words: names for words, names in found.items() if names} == {}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with a run of every task: those that older versions wrote, gone on with by this one, and new ones."""
    folder = tmp_path_factory.mktemp("runs")
    for name, task in {"reply": "reply", "tree": "tree", "unscaled-embeddings": "translate"}.items():
        run = shutil.copytree(OLD / name, folder / name)
        step = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["step"]
        assert main(["train", task, "--resume", str(run), "--max-steps", str(step + 1)]) == 0
    text = folder / "text.txt"
    text.write_text("some text to learn, and more of it\n" * 80)
    small = ["--hidden-size", "8", "--num-layers", "1", "--max-steps", "2", "--device", "cpu"]
    assert main(["train", "lm", "--data", str(text), "--out", str(folder / "lm"), *small]) == 0
    (folder / "texts.csv").write_text("text,label\n" + "so fine,good\nso dull,bad\n" * 9)
    data = ["--data", str(folder / "texts.csv"), "--hidden-size", "8", "--max-steps", "2", "--device", "cpu"]
    assert main(["train", "classify", *data, "--out", str(folder / "classify")]) == 0
    assert main(["train", "min-char-rnn", str(text), "--iterations", "2", "--out", str(folder / "min")]) == 0
    return folder


def test_runs_and_info_need_no_pytorch(runs):
    names = ("reply", "tree", "unscaled-embeddings", "lm", "min", "classify")
    lines = [["runs", str(runs)], ["runs", str(OLD)], *(["info", str(runs / name)] for name in names)]
    assert {words: names for words, names in imported_by(lines).items() if names} == {}


@pytest.mark.parametrize("name", ["reply", "tree", "unscaled-embeddings", "lm", "min", "classify"])
def test_what_is_told_without_the_model_is_what_the_model_says(name, runs, capsys):
    info, task = open_info(runs / name), open_task(runs / name, "cpu")
    assert type(info) is not type(task)
    assert isinstance(task, type(info))
    assert info.facts() == task.facts()
    assert info.counts["parameters"] == sum(parameter.numel() for parameter in task.model.parameters())
    assert (info.batches, info.uses(), info.describe(1.5)) == (task.batches, task.uses(), task.describe(1.5))
    told = info_lines(runs / name, capsys)
    (runs / name / FACTS_FILE).rename(runs / "aside")
    assert info_lines(runs / name, capsys) == told
    (runs / "aside").rename(runs / name / FACTS_FILE)


def info_lines(run, capsys):
    capsys.readouterr()
    assert main(["info", str(run)]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("damage", ["", "[]", "{}", '{"counts": {"parameters": 1}}', "\ud800", "counts", "settings"])
def test_damaged_facts_are_counted_anew(damage, runs, tmp_path, capsys):
    run = shutil.copytree(runs / "lm", tmp_path / "lm")
    told = info_lines(run, capsys)
    stored = json.loads((run / FACTS_FILE).read_text())
    if damage in stored:
        stored[damage] = {**stored["counts"], "train": "many"} if damage == "counts" else "others"
        damage = json.dumps(stored)
    (run / FACTS_FILE).write_bytes(damage.encode("utf-8", "surrogatepass"))
    assert info_lines(run, capsys) == told


def test_facts_of_other_files_are_not_told(runs, tmp_path, capsys):
    run = shutil.copytree(runs / "lm", tmp_path / "lm")
    facts = json.loads((run / FACTS_FILE).read_text())
    facts["counts"]["parameters"] = 1234567
    (run / FACTS_FILE).write_text(json.dumps(facts))
    assert "1,234,567 parameters" in info_lines(run, capsys)
    stored = json.loads((run / "config.json").read_text())
    stored["config"]["model"]["hidden_size"] = [9]
    (run / "config.json").write_text(json.dumps(stored))
    told = info_lines(run, capsys)
    assert "layers of 9 units" in told
    assert "1,234,567" not in told


def test_a_task_of_another_package_is_not_imported_by_help_and_runs(tmp_path):
    described = tmp_path / "other_task-1.0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: other-task\nVersion: 1.0\n")
    (described / "entry_points.txt").write_text("[unrolled.tasks]\nother = other_task:Other\n")
    (tmp_path / "other_task.py").write_text("raise SystemExit('imported')\n")
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    lines = [["--help"], ["train", "--help"], ["train", "lm", "--help"], ["runs", str(OLD)]]
    assert imported_by(lines, PYTHONPATH=path) == {" ".join(words): [] for words in lines}


def test_few_tokens_are_sampled_without_a_plan(runs, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "UNROLLED_CACHE": str(tmp_path / "cache")}
    program = "import sys; from unrolled.cli import main; main(sys.argv[1:]); assert 'torch._dynamo' not in sys.modules"
    words = ["sample", str(runs / "lm"), "--length", "50", "--seed", "1"]
    done = completed([sys.executable, "-c", program, *words], env=environment, check=True)
    assert len(done.stdout) == 51  # 50 characters, and the end of the last line
    assert not (tmp_path / "cache").exists()
