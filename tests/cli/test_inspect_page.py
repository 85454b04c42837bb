"""`unrolled inspect RUN`: the page in a real browser, its data, and `inspect cells`."""

import base64
import json

import pytest

from tests.browser import open_page
from tests.cli.shared import SMALL, error_of, trained_on
from unrolled.cli import main


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    text = 'def f(x):\n    # twice "<b>"\n    return "two times", 2 * x\n\n' * 150
    words = ["--max-steps", "60", "--num-layers", "2", "--learning-rate", "0.03"]
    return trained_on(tmp_path_factory.mktemp("inspected"), "text.py", text, *words)


@pytest.fixture(scope="module")
def page(trained):
    out = trained.parent / "report.html"
    words = ["inspect", str(trained), "--text", str(trained.parent / "text.py"), "--out", str(out)]
    assert main([*words, "--hypothesis", "times=times", "--characters", "3000"]) == 0
    return out


def test_the_data(page):
    data = json.loads(page.with_suffix(".json").read_text(encoding="utf-8"))
    assert data["units"][0] == "h1.0"
    assert len(data["units"]) == 32
    assert len(base64.b64decode(data["activations"])) == 32 * len(data["text"])
    assert len(data["scales"]) == len(data["centres"]) == 32
    assert {"times", "inside comment", "position in line"} <= {found["hypothesis"] for found in data["findings"]}
    assert {part["gate"] for part in data["saturation"]} == {"f", "i", "o"}
    assert list(data["gradients"]) == ["layer 1", "layer 2"]


def test_the_page_in_a_browser(page):
    colours = "Array.from(document.querySelectorAll('#text span')).map((s) => s.style.backgroundColor).join()"
    with open_page(page) as (shown, errors):
        assert shown.locator("#text").text_content().startswith("def f(x):\n")
        assert shown.locator("figure svg").count() == 4
        first = shown.evaluate(colours)
        assert "rgb(255," in first
        rows = shown.locator("#findings tr")
        other = next(
            k for k in range(rows.count()) if rows.nth(k).get_attribute("data-unit") != shown.input_value("#unit")
        )
        shown.select_option("#hypothesis", str(other))
        second = shown.evaluate(colours)
        assert second != first
        assert shown.input_value("#unit") == rows.nth(other).get_attribute("data-unit")
        shown.fill("#unit", "c2.7")
        assert shown.evaluate(colours) != second
        rows.nth(other).click()
        assert shown.evaluate(colours) == second
        assert shown.locator(".passage b").count() > 0
        shown.locator("#text span").nth(3).hover()
        assert "0." in shown.locator("#value").text_content()
        assert errors == []


def test_cells(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "mine.py"
    own.write_text("def even(text):\n    return [k % 2 for k in range(len(text))]\n")
    assert main(["inspect", "cells", str(trained), "--characters", "1500", "--hypothesis", "even=mine.py:even"]) == 0
    out = capsys.readouterr().out
    for expected in ("even", "inside comment", "control", "nats per character", "‹"):
        assert expected in out
    assert (tmp_path / "cells.png").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["inspect", "none"], "none: no such run"),
        (["inspect", "RUN", "--out", "page.txt"], "must end in .html"),
        (["inspect", "RUN", "--out", "taken.html"], "--overwrite"),
        (["inspect", "RUN", "--text", "empty.py"], "empty.py: empty"),
        (["inspect", "RUN", "--text", "brief.txt"], "too short to examine"),
        (["inspect", "RUN", "--characters", "5"], "--characters must be"),
        (["inspect", "cells", "RUN", "--language", "klingon"], "Pygments knows no such language"),
        (["inspect", "cells", "RUN", "--hypothesis", "x"], "write NAME=PATTERN"),
        (["inspect", "cells", "RUN", "--hypothesis", "x=("], "no regular expression"),
        (["inspect", "cells", "RUN", "--hypothesis", "newline=x"], "this name is already taken"),
        (["inspect", "cells", "RUN", "--hypothesis", "x=exits.py:label"], "SystemExit: 3"),
        (["inspect", "cells"], "RUN is missing"),
    ],
)
def test_mistakes(words, expected, trained, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken.json").write_text("{}")
    (tmp_path / "empty.py").write_text("")
    (tmp_path / "brief.txt").write_text("def f(x):\n" * 9)
    (tmp_path / "exits.py").write_text("import sys\nsys.exit(3)\n")
    words = [str(trained) if word == "RUN" else word for word in words]
    assert expected in error_of(words, capsys)


def test_words_are_not_characters(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("one two three four\n" * 200)
    assert (
        main(["train", "lm", "--data", "text.txt", "--level", "word", *SMALL, "--max-steps", "1", "--out", "run"]) == 0
    )
    assert "--level char or byte" in error_of(["inspect", "run"], capsys)


def test_bytes_and_a_net_of_one_unit(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("Zoë said: “grüß 3”\n" * 200, encoding="utf-8")
    small = ["--hidden-size", "1", "--num-layers", "1", "--cell", "elman", "--max-steps", "2", "--out", "run"]
    assert main(["train", "lm", "--data", "text.txt", "--level", "byte", *SMALL, *small]) == 0
    assert main(["inspect", "run", "--text", "text.txt"]) == 0
    data = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert data["units"] == ["h1.0"]
    assert data["saturation"] == []
