"""Pictures of lines in every form that people have, and lines drawn from fonts."""

import numpy as np
import pytest
from PIL import Image

from unrolled.data.frame_reader import Account, draw_lines
from unrolled.data.line_images import Renderer, distort, installed_fonts, read_line_image
from unrolled.errors import DataError


def line(height=40, width=120):
    """Black bars on white, grey levels from 0 to 255."""
    grey = np.full((height, width), 255, np.uint8)
    grey[10:30, 20:30] = 0
    grey[5:35, 60:64] = 0
    return grey


def save(path, picture, **options):
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(path, **options)
    return path


@pytest.fixture
def wanted(tmp_path):
    found = read_line_image(save(tmp_path / "plain.png", line()), 40)
    assert found.shape == (120, 40)
    assert found.dtype == np.uint8
    assert found[25, 20] == 255
    assert found[0, 0] == 0
    return found


def test_modes(tmp_path, wanted):
    grey = line()
    forms = {
        "rgb.png": Image.fromarray(np.stack([grey] * 3, 2)),
        "palette.png": Image.fromarray(grey).convert("P"),
        "bits.png": Image.fromarray(grey).convert("1"),
        "sixteen.png": Image.fromarray(grey.astype(np.uint16) * 257),
        "cmyk.tif": Image.fromarray(np.stack([grey] * 3, 2)).convert("CMYK"),
        "palette.gif": Image.fromarray(grey).convert("P"),
        "inverted.png": Image.fromarray(255 - grey),
    }
    for name, picture in forms.items():
        found = read_line_image(save(tmp_path / name, picture), 40)
        assert np.abs(found.astype(int) - wanted).max() <= 3, name


def test_alpha_is_white_and_exif_turns(tmp_path, wanted):
    grey = line()
    alpha = np.zeros((*grey.shape, 4), np.uint8)
    alpha[..., 3] = 255 - grey  # black ink; the paper is transparent
    assert np.abs(read_line_image(save(tmp_path / "a.png", alpha), 40).astype(int) - wanted).max() <= 3
    turned = Image.fromarray(grey).rotate(90, expand=True)
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate by 90 degrees clockwise to show"
    save(tmp_path / "turned.png", turned, exif=exif)
    assert np.abs(read_line_image(tmp_path / "turned.png", 40).astype(int) - wanted).max() <= 3


def test_any_height_is_scaled(tmp_path):
    large = Image.fromarray(line()).resize((480, 160))
    assert read_line_image(save(tmp_path / "large.png", large), 40).shape == (120, 40)
    assert read_line_image(save(tmp_path / "small.png", Image.fromarray(line()).resize((60, 20))), 40).shape == (
        120,
        40,
    )
    blank = read_line_image(save(tmp_path / "blank.png", np.full((40, 90), 250, np.uint8)), 40)
    assert blank.max() == 0


def test_what_cannot_be_read(tmp_path):
    (tmp_path / "page.png").write_text("<html>")
    (tmp_path / "empty.png").write_bytes(b"")
    whole = save(tmp_path / "whole.png", np.random.default_rng(0).integers(0, 255, (40, 300), np.uint8)).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    save(tmp_path / "long.png", np.zeros((1, 900), np.uint8))
    for name in ("page.png", "empty.png", "cut.png", "long.png", "missing.png"):
        with pytest.raises(DataError, match=name):
            read_line_image(tmp_path / name, 40)


def test_distortions_keep_the_height_and_depend_on_the_draw():
    columns = np.ascontiguousarray(255 - line().T)
    found = [distort(columns, np.random.default_rng(seed)) for seed in range(12)]
    assert {one.shape[1] for one in found} == {40}
    assert len({one.shape[0] for one in found}) > 3
    assert all(100 <= one.shape[0] <= 143 for one in found)
    assert np.array_equal(found[3], distort(columns, np.random.default_rng(3)))


def test_lines_are_drawn_in_fonts_that_have_their_characters():
    renderer = Renderer([font for font in installed_fonts() if "DejaVuSans" in font][:3], 40)
    fonts = renderer.fonts_for("Foreign Minister.")
    assert len(fonts) == 3
    drawn = renderer.draw("Foreign Minister.", fonts[0])
    assert drawn.shape[1] == 40
    assert drawn.shape[0] > 150
    assert (drawn > 128).mean() > 0.03
    assert renderer.draw("ii", fonts[0]).shape[0] < renderer.draw("WW", fonts[0]).shape[0]
    assert not renderer.fonts_for("\U0001f600\U00013000")
    with pytest.raises(DataError, match="no font"):
        Renderer([__file__], 40)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_picture_of_numbers_that_are_not_finite_is_an_error(tmp_path, value, recwarn):
    Image.fromarray(np.full((8, 30), value, np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match="not finite"):
        read_line_image(tmp_path / "a.tif", 16)
    assert not recwarn.list


def test_a_picture_with_too_many_pixels_is_an_error(tmp_path):
    (tmp_path / "a.pgm").write_bytes(b"P5 99999 99999 255\n")
    with pytest.raises(DataError, match="more pixels than a picture of a line can have"):
        read_line_image(tmp_path / "a.pgm", 16)


def test_lines_that_are_far_too_long_are_not_drawn(tmp_path):
    """They are counted and named, and the others are drawn."""
    fonts = [font for font in installed_fonts() if "DejaVuSans" in font][:2]
    (tmp_path / "text").write_text("il\n" + "W" * 700 + "\n" + "m" * 10_000_000 + "\nli\n")
    account = Account()
    names = [item.name for item in draw_lines(str(tmp_path / "text"), 2, fonts, 16, account)]
    assert names == ["line 1 drawn 1", "line 1 drawn 2", "line 4 drawn 1", "line 4 drawn 2"]
    (note,) = account.notes("pictures")
    assert note.startswith("4 pictures not drawn, because they would be more than 400 times as wide as high: line 2 ")
    (tmp_path / "text").write_text("m" * 20_000)
    with pytest.raises(DataError, match="no lines in it that can be drawn: 1 picture not drawn, because they would"):
        list(draw_lines(str(tmp_path / "text"), 1, fonts, 16, Account()))
