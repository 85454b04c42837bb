"""The `inspect` commands as a person types them."""

import pytest

from tests.cli.shared import error_of, trained_on
from unrolled.cli import main


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    text = 'def f(x):\n    # twice\n    return "two times", 2 * x\n\n' * 150
    words = ["--max-steps", "60", "--num-layers", "2", "--learning-rate", "0.03"]
    return trained_on(tmp_path_factory.mktemp("inspected"), "text.py", text, *words)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def is_figure(stem, tmp_path):
    png, svg = tmp_path / f"{stem}.png", tmp_path / f"{stem}.svg"
    return png.read_bytes().startswith(b"\x89PNG") and "<svg" in svg.read_text(encoding="utf-8")


def test_gradients_of_fresh_cells(tmp_path, capsys):
    words = ["inspect", "gradients", "--cells", "elman", "lstm", "--hidden-size", "6", "--length", "12"]
    assert main(words) == 0
    out = capsys.readouterr().out
    for expected in ("β_W β_h", "largest step", "12 back", "spectral radius", "weight_hh 2/4", "gradients.png"):
        assert expected in out
    assert is_figure("gradients", tmp_path)
    assert "--overwrite" in error_of(words, capsys)
    assert main([*words, "--overwrite", "--keep-bias", "3", "--state", "h"]) == 0


def test_gradients_of_a_run(trained, tmp_path, capsys):
    assert main(["inspect", "gradients", str(trained), "--out", "run.png"]) == 0
    out = capsys.readouterr().out
    assert "layer 2" in out
    assert "run.svg" in out
    assert is_figure("run", tmp_path)


def test_scaled_gradients(tmp_path, capsys):
    assert main(["inspect", "gradients", "--radius", "0.5", "2", "--clip-norm", "1", "--clip-value", "0.2"]) == 0
    assert capsys.readouterr().out.count("relu") == 2
    assert is_figure("gradients", tmp_path)


def test_surface(tmp_path, capsys):
    assert main(["inspect", "surface", "--updates", "5", "--out", "s"]) == 0
    assert "clipped at norm 0.1" in capsys.readouterr().out
    assert is_figure("s", tmp_path)


def test_sensitivity(trained, tmp_path, capsys):
    assert main(["inspect", "sensitivity", str(trained), "--length", "12"]) == 0
    out = capsys.readouterr().out
    assert "layer 2, c, before training" in out
    assert "LSTM, cell state c" in out
    assert is_figure("sensitivity", tmp_path)


def test_memory(tmp_path, capsys):
    words = ["--task", "copying", "--cells", "gru", "previous-input", "--delays", "3", "1", "--updates", "3"]
    assert main(["inspect", "memory", *words, "--hidden-size", "4", "--nets", "2"]) == 0
    out = capsys.readouterr().out
    assert out.count("(3)") == 4
    assert is_figure("memory", tmp_path)


def test_codes(tmp_path, capsys):
    assert main(["inspect", "codes", "--nets", "1", "--unseen", "vertical-ellipse"]) == 0
    out = capsys.readouterr().out
    assert "distributed, unseen" in out
    assert "small-square" in out
    assert is_figure("codes", tmp_path)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["codes", "--unseen", "sphere"], "--unseen: unknown value 'sphere'"),
        (["codes", "--nets", "0"], "--nets must be"),
        (["memory", "--task", "forget"], "--task: unknown value 'forget'"),
        (["memory", "--delays", "-1"], "--delays must be"),
        (["memory", "--cells", "grue"], "did you mean 'gru'"),
        (["surface", "--w", "5", "4"], "--w must be two numbers, the smaller first"),
        (["surface", "--clip-norm", "0"], "--clip-norm must be"),
        (["sensitivity", "--gates", "i", "q"], "letters i, f, o"),
        (["sensitivity", "--length", "1"], "--length must be"),
        (["gradients", "none"], "none: no such run"),
        (["gradients", "--cells", "lstmm"], "did you mean 'lstm'"),
        (["gradients", "--state", "c", "--cells", "gru"], "choose from h"),
        (["gradients", "--length", "0"], "--length must be"),
        (["gradients", "--radius", "-1"], "--radius must be"),
        (["gradients", "RUN", "--radius", "1"], "leave out RUN"),
        (["gradients", "RUN", "--cells", "gru"], "--cells is about fresh cells; leave it out, or RUN"),
        (["gradients", "RUN", "--hidden-size", "3"], "--hidden-size is about fresh cells"),
        (["gradients", "RUN", "--keep-bias", "3"], "--keep-bias is about fresh cells"),
        (["gradients", "--clip-norm", "1"], "belong to --radius"),
        (["gradients", "--text", "a"], "give its RUN"),
        (["gradients", "RUN", "--text", "none.txt"], "none.txt: no such file"),
        (["gradients", "RUN", "--text", "short.txt"], "too short"),
        (["gradients", "--out", "no/where"], "no: no such folder"),
    ],
)
def test_mistakes(words, expected, trained, tmp_path, capsys):
    (tmp_path / "short.txt").write_text("d")
    words = [str(trained) if word == "RUN" else word for word in words]
    assert expected in error_of(["inspect", *words], capsys)
