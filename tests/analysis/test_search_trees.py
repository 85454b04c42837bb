"""Pictures of recorded beam searches."""

from xml.etree import ElementTree

import pytest

from tests.decoding.test_beam import END, model, search, sources
from unrolled.analysis.search_trees import tree_svg
from unrolled.decoding import BeamSearch, search_trees


@pytest.mark.parametrize("groups", [1, 2])
def test_a_recorded_search_is_a_picture(groups):
    made, source = model(6), sources([3, 4], 5)
    record = []
    how = BeamSearch(beam=4, n_best=4, groups=groups, diversity=0.5, min_length=2)
    found = search(how, made, source, record=record)
    trees = search_trees(record, found, END)
    root = ElementTree.fromstring(tree_svg(trees[0], lambda token: f"<{token}>", "a & b"))
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "a & b" in texts
    assert "</s>" in texts
    assert all(f"<{token}>" in texts for token in found[0][0].tokens)
    assert found[0][0].tokens
