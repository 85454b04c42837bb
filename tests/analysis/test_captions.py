"""Where a captioner looks, as pictures and on the page."""

import numpy as np
import pytest

from tests.browser import open_page
from unrolled.analysis.captions import attention_map, captions_page, data_url, draw_attention


def test_the_map_is_brightest_where_the_weight_is():
    weights = np.full(9, 0.02)
    weights[5] = 0.84  # second row, third column
    found = attention_map(weights, 90)
    row, column = np.unravel_index(found.argmax(), found.shape)
    assert found.shape == (90, 90)
    assert found.max() == pytest.approx(1)
    assert 30 <= row < 60 <= column
    with pytest.raises(ValueError, match="8 positions are no square grid"):
        attention_map(np.ones(8), 90)


def test_a_picture_for_each_word_and_the_end():
    figure = draw_attention(np.full((20, 30, 3), 200, np.uint8), ["$1", "dog"], np.full((3, 4), 0.25))
    assert [axes.get_title() for axes in figure.axes] == ["", r"\$1", "dog", "(end)"]


def test_the_page_in_a_browser(tmp_path):
    image = np.full((20, 20, 3), 200, np.uint8)
    pictures = [
        {
            "name": f"{name}.jpg",
            "image": data_url(image, 32),
            "words": ["a", name],
            "score": score,
            "references": [f"</script> a {name}"],
            "weights": [[0.0, 0.0, 0.0, 1.0]] * 2,
        }
        for name, score in (("dog", 2.0), ("cat", 0.5))
    ]
    page = {"title": "t", "facts": "f", "scores": [["CIDEr-D", "9"]], "most": 2.0, "attends": True}
    path = tmp_path / "page.html"
    path.write_text(captions_page({**page, "pictures": pictures}), encoding="utf-8")
    corner = "Array.from(document.querySelector('canvas').getContext('2d').getImageData(%d, %d, 1, 1).data)"
    with open_page(path) as (shown, errors):
        assert [each.text_content().strip() for each in shown.locator(".caption").all()] == ["a cat", "a dog"]
        assert shown.locator("li").first.text_content() == "</script> a cat"
        shown.wait_for_function(f"({corner % (5, 5)})[3] === 255")
        before = shown.evaluate(corner % (5, 5))
        shown.locator(".caption span").first.hover()
        assert shown.evaluate(corner % (5, 5))[0] < before[0] / 2
        assert shown.evaluate(corner % (300, 300))[0] > 0.9 * before[0]
        shown.select_option("#order", "down")
        assert shown.locator(".caption").first.text_content().strip() == "a dog"
        shown.fill("#find", "cat")
        assert shown.locator("#count").text_content() == "1 of 2 pictures"
        assert [each for each in errors if "willReadFrequently" not in each] == []  # which this test causes
