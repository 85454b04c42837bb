"""Pictures of every format that people have become the same array, and what is none is an error of one line."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, features

from unrolled.data.pictures import read_picture, scaled
from unrolled.errors import DataError

FORMATS = ("PNG", "JPEG", "GIF", "TIFF", "BMP", *(("WEBP",) if features.check("webp") else ()))


def photograph(height=40, width=60):
    """A smooth picture with a different gradient in each colour, so that a swap of axes or colours is seen."""
    down, across = np.linspace(0, 255, height)[:, None], np.linspace(0, 255, width)[None]
    red, green, blue = down + 0 * across, across + 0 * down, 255 - (down + across) / 2
    return np.stack([red, green, blue], 2).round().astype(np.uint8)


def save(path, picture, **options):
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(path, **options)
    return path


def differ(found, wanted):
    assert found.shape == wanted.shape
    assert found.dtype == np.uint8
    return np.abs(found.astype(int) - wanted).mean()


def test_every_format_is_read(tmp_path):
    wanted = photograph()
    kinds = {"png": 0, "bmp": 0, "tif": 0, "tiff": 0, "ppm": 0, "jpg": 6, "jpeg": 6, "gif": 12, "webp": 6}
    for ending, most in kinds.items():
        if ending != "webp" or features.check("webp"):
            assert differ(read_picture(save(tmp_path / f"a.{ending}", wanted)), wanted) <= most, ending


def test_every_mode_becomes_red_green_and_blue(tmp_path):
    wanted = photograph()
    colours = Image.fromarray(wanted)
    for name, picture in {"cmyk.jpg": colours.convert("CMYK"), "cmyk.tif": colours.convert("CMYK")}.items():
        assert differ(read_picture(save(tmp_path / name, picture)), wanted) < 6, name
    palette = colours.quantize(256)
    assert differ(read_picture(save(tmp_path / "palette.png", palette)), np.asarray(palette.convert("RGB"))) == 0
    grey = np.asarray(colours.convert("L"))
    three = np.stack([grey] * 3, 2)
    forms = {
        "grey.png": Image.fromarray(grey),
        "sixteen.png": Image.fromarray(grey.astype(np.uint16) * 257),
        "sixteen.tif": Image.fromarray(grey.astype(np.uint16) * 257),
        "float.tif": Image.fromarray((grey - grey.min()) / np.float32(grey.max() - grey.min()) * np.float32(0.5)),
    }
    for name, picture in forms.items():
        stretched = (three - three.min()) / np.ptp(three) * 255 if name == "float.tif" else three
        assert differ(read_picture(save(tmp_path / name, picture)), stretched.round()) < 0.01, name
    bits = Image.fromarray(grey > 100)
    assert set(np.unique(read_picture(save(tmp_path / "bits.png", bits)))) == {0, 255}


def test_what_is_transparent_is_white(tmp_path):
    wanted = photograph()
    half = np.dstack([wanted, np.full(wanted.shape[:2], 255, np.uint8)])
    half[:, :30, 3] = 0
    half[:, 30:40, 3] = 128
    white = wanted.copy()
    white[:, :30] = 255
    white[:, 30:40] = ((128 * wanted[:, 30:40].astype(int) + 127 * 255) / 255).round()
    assert differ(read_picture(save(tmp_path / "a.png", half)), white) < 0.5
    indices = Image.fromarray(np.repeat(np.arange(60, dtype=np.uint8)[None] // 30, 40, 0), "P")
    indices.putpalette([10, 20, 30, 200, 100, 50])
    for name in ("b.gif", "b.png"):
        found = read_picture(save(tmp_path / name, indices, transparency=0))
        assert (found[:, :30] == 255).all(), name
        assert (found[:, 30:] == [200, 100, 50]).all(), name


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns(tmp_path, orientation):
    wanted = photograph()
    # How the pixels are stored, given the orientation that says how to show them (EXIF 2.3, tag 274).
    turned = wanted if orientation < 5 else wanted.transpose(1, 0, 2)
    flips = {2: (1, -1), 3: (-1, -1), 4: (-1, 1), 6: (-1, 1), 7: (-1, -1), 8: (1, -1)}
    down, across = flips.get(orientation, (1, 1))
    exif = Image.Exif()
    exif[274] = orientation
    stored = np.ascontiguousarray(turned[::down, ::across])
    assert differ(read_picture(save(tmp_path / "a.png", stored, exif=exif)), wanted) == 0
    assert differ(read_picture(save(tmp_path / "a.jpg", stored, exif=exif, quality=95)), wanted) < 6


def test_of_an_animation_the_first_frame_is_read(tmp_path):
    frames = [Image.new("RGB", (30, 20), colour) for colour in ("red", "lime", "blue")]
    for name in ("a.gif", "a.tif", "a.png", *(("a.webp",) if features.check("webp") else ())):
        options = {"lossless": True} if name.endswith("webp") else {}
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
        assert (read_picture(tmp_path / name) == [255, 0, 0]).all(), name


def test_the_format_is_that_of_the_content(tmp_path):
    save(tmp_path / "a.jpg", photograph(), format="PNG")
    assert differ(read_picture(tmp_path / "a.jpg"), photograph()) == 0


def test_damaged_exif_does_not_matter(tmp_path):
    save(tmp_path / "a.jpg", photograph(), quality=95, exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12\0\x03garbage")
    assert differ(read_picture(tmp_path / "a.jpg"), photograph()) < 6


def test_what_is_no_picture_is_an_error_of_one_line(tmp_path):
    whole = save(tmp_path / "whole.jpg", np.random.default_rng(0).integers(0, 255, (90, 90, 3), np.uint8)).read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "page.jpg").write_text("\n<!DOCTYPE html><html><title>404</title>\n</html>")
    (tmp_path / "drawing.png").write_text("<?xml version='1.0'?>\n<svg xmlns='http://www.w3.org/2000/svg'/>")
    (tmp_path / "text.png").write_text("a dog\non the beach\n")
    (tmp_path / "bomb.pgm").write_bytes(b"P5 99999 99999 255\n")
    (tmp_path / "folder.jpg").mkdir()
    reasons = {
        "cut.jpg": "cannot be read as a picture",
        "empty.jpg": "file is empty",
        "page.jpg": "it is a web page",
        "drawing.png": "SVG",
        "text.png": "cannot be read as a picture",
        "bomb.pgm": "more pixels than a picture can have",
        "folder.jpg": "directory",
        "missing.jpg": "No such file",
    }
    for name, reason in reasons.items():
        with pytest.raises(DataError, match=name) as caught:
            read_picture(tmp_path / name)
        assert reason in str(caught.value)
        assert "\n" not in str(caught.value)


def encoded(form):
    out = io.BytesIO()
    Image.fromarray(photograph(17, 23)).save(out, form)
    return out.getvalue()


WHOLE = {form: encoded(form) for form in FORMATS}


@given(
    st.sampled_from(FORMATS),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=8),
    st.floats(0.05, 1),
)
def test_damage_gives_a_picture_or_an_error_of_one_line(tmp_path_factory, form, changes, kept):
    content = bytearray(WHOLE[form])
    for where, value in changes:
        content[int(where * min(len(content), 400))] = value
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(content[: int(kept * len(content)) + 1])
    found, said = None, ""
    try:
        found = read_picture(path)
    except DataError as error:
        said = str(error)
    assert "\n" not in said
    assert (found is None) == bool(said)
    assert found is None or found.shape[2:] == (3,)


def test_scaled_pictures_are_square_and_antialiased():
    picture = photograph(100, 300)
    found = scaled(picture, 224)
    assert found.shape == (224, 224, 3)
    assert differ(found, np.asarray(Image.fromarray(photograph(224, 224)))) < 2
    stripes = np.zeros((400, 400, 3), np.uint8)
    stripes[:, ::2] = 255
    assert np.abs(scaled(stripes, 50)[5:-5, 5:-5].astype(int) - 127).max() <= 2
    same = photograph(224, 224)
    assert scaled(same, 224) is same
