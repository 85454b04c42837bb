"""Objects as they are drawn and measured, and what nets with either code say of one that they never saw."""

import pytest
import torch

from unrolled.experiments.codes import CODES, draw_pictures, measure, train_code
from unrolled.experiments.names import OBJECTS

CIRCLE = list(OBJECTS).index("circle")


def test_measures_of_a_picture_by_hand():
    picture = torch.zeros(16, 16, dtype=torch.bool)
    picture[2:6, 3:11] = True
    picture[2, 3] = False
    assert measure(picture).tolist() == pytest.approx([4 / 16, 8 / 16, 31 / 32])


@pytest.mark.parametrize("name", OBJECTS)
def test_pictures_have_the_objects_properties(name):
    high, wide, filled = measure(draw_pictures(name, 200, torch.Generator().manual_seed(0))).unbind(1)
    vertical, horizontal, rectangle, _ = OBJECTS[name]
    assert ((high > 0.55) == vertical).all()
    assert ((wide > 0.55) == horizontal).all()
    assert ((filled == 1) == rectangle).all()


def test_only_a_distributed_code_can_name_what_was_never_seen():
    found = {code: train_code(code, nets=2) for code in CODES}
    for result in found.values():
        others = result.right[~torch.eye(len(OBJECTS), dtype=torch.bool)]
        assert others.mean() > 0.98
    assert found["local"].right.diag().max() < 0.1
    assert found["distributed"].right.diag().mean() > 0.7
    # The lectures' circle: vertical + horizontal + ellipse, while the unit of its own stays off.
    vertical, horizontal, rectangle, ellipse = found["distributed"].activations[CIRCLE, CIRCLE].tolist()
    assert min(vertical, horizontal, ellipse) > 0.6
    assert rectangle < 0.4
    assert found["local"].activations[CIRCLE, CIRCLE, CIRCLE] < 0.1


def test_from_pixels_the_properties_are_not_kept_apart():
    result = train_code("distributed", pixels=True, nets=1)
    assert result.right[~torch.eye(len(OBJECTS), dtype=torch.bool)].mean() > 0.9
    assert result.right.diag().mean() < 0.2
