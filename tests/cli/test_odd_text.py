"""Text that is odd, in vocabularies, on the command line, in files and on terminals, is taken or refused in a line."""

import gzip
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest

from tests.cli.shared import SMALL, error_of, write
from unrolled.cli import main
from unrolled.training.checkpoint import Checkpoint, digest_of


@pytest.fixture
def with_vocabulary(trained, tmp_path):
    """A copy of a run with another vocabulary, of which its checkpoints say that it is theirs."""

    def make(stored):
        run = tmp_path / "copy"
        shutil.copytree(trained, run)
        write(run / "vocabulary.json", json.dumps(stored))
        for folder in run.glob("checkpoints/*"):
            one = Checkpoint.read(folder)
            replace(one, vocabularies={"vocabulary.json": digest_of(run / "vocabulary.json")}).write()
        return run

    return make


def characters_of(run):
    return json.loads((run / "vocabulary.json").read_text(encoding="utf-8"))["characters"]


@pytest.mark.parametrize("half", [0xD800, 0xDCFF, 0xDFFF])
@pytest.mark.parametrize("command", ["sample", "eval", "info"])
def test_a_vocabulary_with_half_a_surrogate_pair(half, command, trained, with_vocabulary, capsys):
    characters = "".join(sorted(characters_of(trained)[:-1] + chr(half)))
    said = error_of([command, with_vocabulary({"level": "char", "characters": characters})], capsys)
    assert "vocabulary.json: not a vocabulary of this program" in said
    assert "half a surrogate pair" in said


def test_a_vocabulary_with_characters_twice_would_shift_all_behind(trained, with_vocabulary, capsys):
    characters = characters_of(trained)
    assert "each once" in error_of(
        ["sample", with_vocabulary({"level": "char", "characters": characters[0] + characters})], capsys
    )


@pytest.mark.parametrize("prime", ["Zoë said " * 200, "a\udcffb", "\ud800", "\0", "/"])
def test_any_text_can_be_gone_on_from(prime, trained, capsys):
    capsys.readouterr()
    assert main(["sample", str(trained), "--prime", prime, "--stop", "\udcff", "--length", "3", "--seed", "1"]) == 0
    capsys.readouterr().out.encode()


def test_a_hypothesis_has_a_name_that_can_be_written(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert "is not UTF-8 text" in error_of(["inspect", trained, "--hypothesis", "a\udcff=Z"], capsys)


@pytest.mark.parametrize("encoding", ["ascii", pytest.param("latin-1", marks=pytest.mark.slow)])
def test_a_terminal_that_cannot_show_a_character(encoding, trained):
    words = [sys.executable, "-m", "unrolled", "sample", str(trained), "--length", "3"]
    environment = {**os.environ, "LC_ALL": "C", "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    done = subprocess.run(
        [*map(os.fsencode, words), b"--prime", "世界 Zoë ".encode() + b"\xff"],
        capture_output=True,
        env=environment,
        timeout=120,
        check=True,
    )
    assert "世界 Zoë \ufffd".encode() in done.stdout


def test_a_mark_and_gzip_change_no_text_to_learn_from(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = "Zoë said: \u2028 naïve\x0c 世界!\r\n" * 60
    write(tmp_path / "plain.txt", text)
    write(tmp_path / "marked.txt", "\ufeff" + text)
    write(tmp_path / "packed.txt.gz", gzip.compress(("\ufeff" + text).encode()))
    runs = []
    for name in ("plain.txt", "marked.txt", "packed.txt.gz"):
        words = [
            "train",
            "lm",
            "--data",
            name,
            *SMALL,
            "--max-steps",
            "1",
            "--sample-every",
            "0",
            "--out",
            f"of-{name}",
        ]
        assert main(words) == 0
        runs.append([(tmp_path / f"of-{name}" / file).read_bytes() for file in ("vocabulary.json", "tokens.bin")])
        capsys.readouterr()
        assert main(["eval", "of-plain.txt", "--data", name, "--json"]) == 0
        runs[-1].append(json.loads(capsys.readouterr().out)["nats"])
    assert runs[0] == runs[1] == runs[2]
    assert len(runs[0][1]) == len(text)
    write(tmp_path / "bad.gz", gzip.compress(text.encode())[:-9])
    assert "bad.gz: cannot be read: a damaged gzip file" in error_of(["train", "lm", "--data", "bad.gz"], capsys)
