"""Texts from data in figures: signs of mathematics, characters that fonts lack, and those that are none."""

import html
import io
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import font_manager

from unrolled.analysis.captions import draw_attention
from unrolled.analysis.confusion import draw_confusion
from unrolled.analysis.examine import Examination, draw_units
from unrolled.analysis.figures import canvas, literal, save, svg, targets
from unrolled.analysis.gates import Saturation, draw_saturation
from unrolled.analysis.gradients import GradientFlow, draw_flows
from unrolled.analysis.hypotheses import Hypothesis
from unrolled.analysis.loss_flow import draw_loss_gradients
from unrolled.analysis.report import _draw_scores
from unrolled.analysis.sensitivity import draw_sensitivity
from unrolled.analysis.transcripts import Placed, draw_transcript
from unrolled.analysis.units import Activations, Finding, Unit
from unrolled.analysis.words import Neighbours, draw_map
from unrolled.data.fonts import code_points
from unrolled.data.vectors import WordVectors
from unrolled.experiments.memory import MemoryResult, draw_memory

#: No mathematics that matplotlib knows, and a character that its fonts lack.
ODD = r"$\foo$ 鬱"


def scored(text):
    unit = Unit(1, "h", 0)
    finding = Finding(text, False, unit, 0.9, 0.8, 0.5, 0.6, 0.01, 0.5)
    values = np.linspace(-1, 1, 20, dtype=np.float16)[None]
    return Examination(Activations((unit,), values), [finding], [[]], 1.0, [0.1], [])


#: Every figure with texts from data, and how often it shows a text that stands wherever one can stand.
FIGURES = {
    "confusion": (3, lambda text: draw_confusion({text: {text: 2, "b": 1}}, text)),
    "transcript": (
        2,
        lambda text: draw_transcript(
            np.ones((4, 2)),
            np.full((2, 2), 0.5),
            ["", text],
            [Placed(text, 1, 0)],
            np.ones(4),
            Placed(text, 1, 0),
            title=text,
        ),
    ),
    "attention": (1, lambda text: draw_attention(np.zeros((8, 8, 3), np.uint8), [text], np.ones((2, 4)))),
    "map": (1, lambda text: draw_map(Neighbours(WordVectors([text, "b"], np.eye(2, dtype=np.float32))), [text, "b"])),
    "sensitivity": (2, lambda text: draw_sensitivity({text: torch.ones(2)}, {text: [text, "b"]})),
    "flows": (
        2,
        lambda text: draw_flows({text: GradientFlow((1,), (0, 1), torch.ones(1, 2), torch.ones(1, 2), 1.0, "")}, text),
    ),
    "saturation": (1, lambda text: draw_saturation([Saturation(1, text, torch.ones(2), torch.zeros(2))])),
    "loss gradients": (2, lambda text: draw_loss_gradients({text: torch.ones(3)}, 3, text)),
    "scores": (1, lambda text: _draw_scores(scored(text))),
    "units": (1, lambda text: draw_units(scored(text), [Hypothesis(text, np.arange(20) % 2 == 0)], (text * 20)[:20])),
    "memory": (2, lambda text: draw_memory([MemoryResult(text, delay, 0.5, 9) for delay in (1, 10)], text, 0.1)),
}


@pytest.mark.parametrize("name", FIGURES)
def test_figures_show_texts_as_they_are(name, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        count, draw = FIGURES[name]
        figure = draw(ODD)
        paths = targets(tmp_path / "figure", overwrite=False)
        save(figure, paths)
        drawn = svg(figure)
    assert all(path.stat().st_size for path in paths)
    shown = html.unescape(drawn)
    if name == "units":  # a letter at a time
        assert all(f">{letter}</text>" in shown for letter in r"$\foo鬱")
    assert shown.count(ODD) == count


@settings(max_examples=60)
@given(st.text(max_size=12))
def test_every_text_can_be_drawn_and_only_what_is_no_character_is_changed(text):
    figure = canvas(2, 1)
    figure.text(0, 0.5, literal(text))
    drawn = svg(figure)
    shown = literal(text).replace(r"\$", "$")
    assert len(shown) == len(text)
    assert all(one in (other, "�") for one, other in zip(shown, text, strict=True))
    if shown.isascii() and shown.isprintable():
        assert shown == text
    lines = [line for line in shown.split("\n") if line.strip()]
    assert all(html.escape(line, quote=False) in drawn for line in lines)


def test_control_characters_and_halves_of_characters():
    assert literal("a\x00\x1f\x85b\udc80\n$x$") == "a���b�\n" + r"\$x\$"


def test_a_font_is_chosen_that_has_the_characters():
    """A letter that the usual font lacks, and another one that comes with matplotlib has."""
    usual, other = (
        code_points(font_manager.findfont(font_manager.FontProperties(family)))
        for family in (["DejaVu Sans"], ["STIXGeneral"])
    )
    letter = next(chr(point) for point in sorted(other - usual) if chr(point).isalpha())
    figure = canvas(2, 1)
    text = figure.text(0.1, 0.5, f"a{letter}", fontsize=40)
    with pytest.warns(UserWarning, match="missing from font"):
        figure.savefig(io.BytesIO())
    assert letter in svg(figure)
    files = [font_manager.findfont(font_manager.FontProperties([family])) for family in text.get_fontfamily()]
    assert any(ord(letter) in code_points(file) for file in files)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.savefig(io.BytesIO())
