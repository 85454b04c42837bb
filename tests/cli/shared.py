"""What the tests of the commands share."""

from unrolled.cli import main

SMALL = [
    "--hidden-size",
    "8",
    "--num-layers",
    "1",
    "--embedding-size",
    "4",
    "--batch-size",
    "2",
    "--seq-length",
    "8",
    "--eval-every",
    "5",
    "--sample-every",
    "5",
]


def trained_on(folder, name, text, *words):
    """The run of a small model of this text, which lies beside it."""
    path = folder / name
    path.write_text(text, encoding="utf-8")
    assert main(["train", "lm", "--data", str(path), *SMALL, *words, "--out", str(folder / "run")]) == 0
    return folder / "run"


def error_of(words, capsys):
    """The single line that a mistake is answered with."""
    capsys.readouterr()
    assert main([str(word) for word in words]) == 2
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    lines = said.err.strip().splitlines()
    assert len(lines) == 1, said.err
    assert lines[0].startswith("unrolled: error: ")
    return lines[0]


def write(path, content):
    """The path, with this text or these bytes in it, as an argument."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)
