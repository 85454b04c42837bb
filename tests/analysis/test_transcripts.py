"""What a character of a transcript depends on, and its figure."""

import numpy as np
import pytest
import torch

from unrolled.analysis.transcripts import Placed, draw_transcript, label_sensitivity
from unrolled.data.frame_batches import collate
from unrolled.models import Transcriber


@pytest.mark.parametrize("both", [True, False])
def test_the_sensitivity_is_the_gradient(both):
    torch.manual_seed(0)
    model = Transcriber(3, 4, "gru", stride=2, hidden_size=5, num_layers=1, bidirectional=both).double().eval()
    frames = torch.randn(9, 3, dtype=torch.double)

    def score(values):
        batch = collate([values.numpy()])
        with torch.no_grad():
            return float(model(type(batch)(values.unsqueeze(1), batch.lengths, batch.targets))[0][2, 0, 1])

    norms, gradient = label_sensitivity(model, frames, step=2, label=1)
    assert torch.allclose(norms, gradient.norm(dim=1))
    for t, k in [(0, 0), (4, 1), (5, 2), (8, 0)]:
        up, down = frames.clone(), frames.clone()
        up[t, k] += 1e-5
        down[t, k] -= 1e-5
        assert float(gradient[t, k]) == pytest.approx((score(up) - score(down)) / 2e-5, rel=1e-4, abs=1e-9)
    assert (float(norms[8]) == 0) == (not both)  # frame 8 comes after step 2


def test_the_figure_marks_every_character():
    frames, probabilities = np.random.default_rng(0).random((8, 5)), np.full((4, 3), 1 / 3)
    placed = [Placed("a", 1, 0), Placed(" ", 2, 3)]
    figure = draw_transcript(frames, probabilities, ["", "a", " "], placed, np.ones(8), placed[0], seconds=0.03)
    top, middle, below = figure.axes
    assert [text.get_text() for text in middle.texts] == ["a", "␣"]
    assert len(middle.lines) == 3
    assert top.get_xlim() == (0, pytest.approx(0.12))
    assert below.get_xlabel() == "seconds"
    assert len(draw_transcript(frames, probabilities, ["", "a", " "], [], None, None).axes) == 2
