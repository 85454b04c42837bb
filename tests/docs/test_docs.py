"""What the docs show must run: commands are parsed as typed, Python blocks and examples are executed."""

import re
import runpy
import shlex
from itertools import takewhile
from pathlib import Path

import pytest

from unrolled.cells import CELLS
from unrolled.cli.commands import arguments_of, name_of
from unrolled.cli.parsing import parse

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md")])


def blocks(kind):
    for page in PAGES:
        for number, text in enumerate(re.findall(rf"```{kind}\n(.*?)```", page.read_text(encoding="utf-8"), re.S)):
            yield pytest.param(text, id=f"{page.name}-{number}")


def commands():
    for block in blocks("console"):
        for line in block.values[0].replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["torchrun"]:
                words = words[words.index("-m") + 1 :]
            if words and words[0].endswith("unrolled"):
                typed = list(takewhile(lambda word: word not in ("<", ">", "|"), words[1:]))
                yield pytest.param(typed, id=" ".join(words[1:4]))


def test_there_is_something_to_check():
    assert len(list(commands())) > 5
    assert list(blocks("python"))


@pytest.mark.parametrize("words", list(commands()))
def test_commands_parse(words):
    name = name_of(words)
    assert name
    rest = words[len(name.split()) :]
    parse(arguments_of(name, rest), rest, name)


#: Its blocks belong together and need runs: tests/tasks/test_load.py executes all of them.
WITH_RUNS = "python.md"


@pytest.mark.parametrize(
    "code",
    [block for block in blocks("python") if "import" in block.values[0] and not block.id.startswith(WITH_RUNS)],
)
def test_python_runs(code, monkeypatch):
    monkeypatch.setattr("unrolled.tasks._registered", {})
    exec(compile(code, "docs", "exec"), {})


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.name)
def test_examples_run(path, capsys):
    runpy.run_path(str(path), run_name="__main__")
    losses = [float(number) for number in re.findall(r": ([\d.]+) nats", capsys.readouterr().out)]
    assert losses[-1] < losses[0] / 2


def test_make_targets_of_the_docs_exist():
    makefile = (ROOT / "Makefile").read_text()
    for page in PAGES:
        for target in re.findall(r"^make ([\w-]+)", page.read_text(encoding="utf-8"), re.M):
            assert re.search(rf"^{target}:", makefile, re.M), f"{page.name}: make {target}"


def test_every_cell_is_in_the_readme_and_in_its_table():
    for page in ("README.md", "docs/cells.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        assert not [name for name in CELLS if f"`{name}`" not in text]


def test_links_lead_somewhere():
    for page in PAGES:
        for target, anchor in re.findall(r"\]\(([^)#:]+)(?:#([^)]*))?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
            if anchor:
                titles = re.findall(r"^#+ (.*)$", (page.parent / target).read_text(encoding="utf-8"), re.M)
                assert anchor in [re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-") for title in titles]


def test_nothing_is_left_to_fill_in():
    for page in PAGES:
        assert not re.findall(r"\b(?:DEMO|LSTM|CELLS|LONG|MCR)_[A-Z]+\b", page.read_text(encoding="utf-8"))
