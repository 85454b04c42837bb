"""Completion scripts: bash's is run by a real bash; those of zsh and fish are parsed by them where they are installed."""

import re
import shutil
import subprocess

import pytest

from tests.cli.shared import error_of
from unrolled.cells import CELLS, TREE_CELLS
from unrolled.cli import main
from unrolled.cli.commands import summaries
from unrolled.cli.completion import script

SHELLS = ("bash", "zsh", "fish")


@pytest.fixture(scope="module")
def bash(tmp_path_factory):
    """What bash offers after the words, of which the last is the one at the cursor."""
    if shutil.which("bash") is None:
        pytest.skip("bash is not installed")
    folder = tmp_path_factory.mktemp("bash")
    (folder / "completion").write_text(script("bash"))
    (folder / "my run").mkdir()
    (folder / "text.txt").touch()
    call = 'source completion; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _unrolled; printf "%s\\n" "${COMPREPLY[@]}"'

    def offered(*words):
        done = subprocess.run(
            ["bash", "-c", call, "bash", "unrolled", *words], cwd=folder, capture_output=True, text=True, check=True
        )
        assert not done.stderr
        return done.stdout.splitlines() if done.stdout.strip() else []

    return offered


def test_bash_offers_commands(bash):
    assert bash("tr") == ["train", "translate", "transcribe"]
    assert {name.split()[0] for name in summaries()} <= set(bash(""))
    assert bash("train", "l") == ["lm"]
    assert {"min-char-rnn", "translate", "reply", "tree", "tag"} < set(bash("train", ""))
    assert set(bash("data", "")) == {"mails", "scenes", "transcripts"}
    assert {"cells", "words"} < set(bash("inspect", ""))
    assert bash("nothing", "") == []


def test_bash_offers_flags(bash):
    assert bash("train", "lm", "--hid") == ["--hidden-size"]
    assert bash("train", "lm", "--tie-weights", "--ce") == ["--cell"]
    assert {"--tie-weights", "--no-tie-weights", "--help", "--seq-length"} < set(bash("train", "lm", "--"))
    assert "--seq-length" not in bash("train", "tree", "--")
    assert "--source" not in bash("train", "reply", "--")
    assert bash("train", "lm", "--hidden-size", "") == []
    assert bash("train", "lm", "--hidden-size", "64", "--nu") == ["--num-layers"]


def test_bash_offers_choices(bash):
    assert bash("train", "lm", "--cell", "") == list(CELLS)
    assert bash("train", "lm", "--cell", "=", "lay") == []
    assert bash("train", "lm", "--cell", "=", "ln") == ["ln-lstm", "ln-gru"]
    assert bash("train", "lm", "--cell", "=") == list(CELLS)
    assert bash("train", "tree", "--cell", "") == list(TREE_CELLS)
    assert bash("bench", "--cells", "lstm", "gru-") == ["gru-swapped", "gru-after"]
    assert bash("bench", "--cells", "lstm", "--rep") == ["--repeats"]
    assert bash("sample", "run", "--checkpoint", "b") == ["best"]


def test_bash_offers_files(bash):
    assert bash("sample", "my") == ["my run"]
    assert bash("inspect", "my") == ["my run"]
    assert bash("train", "lm", "--data", "te") == ["text.txt"]
    assert bash("train", "lm", "--data", "text.txt", "te") == ["text.txt"]
    assert "text.txt" not in bash("train", "lm", "")


def test_bash_offers_every_flag_of_every_command(bash, capsys):
    for name in summaries():
        with pytest.raises(SystemExit):
            main([*name.split(), "--help"])
        shown = re.findall(r"(?<![\w-])--[a-z][\w-]*", capsys.readouterr().out)
        offered = bash(*name.split(), "--")
        assert offered
        for flag in offered:
            assert flag in shown or flag.replace("--no-", "--") in shown, (name, flag)


@pytest.mark.parametrize("shell", SHELLS)
def test_the_shell_reads_its_script(shell, tmp_path, capsys):
    assert main(["--print-completion", shell]) == 0
    printed = capsys.readouterr().out
    for expected in ("train lm", "hidden-size", "peephole-full", "inspect gradients", "checkpoint"):
        assert expected in printed
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed: its script is not parsed")
    (tmp_path / "script").write_text(printed)
    subprocess.run([shell, "-n", tmp_path / "script"], check=True)


def test_mistakes(capsys):
    assert "unknown shell 'powershell', choose from bash, zsh, fish" in error_of(
        ["--print-completion", "powershell"], capsys
    )
    assert "takes one shell" in error_of(["--print-completion"], capsys)
