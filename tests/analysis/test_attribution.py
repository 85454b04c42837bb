"""What each word adds to a class, against its definition, and what the page holds."""

import json
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.browser import open_page
from unrolled.analysis.attribution import attribute, attribution_page, default_way
from unrolled.data.class_batches import make_batch
from unrolled.models import Classifier
from unrolled.models.classifier import log_odds
from unrolled.models.poolings import POOLINGS


def odds(model, tokens):
    """The log-odds of one sequence alone; an empty one has the readout's bias."""
    with torch.no_grad():
        scores = model(make_batch([tokens.numpy()])) if len(tokens) else model.readout.bias.unsqueeze(0)
    return log_odds(scores.double(), model.multi)[0]


@given(st.sampled_from(POOLINGS), st.booleans(), st.booleans(), st.lists(st.integers(0, 3), min_size=1, max_size=5))
def test_changes_are_those_of_their_definition(pooling, bidirectional, multi, sizes):
    model = Classifier(9, 3, "gru", hidden_size=4, pooling=pooling, bidirectional=bidirectional, multi=multi).eval()
    tokens = torch.randint(9, (sum(sizes),))
    parts = tokens.split(sizes)
    reading, leaving = (attribute(model, tokens, sizes, way) for way in ("reading", "leaving-out"))
    for found in (reading, leaving):
        torch.testing.assert_close(torch.from_numpy(found.last), odds(model, tokens), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(torch.from_numpy(found.first), odds(model, tokens[:0]), rtol=1e-4, atol=1e-4)
    for k in range(len(sizes)):
        before, after = (odds(model, torch.cat([tokens[:0], *parts[:n]])) for n in (k, k + 1))
        torch.testing.assert_close(torch.from_numpy(reading.changes[k]), after - before, rtol=1e-3, atol=1e-4)
        rest = torch.cat([tokens[:0], *parts[:k], *parts[k + 1 :]])
        change = odds(model, tokens) - odds(model, rest)
        torch.testing.assert_close(torch.from_numpy(leaving.changes[k]), change, rtol=1e-3, atol=1e-4)
    assert reading.changes.sum(0) == pytest.approx(reading.last - reading.first, rel=1e-3, abs=1e-4)


def test_long_sequences_are_examined_in_chunks():
    model = Classifier(9, 2, "gru", hidden_size=3, pooling="mean", bidirectional=False).eval()
    tokens = torch.randint(9, (300,))
    for way in ("reading", "leaving-out"):
        found = attribute(model, tokens, [1] * 300, way)
        assert found.changes.shape == (300, 2)
    assert attribute(model, tokens, [1] * 300, "reading").changes.sum(0) == pytest.approx(found.last - found.first)


def test_frames_have_parts_too():
    model = Classifier(3, 2, "gru", embedding_size=0, hidden_size=4).eval()
    found = attribute(model, torch.randn(6, 3), [2, 4])
    assert found.changes.shape == (2, 2)
    with pytest.raises(ValueError, match="the parts have 5 steps, the sequence has 6"):
        attribute(model, torch.randn(6, 3), [2, 3])


def test_the_way_that_fits_a_model():
    assert default_way(Classifier(3, 2, pooling="last", bidirectional=False)) == "reading"
    assert default_way(Classifier(3, 2, pooling="last")) == "leaving-out"
    assert default_way(Classifier(3, 2, pooling="max", bidirectional=False)) == "leaving-out"


def page_data():
    text = {
        "parts": [["</script>", True], [" fine", True], [" not read", False]],
        "changes": [[1.0, -1.0], [-0.5, 0.5], [0.0, 0.0]],
        "first": [0.1, -0.1],
        "last": [0.6, -0.6],
        "probabilities": [0.65, 0.35],
        "given": ["b"],
        "found": ["a"],
    }
    other = {"title": "lstm of run", "facts": "2 texts.", "way": "reading", "classes": ["a", "b"], "shown": 1}
    return {**other, "texts": [text, {**text, "given": ["a"]}]}


def test_the_page_holds_its_data():
    page = attribution_page(page_data())
    embedded = re.search(r'id="data">(.*?)</script>', page, re.S)
    assert json.loads(embedded[1]) == page_data()


def test_the_page_in_a_browser(tmp_path):
    path = tmp_path / "page.html"
    path.write_text(attribution_page(page_data()), encoding="utf-8")
    colours = "Array.from(document.querySelectorAll('.text span')).map((s) => s.style.backgroundColor)"
    with open_page(path) as (shown, errors):
        assert shown.locator(".text").first.text_content() == "</script> fine not read"
        assert [each.get_attribute("class") for each in shown.locator("article").all()] == ["wrong", "right"]
        first = shown.evaluate(colours)
        assert first[0] == "rgb(230, 95, 75)"
        assert first[2] == ""
        shown.select_option("#class", "0")
        assert shown.evaluate(colours)[0] == "rgb(70, 160, 95)"
        shown.locator(".text span").nth(1).hover()
        assert "−0.50" in shown.locator("#value").text_content()
        assert "log-odds +0.10 empty, +0.60 whole" in shown.locator("header").first.text_content()
        assert errors == []
