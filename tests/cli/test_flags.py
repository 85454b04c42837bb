"""Settings below the command line have plain names; at the terminal the same messages spell flags."""

import ast
import pickle
import re
from pathlib import Path

import pytest
import torch

import unrolled
from tests.cli.shared import error_of
from unrolled.cli import main
from unrolled.cli.flags import as_flags, with_flags, without_empty_defaults
from unrolled.data.sources import find_sources
from unrolled.decoding import BeamSearch
from unrolled.errors import ConfigurationError, DataError, RunError
from unrolled.settings import from_json
from unrolled.tasks.language_settings import LanguageConfig, ModelConfig, TextConfig
from unrolled.training import Run, TrainingConfig
from unrolled.training.optimisation import find_device

PACKAGE = Path(unrolled.__file__).parent

#: What other programs take.
OTHERS = {"unroll/native.py": {"--version", " --version fails: it is not a C compiler"}}


def test_no_room_below_the_command_line_spells_a_flag():
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if name.startswith("cli/"):
            continue
        strings = [
            node.value for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Constant)
        ]
        texts = {text for text in strings if isinstance(text, str) and re.search(r"(?<![\w-])--[a-z]", text)}
        found += [f"{name}: {text}" for text in texts - OTHERS.get(name, set())]
    assert found == []


def raised(kind, act):
    with pytest.raises(kind) as caught:
        act()
    return caught.value


@pytest.mark.parametrize(
    ("kind", "act", "setting", "text"),
    [
        (
            ConfigurationError,
            lambda: TrainingConfig(learning_rate=-1),
            "learning_rate",
            "--learning-rate must be above 0",
        ),
        (ConfigurationError, lambda: TrainingConfig(optimizer="x"), "optimizer", "--optimizer: unknown value 'x'"),
        (
            ConfigurationError,
            lambda: TrainingConfig(max_time="x"),
            "max_time",
            "--max-time: 'x' is not a length of time",
        ),
        (
            ConfigurationError,
            lambda: TrainingConfig(accumulate=99),
            "accumulate",
            "--accumulate must be from 1 to the value of --batch-size, got 99",
        ),
        (
            ConfigurationError,
            lambda: ModelConfig(fix_vectors=True),
            "fix_vectors",
            "--fix-vectors needs word vectors: name a file with --vectors",
        ),
        (ConfigurationError, lambda: TextConfig(vocab_size=9), "vocab_size", "--vocab-size is for words and BPE"),
        (ConfigurationError, lambda: find_device("cuda:77"), "device", "not on this machine; use --device cpu"),
        (ConfigurationError, lambda: BeamSearch(beam=2, n_best=3), "n_best", "n-best (3) cannot be above the beam (2)"),
        (
            ConfigurationError,
            lambda: BeamSearch(length_penalty=11),
            "length_penalty",
            "(--length-penalty) must be from",
        ),
        (DataError, lambda: find_sources([str(PACKAGE)], "/x"), "glob", "--glob /x: a pattern for names"),
        (
            RunError,
            lambda: from_json(LanguageConfig, {"training": {"seed": -1}}, "a/config.json"),
            "seed",
            "a/config.json: --seed must be 0 or above, got -1",
        ),
        (
            RunError,
            lambda: Run.create(PACKAGE, "lm", {}).__enter__(),
            "out",
            f"{PACKAGE}: is not empty; choose another --out",
        ),
    ],
)
def test_an_error_names_its_setting_and_the_terminal_shows_flags(kind, act, setting, text):
    error = raised(kind, act)
    assert error.setting == setting
    assert "--" not in str(error)
    assert text in as_flags(error)
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.settings) == (str(error), error.settings)


def test_an_error_about_no_setting():
    error = raised(DataError, lambda: find_sources(["none.txt"], None))
    assert error.setting is None
    assert as_flags(error) == str(error)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("`out`: `data` and out, `other`", "--out: --data and out, `other`"),
        ("try `out=a b`, `data=1`", "try --out a b --data 1"),
        ("try `out='it is a ` of it'`, or `data`", "try --out 'it is a ` of it', or --data"),
        ("`out`, `data`", "--out, --data"),
        ("`out=", "`out="),
    ],
)
def test_only_marked_names_of_settings_become_flags(text, expected):
    assert with_flags(text, ("out", "data")) == expected


def test_help_spells_flags(capsys):
    with pytest.raises(SystemExit):
        main(["train", "lm", "--help"])
    said = re.sub(r"[\s│]+", " ", capsys.readouterr().out)
    assert "0: --seq-length." in said
    assert not re.search(r"`\w+[`=]", said)


def test_settings_of_a_dataclass_are_flags_in_the_message_of_a_command(capsys):
    assert "error: --clip-norm must be 0 (off) or above, got -1.0" in error_of(
        ["train", "lm", "--clip-norm", "-1"], capsys
    )


def test_advice_after_a_divergence_can_be_typed(train, monkeypatch, capsys):
    broken = torch.tensor(float("nan"), requires_grad=True)
    monkeypatch.setattr("unrolled.tasks.language.LanguageTask.loss", lambda self, batch, state: (broken, state))
    assert train("--out", "run", "--clip-norm", "0") == 2
    assert re.search(r"; try --learning-rate [\d.e-]+ --clip-norm 1$", capsys.readouterr().err.strip())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("│ A file. (default: None) │\n", "│ A file.                 │\n"),
        ("│ A file. (default: )     │\n", "│ A file.                 │\n"),
        ("│ A file. (default: '')   │\n", "│ A file.                 │\n"),
        ("│ A file. (default: Nones) │\n", "│ A file. (default: Nones) │\n"),
        (
            "│ A file. (default: │\n│         None)     │\n│ B                 │\n",
            "│ A file.           │\n│ B                 │\n",
        ),
        (
            "│ B \x1b[36m(default:\x1b[0m │\n│   \x1b[36mNone)\x1b[0m     │\n",
            "│ B \x1b[36m         \x1b[0m │\n",
        ),
        ("│           │\n", "│           │\n"),
    ],
)
def test_empty_defaults_are_blanked_out(text, expected):
    assert without_empty_defaults(text) == expected
